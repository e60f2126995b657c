//! Who holds how much of the memory that models share.
//!
//! Owns the sums and the choice of what must go; knows no model but by a number, and neither loads nor unloads.

use std::collections::BTreeMap;

/// Memory that is handed out to models, in bytes.
#[derive(Debug)]
pub(super) struct Ledger {
    bound: u64,
    overcommit: bool,
    held: BTreeMap<u64, u64>,
}

impl Ledger {
    /// So many bytes to hand out; with `overcommit` more than that is handed out all the same.
    pub(super) fn new(bound: u64, overcommit: bool) -> Self {
        Self { bound, overcommit, held: BTreeMap::new() }
    }

    /// What there was at first.
    pub(super) fn bound(&self) -> u64 {
        self.bound
    }

    /// What nobody holds.
    pub(super) fn free(&self) -> u64 {
        self.bound.saturating_sub(self.reserved())
    }

    /// What all hold together.
    pub(super) fn reserved(&self) -> u64 {
        self.held.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// What one holds.
    pub(super) fn held_by(&self, holder: u64) -> u64 {
        self.held.get(&holder).copied().unwrap_or(0)
    }

    /// Whether so much can be handed out when nobody holds anything.
    pub(super) fn could_hold(&self, bytes: u64) -> bool {
        self.overcommit || bytes <= self.bound
    }

    /// Hands out `bytes`, if they are there and `holder` has none yet.
    pub(super) fn reserve(&mut self, holder: u64, bytes: u64) -> bool {
        let granted = (self.overcommit || bytes <= self.free()) && !self.held.contains_key(&holder);
        if granted {
            self.held.insert(holder, bytes);
        }
        granted
    }

    /// Takes back what `holder` has.
    pub(super) fn release(&mut self, holder: u64) {
        self.held.remove(&holder);
    }

    /// Which of `idle`, named in the order in which they may go, must go so that `bytes` are free; `None` where that is
    /// not enough. With `overcommit` it is always enough.
    pub(super) fn to_release(&self, bytes: u64, idle: &[u64]) -> Option<Vec<u64>> {
        let (mut free, mut chosen) = (self.free(), Vec::new());
        for holder in idle {
            if free >= bytes {
                break;
            }
            free = free.saturating_add(self.held_by(*holder));
            chosen.push(*holder);
        }
        (free >= bytes || self.overcommit).then_some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random, from a counter.
    fn numbers(seed: u64) -> impl Iterator<Item = u64> {
        (0..).map(move |index: u64| {
            let mixed = (index ^ (seed << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33
        })
    }

    #[test]
    fn never_more_is_handed_out_than_there_is_and_nothing_is_lost() {
        for seed in 0..50 {
            let (mut ledger, mut naive) = (Ledger::new(1000, false), BTreeMap::new());
            let mut numbers = numbers(seed);
            for _ in 0..200 {
                let mut next = |below: u64| numbers.next().unwrap() % below;
                let (what, holder, bytes) = (next(3), next(8), next(600));
                match what {
                    0 => {
                        ledger.release(holder);
                        naive.remove(&holder);
                    }
                    1 => {
                        let fits = naive.values().sum::<u64>() + bytes <= 1000 && !naive.contains_key(&holder);
                        assert_eq!(ledger.reserve(holder, bytes), fits);
                        if fits {
                            naive.insert(holder, bytes);
                        }
                    }
                    _ => {
                        let idle: Vec<u64> = naive.keys().copied().filter(|one| *one != holder).collect();
                        let Some(chosen) = ledger.to_release(bytes, &idle) else {
                            assert!(1000 - naive.get(&holder).unwrap_or(&0) < bytes);
                            continue;
                        };
                        assert!(idle.starts_with(&chosen), "in the order in which they may go");
                        for gone in &chosen {
                            assert!(ledger.free() < bytes, "no one goes without need");
                            ledger.release(*gone);
                            naive.remove(gone);
                        }
                        assert!(ledger.free() >= bytes);
                    }
                }
                let sum = naive.values().sum::<u64>();
                assert_eq!((ledger.reserved(), ledger.free()), (sum, 1000 - sum));
            }
        }
    }

    #[test]
    fn overcommitment_refuses_nothing() {
        let mut ledger = Ledger::new(10, true);
        assert!(ledger.reserve(1, 100) && ledger.could_hold(1000));
        assert_eq!(ledger.to_release(50, &[1]), Some(vec![1]), "what is idle goes first all the same");
        assert_eq!((ledger.free(), ledger.bound(), ledger.held_by(1)), (0, 10, 100));
    }
}
