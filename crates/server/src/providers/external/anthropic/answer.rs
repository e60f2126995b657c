//! What Anthropic's Messages API answers, whole and streamed.

use serde::Deserialize;
use serde_json::Value;

use crate::providers::external::event::Event;
use crate::providers::external::protocol::{AnswerReader, Choices, Fault, document, error_message, error_status};
use crate::providers::{AnswerEvent, CallDelta, Delta};
use crate::wire::options::{FinishReason, Usage};

/// An answer, or an error; and an event of a stream.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Document {
    Message {
        content: Vec<Block>,
        stop_reason: Option<String>,
        usage: UsageDocument,
    },
    MessageStart {
        message: MessageHead,
    },
    ContentBlockStart {
        index: usize,
        content_block: Block,
    },
    ContentBlockDelta {
        index: usize,
        delta: BlockDelta,
    },
    ContentBlockStop {
        index: usize,
    },
    MessageDelta {
        delta: MessageChange,
        usage: Option<UsageDocument>,
    },
    MessageStop,
    Error {
        error: Value,
    },
    /// `ping`, and what is invented later.
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct MessageHead {
    usage: UsageDocument,
}

#[derive(Deserialize)]
struct MessageChange {
    stop_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Text {
        text: String,
    },
    ToolUse {
        id: String,
        name: String,
        #[serde(default)]
        input: Value,
    },
    /// Thoughts, and what is invented later.
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum BlockDelta {
    TextDelta {
        text: String,
    },
    InputJsonDelta {
        partial_json: String,
    },
    #[serde(other)]
    Other,
}

/// Tokens so far; what is not said has not changed.
#[derive(Default, Deserialize)]
struct UsageDocument {
    input_tokens: Option<usize>,
    cache_creation_input_tokens: Option<usize>,
    cache_read_input_tokens: Option<usize>,
    output_tokens: Option<usize>,
}

impl UsageDocument {
    fn update(&mut self, newer: Self) {
        self.input_tokens = newer.input_tokens.or(self.input_tokens);
        self.cache_creation_input_tokens = newer.cache_creation_input_tokens.or(self.cache_creation_input_tokens);
        self.cache_read_input_tokens = newer.cache_read_input_tokens.or(self.cache_read_input_tokens);
        self.output_tokens = newer.output_tokens.or(self.output_tokens);
    }

    /// What was read from the cache or put there was read all the same.
    fn usage(&self) -> Usage {
        let cached = self.cache_read_input_tokens;
        let read = [self.input_tokens, self.cache_creation_input_tokens, cached];
        let usage = Usage::new(read.into_iter().flatten().sum(), self.output_tokens.unwrap_or(0));
        cached.map_or(usage, |cached| usage.with_cached(cached))
    }
}

/// Reads one answer.
pub(super) struct MessageReader {
    choices: Choices,
    usage: UsageDocument,
    /// The calls so far: of which block each is, and whether it has arguments.
    calls: Vec<(usize, bool)>,
}

impl Default for MessageReader {
    fn default() -> Self {
        Self { choices: Choices::new(1), usage: UsageDocument::default(), calls: Vec::new() }
    }
}

impl MessageReader {
    fn read(&mut self, text: &[u8]) -> Result<Vec<AnswerEvent>, Fault> {
        let deltas = match document(text)? {
            Document::Message { content, stop_reason, usage } => return self.message(content, stop_reason, usage),
            Document::Error { error } => {
                let message = error_message(&error).unwrap_or_else(|| "an error without a message".to_owned());
                return Err(Fault::Told { status: error_status(&error), message });
            }
            Document::MessageStart { message } => {
                self.usage.update(message.usage);
                None
            }
            Document::ContentBlockStart { index, content_block } => self.begin(index, content_block),
            Document::ContentBlockDelta { index, delta } => self.more(index, delta)?,
            Document::ContentBlockStop { index } => self.stop(index),
            Document::MessageDelta { delta, usage } => {
                self.usage.update(usage.unwrap_or_default());
                if let Some(stop) = delta.stop_reason {
                    self.choices.finish(0, reason(&stop))?;
                }
                None
            }
            Document::MessageStop => return self.end(),
            Document::Other => None,
        };
        Ok(deltas.into_iter().map(|delta| AnswerEvent::Delta { index: 0, delta }).collect())
    }

