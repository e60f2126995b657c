//! Counters in a Postgres that several servers share. One task of each process takes all that wait together and decides them in
//! one transaction, so that the way to the database is one for many calls, and slower only for the first of them.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::tally::{Ask, Counter, Outcome, Settlement, Unreachable, first_full};
use crate::store::{CounterRow, Store, StoreError, now};

/// Calls that one transaction decides at most.
const MOST: usize = 1024;
/// How long the database may take; then calls are refused.
const PATIENCE: Duration = Duration::from_secs(5);
/// After what time that which could not be settled is tried again, though nobody calls.
const AGAIN: Duration = Duration::from_millis(500);
/// How often the windows that are over are removed, and how long they stay. What belongs to a window that is over is not
/// settled any more, so that nobody counts what somebody else is removing.
const TIDY: Duration = Duration::from_secs(60);
const KEPT: i64 = 10 * 60 * 1000;

/// What is to be added to counters, with the ends of their windows.
type Changes = BTreeMap<Counter, (i64, i64)>;

type Reply = Result<Outcome, Unreachable>;

enum Order {
    Reserve(Vec<Ask>, oneshot::Sender<Reply>),
    Settle(Vec<Settlement>),
    /// To be answered when all before it is done.
    Finish(oneshot::Sender<()>),
}

/// The way to the task, which ends with the last of them.
pub(super) struct Shared(mpsc::UnboundedSender<Order>);

impl Shared {
    /// Counts in that store. Must be called within a runtime.
    pub(super) fn new(store: Store) -> Self {
        // Every waiting call has a connection of its own, and of those there is a limited number.
        let (sender, orders) = mpsc::unbounded_channel();
        tokio::spawn(Counting { store, owed: Changes::new(), failing: false }.run(orders));
        Self(sender)
    }

    pub(super) async fn reserve(&self, asks: Vec<Ask>) -> Reply {
        let (sender, reply) = oneshot::channel();
        let mut waiting = Waiting { shared: self, asks: asks.clone(), reply };
        self.0.send(Order::Reserve(asks, sender)).map_err(|_| Unreachable)?;
        (&mut waiting.reply).await.unwrap_or(Err(Unreachable))
    }

    pub(super) fn settle(&self, settlements: Vec<Settlement>) {
        // Without the task there is nobody who counts.
        let _ = self.0.send(Order::Settle(settlements));
    }

    /// Waits until all that was ordered is done.
    pub(super) async fn finish(&self) {
        let (sender, done) = oneshot::channel();
        if self.0.send(Order::Finish(sender)).is_ok() {
            let _ = done.await;
        }
    }
}

/// A call that waits for its reservation. What is reserved for one that has gone away is given back.
struct Waiting<'a> {
    shared: &'a Shared,
    asks: Vec<Ask>,
    reply: oneshot::Receiver<Reply>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // From here on either there is a reply already, or it cannot be sent any more.
        self.reply.close();
        if let Ok(Ok(Outcome::Reserved(_))) = self.reply.try_recv() {
            self.shared.settle(given_back(&self.asks));
        }
    }
}

fn given_back(asks: &[Ask]) -> Vec<Settlement> {
    let nothing = |ask: &Ask| Settlement { counter: ask.counter.clone(), end: ask.end, reserved: ask.amount, used: 0 };
    asks.iter().map(nothing).collect()
}

/// The task.
struct Counting {
    store: Store,
    /// What is to be added for calls that have ended.
    owed: Changes,
    /// Whether the database did not answer the last time.
    failing: bool,
}

