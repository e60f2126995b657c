//! The limits, budgets and prices of `hearth.toml`, checked.

use serde::Deserialize;
use toml::Spanned;

use super::file::{Check, FileError};
use super::typed::{BudgetTable, PriceTable};
use crate::policy::limits::{self, Budget, Owner, Price, Rule};
use crate::store::PrincipalKind;
use crate::wire::serving::RateLimit;

impl Check<'_> {
    /// The rules of an endpoint.
    pub(super) fn rules(&self, tables: Vec<Spanned<RateLimit>>) -> Result<Vec<Rule>, FileError> {
        let mut typed = Vec::with_capacity(tables.len());
        for table in tables {
            let (span, table) = (table.span(), table.into_inner());
            limits::rule(&table).map_err(|error| self.wrong(span.clone(), error.to_string()))?;
            typed.push(table);
            // What is wrong with all of them together is wrong from the last one on.
            limits::rules("rate_limits", &typed).map_err(|error| self.wrong(span, error.to_string()))?;
        }
        limits::rules("rate_limits", &typed).map_err(|error| self.wrong(0..0, error.to_string()))
    }

    /// All budgets.
    pub(super) fn budgets(&self, tables: Vec<Spanned<BudgetTable>>) -> Result<Vec<Budget>, FileError> {
        let mut budgets: Vec<Budget> = Vec::new();
        for table in tables {
            let (span, table) = (table.span(), table.into_inner());
            let BudgetTable { endpoint, user, group, service_principal, period, tokens, money } = table;
            let principal = |kind| move |name| Owner::Principal(kind, name);
            let owners = [
                endpoint.map(Owner::Endpoint),
                user.map(principal(PrincipalKind::User)),
                group.map(principal(PrincipalKind::Group)),
                service_principal.map(principal(PrincipalKind::ServicePrincipal)),
            ];
            let mut owners = owners.into_iter().flatten();
            let (Some(owner), None) = (owners.next(), owners.next()) else {
                let problem = "one of `endpoint`, `user`, `group` and `service_principal` must be given";
                return Err(self.wrong(span, problem));
            };
            let budget = Budget::new(owner, &period, tokens, money);
            let budget = budget.map_err(|error| self.wrong(span.clone(), error.to_string()))?;
            if budgets.iter().any(|other| other.is_as(&budget)) {
                return Err(self.wrong(span, "there is another budget of the same owner and period before it"));
            }
            budgets.push(budget);
        }
        Ok(budgets)
    }

    /// What models cost, by name.
    pub(super) fn prices(&self, tables: Vec<PriceTable>) -> Result<Vec<(String, Price)>, FileError> {
        let mut prices: Vec<(String, Price)> = Vec::new();
        for PriceTable { model, input, output } in tables {
            let (span, model) = (model.span(), model.into_inner());
            if prices.iter().any(|(name, _)| *name == model) {
                return Err(self.wrong(span, format!("the model `{model}` has a price before")));
            }
            // The numbers are read as a card's are, with its bounds.
            let fields = toml::Table::from_iter([("input".to_owned(), input), ("output".to_owned(), output)]);
            let price = Price::deserialize(fields).map_err(|error| self.wrong(span, error.message()))?;
            prices.push((model, price));
        }
        Ok(prices)
    }
}
