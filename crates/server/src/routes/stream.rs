//! The streamed answer: each event of a provider as one chunk, in the order in which they come.

use futures::{StreamExt, stream};
use serde::Serialize;
use serde_json::Value;

use super::collect::{Collected, Collecting, ended_early, no_such_choice};
use crate::error::ApiError;
use crate::providers::{Answer, AnswerEvent, Delta, ProviderError};
use crate::sse;
use crate::usage::Draft;
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

    /// The answer that the chunks are pieces of.
    fn whole(&self, collected: Collected) -> serde_json::Result<Value>;

    /// A chunk as JSON. `usage`: absent, null or the totals.
    fn chunk(&self, choices: Vec<Self::Choice>, usage: Option<Option<Usage>>) -> serde_json::Result<String>;
}

/// The response that streams `answer`, with whose end `account` is closed.
///
/// # Errors
/// Where the first event is an error, which can still be told by the status.
pub(super) async fn respond(
    mut answer: Answer,
    chunks: impl Chunks,
    place: UsagePlace,
    account: Draft,
) -> Result<axum::response::Response, ApiError> {
    let first = answer.events.next().await.unwrap_or_else(|| Err(ended_early()))?;
    let events = stream::once(async { Ok(first) }).chain(answer.events);
    // Whoever stops early says so; after a complete answer the writer is over and does not hear it.
    let events = events.chain(stream::once(async { Err(ended_early()) }));
    let writer = Writer::new(chunks, answer.choices, place, account);
    let documents = events.scan(writer, |writer, event| {
        let documents = writer.write(event);
        async { documents.map(stream::iter) }
    });
    Ok(sse::response(documents.flatten()))
}

/// Turns events into documents and knows when the answer is over.
struct Writer<C: Chunks> {
    chunks: C,
    place: UsagePlace,
    opened: Vec<bool>,
    unfinished: usize,
    over: bool,
    account: Draft,
    /// What has been written, where that is kept.
    kept: Option<Collecting>,
    /// The request's span, since the body is written outside of it.
    span: tracing::Span,
}

impl<C: Chunks> Writer<C> {
    fn new(chunks: C, choices: usize, place: UsagePlace, account: Draft) -> Self {
        let kept = account.keeps_payload().then(|| Collecting::new(choices));
        let (opened, span) = (vec![false; choices], tracing::Span::current());
        Self { chunks, place, opened, unfinished: choices, over: false, account, kept, span }
    }

    /// The documents of one event; `None` once the answer is over.
    fn write(&mut self, event: Result<AnswerEvent, ProviderError>) -> Option<Vec<String>> {
        if self.over {
            return None;
        }
        let documents = event.and_then(|event| self.keep(event)).map_err(ApiError::from);
        let documents = documents.and_then(|event| self.documents(event));
        Some(documents.unwrap_or_else(|error| self.fail(&error)))
    }

    fn keep(&mut self, event: AnswerEvent) -> Result<AnswerEvent, ProviderError> {
        if let Some(kept) = &mut self.kept {
            kept.add(event.clone())?;
        }
        Ok(event)
    }

    /// Closes the account, before the caller sees the end of the answer.
    fn close(&mut self, status: u16, error: Option<&ApiError>) {
        self.keep_so_far(error);
        self.account.finish(status);
    }

    /// Gives the account the answer that was written, where that is kept; what has no end has no reason for it.
    fn keep_so_far(&mut self, error: Option<&ApiError>) {
        let Some(kept) = self.kept.take() else { return };
        let finished = kept.finished();
        let mut whole = self.chunks.whole(kept.so_far()).unwrap_or_default();
        for (index, _) in finished.iter().enumerate().filter(|(_, finished)| !**finished) {
            whole["choices"][index]["finish_reason"] = Value::Null;
        }
        if let Some(Ok(event)) = error.map(|error| serde_json::to_value(error.stream_event())) {
            whole["error"] = event["error"].clone();
        }
        self.account.answered(whole.to_string());
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
        self.close(200, None);
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
        self.close(error.status().as_u16(), Some(error));
        vec![serde_json::to_string(&error.stream_event()).unwrap_or_default()]
    }
}

impl<C: Chunks> Drop for Writer<C> {
    fn drop(&mut self) {
        // Of an answer whose caller goes away, what was written is kept; the account closes by itself.
        self.keep_so_far(None);
    }
}
