//! The handle of a decoder: checks that a request can ever run, queues it, and gives its stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::active::Submission;
use super::engine::{Command, Engine};
use super::patience::Patience;
use super::pulse::{Health, Pulse};
use super::request::check_tokens;
use super::{GenerationRequest, GenerationStream, ModelInfo, RequestError};
use crate::error::Error as EngineError;
use crate::ids::SeqId;
use crate::run::Runner;
use crate::schedule::{PrefixCounts, Scheduler};
use crate::text::ModelText;
use crate::text::grammar::Grammars;

/// Why a request was not taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SubmitError {
    /// As many requests as allowed are running and waiting.
    #[error("the queue is full: {limit} requests are running or waiting")]
    QueueFull {
        /// How many may be.
        limit: usize,
    },
    /// What runs and waits has as many tokens as the queue may hold.
    #[error("the queue is full: the prompts that are running or waiting have {held} of at most {limit} tokens")]
    TokensFull {
        /// Tokens there are.
        held: usize,
        /// Tokens there may be.
        limit: usize,
    },
    /// A step of the model does not end.
    #[error("the model is stalled: a step has been running for {seconds} seconds")]
    Stalled {
        /// For how long.
        seconds: u64,
    },
    /// The engine's thread is gone.
    #[error("the engine has stopped")]
    Stopped,
}

/// Most tokens of all prompts or texts that run and wait at a model: 64 MiB of them. One request may have any number.
const MOST_TOKENS: usize = 1 << 24;

/// On what terms a model takes requests.
pub(super) struct Terms {
    /// How many may run and wait.
    pub(super) limit: usize,
    /// How long a step may take.
    pub(super) step_timeout: Option<Duration>,
    /// What the model's numbers are called by.
    pub(super) label: String,
}

/// What an engine is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineLoad {
    /// Sequences that hold cache.
    pub running: usize,
    /// Sequences that wait for it.
    pub waiting: usize,
    /// Blocks of the cache that sequences hold.
    pub blocks_used: usize,
    /// Blocks that no sequence holds and that are kept for those that begin alike.
    pub blocks_cached: usize,
    /// Blocks of the cache.
    pub blocks_total: usize,
    /// Times a sequence lost its cache to an older one, since the start.
    pub preemptions: u64,
    /// How much of the prompts was found in the cache, since the start.
    pub prefixes: PrefixCounts,
}

/// The numbers behind [`EngineLoad`], written by a model's thread and read by anyone.
#[derive(Debug)]
pub(super) struct LoadGauges {
    present: AtomicUsize,
    tokens: AtomicUsize,
    running: AtomicUsize,
    blocks_used: AtomicUsize,
    blocks_cached: AtomicUsize,
    preemptions: AtomicU64,
    prefix_queried: AtomicU64,
    prefix_hit: AtomicU64,
    pub(super) pulse: Arc<Pulse>,
}

impl LoadGauges {
    /// The gauges of a thread with that pulse.
    pub(super) fn new(pulse: Pulse) -> Self {
        Self {
            present: AtomicUsize::new(0),
            tokens: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            blocks_used: AtomicUsize::new(0),
            blocks_cached: AtomicUsize::new(0),
            preemptions: AtomicU64::new(0),
            prefix_queried: AtomicU64::new(0),
            prefix_hit: AtomicU64::new(0),
            pulse: Arc::new(pulse),
        }
    }

    /// Takes a place among at most `limit` requests, for one whose prompt has so many tokens.
    ///
    /// # Errors
    /// When there is none, or the model does not answer.
    pub(super) fn enter(self: &Arc<Self>, limit: usize, tokens: usize) -> Result<Place, SubmitError> {
        match self.pulse.health() {
            Health::Alive => {}
            Health::Stalled { since } => return Err(SubmitError::Stalled { seconds: since.elapsed().as_secs() }),
            Health::Stopped => return Err(SubmitError::Stopped),
        }
        let below = |present: usize| (present < limit).then_some(present + 1);
        if self.present.fetch_update(Ordering::AcqRel, Ordering::Acquire, below).is_err() {
            return Err(SubmitError::QueueFull { limit });
        }
        let mut place = Place { gauges: Arc::clone(self), tokens: 0 };
        let fits = |held: usize| (held == 0 || held + tokens <= MOST_TOKENS).then_some(held + tokens);
        match self.tokens.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            Ok(_) => place.tokens = tokens,
            Err(held) => return Err(SubmitError::TokensFull { held, limit: MOST_TOKENS }),
        }
        Ok(place)
    }

    /// Shows how many calls are in hand.
    pub(super) fn publish_running(&self, running: usize) {
        self.running.store(running, Ordering::Release);
    }

    /// Shows the scheduler's state.
    pub(super) fn publish(&self, scheduler: &Scheduler) {
        let (pool, prefixes) = (scheduler.pool(), scheduler.prefixes());
        self.blocks_used.store(pool.used(), Ordering::Relaxed);
        self.blocks_cached.store(pool.cached(), Ordering::Relaxed);
        self.preemptions.store(scheduler.preemptions(), Ordering::Relaxed);
        self.prefix_queried.store(prefixes.queried, Ordering::Relaxed);
        self.prefix_hit.store(prefixes.hit, Ordering::Relaxed);
        // Last, so that who sees no sequence running sees what the last one left.
        self.running.store(scheduler.running(), Ordering::Release);
    }

    /// Running and waiting requests, without the cache's part.
    pub(super) fn load(&self) -> EngineLoad {
        let (running, present) = (self.running.load(Ordering::Acquire), self.present.load(Ordering::Acquire));
        EngineLoad { running, waiting: present.saturating_sub(running), ..EngineLoad::default() }
    }
}

