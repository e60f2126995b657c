//! The streamed answer: each event of a provider as one chunk, in the order in which they come.

use futures::{StreamExt, stream};
use serde::Serialize;

use super::collect::{ended_early, no_such_choice};
use crate::error::ApiError;
use crate::providers::{Answer, AnswerEvent, Delta, ProviderError};
use crate::sse;
use crate::wire::options::{FinishReason, Usage};

/// Where the usage of a streamed answer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UsagePlace {
    /// In the chunk that ends the last choice.
    LastChoice,
    /// In a chunk of its own after the last choice, and `null` in all others.
    OwnChunk,
}

/// How one kind of answer writes its chunks.
pub(super) trait Chunks: Send + 'static {
    /// What stands in a chunk's list of choices.
    type Choice: Serialize;

    /// What comes before anything else of a choice, if something does.
    fn opening(&mut self, index: usize) -> Option<Self::Choice>;

    /// More of a choice.
    fn delta(&mut self, index: usize, delta: Delta) -> Self::Choice;

    /// The end of a choice.
    fn finished(&mut self, index: usize, reason: FinishReason) -> Self::Choice;

    /// A chunk as JSON. `usage`: absent, null or the totals.
    fn chunk(&self, choices: Vec<Self::Choice>, usage: Option<Option<Usage>>) -> serde_json::Result<String>;
}

/// The response that streams `answer`.
///
/// # Errors
/// Where the first event is an error, which can still be told by the status.
pub(super) async fn respond(
    mut answer: Answer,
    chunks: impl Chunks,
    place: UsagePlace,
) -> Result<axum::response::Response, ApiError> {
    let first = answer.events.next().await.unwrap_or_else(|| Err(ended_early()))?;
    let events = stream::once(async { Ok(first) }).chain(answer.events);
    // Whoever stops early says so; after a complete answer the writer is over and does not hear it.
    let events = events.chain(stream::once(async { Err(ended_early()) }));
    let writer = Writer::new(chunks, answer.choices, place);
    let documents = events.scan(writer, |writer, event| {
        let documents = writer.write(event);
        async { documents.map(stream::iter) }
    });
    Ok(sse::response(documents.flatten()))
}

/// Turns events into documents and knows when the answer is over.
struct Writer<C> {
    chunks: C,
    place: UsagePlace,
    opened: Vec<bool>,
    unfinished: usize,
    over: bool,
    /// The request's span, since the body is written outside of it.
    span: tracing::Span,
}

impl<C: Chunks> Writer<C> {
    fn new(chunks: C, choices: usize, place: UsagePlace) -> Self {
        let opened = vec![false; choices];
        Self { chunks, place, opened, unfinished: choices, over: false, span: tracing::Span::current() }
    }

    /// The documents of one event; `None` once the answer is over.
    fn write(&mut self, event: Result<AnswerEvent, ProviderError>) -> Option<Vec<String>> {
        if self.over {
            return None;
        }
        let documents = event.map_err(ApiError::from).and_then(|event| self.documents(event));
        Some(documents.unwrap_or_else(|error| self.fail(&error)))
    }

    fn documents(&mut self, event: AnswerEvent) -> Result<Vec<String>, ApiError> {
        let (AnswerEvent::Echo { index, .. } | AnswerEvent::Delta { index, .. } | AnswerEvent::Finished { index, .. }) =
            event;
        let mut documents = Vec::new();
        if self.is_first_of(index)?
            && let Some(choice) = self.chunks.opening(index)
        {
            documents.push(self.document(choice)?);
        }
        match event {
            AnswerEvent::Echo { delta, .. } | AnswerEvent::Delta { delta, .. } => {
                // A token in the middle of a character says nothing yet.
                if !delta.is_empty() {
                    let choice = self.chunks.delta(index, delta);
                    documents.push(self.document(choice)?);
                }
            }
            AnswerEvent::Finished { reason, usage, .. } => {
                let choice = self.chunks.finished(index, reason);
                self.unfinished = self.unfinished.saturating_sub(1);
                documents.extend(self.ending(choice, usage)?);
            }
        }
        Ok(documents)
    }

    fn is_first_of(&mut self, index: usize) -> Result<bool, ApiError> {
        let opened = self.opened.get_mut(index).ok_or_else(|| no_such_choice(index))?;
        Ok(!std::mem::replace(opened, true))
    }

    fn ending(&mut self, choice: C::Choice, usage: Usage) -> Result<Vec<String>, ApiError> {
        if self.unfinished > 0 {
            return Ok(vec![self.document(choice)?]);
        }
        self.over = true;
        let mut documents = match self.place {
            UsagePlace::LastChoice => vec![self.chunk(vec![choice], Some(Some(usage)))?],
            UsagePlace::OwnChunk => vec![self.document(choice)?, self.chunk(Vec::new(), Some(Some(usage)))?],
        };
        documents.push(sse::DONE.to_owned());
        Ok(documents)
    }

    fn document(&self, choice: C::Choice) -> Result<String, ApiError> {
        self.chunk(vec![choice], self.no_usage())
    }

    fn chunk(&self, choices: Vec<C::Choice>, usage: Option<Option<Usage>>) -> Result<String, ApiError> {
        let failed = |error: serde_json::Error| ApiError::internal("the answer failed", error.to_string());
        self.chunks.chunk(choices, usage).map_err(failed)
    }

    fn no_usage(&self) -> Option<Option<Usage>> {
        match self.place {
            UsagePlace::LastChoice => None,
            UsagePlace::OwnChunk => Some(None),
        }
    }

    /// The status is gone, so the error comes as an event; after it there is nothing.
    fn fail(&mut self, error: &ApiError) -> Vec<String> {
        self.over = true;
        self.span.in_scope(|| error.log());
        vec![serde_json::to_string(&error.stream_event()).unwrap_or_default()]
    }
}
