//! The admission of a call.

use super::account::{Account, Amounts, Unit};
use super::demand::{self, Demand};
use super::price::{Price, cost};
use super::rates::Rates;
use super::reservation::Reservation;
use super::rule;
use super::tally::{Outcome, Unreachable};
use crate::error::{ApiError, ErrorKind};
use crate::gate::{Allowed, Query};
use crate::store::now;
use crate::wire::options::Usage;

impl Allowed<Query> {
    /// Reserves what the call may take. Where no limit and no budget holds, nothing is done.
    ///
    /// # Errors
    /// 429 where something does not suffice; 503 where the counters cannot be reached, since nobody knows then.
    pub(in crate::policy) async fn admit(&self, call: &impl Demand) -> Result<(), ApiError> {
        let (endpoint, caller, counters) = (self.endpoint(), self.caller().principal(), self.counters());
        let mut accounts = rule::accounts(endpoint, caller);
        accounts.extend(counters.budgets().accounts(endpoint, caller));
        if accounts.is_empty() {
            return Ok(());
        }
        let counts_tokens = accounts.iter().any(|account| account.unit != Unit::Calls);
        let most = if counts_tokens { demand::most(endpoint, call).await } else { Usage::default() };
        let amounts = Amounts { usage: most, cost: self.most_expensive(&accounts, most)? };
        let now = now();
        let asks: Vec<_> = accounts.iter().map(|account| account.ask(account.period.window(now), &amounts)).collect();
        let outcome = counters.0.tally.reserve(&asks, now).await.map_err(|error: Unreachable| {
            ApiError::new(ErrorKind::Unavailable, format!("{error}, so that calls which some hold for are refused"))
        })?;
        match outcome {
            Outcome::Reserved(used) => {
                let rates = Rates::of(&accounts, &asks, &used, now);
                let reservation = Reservation::new(counters.0.clone(), accounts, asks, most);
                self.draft().reserve(reservation, rates);
                Ok(())
            }
            Outcome::Full { place, used } => {
                let (account, amount) = (&accounts[place], asks[place].amount);
                self.draft().left(Rates::of(&accounts[place..=place], &asks[place..=place], &[used], now));
                let wait = account.period.window(now).wait(now);
                Err(ApiError::new(ErrorKind::LimitReached { wait }, account.refusal(used, amount, wait)))
            }
        }
    }

    /// What the call costs at most, whichever of the endpoint's entities answers; 0 where no budget is in money.
    fn most_expensive(&self, accounts: &[Account], most: Usage) -> Result<i64, ApiError> {
        let Some(account) = accounts.iter().find(|account| account.unit == Unit::Money) else { return Ok(0) };
        let price = |model: &str| -> Result<Price, ApiError> {
            self.counters().budgets().prices.of(model).ok_or_else(|| {
                let whose = &account.whose;
                let text = format!("the model `{model}` has no price, and there is a budget in money of {whose}");
                ApiError::new(ErrorKind::BadRequest, text).with_field("model")
            })
        };
        let models = self.endpoint().entities().iter().map(|entity| entity.provider().model_name());
        let costs = models.map(|model| Ok(cost(price(model)?, most)));
        costs.collect::<Result<Vec<_>, ApiError>>().map(|costs| costs.into_iter().max().unwrap_or(0))
    }
}
