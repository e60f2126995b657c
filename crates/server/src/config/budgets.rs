//! The budgets and prices of `hearth.toml`, checked.

use serde::Deserialize;
use toml::Spanned;

use super::file::{Check, FileError};
use super::typed::{BudgetTable, PriceTable};
use crate::policy::limits::{Budget, Owner, Price};
use crate::store::PrincipalKind;

impl Check<'_> {
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

#[cfg(test)]
mod tests {
    use crate::config::ConfigFile;

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_column() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hearth.toml");
        for (text, expected) in [
            ("[[budgets]]\nperiod = \"day\"\ntokens = 1", "1:1: one of `endpoint`, `user`, `group` and"),
            ("[[budgets]]\nuser = \"a\"\nperiod = \"year\"\ntokens = 1", "1:1: `period` must be `day` or `month`"),
            ("[[budgets]]\nuser = \"a\"\nperiod = \"day\"", "1:1: the field `tokens` is required"),
            ("[[budgets]]\nuser = \"a\"\nperiod = \"day\"\nmoney = -1.0", "1:1: `money` must be a number between 0"),
            (
                "[[budgets]]\nuser = \"A\"\nperiod = \"day\"\ntokens = 1\n\
                 [[budgets]]\nuser = \"a\"\nperiod = \"day\"\ntokens = 2",
                "5:1: there is another budget",
            ),
            ("[[prices]]\nmodel = \"a\"\ninput = -1", "2:9: a price must be a number between 0 and"),
            ("[[prices]]\nmodel = \"a\"\ninput = \"1\"", "2:9: invalid type"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = ConfigFile::read(&path).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{}:{expected}", path.display())), "{text}\n{error}");
        }
    }
}