/// The end of a model's thread, for those who must not keep it alive.
#[derive(Clone, Debug)]
pub struct Departure(pub(super) Arc<Pulse>);

impl Departure {
    /// Whether the thread has ended, and given back what the model held.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.health() == Health::Stopped
    }
}

/// One of the limited places of a model; given up when dropped.
#[derive(Debug)]
pub(super) struct Place {
    gauges: Arc<LoadGauges>,
    tokens: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gauges.tokens.fetch_sub(self.tokens, Ordering::AcqRel);
        self.gauges.present.fetch_sub(1, Ordering::AcqRel);
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
    grammars: Grammars,
    gauges: Arc<LoadGauges>,
    next_id: AtomicU64,
    limit: usize,
    blocks: usize,
}

impl EngineHandle {
    /// Starts the thread of a decoder.
    pub(super) fn start(
        info: ModelInfo,
        text: Arc<ModelText>,
        scheduler: Scheduler,
        runner: Runner,
        terms: Terms,
    ) -> Result<Self, EngineError> {
        let gauges = Arc::new(LoadGauges::new(Pulse::new(terms.step_timeout)));
        let blocks = scheduler.pool().total();
        let engine = Engine::new(scheduler, runner, text.end_tokens.clone(), Arc::clone(&gauges), &terms.label);
        let life = gauges.pulse.life(&terms.label)?;
        let (commands, receiver) = channel();
        let thread = std::thread::Builder::new().name(format!("engine {}", info.name));
        let run = move || {
            // Dropped last, after the model and its cache.
            let _life = life;
            engine.run(&receiver);
        };
        thread.spawn(run).map_err(EngineError::Thread)?;
        let grammars = Grammars::new(text.tokenizer.clone(), text.end_tokens.clone());
        let shared = Shared { info, text, grammars, gauges, next_id: AtomicU64::new(0), limit: terms.limit, blocks };
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

    /// What answers can be held to.
    #[must_use]
    pub fn grammars(&self) -> &Grammars {
        &self.shared.grammars
    }

    /// Queues a request. Never blocks.
    ///
    /// # Errors
    /// When the queue is full, or the engine is stalled or gone.
    pub fn submit(&self, request: GenerationRequest) -> Result<GenerationStream, SubmitError> {
        let Shared { gauges, next_id, limit, .. } = &*self.shared;
        let place = gauges.enter(*limit, request.prompt.len())?;
        let id = SeqId(next_id.fetch_add(1, Ordering::Relaxed));
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        let (begun, deadline) = (Arc::new(AtomicBool::new(false)), request.deadline);
        let submission =
            Submission { request, events: sender, place, submitted: Instant::now(), begun: Arc::clone(&begun) };
        self.commands.send(Command::Submit(id, Box::new(submission))).map_err(|_| SubmitError::Stopped)?;
        Ok(GenerationStream::new(id, events, self.commands.clone(), Patience::new(deadline, begun)))
    }

    /// Checks that there are tokens, that the model knows them, and that they fit its context.
    ///
    /// # Errors
    /// Which of these does not hold.
    pub fn check(&self, tokens: &[u32]) -> Result<(), RequestError> {
        check_tokens(tokens, self.info())
    }

    /// Whether the model answers.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared.gauges.pulse.health()
    }

    /// The end of the model's thread, which comes after the last handle and stream.
    #[must_use]
    pub fn departure(&self) -> Departure {
        Departure(Arc::clone(&self.shared.gauges.pulse))
    }

    /// What the engine is doing now.
    #[must_use]
    pub fn load(&self) -> EngineLoad {
        let gauges = &self.shared.gauges;
        // First, so that who sees no sequence running sees what the last one left.
        let requests = gauges.load();
        EngineLoad {
            blocks_used: gauges.blocks_used.load(Ordering::Relaxed),
            blocks_cached: gauges.blocks_cached.load(Ordering::Relaxed),
            blocks_total: self.shared.blocks,
            preemptions: gauges.preemptions.load(Ordering::Relaxed),
            prefixes: PrefixCounts {
                queried: gauges.prefix_queried.load(Ordering::Relaxed),
                hit: gauges.prefix_hit.load(Ordering::Relaxed),
            },
            ..requests
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tokens_of_all_prompts_are_bounded_but_not_those_of_one() {
        let gauges = Arc::new(LoadGauges::new(Pulse::new(None)));
        let large = gauges.enter(3, MOST_TOKENS + 5).unwrap();
        let refused = gauges.enter(3, 1).unwrap_err();
        assert_eq!(refused, SubmitError::TokensFull { held: MOST_TOKENS + 5, limit: MOST_TOKENS });
        drop(large);
        let small: Vec<Place> = (0..3).map(|_| gauges.enter(3, MOST_TOKENS / 3).unwrap()).collect();
        assert_eq!(gauges.enter(3, 0).unwrap_err(), SubmitError::QueueFull { limit: 3 });
        drop(small);
        assert_eq!((gauges.load(), gauges.tokens.load(Ordering::Relaxed)), (EngineLoad::default(), 0));
    }
}
