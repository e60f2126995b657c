//! What Cohere's API answers: conversations, whole and streamed, and vectors.

use serde::Deserialize;
use serde_json::Value;

use crate::providers::external::event::Event;
use crate::providers::external::protocol::{AnswerReader, Choices, Fault, document, error_message};
use crate::providers::{AnswerEvent, CallDelta, Delta, Embeddings};
use crate::wire::options::{FinishReason, Usage};

/// An answer.
#[derive(Deserialize)]
struct ChatDocument {
    finish_reason: String,
    message: Message,
    usage: Option<UsageDocument>,
}

/// A message, or a piece of one, whose lists have one item then.
#[derive(Default, Deserialize)]
struct Message {
    content: Option<OneOrMany<Content>>,
    tool_plan: Option<String>,
    tool_calls: Option<OneOrMany<Call>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
}

impl<T> OneOrMany<T> {
    fn all(all: Option<Self>) -> Vec<T> {
        match all {
            None => Vec::new(),
            Some(Self::One(one)) => vec![one],
            Some(Self::Many(many)) => many,
        }
    }
}

/// Text; what is thought has none.
#[derive(Deserialize)]
struct Content {
    text: Option<String>,
}

#[derive(Deserialize)]
struct Call {
    id: Option<String>,
    function: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct UsageDocument {
    tokens: Option<Tokens>,
    billed_units: Option<Tokens>,
    cached_tokens: Option<f64>,
}

/// Whole numbers, written as others.
#[derive(Clone, Copy, Default, Deserialize)]
struct Tokens {
    input_tokens: Option<f64>,
    output_tokens: Option<f64>,
}

impl From<UsageDocument> for Usage {
    fn from(document: UsageDocument) -> Self {
        let tokens = document.tokens.or(document.billed_units).unwrap_or_default();
        // Saturates, and takes what is no number for 0.
        let whole = |tokens: Option<f64>| tokens.unwrap_or(0.0).round() as usize;
        let usage = Self::new(whole(tokens.input_tokens), whole(tokens.output_tokens));
        document.cached_tokens.map_or(usage, |cached| usage.with_cached(whole(Some(cached))))
    }
}

/// An event of a stream.
#[derive(Deserialize)]
struct EventDocument {
    #[serde(rename = "type")]
    kind: String,
    /// Which call a piece belongs to.
    index: Option<usize>,
    delta: Option<EventDelta>,
}

#[derive(Default, Deserialize)]
struct EventDelta {
    message: Option<Message>,
    finish_reason: Option<String>,
    usage: Option<UsageDocument>,
    error: Option<String>,
}

/// Reads one answer.
pub(super) struct ChatReader {
    choices: Choices,
    /// The API's number of each call so far, and whether it has arguments.
    calls: Vec<(Option<usize>, bool)>,
}

impl Default for ChatReader {
    fn default() -> Self {
        Self { choices: Choices::new(1), calls: Vec::new() }
    }
}

impl ChatReader {
    fn read(&mut self, event: EventDocument) -> Result<Vec<AnswerEvent>, Fault> {
        let EventDocument { kind, index, delta } = event;
        let delta = delta.unwrap_or_default();
        let message = delta.message.unwrap_or_default();
        let delta = match kind.as_str() {
            "content-start" | "content-delta" => Delta { text: text(message.content), ..Delta::default() },
            "tool-plan-delta" => Delta { text: message.tool_plan.unwrap_or_default(), ..Delta::default() },
            "tool-call-start" | "tool-call-delta" => {
                let calls = OneOrMany::all(message.tool_calls).into_iter().map(|call| self.call(index, call));
                Delta { calls: calls.collect::<Result<_, _>>()?, ..Delta::default() }
            }
            "tool-call-end" => Delta { calls: self.arguments_end(index), ..Delta::default() },
            "message-end" => {
                let reason = delta.finish_reason.unwrap_or_default();
                self.choices.finish(0, self::reason(&reason, delta.error)?)?;
                self.choices.usage = delta.usage.unwrap_or_default().into();
                return self.choices.end();
            }
            // Citations, and what is invented later.
            _ => return Ok(Vec::new()),
        };
        Ok(if delta.is_empty() { Vec::new() } else { vec![AnswerEvent::Delta { index: 0, delta }] })
    }

    /// A piece of a call: the first has its name.
    fn call(&mut self, number: Option<usize>, call: Call) -> Result<CallDelta, Fault> {
        let function = call.function.unwrap_or(Function { name: None, arguments: None });
        let arguments = function.arguments.unwrap_or_default();
        let index = match (call.id, function.name) {
            (Some(id), Some(name)) => {
                self.calls.push((number, !arguments.is_empty()));
                return Ok(CallDelta { index: self.calls.len() - 1, begun: Some((id, name)), arguments });
            }
            _ => self.calls.iter().position(|(of, _)| *of == number),
        };
        let index = index.ok_or_else(|| Fault::Malformed("a piece of a call that has not begun".to_owned()))?;
        self.calls[index].1 |= !arguments.is_empty();
        Ok(CallDelta { index, begun: None, arguments })
    }