    /// A whole answer.
    fn message(
        &mut self,
        content: Vec<Block>,
        stop_reason: Option<String>,
        usage: UsageDocument,
    ) -> Result<Vec<AnswerEvent>, Fault> {
        self.usage.update(usage);
        let mut whole = Delta::default();
        for (index, block) in content.into_iter().enumerate() {
            let begun = self.begin(index, block);
            for delta in begun.into_iter().chain(self.stop(index)) {
                whole.text.push_str(&delta.text);
                for call in delta.calls {
                    match whole.calls.iter_mut().find(|known| known.index == call.index) {
                        Some(known) => known.arguments.push_str(&call.arguments),
                        None => whole.calls.push(call),
                    }
                }
            }
        }
        self.choices.finish(0, reason(stop_reason.as_deref().unwrap_or_default()))?;
        let delta = (!whole.is_empty()).then_some(AnswerEvent::Delta { index: 0, delta: whole });
        Ok(delta.into_iter().chain(self.end()?).collect())
    }

    fn begin(&mut self, block: usize, content: Block) -> Option<Delta> {
        match content {
            Block::Text { text } => text_delta(text),
            Block::ToolUse { id, name, input } => {
                let arguments = match &input {
                    Value::Object(fields) if !fields.is_empty() => input.to_string(),
                    _ => String::new(),
                };
                self.calls.push((block, !arguments.is_empty()));
                Some(call_delta(CallDelta { index: self.calls.len() - 1, begun: Some((id, name)), arguments }))
            }
            Block::Other => None,
        }
    }

    fn more(&mut self, block: usize, delta: BlockDelta) -> Result<Option<Delta>, Fault> {
        match delta {
            BlockDelta::TextDelta { text } => Ok(text_delta(text)),
            BlockDelta::InputJsonDelta { partial_json } => {
                // Tools of the provider's own have arguments too, and are nobody's calls.
                let Some(index) = self.call(block) else { return Ok(None) };
                if partial_json.is_empty() {
                    return Ok(None);
                }
                self.calls[index].1 = true;
                Ok(Some(call_delta(CallDelta { index, begun: None, arguments: partial_json })))
            }
            BlockDelta::Other => Ok(None),
        }
    }

    /// A call without arguments has an empty object of them.
    fn stop(&mut self, block: usize) -> Option<Delta> {
        let index = self.call(block)?;
        let has_arguments = std::mem::replace(&mut self.calls[index].1, true);
        (!has_arguments).then(|| call_delta(CallDelta { index, begun: None, arguments: "{}".to_owned() }))
    }

    fn call(&self, block: usize) -> Option<usize> {
        self.calls.iter().position(|(of, _)| *of == block)
    }
}

impl AnswerReader for MessageReader {
    fn whole(&mut self, body: &[u8]) -> Result<Vec<AnswerEvent>, Fault> {
        let events = self.read(body)?;
        if self.is_over() { Ok(events) } else { Err(Fault::Malformed("JSON that is no message".to_owned())) }
    }

    fn event(&mut self, event: Event) -> Result<Vec<AnswerEvent>, Fault> {
        self.read(event.data.as_bytes())
    }

    fn end(&mut self) -> Result<Vec<AnswerEvent>, Fault> {
        self.choices.usage = self.usage.usage();
        self.choices.end()
    }

