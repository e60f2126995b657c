//! Completions in OpenAI's dialect, whole and streamed.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::logprobs::CompletionLogprobs;
use super::{UsageDocument, note_usage, of_event, reason, refuse_error};
use crate::providers::external::event::Event;
use crate::providers::external::protocol::{AnswerReader, Choices, Fault, document};
use crate::providers::{AnswerEvent, Delta};
use crate::wire::options::FinishReason;

#[derive(Deserialize)]
struct CompletionDocument {
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
    #[serde(default)]
    text: Option<String>,
    finish_reason: Option<String>,
    logprobs: Option<CompletionLogprobs>,
}

/// Reads completions.
pub(in crate::providers::external) struct CompletionReader {
    choices: Choices,
}

impl CompletionReader {
    /// Of an answer with so many choices.
    pub(in crate::providers::external) fn new(choices: usize) -> Self {
        Self { choices: Choices::new(choices) }
    }

    fn read(&mut self, text: &[u8], whole: bool) -> Result<Vec<AnswerEvent>, Fault> {
        let document: CompletionDocument = document(text)?;
        if document.error.is_some() || document.error_code.is_some() || document.choices.is_empty() {
            refuse_error(text)?;
        }
        note_usage(&mut self.choices, document.usage);
        let mut events = Vec::new();
        for choice in document.choices {
            let index = self.choices.check(choice.index)?;
            let tokens = choice.logprobs.map(CompletionLogprobs::tokens).unwrap_or_default();
            let delta = Delta { text: choice.text.unwrap_or_default(), tokens, ..Delta::default() };
            if !delta.is_empty() {
                events.push(AnswerEvent::Delta { index, delta });
            }
            match choice.finish_reason.as_deref() {
                Some(text) => self.choices.finish(index, reason(text))?,
                None if whole => self.choices.finish(index, FinishReason::Stop)?,
                None => {}
            }
        }
        Ok(events)
    }
}

impl AnswerReader for CompletionReader {
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
