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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::wire::options::Usage;

    fn read(reader: &mut ChatReader, document: &Value) -> Result<Vec<AnswerEvent>, Fault> {
        reader.event(Event { data: document.to_string(), ..Event::default() })
    }

    fn chunk(delta: Value, reason: Value) -> Value {
        json!({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
    }

    fn delta(events: Vec<AnswerEvent>) -> Delta {
        match events.into_iter().next() {
            Some(AnswerEvent::Delta { index: 0, delta }) => delta,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn calls_are_told_apart_by_their_numbers_or_their_ids_or_not_at_all() {
        let begun = |id: &str, name: &str| Some((id.to_owned(), name.to_owned()));
        let mut reader = ChatReader::new(1);
        let call = |more: Value| {
            let mut call = json!({"type": "function"});
            call.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            chunk(json!({"tool_calls": [call]}), Value::Null)
        };
        // Numbers that begin anywhere, and an id that is repeated in every piece.
        let first = call(json!({"index": 3, "id": "a", "function": {"name": "f", "arguments": "{"}}));
        assert_eq!(
            delta(read(&mut reader, &first).unwrap()).calls,
            [CallDelta { index: 0, begun: begun("a", "f"), arguments: "{".into() }]
        );
        let more = call(json!({"index": 3, "id": "a", "function": {"name": "f", "arguments": "}"}}));
        let more = delta(read(&mut reader, &more).unwrap());
        assert_eq!(more.calls, [CallDelta { index: 0, begun: None, arguments: "}".into() }]);
        // Whole calls without numbers.
        let whole = call(json!({"id": "b", "function": {"name": "g", "arguments": "{}"}}));
        assert_eq!(
            delta(read(&mut reader, &whole).unwrap()).calls,
            [CallDelta { index: 1, begun: begun("b", "g"), arguments: "{}".into() }]
        );
        // Neither: it gets an id, since a result has to refer to one.
        let nameless = call(json!({"index": 9, "function": {"name": "h"}}));
        let [CallDelta { index: 2, begun: Some((id, _)), .. }] =
            &delta(read(&mut reader, &nameless).unwrap()).calls[..]
        else {
            panic!("it begins")
        };
        assert!(id.starts_with("call_") && id.len() > 20, "{id}");
        let stray = call(json!({"index": 7, "function": {"arguments": "x"}}));
        assert!(matches!(read(&mut reader, &stray), Err(Fault::Malformed(_))));
        // Some servers call the end of an answer with calls a stop.
        read(&mut reader, &chunk(json!({}), json!("stop"))).unwrap();
        let end = AnswerEvent::Finished { index: 0, reason: FinishReason::ToolCalls, usage: Usage::default() };
        assert_eq!(reader.end().unwrap(), [end]);
    }

    #[test]
    fn an_answer_is_its_texts_whatever_else_is_in_it() {
        let parts = json!([{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}, {"type": "text", "text": "a"}]);
        for (message, text) in [
            (json!({"content": parts}), "a"),
            (json!({"content": null, "refusal": "no"}), "no"),
            (json!({"content": "b", "reasoning_content": "hm", "tool_calls": []}), "b"),
        ] {
            let whole = json!({"choices": [{"message": message, "finish_reason": "stop"}]}).to_string();
            assert_eq!(delta(ChatReader::new(1).whole(whole.as_bytes()).unwrap()).text, text);
        }
        let nothing = json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": null}}]}).to_string();
        let events = ChatReader::new(1).whole(nothing.as_bytes()).unwrap();
        assert!(matches!(events[..], [AnswerEvent::Finished { reason: FinishReason::Stop, .. }]), "{events:?}");
    }

    #[test]
    fn log_probabilities_arrive() {
        let token =
            json!({"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -1}]});
        let choice = json!({"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [token], "refusal": null}});
        let tokens = delta(read(&mut ChatReader::new(1), &json!({"choices": [choice]})).unwrap()).tokens;
        assert_eq!(
            (tokens[0].text.as_str(), tokens[0].logprob, tokens[0].top[0].bytes.as_slice()),
            ("a", Some(-0.5), &b"b"[..])
        );
    }

    #[test]
    fn errors_are_errors_in_every_shape() {
        let piece = json!({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}], "error": {"code": 502, "message": "m"}});
        for (document, status) in [
            (json!({"error": {"message": "m", "type": "rate_limit_error"}}), Some(429)),
            (json!({"error": "m"}), None),
            (json!({"error_code": "X", "message": "m"}), None),
            (json!({"object": "error", "message": "m", "code": 400}), Some(400)),
            (piece, Some(502)),
        ] {
            let told = Err(Fault::Told { status, message: "m".to_owned() });
            assert_eq!(read(&mut ChatReader::new(1), &document), told, "{document}");
            assert_eq!(ChatReader::new(1).whole(document.to_string().as_bytes()), told, "{document}");
        }
        let second = json!({"choices": [{"index": 1, "delta": {"content": "a"}}]});
        assert!(matches!(read(&mut ChatReader::new(1), &second), Err(Fault::Malformed(_))), "nobody asked for it");
        for broken in ["", "[1]", "{\"choices\": 1}", "{}"] {
            assert!(matches!(ChatReader::new(1).whole(broken.as_bytes()), Err(Fault::Malformed(_))), "{broken}");
        }
    }
}
