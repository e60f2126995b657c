//! What is reserved for a call that runs, and what of it is used when the call has ended.

use std::sync::Arc;

use super::Inner;
use super::account::{Account, Amounts, Unit};
use super::price::{Price, cost};
use super::tally::{Ask, Settlement};
use crate::wire::options::Usage;

/// How a call has ended, as far as its tokens go.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct End {
    /// What the model said of it last.
    pub(crate) usage: Option<Usage>,
    /// Whether that is the last word: every answer was complete.
    pub(crate) complete: bool,
    /// Tokens of answers that were seen to go by.
    pub(crate) seen: usize,
    /// Whether the caller went away, so that nobody knows what the model had read by then.
    pub(crate) abandoned: bool,
}

/// What is reserved for a call. It is settled once; dropped before that, nothing was used.
pub(crate) struct Reservation {
    counters: Arc<Inner>,
    accounts: Vec<Account>,
    asks: Vec<Ask>,
    most: Usage,
    /// Of what answers.
    price: Option<Price>,
    settled: bool,
}

impl Reservation {
    pub(super) fn new(counters: Arc<Inner>, accounts: Vec<Account>, asks: Vec<Ask>, most: Usage) -> Self {
        Self { counters, accounts, asks, most, price: None, settled: false }
    }

    /// Notes which model is asked.
    pub(crate) fn asks(&mut self, model: &str) {
        if self.accounts.iter().any(|account| account.unit == Unit::Money) {
            self.price = self.counters.budgets().prices.of(model);
        }
    }

    /// Puts what was used in the place of what was reserved.
    pub(crate) fn settle(mut self, end: End) {
        let usage = used(self.most, end);
        let amounts = Amounts { usage, cost: self.price.map_or(0, |price| cost(price, usage)) };
        self.settle_as(|unit| amounts.of(unit));
    }

    fn settle_as(&mut self, used: impl Fn(Unit) -> i64) {
        self.settled = true;
        let settlement = |(account, ask): (&Account, &Ask)| Settlement {
            counter: ask.counter.clone(),
            end: ask.end,
            reserved: ask.amount,
            used: used(account.unit),
        };
        let changed = self.accounts.iter().zip(&self.asks).map(settlement);
        self.counters.tally.settle(changed.collect());
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.settled {
            self.settle_as(|_| 0);
        }
    }
}

/// What a call has used that could take `most`. What the model says is right, whatever it is. Of an answer that broke off it has
/// said nothing, or not all: then its prompt counts, and what was seen to go by, and never more than was reserved. A call that
/// failed before anything came has used nothing, unless its caller went away while the model may have been at it.
fn used(most: Usage, end: End) -> Usage {
    let said = end.usage.unwrap_or_default();
    if end.complete || end.seen == 0 && !end.abandoned {
        return said;
    }
    let prompt = most.prompt_tokens.max(said.prompt_tokens);
    let written = end.seen.min(most.completion_tokens).max(said.completion_tokens);
    Usage { prompt_tokens: prompt, completion_tokens: written, total_tokens: prompt + written, ..Usage::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_counted_is_what_was_seen_and_no_more_than_was_reserved() {
        let most = Usage::new(10, 20);
        let end = |usage: Option<(usize, usize)>, complete, seen, abandoned| {
            let usage = usage.map(|(read, written)| Usage::new(read, written));
            let used = used(most, End { usage, complete, seen, abandoned });
            (used.prompt_tokens, used.completion_tokens)
        };
        assert_eq!(end(Some((11, 4)), true, 4, false), (11, 4), "the model knows");
        assert_eq!(end(Some((11, 40)), true, 4, false), (11, 40), "though it be more than was reserved");
        assert_eq!(end(None, false, 0, false), (0, 0), "refused or failed before anything came");
        assert_eq!(end(None, false, 0, true), (10, 0), "left before anything came");
        assert_eq!(end(None, false, 7, true), (10, 7));
        assert_eq!(end(None, false, 7, false), (10, 7), "it broke off");
        assert_eq!(end(None, false, 70, true), (10, 20));
        assert_eq!(end(Some((10, 5)), false, 8, true), (10, 8), "one of two answers had ended");
        assert_eq!(end(Some((7, 0)), false, 0, false), (7, 0), "an embedding, counted before it was refused");
    }
}
