//! From tokens to text, on the consumer's side: detokenised as they come, cut at stop strings.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use hearth_sampler::{Sampled, StopMatcher, TokenLogprobs};
use tracing::{Span, info_span};

use super::{FinishReason, GenerationEvent, GenerationStream};
use crate::error::Error;
use crate::text::{Detokenizer, DetokenizerOptions, ModelText};

/// What happens to a text.
#[derive(Clone, Debug, PartialEq)]
pub enum TextEvent {
    /// The prompt's tokens with their log-probabilities, when they were asked for. Comes first.
    Prompt(Vec<TokenText>),
    /// More text.
    Delta(TextDelta),
    /// The end.
    Finished {
        /// Why.
        reason: FinishReason,
        /// Tokens generated, the end token and those of a stop string included.
        completion_tokens: usize,
        /// Tokens of the prompt that were found in the cache.
        cached_tokens: usize,
    },
}

/// A piece of text, and the tokens whose text ends or lies in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TextDelta {
    /// May be empty, when tokens are there.
    pub text: String,
    /// With their log-probabilities; empty unless those were asked for.
    pub tokens: Vec<TokenText>,
    /// Tokens generated so far.
    pub completion_tokens: usize,
}

/// One token with its log-probability and the likeliest alternatives.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenText {
    /// Its id.
    pub token: u32,
    /// Its text, with U+FFFD for what is not UTF-8 by itself.
    pub text: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Natural logarithm; `None` for the first token of a prompt.
    pub logprob: Option<f32>,
    /// The likeliest tokens at this place, likeliest first.
    pub top: Vec<TokenAlternative>,
}

/// A token that could have stood in a place.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenAlternative {
    /// Its id.
    pub token: u32,
    /// Its text, with U+FFFD for what is not UTF-8 by itself.
    pub text: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Natural logarithm.
    pub logprob: f32,
}

/// How tokens become text.
#[derive(Clone, Debug, Default)]
pub struct TextOptions<'a> {
    /// The text ends before the first of these.
    pub stops: &'a [String],
    /// The prompt's tokens, to be shown where their log-probabilities were asked for.
    pub prompt: Vec<u32>,
    /// The text goes on from the prompt's, so that a space in front belongs to it; an answer begins anew.
    pub continues_text: bool,
    /// Special tokens that are part of the text all the same.
    pub kept: Vec<u32>,
}

/// The text of one sequence. Dropping it before the end cancels the sequence.
pub struct TextStream {
    generation: Option<GenerationStream>,
    /// The span in which the stream was made, and what its sequence is doing: parts of that span.
    request: Span,
    stage: Option<Span>,
    prompt: Vec<u32>,
    text: Arc<ModelText>,
    detokenizer: Detokenizer,
    stops: StopMatcher,
    /// Tokens whose text is not released yet, with the byte of the text at which each begins.
    held: VecDeque<(usize, TokenText)>,
    detokenized: usize,
    released: usize,
    completion_tokens: usize,
    cached_tokens: usize,
    ready: VecDeque<TextEvent>,
}

impl TextStream {
    /// The text of `generation`.
    #[must_use]
    pub fn new(generation: GenerationStream, text: Arc<ModelText>, options: TextOptions<'_>) -> Self {
        let detokenizer =
            DetokenizerOptions { keep_special: false, kept: options.kept, continues_text: options.continues_text };
        Self {
            generation: Some(generation),
            request: Span::current(),
            stage: Some(info_span!("queue")),
            prompt: options.prompt,
            detokenizer: Detokenizer::new(&text.tokenizer, detokenizer),
            text,
            stops: StopMatcher::new(options.stops),
            held: VecDeque::new(),
            detokenized: 0,
            released: 0,
            completion_tokens: 0,
            cached_tokens: 0,
            ready: VecDeque::new(),
        }
    }

