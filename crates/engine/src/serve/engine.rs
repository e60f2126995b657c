//! The engine's thread: takes requests in, plans, runs and commits steps, sends events out.
//!
//! A panic or an error in a step fails the sequences of that step and no others; the thread goes on.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use hearth_sampler::{Sampled, Sampler, TokenHistory, TokenLogprobs, token_logprobs};
use tokio::sync::mpsc::UnboundedSender;

use super::handle::{LoadGauges, Place};
use super::{FinishReason, GenerationEvent, GenerationRequest};
use crate::error::Error;
use crate::ids::SeqId;
use crate::run::{Logits, Runner};
use crate::schedule::{Advance, Scheduler, Sequence, StepPlan};

/// What the engine's thread is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Run this.
    Submit(SeqId, Box<GenerationRequest>, EventSender, Place),
    /// Nobody listens any more.
    Cancel(SeqId),
}

pub(super) type EventSender = UnboundedSender<Result<GenerationEvent, Error>>;

/// One sequence as the engine's thread knows it, beside what the scheduler knows.
struct Active {
    sampler: Sampler,
    history: TokenHistory,
    max_tokens: usize,
    ends_at_end_tokens: bool,
    prompt: PromptLogprobs,
    events: EventSender,
    /// Given up when the sequence is gone.
    _place: Place,
}

/// The log-probabilities of a prompt, collected over the chunks that compute it.
struct PromptLogprobs {
    alternatives: Option<u8>,
    length: usize,
    collected: Vec<Option<TokenLogprobs>>,
    sent: bool,
}

impl PromptLogprobs {
    /// The first position whose logits are wanted for them; `None` when none is.
    fn first_logit(&self) -> Option<usize> {
        self.alternatives?;
        (!self.sent).then(|| self.collected.len().saturating_sub(1))
    }
}

/// Scheduler, model and the sequences' samplers; lives on its own thread.
pub(super) struct Engine {
    scheduler: Scheduler,
    runner: Runner,
    active: HashMap<SeqId, Active>,
    end_tokens: Vec<u32>,
    gauges: Arc<LoadGauges>,
}

