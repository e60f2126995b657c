//! The handle of a decoder: checks that a request can ever run, queues it, and gives its stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use thiserror::Error;

use super::engine::{Command, Engine};
use super::{GenerationRequest, GenerationStream, ModelInfo};
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
    /// The cache could not hold the request at its longest, even alone.
    #[error("the request may need {tokens} tokens of cache, but the cache holds {capacity}")]
    TooLarge {
        /// Prompt and longest answer.
        tokens: usize,
        /// All of the cache.
        capacity: usize,
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

/// The numbers behind [`EngineLoad`], written by the engine's thread and read by anyone.
#[derive(Debug, Default)]
pub(super) struct LoadGauges {
    present: AtomicUsize,
    running: AtomicUsize,
    blocks_used: AtomicUsize,
    preemptions: AtomicU64,
}

impl LoadGauges {
    /// Counts one request in, unless `limit` are in already.
    fn enter(&self, limit: usize) -> bool {
        let below = |present: usize| (present < limit).then_some(present + 1);
        self.present.fetch_update(Ordering::AcqRel, Ordering::Acquire, below).is_ok()
    }

    /// Counts one request out.
    pub(super) fn leave(&self) {
        self.present.fetch_sub(1, Ordering::AcqRel);
    }

    /// Shows the scheduler's state.
    pub(super) fn publish(&self, scheduler: &Scheduler) {
        let pool = scheduler.pool();
        self.running.store(scheduler.running(), Ordering::Relaxed);
        self.blocks_used.store(pool.total() - pool.free(), Ordering::Relaxed);
        self.preemptions.store(scheduler.preemptions(), Ordering::Relaxed);
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
    block_size: usize,
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
        let (blocks, block_size) = (scheduler.pool().total(), scheduler.pool().block_size());
        let engine = Engine::new(scheduler, runner, text.end_tokens.clone(), Arc::clone(&gauges));
        let (commands, receiver) = channel();
        let thread = std::thread::Builder::new().name(format!("engine {}", info.name));
        thread.spawn(move || engine.run(&receiver)).map_err(|error| EngineError::Step(error.to_string()))?;
        let shared = Shared { info, text, gauges, next_id: AtomicU64::new(0), limit, blocks, block_size };
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
    /// When the queue is full, the cache could never hold it, or the engine is gone.
    pub fn submit(&self, request: GenerationRequest) -> Result<GenerationStream, SubmitError> {
        let Shared { gauges, next_id, limit, blocks, block_size, .. } = &*self.shared;
        let (tokens, capacity) = (request.longest(), blocks * block_size);
        if tokens > capacity {
            return Err(SubmitError::TooLarge { tokens, capacity });
        }
        if !gauges.enter(*limit) {
            return Err(SubmitError::QueueFull { limit: *limit });
        }
        let id = SeqId(next_id.fetch_add(1, Ordering::Relaxed));
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        if self.commands.send(Command::Submit(id, Box::new(request), sender)).is_err() {
            gauges.leave();
            return Err(SubmitError::Stopped);
        }
        Ok(GenerationStream { id, events, commands: self.commands.clone(), ended: false })
    }

    /// What the engine is doing now.
    #[must_use]
    pub fn load(&self) -> EngineLoad {
        let gauges = &self.shared.gauges;
        let running = gauges.running.load(Ordering::Relaxed);
        EngineLoad {
            running,
            waiting: gauges.present.load(Ordering::Acquire).saturating_sub(running),
            blocks_used: gauges.blocks_used.load(Ordering::Relaxed),
            blocks_total: self.shared.blocks,
            preemptions: gauges.preemptions.load(Ordering::Relaxed),
        }
    }
}
