//! One sequence as the engine's thread knows it, beside what the scheduler knows: its sampler, its log-probabilities and
//! who listens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use hearth_sampler::{Sampled, Sampler, TokenHistory, TokenLogprobs, TokenMask, token_logprobs};

use super::engine::EventSender;
use super::handle::Place;
use super::{FinishReason, GenerationEvent, GenerationRequest};
use crate::error::Error;
use crate::run::Logits;
use crate::schedule::{Advance, Sequence};
use crate::text::grammar::GrammarState;

/// A request on its way to the engine's thread, with all that belongs to it.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) request: GenerationRequest,
    pub(super) events: EventSender,
    /// Given up when the sequence is gone.
    pub(super) place: Place,
    pub(super) submitted: Instant,
    /// Whether a step has computed any of it.
    pub(super) begun: Arc<AtomicBool>,
}

/// One sequence that runs or waits.
pub(super) struct Active {
    pub(super) deadline: Option<Instant>,
    pub(super) submitted: Instant,
    /// When its last token came.
    pub(super) last_token: Option<Instant>,
    pub(super) prompt: PromptLogprobs,
    sampler: Sampler,
    history: TokenHistory,
    max_tokens: usize,
    ends_at_end_tokens: bool,
    grammar: Option<GrammarState>,
    events: EventSender,
    begun: Arc<AtomicBool>,
    /// Whether that it runs has been told.
    admitted: bool,
    place: Place,
}

/// The log-probabilities of a prompt, collected over the chunks that compute it.
pub(super) struct PromptLogprobs {
    alternatives: Option<u8>,
    length: usize,
    collected: Vec<Option<TokenLogprobs>>,
    sent: bool,
}

impl PromptLogprobs {
    /// The first position whose logits are wanted for them; `None` when none is.
    pub(super) fn first_logit(&self) -> Option<usize> {
        self.alternatives?;
        (!self.sent).then(|| self.collected.len().saturating_sub(1))
    }
}

impl Active {
    /// What was submitted, and its prompt for the scheduler. `end_tokens` are the model's.
    pub(super) fn new(submission: Submission, end_tokens: &[u32]) -> (Self, Vec<u32>) {
        let Submission { request, events, place, submitted, begun } = submission;
        let active = Self {
            deadline: request.deadline,
            submitted,
            last_token: None,
            prompt: PromptLogprobs {
                alternatives: request.prompt_logprobs,
                length: request.prompt.len(),
                collected: Vec::new(),
                sent: false,
            },
            history: TokenHistory::new(&request.prompt),
            max_tokens: request.max_tokens,
            ends_at_end_tokens: !request.params.ignore_eos(),
            grammar: request.grammar.map(|grammar| grammar.start()),
            sampler: Sampler::new(request.params, end_tokens),
            events,
            begun,
            admitted: false,
            place,
        };
        (active, request.prompt)
    }

    /// Marks that a step computes some of it. True for the first.
    pub(super) fn begin(&self) -> bool {
        !self.begun.swap(true, Ordering::Relaxed)
    }

    /// The token sampled after this advance; `None` when it is not to sample.
    pub(super) fn settle(
        &mut self,
        sequence: &Sequence,
        advance: &Advance,
        first_row: usize,
        logits: &mut Logits,
    ) -> Result<Option<Sampled>, Error> {
        if !std::mem::replace(&mut self.admitted, true) {
            self.send(GenerationEvent::Admitted { cached_tokens: sequence.reused() });
        }
        let rows_before = self.collect_prompt(sequence, advance, first_row, logits)?;
        if !advance.samples || self.max_tokens == 0 {
            return Ok(None);
        }
        let row = logits.row(first_row + rows_before)?;
        let mask = self.grammar.as_mut().map(GrammarState::mask).transpose()?;
        Ok(Some(self.sampler.sample(row, &self.history, mask.map(|mask| mask as &dyn TokenMask))?))
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

    /// Takes what was sampled and passes it on. Returns why the sequence ends, if it does.
    pub(super) fn take(&mut self, sampled: Option<Sampled>, end_tokens: &[u32]) -> Option<Result<FinishReason, Error>> {
        let Some(sampled) = sampled else { return Some(Ok(FinishReason::Length)) };
        let token = sampled.token;
        if self.ends_at_end_tokens && end_tokens.contains(&token) {
            return Some(Ok(FinishReason::Stop));
        }
        self.history.push(token);
        self.send(GenerationEvent::Token(sampled));
        match self.grammar.as_mut().map(|grammar| grammar.commit(token)) {
            Some(Ok(true)) => Some(Ok(FinishReason::Complete)),
            Some(Err(error)) => Some(Err(error.into())),
            _ => (self.history.generated() >= self.max_tokens).then_some(Ok(FinishReason::Length)),
        }
    }

    /// Sends the last event. Its place is free when it arrives.
    pub(super) fn end(self, end: Result<FinishReason, Error>) {
        let Self { events, place, .. } = self;
        drop(place);
        // A receiver that is gone has sent its cancellation.
        let _ = events.send(end.map(GenerationEvent::Finished));
    }

    /// The error of one that is not complete in time.
    pub(super) fn late(&self) -> Error {
        Error::Deadline { begun: self.begun.load(Ordering::Relaxed) }
    }

    fn send(&self, event: GenerationEvent) {
        // As at the end.
        let _ = self.events.send(Ok(event));
    }
}