    fn take(&mut self, event: GenerationEvent) {
        match event {
            GenerationEvent::Admitted { cached_tokens } => {
                self.cached_tokens = cached_tokens;
                self.stage = Some(info_span!(parent: &self.request, "prefill"));
            }
            GenerationEvent::Prompt(logprobs) => {
                let tokens = std::mem::take(&mut self.prompt);
                let shown = tokens.iter().zip(logprobs).map(|(token, found)| self.token_text(*token, found));
                let shown = shown.collect();
                self.ready.push_back(TextEvent::Prompt(shown));
            }
            GenerationEvent::Token(sampled) => self.take_token(sampled),
            GenerationEvent::Finished(reason) => self.finish(reason),
        }
    }

    fn take_token(&mut self, sampled: Sampled) {
        if self.completion_tokens == 0 {
            self.stage = Some(info_span!(parent: &self.request, "decode"));
        }
        self.completion_tokens += 1;
        let piece = self.detokenizer.push(sampled.token);
        if let Some(logprob) = sampled.logprob {
            let found = TokenLogprobs { logprob, top: sampled.top };
            let shown = self.token_text(sampled.token, Some(found));
            self.held.push_back((self.detokenized, shown));
        }
        self.detokenized += piece.len();
        let outcome = self.stops.push(&piece);
        match outcome.matched {
            None => self.release(outcome.released, false),
            Some(_) => self.stop(outcome.released),
        }
    }

    /// A stop string was found: what stands before it is the end of the text, and the sequence is cancelled.
    fn stop(&mut self, text: String) {
        self.release(text, false);
        self.end(FinishReason::Stop);
    }

    fn finish(&mut self, reason: FinishReason) {
        if reason == FinishReason::Stop {
            self.completion_tokens += 1;
        }
        let rest = self.detokenizer.finish();
        let outcome = self.stops.push(&rest);
        if outcome.matched.is_some() {
            return self.stop(outcome.released);
        }
        let text = outcome.released + self.stops.held();
        self.release(text, true);
        self.end(reason);
    }

    fn end(&mut self, reason: FinishReason) {
        self.generation = None;
        self.stage = None;
        let Self { completion_tokens, cached_tokens, .. } = *self;
        self.ready.push_back(TextEvent::Finished { reason, completion_tokens, cached_tokens });
    }

    /// Makes text known, with the tokens that begin before its end (all that are left when `last`).
    fn release(&mut self, text: String, last: bool) {
        self.released += text.len();
        let mut tokens = Vec::new();
        while let Some((_, token)) = self.held.pop_front_if(|(start, _)| last || *start < self.released) {
            tokens.push(token);
        }
        if !text.is_empty() || !tokens.is_empty() {
            let completion_tokens = self.completion_tokens;
            self.ready.push_back(TextEvent::Delta(TextDelta { text, tokens, completion_tokens }));
        }
    }

    fn token_text(&self, token: u32, found: Option<TokenLogprobs>) -> TokenText {
        let (logprob, top) = found.map_or((None, Vec::new()), |found| (Some(found.logprob), found.top));
        let top = top.into_iter().map(|(token, logprob)| {
            let (text, bytes) = self.shown(token);
            TokenAlternative { token, text, bytes, logprob }
        });
        let (text, bytes) = self.shown(token);
        TokenText { token, text, bytes, logprob, top: top.collect() }
    }

    fn shown(&self, token: u32) -> (String, Vec<u8>) {
        let bytes = self.text.tokenizer.token_bytes(token).unwrap_or_default();
        (String::from_utf8_lossy(bytes).into_owned(), bytes.to_vec())
    }
}

impl Stream for TextStream {
    type Item = Result<TextEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            let Some(generation) = &mut self.generation else { return Poll::Ready(None) };
            match ready!(Pin::new(generation).poll_next(context)) {
                Some(Ok(event)) => self.take(event),
                Some(Err(error)) => {
                    self.generation = None;
                    return Poll::Ready(Some(Err(error)));
                }
                None => self.generation = None,
            }
        }
    }
}
