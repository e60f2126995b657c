//! Limits and budgets: how much may be asked for. What a call may take is reserved before its model is asked, all of it or
//! nothing, and settled by what it has taken when it has ended, however that was.
//!
//! Owns the rules, the counters and the words of a refusal. Every call of a model comes through here, of whatever route, and
//! [`Draft`](crate::usage::Draft) settles it; so there is one account. A limit counts in the minutes of the clock (UTC), a budget in
//! days and months of the calendar: in no window is more admitted than its limit, however many call at once, and though they call
//! several servers that share a Postgres. A stream of calls that straddles the end of a window may have twice the limit in sixty
//! seconds. What a model has taken counts though it be more than was reserved, as with another provider's model that was told of no
//! `max_tokens`; those that come after it are refused then.

mod account;
mod admit;
mod budget;
mod demand;
mod memory;
mod price;
mod rates;
mod reservation;
mod rule;
mod shared;
mod tally;
mod window;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use budget::{Budget, Budgets, Owner};
pub(crate) use demand::Demand;
pub use price::{Price, Prices};
pub(crate) use rates::{Rates, rate_headers};
pub(crate) use reservation::{End, Reservation};
pub use rule::Rule;
pub(crate) use rule::{rule, rules};

use self::memory::Memory;
use self::tally::Tally;
use crate::store::{Store, StoreError};

/// How often budgets in memory are written down.
const EACH: Duration = Duration::from_millis(500);
/// In how many of those turns once what is over is removed.
const TIDY: u32 = 600;
/// How long the last settlements may take when the server ends.
const LAST: Duration = Duration::from_secs(5);

/// The counters of limits and budgets. A clone is the same.
#[derive(Clone)]
pub struct Counters(Arc<Inner>);

struct Inner {
    tally: Tally,
    budgets: OnceLock<Budgets>,
}

impl Inner {
    fn budgets(&self) -> &Budgets {
        static NONE: OnceLock<Budgets> = OnceLock::new();
        self.budgets.get().unwrap_or_else(|| NONE.get_or_init(Budgets::default))
    }
}

impl Default for Counters {
    /// Counters in memory alone.
    fn default() -> Self {
        Self(Arc::new(Inner { tally: Tally::Memory(Memory::default()), budgets: OnceLock::new() }))
    }
}

impl Counters {
    /// The counters of a server with that store. Must be called within a runtime.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn open(store: &Store) -> Result<Self, StoreError> {
        let tally = Tally::of(store);
        if let Tally::Memory(memory) = &tally {
            memory.restore().await?;
        }
        Ok(Self(Arc::new(Inner { tally, budgets: OnceLock::new() })))
    }

    /// Sets the budgets, once.
    pub fn declare(&self, budgets: Budgets) {
        // Whoever comes second is not the configuration file.
        let _ = self.0.budgets.set(budgets);
    }

    /// The budgets.
    pub(crate) fn budgets(&self) -> &Budgets {
        self.0.budgets()
    }

    /// Writes down what has to survive, for ever.
    pub(crate) async fn run(&self) {
        let Tally::Memory(memory) = &self.0.tally else { return std::future::pending().await };
        let mut ticks = tokio::time::interval(EACH);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut failing, mut turn) = (false, 0_u32);
        loop {
            ticks.tick().await;
            turn = turn.wrapping_add(1);
            let written = match memory.save().await {
                Ok(()) if turn.is_multiple_of(TIDY) => memory.tidy().await,
                written => written,
            };
            match written {
                Ok(()) => failing = false,
                // Told once for as long as it lasts.
                Err(_) if failing => {}
                Err(error) => {
                    failing = true;
                    tracing::error!(%error, "budgets are not written down, and count in memory alone");
                }
            }
        }
    }

    /// Writes down the last of it when the server ends.
    pub(crate) async fn finish(&self) {
        let last = async {
            match &self.0.tally {
                Tally::Memory(memory) => memory.save().await.map_err(|error| error.to_string()),
                Tally::Shared(shared) => {
                    shared.finish().await;
                    Ok(())
                }
            }
        };
        match tokio::time::timeout(LAST, last).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(error, "the last of the budgets is not written down"),
            Err(_) => tracing::error!("the last of the budgets is not written down: the store takes too long"),
        }
    }
}