impl Engine {
    pub(super) fn new(scheduler: Scheduler, runner: Runner, end_tokens: Vec<u32>, gauges: Arc<LoadGauges>) -> Self {
        Self { scheduler, runner, active: HashMap::new(), end_tokens, gauges }
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
            self.step();
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit(id, request, events, place) => self.take_in(id, *request, events, place),
            Command::Cancel(id) => self.remove(id),
        }
        self.gauges.publish(&self.scheduler);
    }

    fn take_in(&mut self, id: SeqId, request: GenerationRequest, events: EventSender, place: Place) {
        let active = Active {
            history: TokenHistory::new(&request.prompt),
            max_tokens: request.max_tokens,
            ends_at_end_tokens: !request.params.ignore_eos(),
            prompt: PromptLogprobs {
                alternatives: request.prompt_logprobs,
                length: request.prompt.len(),
                collected: Vec::new(),
                sent: false,
            },
            sampler: Sampler::new(request.params, &self.end_tokens),
            events,
            _place: place,
        };
        self.active.insert(id, active);
        self.scheduler.add(Sequence::new(id, request.prompt));
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
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut logits = self.forward(&plan)?;
            for (index, advance) in plan.advances.iter().enumerate() {
                self.settle(advance, logits.rows.rows[index].start, &mut logits);
            }
            Ok::<(), Error>(())
        }));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail(&plan, &error.to_string()),
            Err(panic) => self.fail(&plan, &panic_message(panic.as_ref())),
        }
        self.gauges.publish(&self.scheduler);
    }

    fn forward(&mut self, plan: &StepPlan) -> Result<Logits, Error> {
        let active = &self.active;
        self.runner.forward(plan, &self.scheduler, |id| active.get(&id)?.prompt.first_logit())
    }

    /// Takes one sequence's logits: collects its prompt's log-probabilities, samples when it has come so far, and
    /// ends it when it is done or fails.
    fn settle(&mut self, advance: &Advance, first_row: usize, logits: &mut Logits) {
        let Some(active) = self.active.get_mut(&advance.id) else { return };
        let sampled = match self.scheduler.get(advance.id) {
            Some(sequence) => active.settle(sequence, advance, first_row, logits),
            None => return,
        };
        let token = sampled.as_ref().ok().and_then(|sampled| sampled.as_ref()).map(|sampled| sampled.token);
        self.scheduler.commit(advance, token);
        let ended = match sampled {
            Ok(None) => advance.samples.then_some(Ok(FinishReason::Length)),
            Ok(Some(sampled)) if active.ends_at_end_tokens && self.end_tokens.contains(&sampled.token) => {
                Some(Ok(FinishReason::Stop))
            }
            Ok(Some(sampled)) => {
                active.history.push(sampled.token);
                active.send(GenerationEvent::Token(sampled));
                (active.history.generated() >= active.max_tokens).then_some(Ok(FinishReason::Length))
            }
            Err(error) => Some(Err(error)),
        };
        if let Some(end) = ended {
            // A receiver that is gone has sent its cancellation.
            let _ = active.events.send(end.map(GenerationEvent::Finished));
            self.remove(advance.id);
        }
    }

    fn remove(&mut self, id: SeqId) {
        self.scheduler.remove(id);
        self.active.remove(&id);
    }

    /// Fails every sequence of a step. Where that shows the cache's books to be broken, all are failed.
    fn fail(&mut self, plan: &StepPlan, reason: &str) {
        tracing::error!(reason, sequences = plan.advances.len(), "a step failed");
        let removed = catch_unwind(AssertUnwindSafe(|| {
            for advance in &plan.advances {
                if let Some(active) = self.active.get(&advance.id) {
                    active.fail(reason);
                }
                self.remove(advance.id);
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
        self.active.drain().for_each(|(_, active)| active.fail(reason));
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

impl Active {
    /// The token sampled after this advance; `None` when it is not to sample.
    fn settle(
        &mut self,
        sequence: &Sequence,
        advance: &Advance,
        first_row: usize,
        logits: &mut Logits,
    ) -> Result<Option<Sampled>, Error> {
        let rows_before = self.collect_prompt(sequence, advance, first_row, logits)?;
        if !advance.samples || self.max_tokens == 0 {
            return Ok(None);
        }
        let row = logits.row(first_row + rows_before)?;
        Ok(Some(self.sampler.sample(row, &self.history, None)?))
    }

    /// Collects the log-probabilities of the prompt's tokens that this advance predicts, and sends them with the last.
    /// Returns how many rows of logits stand before the one to sample from.
    fn collect_prompt(
        &mut self,
        sequence: &Sequence,
        advance: &Advance,
        first_row: usize,
        logits: &mut Logits,
    ) -> Result<usize, Error> {
        let (Some(first_logit), Some(alternatives)) = (self.prompt.first_logit(), self.prompt.alternatives) else {
            return Ok(0);
        };
        if self.prompt.collected.is_empty() {
            self.prompt.collected.push(None);
        }
        let first = first_logit.clamp(advance.positions.start, advance.positions.end);
        let predicted = (first + 1..advance.positions.end + 1).take_while(|next| *next < self.prompt.length);
        let rows_before = predicted.clone().count();
        for (row, next) in predicted.enumerate() {
            let found = token_logprobs(logits.row(first_row + row)?, sequence.tokens()[next], alternatives)?;
            self.prompt.collected.push(Some(found));
        }
        if self.prompt.collected.len() == self.prompt.length {
            self.prompt.sent = true;
            let collected = std::mem::take(&mut self.prompt.collected);
            self.send(GenerationEvent::Prompt(collected));
        }
        Ok(rows_before)
    }

    fn fail(&self, reason: &str) {
        // A receiver that is gone needs no reason.
        let _ = self.events.send(Err(Error::Step(reason.to_owned())));
    }

    fn send(&self, event: GenerationEvent) {
        // A receiver that is gone has sent its cancellation.
        let _ = self.events.send(Ok(event));
    }
}

/// What a panic said.
pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message").to_owned()
}
