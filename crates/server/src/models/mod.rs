//! Models that are loaded, at the start or when they are asked for, and unloaded again, within one amount of memory.
//!
//! Owns each model's state, the memory that all share, and who must go to make room. Knows no path, no caller and no
//! permission: it is a provider behind an endpoint, and whoever may manage that endpoint gets at it from there.

mod hosted;
mod lease;
mod ledger;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use hearth_engine::memory::Bytes;
use hearth_engine::serve::Footprint;
use tokio::sync::Semaphore;

pub use hosted::{HostedModel, ModelState, ModelStatus, UnloadError};

use self::hosted::Hosted;
use self::ledger::Ledger;
use crate::providers::{Provider, ProviderError};

/// How often the models are looked through for those that nobody has used for long.
const SWEEP: Duration = Duration::from_millis(250);

/// Where a model comes from. Calls block, and may take minutes.
pub trait Source: Send + Sync {
    /// What the model calls itself.
    fn model_name(&self) -> &str;

    /// What it would take in a memory of which `offered` bytes are free: more than that where it cannot do with less.
    /// Gets the model's files onto the disk.
    ///
    /// # Errors
    /// Why it cannot be had, for the log.
    fn footprint(&self, offered: u64) -> Result<Footprint, String>;

    /// Starts it within so much memory.
    ///
    /// # Errors
    /// Why it cannot be loaded, for the log.
    fn load(&self, granted: Footprint) -> Result<Arc<dyn Provider>, String>;
}

/// When a model is loaded, and whether it may be unloaded for the sake of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residence {
    /// At the start; it stays until somebody unloads it by name.
    Kept,
    /// At its first request; it goes when its memory is needed, or when nobody has used it for long.
    OnDemand,
}

/// Why a model was not loaded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadFailure {
    /// There is no room beside the other models, now.
    #[error("{0}")]
    NoRoom(String),
    /// There is no room even without other models.
    #[error("{0}")]
    TooLarge(String),
    /// It cannot be had or started. The text is for the log.
    #[error("{0}")]
    Broken(String),
}

impl LoadFailure {
    /// What a caller gets to see: what is wrong with the files of a model is not theirs to know.
    fn refusal(&self, endpoint: &str) -> ProviderError {
        match self {
            Self::NoRoom(text) => ProviderError::Stopped(text.clone()),
            Self::TooLarge(text) => ProviderError::TooLarge(text.clone()),
            Self::Broken(_) => ProviderError::Stopped(format!(
                "the model of endpoint `{endpoint}` could not be loaded; the log says why"
            )),
        }
    }
}

/// All models of a process. A clone is the same models.
#[derive(Clone)]
pub struct Models {
    shared: Arc<Shared>,
}

struct Shared {
    ledger: Mutex<Ledger>,
    hosted: Mutex<Vec<Weak<Hosted>>>,
    /// One model is loaded after the other, so that two do not count on the same room.
    turn: Semaphore,
}

impl Models {
    /// No model yet, in `memory` bytes. With `overcommit` they may take more. An on-demand model that nobody has used for
    /// `keep_alive` is unloaded. Must be called within a runtime where that is given.
    pub fn new(memory: u64, overcommit: bool, keep_alive: Option<Duration>) -> Self {
        let ledger = Mutex::new(Ledger::new(memory, overcommit));
        let shared = Arc::new(Shared { ledger, hosted: Mutex::default(), turn: Semaphore::new(1) });
        if let Some(keep_alive) = keep_alive {
            tokio::spawn(sweep(Arc::downgrade(&shared), keep_alive));
        }
        Self { shared }
    }

    /// A model behind the endpoint of that name; not loaded yet.
    pub fn host(&self, endpoint: &str, source: Arc<dyn Source>, residence: Residence) -> HostedModel {
        let mut all = lock(&self.shared.hosted);
        all.retain(|one| one.strong_count() > 0);
        let hosted = Hosted::new(endpoint, source, residence, Arc::clone(&self.shared));
        all.push(Arc::downgrade(&hosted));
        HostedModel(hosted)
    }

    /// Bytes that models hold, and bytes that there are for models.
    pub fn memory(&self) -> (u64, u64) {
        let ledger = lock(&self.shared.ledger);
        (ledger.reserved(), ledger.bound())
    }
}

impl Shared {
    fn all(&self) -> Vec<Arc<Hosted>> {
        lock(&self.hosted).iter().filter_map(Weak::upgrade).collect()
    }

    fn free(&self) -> u64 {
        lock(&self.ledger).free()
    }

    fn held_by(&self, holder: u64) -> u64 {
        lock(&self.ledger).held_by(holder)
    }

    /// Idle on-demand models, those first that were used least lately.
    fn idle(&self) -> Vec<Arc<Hosted>> {
        let mut idle: Vec<_> = self.all().into_iter().filter_map(|one| Some((one.idle_since()?, one))).collect();
        idle.sort_by_key(|(since, _)| *since);
        idle.into_iter().map(|(_, one)| one).collect()
    }

    /// Makes room for a model that needs at least so much, by unloading idle ones.
    async fn make_room(&self, endpoint: &str, least: Footprint) -> Result<(), LoadFailure> {
        let sum = |available| {
            format!("the model of endpoint `{endpoint}` does not fit into memory: {least}, and {available}")
        };
        loop {
            let idle = self.idle();
            let ids: Vec<u64> = idle.iter().map(|one| one.id()).collect();
            let chosen = {
                let ledger = lock(&self.ledger);
                if !ledger.could_hold(least.total()) {
                    return Err(LoadFailure::TooLarge(sum(format!("{} are available", Bytes(ledger.bound())))));
                }
                let beside = || sum(format!("{} are available beside models that are in use", Bytes(ledger.free())));
                ledger.to_release(least.total(), &ids).ok_or_else(|| LoadFailure::NoRoom(beside()))?
            };
            if chosen.is_empty() {
                return Ok(());
            }
            for one in idle.into_iter().filter(|one| chosen.contains(&one.id())) {
                tracing::info!(endpoint = one.endpoint(), wanted_by = endpoint, "unloading an idle model to make room");
                // One that has been asked for in the meantime stays, and the sum is done again.
                hosted::unload_if_idle(&one, Duration::ZERO).await;
            }
        }
    }

    fn reserve(self: &Arc<Self>, holder: u64, bytes: u64) -> Option<Reservation> {
        let granted = lock(&self.ledger).reserve(holder, bytes);
        granted.then(|| Reservation { shared: Arc::clone(self), holder })
    }
}

/// Memory that a model holds; given back when dropped.
struct Reservation {
    shared: Arc<Shared>,
    holder: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        lock(&self.shared.ledger).release(self.holder);
    }
}

/// Unloads what nobody has used for long, until the models are gone.
async fn sweep(shared: Weak<Shared>, keep_alive: Duration) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        let expired = |one: &Arc<Hosted>| one.idle_since().is_some_and(|since| since.elapsed() >= keep_alive);
        for one in shared.idle().into_iter().filter(expired) {
            tracing::info!(endpoint = one.endpoint(), "unloading a model that nobody uses");
            hosted::unload_if_idle(&one, keep_alive).await;
        }
    }
}

// No critical section in this module leaves its value half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds since `instant`.
fn seconds_since(instant: Instant) -> f64 {
    instant.elapsed().as_secs_f64()
}

#[cfg(test)]
mod tests;
