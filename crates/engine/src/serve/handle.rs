//! The handle of a decoder: checks that a request can ever run, queues it, and gives its stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use thiserror::Error;

use super::engine::{Command, Engine};
use super::request::check_tokens;
use super::{GenerationRequest, GenerationStream, ModelInfo, RequestError};
use crate::error::Error as EngineError;
use crate::ids::SeqId;
use crate::run::Runner;
use crate::schedule::Scheduler;
use crate::text::ModelText;

/// Why a request was not taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SubmitError {
    /// As many requests as allowed are running and waiting.
    #[error("the queue is full: {limit} requests are running or waiting")]
    QueueFull {
        /// How many may be.
        limit: usize,
    },
    /// The engine's thread is gone.
    #[error("the engine has stopped")]
    Stopped,
}

/// What an engine is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineLoad {
    /// Sequences that hold cache.
    pub running: usize,
    /// Sequences that wait for it.
    pub waiting: usize,
    /// Blocks of the cache that are held.
    pub blocks_used: usize,
    /// Blocks of the cache.
    pub blocks_total: usize,
    /// Times a sequence lost its cache to an older one, since the start.
    pub preemptions: u64,
}

/// The numbers behind [`EngineLoad`], written by a model's thread and read by anyone.
#[derive(Debug, Default)]
pub(super) struct LoadGauges {
    present: AtomicUsize,
    running: AtomicUsize,
    blocks_used: AtomicUsize,
    preemptions: AtomicU64,
    stopped: AtomicBool,
}

impl LoadGauges {
    /// Takes a place among at most `limit` requests.
    pub(super) fn enter(self: &Arc<Self>, limit: usize) -> Result<Place, SubmitError> {
        let below = |present: usize| (present < limit).then_some(present + 1);
        match self.present.fetch_update(Ordering::AcqRel, Ordering::Acquire, below) {
            Ok(_) => Ok(Place(Arc::clone(self))),
            Err(_) => Err(SubmitError::QueueFull { limit }),
        }
    }

    /// Shows the scheduler's state.
    pub(super) fn publish(&self, scheduler: &Scheduler) {
        let pool = scheduler.pool();
        self.running.store(scheduler.running(), Ordering::Relaxed);
        self.blocks_used.store(pool.total() - pool.free(), Ordering::Relaxed);
        self.preemptions.store(scheduler.preemptions(), Ordering::Relaxed);
    }

    /// Requests that are running or waiting.
    pub(super) fn present(&self) -> usize {
        self.present.load(Ordering::Acquire)
    }

    /// Whether the thread has not ended.
    pub(super) fn is_alive(&self) -> bool {
        !self.stopped.load(Ordering::Acquire)
    }

    /// Notes the end of the thread, however it comes.
    pub(super) fn stopped_when_dropped(self: &Arc<Self>) -> impl Drop + use<> {
        struct Stopped(Arc<LoadGauges>);
        impl Drop for Stopped {
            fn drop(&mut self) {
                self.0.stopped.store(true, Ordering::Release);
            }
        }
        Stopped(Arc::clone(self))
    }
}

/// The end of a model's thread, for those who must not keep it alive.
#[derive(Clone, Debug)]
pub struct Departure(pub(super) Arc<LoadGauges>);

impl Departure {
    /// Whether the thread has ended, and given back what the model held.
    #[must_use]
    pub fn is_over(&self) -> bool {
        !self.0.is_alive()
    }
}

/// One of the limited places of a model; given up when dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<LoadGauges>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.present.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A running decoder. Cheap to clone; the thread ends when the last handle and stream are gone.
#[derive(Clone)]
pub struct EngineHandle {
    shared: Arc<Shared>,
    commands: Sender<Command>,
}

struct Shared {
    info: ModelInfo,
    text: Arc<ModelText>,
    gauges: Arc<LoadGauges>,
    next_id: AtomicU64,
    limit: usize,
    blocks: usize,
}

impl EngineHandle {
    /// Starts the thread of a decoder. `limit` is how many requests may run and wait.
    pub(super) fn start(
        info: ModelInfo,
        text: Arc<ModelText>,
        scheduler: Scheduler,
        runner: Runner,
        limit: usize,
    ) -> Result<Self, EngineError> {
        let gauges = Arc::new(LoadGauges::default());
        let blocks = scheduler.pool().total();
        let engine = Engine::new(scheduler, runner, text.end_tokens.clone(), Arc::clone(&gauges));
        let (commands, receiver) = channel();
        let thread = std::thread::Builder::new().name(format!("engine {}", info.name));
        let stopped = gauges.stopped_when_dropped();
        let run = move || {
            // Dropped last, after the model and its cache.
            let _stopped = stopped;
            engine.run(&receiver);
        };
        thread.spawn(run).map_err(EngineError::Thread)?;
        let shared = Shared { info, text, gauges, next_id: AtomicU64::new(0), limit, blocks };
        Ok(Self { shared: Arc::new(shared), commands })
    }

    /// What is known of the model.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.shared.info
    }

    /// Its tokenizer and chat template.
    #[must_use]
    pub fn text(&self) -> &Arc<ModelText> {
        &self.shared.text
    }

    /// Queues a request. Never blocks.
    ///
    /// # Errors
    /// When the queue is full or the engine is gone.
    pub fn submit(&self, request: GenerationRequest) -> Result<GenerationStream, SubmitError> {
        let Shared { gauges, next_id, limit, .. } = &*self.shared;
        let place = gauges.enter(*limit)?;
        let id = SeqId(next_id.fetch_add(1, Ordering::Relaxed));
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        let submit = Command::Submit(id, Box::new(request), sender, place);
        self.commands.send(submit).map_err(|_| SubmitError::Stopped)?;
        Ok(GenerationStream { id, events, commands: self.commands.clone(), ended: false })
    }

    /// Checks that there are tokens, that the model knows them, and that they fit its context.
    ///
    /// # Errors
    /// Which of these does not hold.
    pub fn check(&self, tokens: &[u32]) -> Result<(), RequestError> {
        check_tokens(tokens, self.info())
    }

    /// Whether the model's thread has not ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.shared.gauges.is_alive()
    }

    /// The end of the model's thread, which comes after the last handle and stream.
    #[must_use]
    pub fn departure(&self) -> Departure {
        Departure(Arc::clone(&self.shared.gauges))
    }

    /// What the engine is doing now.
    #[must_use]
    pub fn load(&self) -> EngineLoad {
        let gauges = &self.shared.gauges;
        let running = gauges.running.load(Ordering::Relaxed);
        EngineLoad {
            running,
            waiting: gauges.present().saturating_sub(running),
            blocks_used: gauges.blocks_used.load(Ordering::Relaxed),
            blocks_total: self.shared.blocks,
            preemptions: gauges.preemptions.load(Ordering::Relaxed),
        }
    }
}
