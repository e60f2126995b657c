//! What a call is counted in: one of the limits or budgets that hold for it.

use super::price;
use super::tally::{Ask, Counter};
use super::window::{Period, Window};
use crate::wire::options::Usage;

/// More than any call takes, and little enough that sums of it fit: a provider may say whatever it likes.
const HIGHEST: i64 = 100_000_000_000_000_000;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Unit {
    Calls,
    Tokens,
    /// Billionths of the currency.
    Money,
}

impl Unit {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Tokens => "tokens",
            Self::Money => "money",
        }
    }

    /// An amount of it, for people.
    pub(super) fn shown(self, amount: i64) -> String {
        match self {
            Self::Calls => format!("{amount} calls"),
            Self::Tokens => format!("{amount} tokens"),
            Self::Money => price::shown(amount),
        }
    }
}

/// One limit or budget that holds for a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    /// What is counted of whom, the same on every server.
    pub(super) name: String,
    pub(super) unit: Unit,
    pub(super) period: Period,
    pub(super) limit: i64,
    /// Of what and of whom, for people.
    pub(super) whose: String,
}

/// How much a call may take, or has taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amounts {
    pub(super) usage: Usage,
    /// Billionths of the currency.
    pub(super) cost: i64,
}

impl Amounts {
    pub(super) fn of(&self, unit: Unit) -> i64 {
        match unit {
            // A call that was admitted was one, whatever became of it.
            Unit::Calls => 1,
            Unit::Tokens => i64::try_from(self.usage.total_tokens).unwrap_or(HIGHEST).min(HIGHEST),
            Unit::Money => self.cost.min(HIGHEST),
        }
    }
}

impl Account {
    /// What a call that may take so much asks of it.
    pub(super) fn ask(&self, window: Window, amounts: &Amounts) -> Ask {
        Ask {
            counter: Counter { name: self.name.clone(), start: window.start },
            end: window.end,
            amount: amounts.of(self.unit),
            limit: self.limit,
            lasting: self.period != Period::Minute,
        }
    }

    /// Why a call is refused that asks for `asked` where `used` is used.
    pub(super) fn refusal(&self, used: i64, asked: i64, wait: u16) -> String {
        let (limit, period) = (self.unit.shown(self.limit), self.period.name());
        let what = match (self.period, self.unit) {
            (Period::Minute, _) => format!("limit of {limit} a {period} of {}", self.whose),
            (_, Unit::Money) => {
                format!("budget of {limit} (in the currency of the prices) a {period} of {}", self.whose)
            }
            _ => format!("budget of {limit} a {period} of {}", self.whose),
        };
        if asked > self.limit {
            let advice =
                if self.unit == Unit::Calls { "no call is allowed" } else { "ask for less, with a lower `max_tokens`" };
            let asked = self.unit.shown(asked);
            return format!("REQUEST_LIMIT_EXCEEDED: Exceeded the {what}: this call alone may take {asked}; {advice}");
        }
        let next = match self.period {
            Period::Minute => format!("try again in {wait} seconds"),
            Period::Day | Period::Month => format!("the next {period} begins at midnight UTC"),
        };
        let asked = match self.unit {
            Unit::Calls => "this would be one more".to_owned(),
            _ => format!("this call may take {}", self.unit.shown(asked)),
        };
        let used = self.unit.shown(used);
        format!("REQUEST_LIMIT_EXCEEDED: Exceeded the {what}: {used} are used or reserved, and {asked}; {next}")
    }
}
