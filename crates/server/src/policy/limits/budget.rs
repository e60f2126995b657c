//! Budgets: so many tokens or so much money a day or a month, of an endpoint or of whoever calls. They stand in the configuration
//! file, since no wire has them.

use super::account::{Account, Unit};
use super::price::{Prices, UNIT};
use super::rule::{check_name, is_called};
use super::window::Period;
use crate::endpoints::Endpoint;
use crate::gate::Principal;
use crate::store::PrincipalKind;
use crate::wire::FieldError;

/// Most tokens, and most money, of a budget.
const TOKENS: i64 = 1_000_000_000_000_000;
const MONEY: f64 = 1e9;

/// Whose budget it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// An endpoint's, whoever calls it.
    Endpoint(String),
    /// A caller's, or all members' of a group together, whatever they call.
    Principal(PrincipalKind, String),
}

/// A checked budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    owner: Owner,
    period: Period,
    tokens: Option<i64>,
    /// Billionths of the currency.
    money: Option<i64>,
}

impl Budget {
    /// A budget of `owner`, with so many tokens, so much money, or both.
    ///
    /// # Errors
    /// The field to blame.
    pub fn new(owner: Owner, period: &str, tokens: Option<i64>, money: Option<f64>) -> Result<Self, FieldError> {
        let (Owner::Endpoint(name) | Owner::Principal(_, name)) = &owner;
        check_name("name", name)?;
        let period = match period {
            "day" => Period::Day,
            "month" => Period::Month,
            _ => return Err(FieldError::value("period", "`day` or `month`", format!("`{period}`"))),
        };
        if tokens.is_none() && money.is_none() {
            return Err(FieldError::Missing { field: "tokens".to_owned() });
        }
        if let Some(tokens) = tokens.filter(|tokens| !(0..=TOKENS).contains(tokens)) {
            return Err(FieldError::value("tokens", format!("a number between 0 and {TOKENS}"), tokens));
        }
        if let Some(money) = money.filter(|money| !(0.0..=MONEY).contains(money)) {
            return Err(FieldError::value("money", format!("a number between 0 and {MONEY}"), money));
        }
        // Within its bounds, so that nothing is cut off.
        let money = money.map(|money| (money * UNIT).round() as i64);
        Ok(Self { owner, period, tokens, money })
    }

    /// Whether two are for the same.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        let key = |budget: &Self| (budget.key(), budget.period);
        key(self) == key(other)
    }

    fn key(&self) -> String {
        match &self.owner {
            Owner::Endpoint(name) => format!("endpoint/{name}"),
            Owner::Principal(PrincipalKind::User, name) => format!("user/{}", name.to_ascii_lowercase()),
            Owner::Principal(kind, name) => format!("{}/{name}", kind.name()),
        }
    }

    fn holds(&self, endpoint: &Endpoint, caller: &Principal) -> bool {
        match &self.owner {
            Owner::Endpoint(name) => endpoint.name() == name,
            Owner::Principal(PrincipalKind::Group, name) => caller.is_in(name),
            Owner::Principal(kind, name) => is_called(caller, *kind, name),
        }
    }

    fn whose(&self) -> String {
        match &self.owner {
            Owner::Endpoint(name) => format!("endpoint `{name}`"),
            Owner::Principal(PrincipalKind::Group, name) => format!("the group `{name}` together"),
            Owner::Principal(kind, name) => format!("{} `{name}`", kind.name()),
        }
    }

    fn accounts(&self) -> impl Iterator<Item = Account> {
        [(Unit::Tokens, self.tokens), (Unit::Money, self.money)].into_iter().filter_map(|(unit, limit)| {
            Some(Account {
                name: format!("budget/{}/{}/{}", self.key(), self.period.name(), unit.name()),
                unit,
                period: self.period,
                limit: limit?,
                whose: self.whose(),
            })
        })
    }
}

/// All budgets, and what models cost.
#[derive(Debug, Clone, Default)]
pub struct Budgets {
    /// At most one for the same owner and period.
    pub all: Vec<Budget>,
    /// What is not in here cannot be called where there is a budget in money.
    pub prices: Prices,
}

impl Budgets {
    /// What the budgets hold a call of `caller` against.
    pub(super) fn accounts(&self, endpoint: &Endpoint, caller: &Principal) -> impl Iterator<Item = Account> {
        let holding = self.all.iter().filter(move |budget| budget.holds(endpoint, caller));
        holding.flat_map(Budget::accounts)
    }

    /// The first of these models that has no price though the endpoint has a budget in money.
    pub fn unpriced<'a>(&self, endpoint: &str, models: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        let is_its = |budget: &Budget| matches!(&budget.owner, Owner::Endpoint(name) if name == endpoint);
        if !self.all.iter().any(|budget| budget.money.is_some() && is_its(budget)) {
            return None;
        }
        models.into_iter().find(|model| self.prices.of(model).is_none())
    }
}
