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
        tokio::spawn(Counting { store, owed: BTreeMap::new(), failing: false }.run(orders));
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
    /// What is to be added to counters for calls that have ended, with the ends of their windows.
    owed: BTreeMap<Counter, (i64, i64)>,
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
        // Sorted, so that all servers take the rows in the same order.
        let mut changes = self.owed.clone();
        for ask in asked.iter().flatten() {
            changes.entry(ask.counter.clone()).or_insert((ask.end, 0));
        }
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let mut count = self.store.count().await?;
        let counted = count.add(&rows(&changes)).await?;
        let counter = |row: CounterRow| (Counter { name: row.name, start: row.window_start }, row.used);
        let mut used: BTreeMap<Counter, i64> = counted.into_iter().map(counter).collect();
        let mut taken: BTreeMap<Counter, (i64, i64)> = BTreeMap::new();
        let outcomes = asked.iter().map(|asks| decide_one(asks, &mut used, &mut taken)).collect();
        if !taken.is_empty() {
            count.add(&rows(&taken)).await?;
        }
        count.commit().await?;
        Ok(outcomes)
    }
}

fn decide_one(asks: &[Ask], used: &mut BTreeMap<Counter, i64>, taken: &mut BTreeMap<Counter, (i64, i64)>) -> Outcome {
    if let Some(full) = first_full(asks, |counter| used.get(counter).copied().unwrap_or(0)) {
        return full;
    }
    let take = |ask: &Ask| {
        let more = taken.entry(ask.counter.clone()).or_insert((ask.end, 0));
        more.1 = more.1.saturating_add(ask.amount);
        let used = used.entry(ask.counter.clone()).or_insert(0);
        *used = used.saturating_add(ask.amount);
        *used
    };
    Outcome::Reserved(asks.iter().map(take).collect())
}

fn rows(changes: &BTreeMap<Counter, (i64, i64)>) -> Vec<CounterRow> {
    let row = |(counter, (end, amount)): (&Counter, &(i64, i64))| CounterRow {
        name: counter.name.clone(),
        window_start: counter.start,
        window_end: *end,
        used: *amount,
    };
    changes.iter().map(row).collect()
}
