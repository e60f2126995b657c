//! The counting itself: all that a call asks for is reserved, or nothing of it.
//!
//! Where one server has the state to itself, the counters are in its memory; where several share a Postgres, they are there.

use std::fmt;

use super::memory::Memory;
use super::shared::Shared;
use crate::store::Store;

/// One counter within one window.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Counter {
    /// What is counted of whom.
    pub(super) name: String,
    /// The window's beginning, in milliseconds since 1970.
    pub(super) start: i64,
}

/// What is asked of one counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) counter: Counter,
    /// The window's end, in milliseconds since 1970.
    pub(super) end: i64,
    /// How much is to be reserved.
    pub(super) amount: i64,
    /// How much the counter may come to.
    pub(super) limit: i64,
    /// Whether the count has to survive the server.
    pub(super) lasting: bool,
}

/// What becomes of a reserved amount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settlement {
    pub(super) counter: Counter,
    pub(super) end: i64,
    pub(super) reserved: i64,
    pub(super) used: i64,
}

/// The answer to those who ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All of it is reserved; the counters as they are now, in the order of what was asked.
    Reserved(Vec<i64>),
    /// Nothing is: this one, by its place, has come so far already.
    Full { place: usize, used: i64 },
}

/// The counters cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreachable;

impl fmt::Display for Unreachable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the counters of limits and budgets cannot be reached")
    }
}

/// Where counters are.
pub(super) enum Tally {
    Memory(Memory),
    Shared(Shared),
}

impl Tally {
    /// The counters of a server with that store. Must be called within a runtime.
    pub(super) fn of(store: &Store) -> Self {
        if store.is_file() {
            Self::Memory(Memory::kept_in(store.clone()))
        } else {
            Self::Shared(Shared::new(store.clone()))
        }
    }

    /// Reserves all of it or nothing. Whoever stops waiting has reserved nothing.
    ///
    /// # Errors
    /// Where the counters are not to be reached.
    pub(super) async fn reserve(&self, asks: &[Ask], now: i64) -> Result<Outcome, Unreachable> {
        match self {
            Self::Memory(memory) => Ok(memory.reserve(asks, now)),
            Self::Shared(shared) => shared.reserve(asks.to_vec()).await,
        }
    }

    /// Puts what was used in the place of what was reserved.
    pub(super) fn settle(&self, settlements: Vec<Settlement>) {
        match self {
            Self::Memory(memory) => memory.settle(&settlements),
            Self::Shared(shared) => shared.settle(settlements),
        }
    }
}

/// Whether all of it fits, on counters as `used` tells them; the first that does not, otherwise.
pub(super) fn first_full(asks: &[Ask], used: impl Fn(&Counter) -> i64) -> Option<Outcome> {
    asks.iter().enumerate().find_map(|(place, ask)| {
        let used = used(&ask.counter);
        (used.saturating_add(ask.amount) > ask.limit).then_some(Outcome::Full { place, used })
    })
}
