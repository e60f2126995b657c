//! OpenAI's dialect, as OpenAI, Azure, Databricks and many servers speak it: what they share, and no more.

mod chat;
mod completion;
mod embedding;
mod logprobs;
mod request;

use serde::Deserialize;
use serde_json::Value;

pub(super) use chat::ChatReader;
pub(super) use completion::CompletionReader;
pub(super) use embedding::{Texts, embeddings, texts};
pub(super) use request::{chat_body, completion_body, echoed, message, stream};

use super::event::Event;
use super::protocol::{Choices, Fault, document, error_message, error_status};
use crate::wire::options::{FinishReason, Usage};

/// What comes at the end of a stream.
const DONE: &str = "[DONE]";

/// The tokens of an answer.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default)]
struct UsageDocument {
    prompt_tokens: usize,
    completion_tokens: usize,
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct PromptDetails {
    cached_tokens: Option<usize>,
}

impl From<UsageDocument> for Usage {
    fn from(document: UsageDocument) -> Self {
        let usage = Self::new(document.prompt_tokens, document.completion_tokens);
        match document.prompt_tokens_details.and_then(|details| details.cached_tokens) {
            Some(cached) => usage.with_cached(cached),
            None => usage,
        }
    }
}

/// Why a choice has ended. A reason that nobody knows is an end like any other.
fn reason(text: &str) -> FinishReason {
    match text {
        "length" => FinishReason::Length,
        "tool_calls" | "function_call" => FinishReason::ToolCalls,
        "content_filter" => FinishReason::ContentFilter,
        _ => FinishReason::Stop,
    }
}

/// The document of an event; `None` where it says that the stream is over.
fn of_event(event: &Event) -> Option<&[u8]> {
    (event.data.trim() != DONE).then_some(event.data.as_bytes())
}

/// Refuses a document that is an error, whatever status it came with.
fn refuse_error(text: &[u8]) -> Result<(), Fault> {
    let document: Value = document(text)?;
    let error = &document["error"];
    if error.is_null() && document["error_code"].is_null() && document["object"] != "error" {
        return Ok(());
    }
    let status = error_status(error).or_else(|| error_status(&document));
    let message = error_message(&document).unwrap_or_else(|| "an error without a message".to_owned());
    Err(Fault::Told { status, message })
}

/// The usage in a document, which may stand in every one: the last is the whole.
fn note_usage(choices: &mut Choices, usage: Option<UsageDocument>) {
    if let Some(usage) = usage {
        choices.usage = usage.into();
    }
}