impl Counting {
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut tidied = Instant::now();
        loop {
            let mut batch = Vec::new();
            let waiting = orders.recv_many(&mut batch, MOST);
            // There may be something left to do without an order.
            match timeout(if self.owed.is_empty() { TIDY } else { AGAIN }, waiting).await {
                Ok(0) => break,
                Ok(_) | Err(_) => self.turn(batch).await,
            }
            if tidied.elapsed() >= TIDY {
                tidied = Instant::now();
                if let Err(error) = self.store.remove_counters(now() - KEPT).await {
                    tracing::warn!(%error, "counters of windows that are over are not removed");
                }
            }
        }
    }

    async fn turn(&mut self, batch: Vec<Order>) {
        let (mut asked, mut replies, mut finished) = (Vec::new(), Vec::new(), Vec::new());
        for order in batch {
            match order {
                // Nobody waits for it any more.
                Order::Reserve(_, reply) if reply.is_closed() => {}
                Order::Reserve(asks, reply) => {
                    asked.push(asks);
                    replies.push(reply);
                }
                Order::Settle(settlements) => self.owe(settlements),
                Order::Finish(done) => finished.push(done),
            }
        }
        let decided = match timeout(PATIENCE, self.decide(&asked)).await {
            Ok(decided) => decided.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} seconds", PATIENCE.as_secs())),
        };
        match decided {
            Ok(outcomes) => {
                self.failing = false;
                self.owed.clear();
                for ((asks, outcome), reply) in asked.iter().zip(outcomes).zip(replies) {
                    if let Err(Ok(Outcome::Reserved(_))) = reply.send(Ok(outcome)) {
                        self.owe(given_back(asks));
                    }
                }
            }
            Err(error) => {
                // Told once for as long as it lasts.
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(error, "limits and budgets cannot be counted, so calls that have some are refused");
                }
                for reply in replies {
                    // Whoever has gone away does not need to know.
                    let _ = reply.send(Err(Unreachable));
                }
            }
        }
        for done in finished {
            // Whoever waited may have given up.
            let _ = done.send(());
        }
    }

    fn owe(&mut self, settlements: Vec<Settlement>) {
        for Settlement { counter, end, reserved, used } in settlements {
            let owed = self.owed.entry(counter).or_insert((end, 0));
            owed.1 = owed.1.saturating_add(used - reserved);
        }
    }

    /// Decides those calls, in that order, after all that is owed.
    async fn decide(&mut self, asked: &[Vec<Ask>]) -> Result<Vec<Outcome>, StoreError> {
        let now = now();
        self.owed.retain(|_, (end, amount)| *end > now && *amount != 0);
        // What is asked for is added at once as far as it can fit, since most of it does. Sorted, so that all servers take the
        // rows in one order.
        let mut wanted = Changes::new();
        for ask in asked.iter().flatten() {
            let (_, amount) = wanted.entry(ask.counter.clone()).or_insert((ask.end, 0));
            *amount = amount.saturating_add(ask.amount).min(ask.limit);
        }
        let mut changes = self.owed.clone();
        wanted.iter().for_each(|(counter, (end, amount))| add(&mut changes, counter, *end, *amount));
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let mut count = self.store.count().await?;
        let mut used = BTreeMap::new();
        for CounterRow { name, window_start, used: after, .. } in count.add(&rows(&changes)).await? {
            let counter = Counter { name, start: window_start };
            let added = wanted.get(&counter).map_or(0, |(_, amount)| *amount);
            used.insert(counter, after - added);
        }
        // From what was added to what is reserved.
        let mut rest: Changes = wanted.into_iter().map(|(counter, (end, amount))| (counter, (end, -amount))).collect();
        let outcomes = asked.iter().map(|asks| decide_one(asks, &mut used, &mut rest)).collect();
        rest.retain(|_, (_, amount)| *amount != 0);
        if !rest.is_empty() {
            count.add(&rows(&rest)).await?;
        }
        count.commit().await?;
        Ok(outcomes)
    }
}

/// Decides one call, where so much is used, and adds what it reserves.
fn decide_one(asks: &[Ask], used: &mut BTreeMap<Counter, i64>, reserved: &mut Changes) -> Outcome {
    if let Some(full) = first_full(asks, |counter| used.get(counter).copied().unwrap_or(0)) {
        return full;
    }
    let take = |ask: &Ask| {
        add(reserved, &ask.counter, ask.end, ask.amount);
        let used = used.entry(ask.counter.clone()).or_insert(0);
        *used = used.saturating_add(ask.amount);
        *used
    };
    Outcome::Reserved(asks.iter().map(take).collect())
}

