//! How the calls of an endpoint are shared out among its entities.

use std::sync::atomic::{AtomicU32, Ordering};

/// Shares of one hundred. Exact: of every hundred calls in a row each entity gets as many as its share says, mixed well.
#[derive(Default)]
pub(super) struct Split {
    /// For each entity, the sum of the shares up to and with its own. Empty: the first gets all.
    upto: Vec<u32>,
    calls: AtomicU32,
}

/// Has no factor in common with a hundred, so that its multiples pass through every place once, far from the one before.
const STRIDE: u32 = 61;

impl Split {
    /// Shares by entity, which sum up to 100.
    pub(super) fn new(shares: impl Iterator<Item = u32>) -> Self {
        let mut sum = 0;
        let upto = shares.map(|share| {
            sum += share;
            sum
        });
        Self { upto: upto.collect(), calls: AtomicU32::new(0) }
    }

    /// The index of the entity whose turn it is.
    pub(super) fn next(&self) -> usize {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) % 100;
        let place = call * STRIDE % 100;
        self.upto.iter().position(|upto| place < *upto).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_every_hundred_calls_each_entity_gets_its_share() {
        for shares in [vec![100], vec![50, 50], vec![1, 0, 99], vec![33, 33, 34], vec![0, 100]] {
            let split = Split::new(shares.iter().copied());
            for _ in 0..3 {
                let mut counts = vec![0; shares.len()];
                (0..100).for_each(|_| counts[split.next()] += 1);
                assert_eq!(counts, shares);
            }
        }
    }

    #[test]
    fn equal_shares_take_turns() {
        let split = Split::new([50, 50].into_iter());
        let turns: Vec<usize> = (0..20).map(|_| split.next()).collect();
        assert!(turns.windows(4).all(|few| few.contains(&0) && few.contains(&1)), "{turns:?}");
        assert_eq!(Split::default().next(), 0);
    }
}
