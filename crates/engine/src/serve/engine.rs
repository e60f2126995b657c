//! The engine's thread: takes requests in, plans, runs and commits steps, sends events out.
//!
//! A panic or an error in a model's step fails the sequences of that step, one in what belongs to a sequence alone (its
//! sampler, its log-probabilities) that sequence, and no others; the thread goes on.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use super::active::{Active, Submission};
use super::handle::LoadGauges;
use super::meters::Meters;
use super::{FinishReason, GenerationEvent};
use crate::error::Error;
use crate::ids::SeqId;
use crate::run::{Logits, Runner};
use crate::schedule::{Advance, Scheduler, Sequence, StepPlan};

/// What the engine's thread is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Run this.
    Submit(SeqId, Box<Submission>),
    /// Nobody listens any more.
    Cancel(SeqId),
}

pub(super) type EventSender = UnboundedSender<Result<GenerationEvent, Error>>;

/// Scheduler, model and the sequences' samplers; lives on its own thread.
pub(super) struct Engine {
    scheduler: Scheduler,
    runner: Runner,
    active: HashMap<SeqId, Active>,
    end_tokens: Vec<u32>,
    gauges: Arc<LoadGauges>,
    meters: Meters,
}

impl Engine {
    /// An engine without sequences. `label` is what its numbers are called by.
    pub(super) fn new(
        scheduler: Scheduler,
        runner: Runner,
        end_tokens: Vec<u32>,
        gauges: Arc<LoadGauges>,
        label: &str,
    ) -> Self {
        let meters = Meters::new(label);
        Self { scheduler, runner, active: HashMap::new(), end_tokens, gauges, meters }
    }