fn add(changes: &mut Changes, counter: &Counter, end: i64, amount: i64) {
    let change = changes.entry(counter.clone()).or_insert((end, 0));
    change.1 = change.1.saturating_add(amount);
}

fn rows(changes: &Changes) -> Vec<CounterRow> {
    let row = |(counter, (end, amount)): (&Counter, &(i64, i64))| CounterRow {
        name: counter.name.clone(),
        window_start: counter.start,
        window_end: *end,
        used: *amount,
    };
    changes.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use futures::future::join_all;

    use super::*;

    const MINUTE: i64 = 60_000;

    /// `window`: minutes from now.
    fn ask(name: &str, window: i64, amount: i64, limit: i64) -> Ask {
        let start = (now().div_euclid(MINUTE) + window) * MINUTE;
        let counter = Counter { name: name.to_owned(), start };
        Ask { counter, end: start + MINUTE, amount, limit, lasting: true }
    }

    /// A store and what it has counted. SQLite takes the same statements.
    async fn counted(store: &Store) -> HashMap<String, i64> {
        store.counters(0).await.unwrap().into_iter().map(|row| (row.name, row.used)).collect()
    }

    #[tokio::test]
    async fn calls_of_one_transaction_are_decided_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::temporary(folder.path()).await;
        let shared = Shared::new(store.clone());
        let (a, b) = ("a", "b");
        let calls = [
            vec![ask(a, 1, 4, 10), ask(b, 1, 1, 100)],
            vec![ask(a, 1, 7, 10), ask(b, 1, 1, 100)],
            vec![ask(a, 1, i64::MAX, 10)],
            vec![ask(a, 1, 6, 10), ask(b, 1, 99, 100)],
            vec![ask(b, 1, 100, 100)],
            vec![ask(a, 1, 0, 10)],
        ];
        // All are sent before the task has its turn.
        let outcomes = join_all(calls.iter().map(|asks| shared.reserve(asks.clone()))).await;
        let full = |used| Ok(Outcome::Full { place: 0, used });
        let expected = [
            Ok(Outcome::Reserved(vec![4, 1])),
            full(4),
            full(4),
            Ok(Outcome::Reserved(vec![10, 100])),
            full(100),
            Ok(Outcome::Reserved(vec![10])),
        ];
        assert_eq!(outcomes, expected);
        assert_eq!(counted(&store).await, HashMap::from([(a.to_owned(), 10), (b.to_owned(), 100)]));
        let settle = |ask: Ask, used| Settlement { counter: ask.counter, end: ask.end, reserved: ask.amount, used };
        shared.settle(vec![settle(ask(a, 1, 4, 10), 1), settle(ask(b, 1, 1, 100), 51), settle(ask("c", -9, 0, 0), 7)]);
        shared.finish().await;
        let expected = HashMap::from([(a.to_owned(), 7), (b.to_owned(), 150)]);
        assert_eq!(counted(&store).await, expected, "and nothing of windows that are over");
    }

    #[tokio::test]
    async fn whoever_stops_waiting_has_reserved_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::temporary(folder.path()).await;
        let shared = Arc::new(Shared::new(store.clone()));
        for milliseconds in [0, 0, 1, 1, 2, 3, 5, 8] {
            let waiting = join_all((0..20).map(|_| shared.reserve(vec![ask("a", 1, 3, 100_000)])));
            let _ = timeout(Duration::from_millis(milliseconds), waiting).await;
        }
        let kept = shared.reserve(vec![ask("a", 1, 5, 100_000)]).await;
        assert!(matches!(kept, Ok(Outcome::Reserved(_))));
        shared.finish().await;
        shared.finish().await;
        let left = counted(&store).await["a"];
        assert!(left == 5 || (left - 5) % 60 == 0, "whole groups that were waited for: {left}");
    }

    #[tokio::test]
    async fn without_a_store_nothing_is_reserved() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::temporary(folder.path()).await;
        let shared = Shared::new(store.clone());
        store.close().await;
        assert_eq!(shared.reserve(vec![ask("a", 1, 1, 10)]).await, Err(Unreachable));
    }
}