    fn is_over(&self) -> bool {
        self.choices.are_over()
    }
}

fn text_delta(text: String) -> Option<Delta> {
    (!text.is_empty()).then(|| Delta { text, ..Delta::default() })
}

fn call_delta(call: CallDelta) -> Delta {
    Delta { calls: vec![call], ..Delta::default() }
}

/// Why the answer has ended. A reason that nobody knows is an end like any other.
fn reason(text: &str) -> FinishReason {
    match text {
        "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
        "tool_use" => FinishReason::ToolCalls,
        "refusal" => FinishReason::ContentFilter,
        _ => FinishReason::Stop,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(events: &[Value]) -> Result<Vec<AnswerEvent>, Fault> {
        let mut reader = MessageReader::default();
        let mut read = Vec::new();
        for event in events {
            read.extend(reader.event(Event { data: event.to_string(), ..Event::default() })?);
        }
        assert!(reader.is_over());
        Ok(read)
    }

    #[test]
    fn calls_are_counted_and_other_blocks_are_not() {
        let start =
            |index: usize, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
        let piece = |index: usize, json: &str| {
            let delta = json!({"type": "input_json_delta", "partial_json": json});
            json!({"type": "content_block_delta", "index": index, "delta": delta})
        };
        let stop = |index: usize| json!({"type": "content_block_stop", "index": index});
        let tool = |id: &str, input: Value| json!({"type": "tool_use", "id": id, "name": "f", "input": input});
        let usage = json!({"input_tokens": 1, "cache_read_input_tokens": null, "output_tokens": 1});
        let events = read(&[
            json!({"type": "message_start", "message": {"usage": usage}}),
            start(0, json!({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}})),
            piece(0, "{\"query\": 1}"),
            stop(0),
            start(1, tool("a", json!({}))),
            piece(1, ""),
            stop(1),
            start(2, tool("b", json!({"x": 1}))),
            stop(2),
            json!({"type": "something_new"}),
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"input_tokens": 7, "output_tokens": 9}}),
            json!({"type": "message_stop"}),
        ])
        .unwrap();
        let begun = |id: &str| Some((id.to_owned(), "f".to_owned()));
        let event = |call| AnswerEvent::Delta { index: 0, delta: call_delta(call) };
        let expected = [
            event(CallDelta { index: 0, begun: begun("a"), arguments: String::new() }),
            event(CallDelta { index: 0, begun: None, arguments: "{}".into() }),
            event(CallDelta { index: 1, begun: begun("b"), arguments: "{\"x\":1}".into() }),
            AnswerEvent::Finished { index: 0, reason: FinishReason::ToolCalls, usage: Usage::new(7, 9) },
        ];
        assert_eq!(events, expected);
    }

    #[test]
    fn errors_have_the_status_of_their_type_and_other_documents_are_no_answer() {
        let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "m"}});
        let told = Err(Fault::Told { status: Some(529), message: "m".to_owned() });
        assert_eq!(read(std::slice::from_ref(&error)), told);
        assert_eq!(MessageReader::default().whole(error.to_string().as_bytes()), told);
        for broken in ["", "{}", "{\"type\": \"ping\"}", "{\"type\": \"message\", \"content\": []}"] {
            assert!(matches!(MessageReader::default().whole(broken.as_bytes()), Err(Fault::Malformed(_))), "{broken}");
        }
        let mut cut = MessageReader::default();
        assert!(cut.end().is_err(), "nothing has said why it ends");
    }

    #[test]
    fn reasons_are_few_words_in_the_end() {
        for (text, expected) in [
            ("end_turn", FinishReason::Stop),
            ("stop_sequence", FinishReason::Stop),
            ("pause_turn", FinishReason::Stop),
            ("max_tokens", FinishReason::Length),
            ("model_context_window_exceeded", FinishReason::Length),
            ("tool_use", FinishReason::ToolCalls),
            ("refusal", FinishReason::ContentFilter),
        ] {
            assert_eq!(reason(text), expected, "{text}");
        }
    }
}
