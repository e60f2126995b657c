//! Counters in memory, of a server that is alone with its state. Those of budgets are written down every half second and when the
//! server ends, and read at its start; servers that share a file all the same add to each other's budgets there.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::tally::{Ask, Counter, Outcome, Settlement, first_full};
use crate::store::{CounterRow, Store, StoreError, now};

/// How long counters stay after their windows' ends, so that calls that are still running can be settled.
const KEPT: i64 = 60 * 60 * 1000;

/// What is counted.
#[derive(Debug, Default)]
struct Count {
    end: i64,
    /// Of calls that have ended.
    settled: i64,
    /// For calls that are running.
    reserved: i64,
    lasting: bool,
    /// What of `settled` is not written down yet.
    unsaved: i64,
}

impl Count {
    fn used(&self) -> i64 {
        self.settled.saturating_add(self.reserved)
    }
}

/// The counters.
#[derive(Default)]
pub(super) struct Memory {
    counts: Mutex<Counts>,
    store: Option<Store>,
}

#[derive(Default)]
struct Counts {
    by_counter: HashMap<Counter, Count>,
    /// When it was last looked for what is over.
    looked: i64,
}

impl Counts {
    /// Forgets what is over, once a minute.
    fn forget(&mut self, now: i64) {
        let minute = now.div_euclid(60_000);
        if self.looked != minute {
            self.looked = minute;
            self.by_counter.retain(|_, count| {
                count.end > now || count.unsaved != 0 || count.reserved > 0 && count.end + KEPT > now
            });
        }
    }
}

impl Memory {
    /// Counters that are kept in `store` as far as they have to last.
    pub(super) fn kept_in(store: Store) -> Self {
        Self { counts: Mutex::default(), store: Some(store) }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // No critical section leaves a count half changed.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reserve(&self, asks: &[Ask], now: i64) -> Outcome {
        let mut counts = self.counts();
        counts.forget(now);
        let counts = &mut counts.by_counter;
        if let Some(full) = first_full(asks, |counter| counts.get(counter).map_or(0, Count::used)) {
            return full;
        }
        let reserve = |ask: &Ask| {
            let count = match counts.get_mut(&ask.counter) {
                Some(count) => count,
                None => counts.entry(ask.counter.clone()).or_default(),
            };
            (count.end, count.lasting) = (ask.end, ask.lasting);
            count.reserved = count.reserved.saturating_add(ask.amount);
            count.used()
        };
        Outcome::Reserved(asks.iter().map(reserve).collect())
    }

    pub(super) fn settle(&self, settlements: &[Settlement]) {
        let mut counts = self.counts();
        for settlement in settlements {
            // Of a window that is long over nothing is kept.
            if let Some(count) = counts.by_counter.get_mut(&settlement.counter) {
                count.reserved -= settlement.reserved;
                count.settled = count.settled.saturating_add(settlement.used);
                if count.lasting && self.store.is_some() {
                    count.unsaved = count.unsaved.saturating_add(settlement.used);
                }
            }
        }
    }

    /// Reads what has survived.
    ///
    /// # Errors
    /// Where the store fails.
    pub(super) async fn restore(&self) -> Result<(), StoreError> {
        let Some(store) = &self.store else { return Ok(()) };
        let rows = store.counters(now()).await?;
        let mut counts = self.counts();
        for CounterRow { name, window_start, window_end, used } in rows {
            let count = Count { end: window_end, settled: used, lasting: true, ..Count::default() };
            counts.by_counter.insert(Counter { name, start: window_start }, count);
        }
        Ok(())
    }

    /// Writes down what has to survive and has changed, and learns what others have used who have the same file.
    ///
    /// # Errors
    /// Where the store fails; it is tried again at the next call.
    pub(super) async fn save(&self) -> Result<(), StoreError> {
        let Some(store) = &self.store else { return Ok(()) };
        let rows = self.unsaved();
        if rows.is_empty() {
            return Ok(());
        }
        let added = added(store, &rows).await;
        let mut counts = self.counts();
        let (rows, saved) = match added {
            Ok(rows) => (rows, Ok(())),
            Err(error) => (rows, Err(error)),
        };
        for CounterRow { name, window_start, used, .. } in rows {
            let Some(count) = counts.by_counter.get_mut(&Counter { name, start: window_start }) else { continue };
            match saved {
                Ok(()) => count.settled = used.saturating_add(count.unsaved),
                Err(_) => count.unsaved = count.unsaved.saturating_add(used),
            }
        }
        saved
    }

    /// What is to be written down. It counts as written from here on, so that what comes meanwhile is seen.
    fn unsaved(&self) -> Vec<CounterRow> {
        let mut counts = self.counts();
        let unsaved = counts.by_counter.iter_mut().filter(|(_, count)| count.unsaved != 0);
        let row = |(counter, count): (&Counter, &mut Count)| CounterRow {
            name: counter.name.clone(),
            window_start: counter.start,
            window_end: count.end,
            used: std::mem::take(&mut count.unsaved),
        };
        unsaved.map(row).collect()
    }

    /// Removes what is over from the store.
    ///
    /// # Errors
    /// Where the store fails.
    pub(super) async fn tidy(&self) -> Result<(), StoreError> {
        match &self.store {
            Some(store) => store.remove_counters(now() - KEPT).await,
            None => Ok(()),
        }
    }
}