    /// Serves until every handle and stream is gone.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        loop {
            if self.active.is_empty() {
                self.check_idle();
                match commands.recv() {
                    Ok(command) => self.obey(command),
                    Err(_) => return,
                }
            }
            loop {
                match commands.try_recv() {
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            self.expire();
            let gauges = Arc::clone(&self.gauges);
            let _beat = gauges.pulse.beat();
            self.step();
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit(id, submission) => {
                let events = submission.events.clone();
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.take_in(id, *submission))) {
                    // A receiver that is gone needs no reason.
                    let _ = events.send(Err(Error::Step(panic_message(panic.as_ref()))));
                    self.remove(id);
                }
            }
            Command::Cancel(id) => self.remove(id),
        }
        self.gauges.publish(&self.scheduler);
    }

    fn take_in(&mut self, id: SeqId, submission: Submission) {
        let computes_all = submission.request.prompt_logprobs.is_some();
        let (active, prompt) = Active::new(submission, &self.end_tokens);
        self.active.insert(id, active);
        let sequence = Sequence::new(id, prompt);
        // Log-probabilities of the prompt are made of the logits of all its tokens.
        self.scheduler.add(if computes_all { sequence.computing_all() } else { sequence });
    }

    /// Ends the sequences whose deadline has passed.
    fn expire(&mut self) {
        let now = Instant::now();
        let late = |(id, active): (&SeqId, &Active)| {
            let passed = active.deadline.is_some_and(|deadline| deadline <= now);
            passed.then(|| (*id, active.late()))
        };
        let late: Vec<(SeqId, Error)> = self.active.iter().filter_map(late).collect();
        for (id, error) in late {
            self.end(id, Err(error));
            self.gauges.publish(&self.scheduler);
        }
    }

    /// Plan, run, commit. A step that fails takes its sequences with it.
    fn step(&mut self) {
        let plan = match catch_unwind(AssertUnwindSafe(|| self.scheduler.plan())) {
            Ok(plan) if !plan.advances.is_empty() => plan,
            // What was to run has been cancelled.
            Ok(_) if self.active.is_empty() => return,
            Ok(_) => return self.start_over("no sequence can advance"),
            Err(panic) => return self.start_over(&panic_message(panic.as_ref())),
        };
        let begun = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| self.forward(&plan))) {
            Ok(Ok(logits)) => self.settle_all(&plan, logits),
            Ok(Err(error)) => self.fail(&plan.advances, &error.to_string()),
            Err(panic) => self.fail(&plan.advances, &panic_message(panic.as_ref())),
        }
        self.meters.step(begun, plan.tokens());
        self.gauges.publish(&self.scheduler);
    }

    fn forward(&mut self, plan: &StepPlan) -> Result<Logits, Error> {
        let active = &self.active;
        for advance in &plan.advances {
            if let Some(beginning) = active.get(&advance.id).filter(|active| active.begin()) {
                self.meters.begins(beginning.submitted);
            }
        }
        self.runner.forward(plan, &self.scheduler, |id| active.get(&id)?.prompt.first_logit())
    }

    /// Settles each sequence by itself: what fails here is its own.
    fn settle_all(&mut self, plan: &StepPlan, mut logits: Logits) {
        for (index, advance) in plan.advances.iter().enumerate() {
            let settled = catch_unwind(AssertUnwindSafe(|| {
                self.settle(advance, logits.rows.rows[index].start, &mut logits);
            }));
            if let Err(panic) = settled {
                self.fail(std::slice::from_ref(advance), &panic_message(panic.as_ref()));
            }
        }
    }

    /// Takes one sequence's logits: collects its prompt's log-probabilities, samples when it has come so far, and
    /// ends it when it is done or fails.
    fn settle(&mut self, advance: &Advance, first_row: usize, logits: &mut Logits) {
        let Some(active) = self.active.get_mut(&advance.id) else { return };
        let sampled = match self.scheduler.get(advance.id) {
            Some(sequence) => active.settle(sequence, advance, first_row, logits),
            None => return,
        };
        match &sampled {
            Ok(sampled) => {
                self.scheduler.commit(advance, sampled.as_ref().map(|sampled| sampled.token));
                if sampled.is_some() {
                    self.meters.token(&mut active.last_token);
                }
            }
            // Logits that are no numbers may come of keys and values that are none.
            Err(_) => self.scheduler.fail(advance.id),
        }
        let ended = match sampled {
            Ok(None) if !advance.samples => None,
            Ok(sampled) => active.take(sampled, &self.end_tokens),
            Err(error) => Some(Err(error)),
        };
        if let Some(end) = ended {
            if let Err(error) = &end {
                tracing::error!(%error, "a sequence failed");
            }
            self.end(advance.id, end);
        }
    }

    fn remove(&mut self, id: SeqId) {
        self.scheduler.remove(id);
        self.active.remove(&id);
    }

    /// Removes a sequence, and says so.
    fn end(&mut self, id: SeqId, end: Result<FinishReason, Error>) {
        self.scheduler.remove(id);
        if let Some(active) = self.active.remove(&id) {
            active.end(end);
        }
    }

    /// Fails some sequences of a step. Where that shows the cache's books to be broken, all are failed.
    fn fail(&mut self, advances: &[Advance], reason: &str) {
        tracing::error!(reason, sequences = advances.len(), "a step failed");
        let removed = catch_unwind(AssertUnwindSafe(|| {
            for advance in advances {
                self.scheduler.fail(advance.id);
                self.end(advance.id, Err(Error::Step(reason.to_owned())));
            }
            self.scheduler.check()
        }));
        match removed {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => self.start_over(&fault),
            Err(panic) => self.start_over(&panic_message(panic.as_ref())),
        }
    }

    /// Fails every sequence there is, and begins with an empty cache.
    fn start_over(&mut self, reason: &str) {
        tracing::error!(reason, sequences = self.active.len(), "the engine starts over");
        self.active.drain().for_each(|(_, active)| active.end(Err(Error::Step(reason.to_owned()))));
        self.scheduler.clear();
        self.gauges.publish(&self.scheduler);
    }

    /// With no sequence left no block may be held.
    fn check_idle(&mut self) {
        if let Err(fault) = self.scheduler.check() {
            self.start_over(&fault);
        }
    }
}

/// What a panic said.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message").to_owned()
}
