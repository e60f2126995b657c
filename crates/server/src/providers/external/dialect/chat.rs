//! Chat answers in OpenAI's dialect, whole and streamed.

use serde::Deserialize;
use serde::de::IgnoredAny;
use uuid::Uuid;

use super::logprobs::ChatLogprobs;
use super::{UsageDocument, note_usage, of_event, reason, refuse_error};
use crate::providers::external::event::Event;
use crate::providers::external::protocol::{AnswerReader, Choices, Fault, document};
use crate::providers::{AnswerEvent, CallDelta, Delta};
use crate::wire::options::FinishReason;

/// An answer, or a piece of one.
#[derive(Deserialize)]
struct ChatDocument {
    #[serde(default)]
    choices: Vec<ChoiceDocument>,
    usage: Option<UsageDocument>,
    error: Option<IgnoredAny>,
    error_code: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct ChoiceDocument {
    #[serde(default)]
    index: usize,
    #[serde(alias = "delta")]
    message: Option<MessageDocument>,
    finish_reason: Option<String>,
    logprobs: Option<ChatLogprobs>,
}

#[derive(Default, Deserialize)]
struct MessageDocument {
    content: Option<Content>,
    /// What is said instead of a content.
    refusal: Option<String>,
    tool_calls: Option<Vec<CallDocument>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    /// Models that think have several, of which only texts are the answer.
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

#[derive(Deserialize)]
struct CallDocument {
    /// Missing where the call is whole.
    index: Option<usize>,
    id: Option<String>,
    function: Option<FunctionDocument>,
}

#[derive(Deserialize)]
struct FunctionDocument {
    name: Option<String>,
    arguments: Option<String>,
}

impl MessageDocument {
    fn text(&mut self) -> String {
        let content = match self.content.take() {
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => {
                parts.into_iter().filter(|part| part.kind == "text").filter_map(|part| part.text).collect()
            }
            None => String::new(),
        };
        content + &self.refusal.take().unwrap_or_default()
    }
}

/// Reads chat answers.
pub(in crate::providers::external) struct ChatReader {
    choices: Choices,
    /// Of each choice.
    calls: Vec<Calls>,
}

impl ChatReader {
    /// Of an answer with so many choices.
    pub(in crate::providers::external) fn new(choices: usize) -> Self {
        let mut calls = Vec::new();
        calls.resize_with(choices, Calls::default);
        Self { choices: Choices::new(choices), calls }
    }

    fn read(&mut self, text: &[u8], whole: bool) -> Result<Vec<AnswerEvent>, Fault> {
        let document: ChatDocument = document(text)?;
        if document.error.is_some() || document.error_code.is_some() || document.choices.is_empty() {
            refuse_error(text)?;
        }
        note_usage(&mut self.choices, document.usage);
        let mut events = Vec::new();
        for choice in document.choices {
            let index = self.choices.check(choice.index)?;
            let mut message = choice.message.unwrap_or_default();
            let text = message.text();
            let calls = self.calls[index].read(message.tool_calls.unwrap_or_default())?;
            let tokens = choice.logprobs.map(ChatLogprobs::tokens).unwrap_or_default();
            let delta = Delta { text, tokens, calls };
            if !delta.is_empty() {
                events.push(AnswerEvent::Delta { index, delta });
            }
            match choice.finish_reason.as_deref() {
                Some(text) => self.choices.finish(index, self.calls[index].reason(reason(text)))?,
                None if whole => self.choices.finish(index, self.calls[index].reason(FinishReason::Stop))?,
                None => {}
            }
        }
        Ok(events)
    }
}

impl AnswerReader for ChatReader {
    fn whole(&mut self, body: &[u8]) -> Result<Vec<AnswerEvent>, Fault> {
        let mut events = self.read(body, true)?;
        events.extend(self.choices.end()?);
        Ok(events)
    }

    fn event(&mut self, event: Event) -> Result<Vec<AnswerEvent>, Fault> {
        match of_event(&event) {
            Some(text) => self.read(text, false),
            None => self.choices.end(),
        }
    }

    fn end(&mut self) -> Result<Vec<AnswerEvent>, Fault> {
        self.choices.end()
    }

    fn is_over(&self) -> bool {
        self.choices.are_over()
    }
}

/// The calls of one choice so far: the API's number and id of each.
#[derive(Default)]
struct Calls(Vec<(Option<usize>, String)>);

impl Calls {
    /// At most one piece of each call.
    fn read(&mut self, pieces: Vec<CallDocument>) -> Result<Vec<CallDelta>, Fault> {
        let mut deltas: Vec<CallDelta> = Vec::new();
        for piece in pieces {
            let CallDocument { index: number, id, function } = piece;
            let (name, arguments) = function.map_or((None, None), |function| (function.name, function.arguments));
            let arguments = arguments.unwrap_or_default();
            let known = self.find(number, id.as_deref());
            let (index, begun) = match (known, name) {
                (Some(index), _) => (index, None),
                (None, Some(name)) => {
                    let id =
                        id.filter(|id| !id.is_empty()).unwrap_or_else(|| format!("call_{}", Uuid::new_v4().simple()));
                    self.0.push((number, id.clone()));
                    (self.0.len() - 1, Some((id, name)))
                }
                (None, None) => return Err(Fault::Malformed("a piece of a call that has not begun".to_owned())),
            };
            match deltas.iter_mut().find(|delta| delta.index == index) {
                Some(delta) => delta.arguments.push_str(&arguments),
                None => deltas.push(CallDelta { index, begun, arguments }),
            }
        }
        Ok(deltas)
    }

    /// The call that a piece belongs to: by its number, else by its id, else the last one.
    fn find(&self, number: Option<usize>, id: Option<&str>) -> Option<usize> {
        match (number, id) {
            (Some(number), _) => self.0.iter().position(|(of, _)| *of == Some(number)),
            (None, Some(id)) => self.0.iter().position(|(_, of)| of == id),
            (None, None) => self.0.len().checked_sub(1),
        }
    }

    /// Some servers call it a stop where there are calls.
    fn reason(&self, reason: FinishReason) -> FinishReason {
        match reason {
            FinishReason::Stop if !self.0.is_empty() => FinishReason::ToolCalls,
            other => other,
        }
    }
}