async fn added(store: &Store, rows: &[CounterRow]) -> Result<Vec<CounterRow>, StoreError> {
    let mut count = store.count().await?;
    let counted = count.add(rows).await?;
    count.commit().await?;
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counter(name: usize, minute: i64) -> Counter {
        Counter { name: name.to_string(), start: 60_000 * minute }
    }

    fn ask(name: usize, minute: i64, amount: i64, limit: i64) -> Ask {
        Ask { counter: counter(name, minute), end: 60_000 * (minute + 1), amount, limit, lasting: name == 0 }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Reserve(Vec<(usize, i64)>),
        /// The call that was admitted at this place uses so much of each counter.
        Settle(usize, i64),
        NextMinute,
    }

    /// Counter and minute, and what a call has of it: reserved, or used.
    type Part = (usize, i64, i64);

    const LIMITS: [i64; 3] = [10, 25, 0];

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let asks = prop::collection::btree_map(0..LIMITS.len(), 0_i64..12, 0..3);
        let step = prop_oneof![
            6 => asks.prop_map(|asks| Step::Reserve(asks.into_iter().collect())),
            3 => (any::<prop::sample::Index>(), 0_i64..14).prop_map(|(place, used)| Step::Settle(place.index(64), used)),
            1 => Just(Step::NextMinute),
        ];
        prop::collection::vec(step, 0..80)
    }

    proptest! {
        /// One call after the other, with nothing but lists of who holds and who has used what.
        #[test]
        fn counters_are_as_in_the_model_that_keeps_every_call(steps in steps()) {
            let memory = Memory::default();
            let mut minute = 0;
            let mut calls: Vec<(Vec<Part>, bool)> = Vec::new();
            for step in steps {
                match step {
                    Step::NextMinute => minute += 1,
                    Step::Reserve(wanted) => {
                        let used = |name: usize| -> i64 {
                            let parts = calls.iter().flat_map(|(parts, _)| parts);
                            parts.filter(|part| (part.0, part.1) == (name, minute)).map(|part| part.2).sum()
                        };
                        let expected = match wanted.iter().position(|(name, amount)| used(*name) + amount > LIMITS[*name]) {
                            Some(place) => Outcome::Full { place, used: used(wanted[place].0) },
                            None => Outcome::Reserved(wanted.iter().map(|(name, amount)| used(*name) + amount).collect()),
                        };
                        let asks: Vec<Ask> =
                            wanted.iter().map(|(name, amount)| ask(*name, minute, *amount, LIMITS[*name])).collect();
                        let outcome = memory.reserve(&asks, 60_000 * minute + 1);
                        prop_assert_eq!(&outcome, &expected);
                        if let Outcome::Reserved(_) = outcome {
                            calls.push((wanted.iter().map(|(name, amount)| (*name, minute, *amount)).collect(), true));
                        }
                    }
                    Step::Settle(place, used) => {
                        let Some((parts, running)) = calls.get_mut(place).filter(|(_, running)| *running) else { continue };
                        let settle = |(name, minute, reserved): &Part| Settlement {
                            counter: counter(*name, *minute), end: 60_000 * (minute + 1), reserved: *reserved, used,
                        };
                        memory.settle(&parts.iter().map(settle).collect::<Vec<_>>());
                        parts.iter_mut().for_each(|part| part.2 = used);
                        *running = false;
                    }
                }
            }
        }
    }

    #[test]
    fn as_many_threads_as_there_are_get_no_more_than_there_is() {
        let memory = Memory::default();
        let admitted: usize = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..16)
                .map(|_| {
                    scope.spawn(|| {
                        let try_once =
                            |_: &i32| memory.reserve(&[ask(0, 0, 3, 100), ask(1, 0, 1, 1000)], 1) != full(99);
                        (0..50).filter(try_once).count()
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).sum()
        });
        assert_eq!(admitted, 33);
        assert_eq!(memory.reserve(&[ask(1, 0, 0, 1000)], 1), Outcome::Reserved(vec![33]), "all of it or nothing");
    }

    fn full(used: i64) -> Outcome {
        Outcome::Full { place: 0, used }
    }

    #[tokio::test]
    async fn what_lasts_is_there_again_as_far_as_it_was_settled() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::temporary(folder.path()).await;
        let memory = Memory::kept_in(store.clone());
        let minute = now() / 60_000;
        let asks = [ask(0, minute, 5, 100), ask(1, minute, 5, 100)];
        memory.reserve(&asks, now());
        memory.reserve(&asks, now());
        let settled = |ask: &Ask| Settlement { counter: ask.counter.clone(), end: ask.end, reserved: 5, used: 7 };
        memory.settle(&asks.iter().map(settled).collect::<Vec<_>>());
        memory.save().await.unwrap();
        let again = Memory::kept_in(store.clone());
        again.restore().await.unwrap();
        let outcome = again.reserve(&[ask(0, minute, 0, 100), ask(1, minute, 0, 100)], now());
        assert_eq!(outcome, Outcome::Reserved(vec![7, 0]));
        let outcome = memory.reserve(&[ask(0, minute, 0, 100), ask(1, minute, 0, 100)], now());
        assert_eq!(outcome, Outcome::Reserved(vec![12, 12]), "one is running");
        // Whoever shares the file adds to the same count, and learns of the other's when it writes its own.
        let settled = |used| Settlement { counter: asks[0].counter.clone(), end: asks[0].end, reserved: 0, used };
        again.settle(&[settled(3)]);
        again.save().await.unwrap();
        memory.settle(&[settled(2)]);
        memory.save().await.unwrap();
        assert_eq!(memory.reserve(&[ask(0, minute, 0, 100)], now()), Outcome::Reserved(vec![7 + 3 + 2 + 5]));
        // What cannot be written is written later.
        store.close().await;
        memory.settle(&[settled(1)]);
        assert!(memory.save().await.is_err());
        assert_eq!(memory.unsaved().len(), 1);
    }
}