    /// A call without arguments has an empty object of them.
    fn arguments_end(&mut self, number: Option<usize>) -> Vec<CallDelta> {
        let Some(index) = self.calls.iter().position(|(of, _)| *of == number) else { return Vec::new() };
        let has_arguments = std::mem::replace(&mut self.calls[index].1, true);
        let empty = CallDelta { index, begun: None, arguments: "{}".to_owned() };
        if has_arguments { Vec::new() } else { vec![empty] }
    }
}

impl AnswerReader for ChatReader {
    fn whole(&mut self, body: &[u8]) -> Result<Vec<AnswerEvent>, Fault> {
        let document: ChatDocument = document(body).map_err(|fault| told(body).unwrap_or(fault))?;
        let ChatDocument { finish_reason, message, usage } = document;
        let mut delta =
            Delta { text: message.tool_plan.unwrap_or_default() + &text(message.content), ..Delta::default() };
        for (number, call) in OneOrMany::all(message.tool_calls).into_iter().enumerate() {
            let mut call = self.call(Some(number), call)?;
            call.arguments.extend(self.arguments_end(Some(number)).into_iter().map(|end| end.arguments));
            delta.calls.push(call);
        }
        self.choices.finish(0, reason(&finish_reason, None)?)?;
        self.choices.usage = usage.unwrap_or_default().into();
        let delta = (!delta.is_empty()).then_some(AnswerEvent::Delta { index: 0, delta });
        Ok(delta.into_iter().chain(self.choices.end()?).collect())
    }

    fn event(&mut self, event: Event) -> Result<Vec<AnswerEvent>, Fault> {
        let body = event.data.as_bytes();
        if event.data.trim() == "[DONE]" {
            return self.choices.end();
        }
        let event = document(body).map_err(|fault| told(body).unwrap_or(fault))?;
        self.read(event)
    }

    fn end(&mut self) -> Result<Vec<AnswerEvent>, Fault> {
        self.choices.end()
    }

    fn is_over(&self) -> bool {
        self.choices.are_over()
    }
}

/// The error that a document is.
fn told(body: &[u8]) -> Option<Fault> {
    let body: Value = serde_json::from_slice(body).ok()?;
    error_message(&body).map(|message| Fault::Told { status: None, message })
}

fn text(content: Option<OneOrMany<Content>>) -> String {
    OneOrMany::all(content).into_iter().filter_map(|content| content.text).collect()
}

/// Why the answer has ended. A reason that nobody knows is an end like any other.
fn reason(text: &str, error: Option<String>) -> Result<FinishReason, Fault> {
    let failed = |status| {
        let message = error.unwrap_or_else(|| format!("the answer ended with {text}"));
        Err(Fault::Told { status: Some(status), message })
    };
    match text {
        "MAX_TOKENS" => Ok(FinishReason::Length),
        "TOOL_CALL" => Ok(FinishReason::ToolCalls),
        "ERROR" => failed(500),
        "TIMEOUT" => failed(504),
        _ => Ok(FinishReason::Stop),
    }
}

/// Vectors.
#[derive(Deserialize)]
struct EmbedDocument {
    embeddings: ByType,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct ByType {
    float: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Meta {
    billed_units: Option<Tokens>,
}

/// Reads vectors.
pub(super) fn embeddings(body: &[u8]) -> Result<Embeddings, Fault> {
    let document: EmbedDocument = document(body).map_err(|fault| told(body).unwrap_or(fault))?;
    let billed_units = document.meta.and_then(|meta| meta.billed_units);
    let usage: Usage = UsageDocument { billed_units, ..UsageDocument::default() }.into();
    Ok(Embeddings { vectors: document.embeddings.float, prompt_tokens: usage.prompt_tokens })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(reader: &mut ChatReader, value: &Value) -> Result<Vec<AnswerEvent>, Fault> {
        reader.event(Event { data: value.to_string(), ..Event::default() })
    }

    #[test]
    fn tokens_are_those_that_were_read_and_else_those_that_are_billed() {
        let usage = |value: Value| Usage::from(serde_json::from_value::<UsageDocument>(value).unwrap());
        let billed = json!({"input_tokens": 3.0, "output_tokens": 4.4});
        let tokens = json!({"input_tokens": 30.0, "output_tokens": 40.0});
        assert_eq!(usage(json!({"billed_units": billed, "tokens": tokens})), Usage::new(30, 40));
        assert_eq!(usage(json!({"billed_units": billed, "cached_tokens": 2.0})), Usage::new(3, 4).with_cached(2));
        assert_eq!(usage(json!({"tokens": {"input_tokens": -1.0}})), Usage::new(0, 0));
    }

    #[test]
    fn an_answer_that_ends_with_an_error_is_one() {
        for (reason, status) in [("ERROR", 500), ("TIMEOUT", 504)] {
            let whole = json!({"finish_reason": reason, "message": {"role": "assistant"}}).to_string();
            let Err(Fault::Told { status: told, .. }) = ChatReader::default().whole(whole.as_bytes()) else { panic!() };
            assert_eq!(told, Some(status));
            let end = json!({"type": "message-end", "delta": {"finish_reason": reason, "error": "m"}});
            let told = Err(Fault::Told { status: Some(status), message: "m".to_owned() });
            assert_eq!(event(&mut ChatReader::default(), &end), told);
        }
        let error = json!({"id": "1", "message": "m"});
        let told = Err(Fault::Told { status: None, message: "m".to_owned() });
        assert_eq!(event(&mut ChatReader::default(), &error), told);
        assert_eq!(ChatReader::default().whole(error.to_string().as_bytes()), told);
        assert!(matches!(ChatReader::default().whole(b"{}"), Err(Fault::Malformed(_))));
        assert!(matches!(embeddings(b"{\"embeddings\": {}}"), Err(Fault::Malformed(_))));
    }

    #[test]
    fn a_piece_of_a_call_that_has_not_begun_is_no_piece() {
        let stray = json!({"type": "tool-call-delta", "index": 0, "delta": {"message": {"tool_calls": {"function": {"arguments": "x"}}}}});
        assert!(matches!(event(&mut ChatReader::default(), &stray), Err(Fault::Malformed(_))));
        let citation =
            json!({"type": "citation-start", "index": 0, "delta": {"message": {"citations": {"text": "x"}}}});
        assert_eq!(event(&mut ChatReader::default(), &citation), Ok(Vec::new()));
    }
}
