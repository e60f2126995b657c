//! What a provider's file has to say: how a call becomes a request of its API, and how that API's answer is read.

use std::fmt;

use hyper::Uri;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::entra::Entra;
use super::event::Event;
use super::{BaseUrlError, ExternalSettings, key};
use crate::providers::{AnswerEvent, ChatCall, CompletionCall, EmbeddingCall, Embeddings, ProviderError};
use crate::wire::options::{FinishReason, Usage};

/// How an API is spoken to.
pub(super) trait Protocol: fmt::Debug + Send + Sync {
    /// Where its requests have their credential.
    fn key_place(&self) -> key::Place {
        key::Place::Bearer
    }

    /// Whose token is sent in the place of the credential, which is what that token is asked for with.
    fn entra(&self) -> Option<&Entra> {
        None
    }

    /// Whether one request gives several answers; without, each answer is a request.
    fn gives_choices(&self) -> bool {
        true
    }

    /// The request for an answer of a conversation.
    fn chat(&self, call: &ChatCall, target: Target<'_>) -> Result<Outgoing, ProviderError>;

    /// What reads the answer.
    fn chat_reader(&self, choices: usize) -> Box<dyn AnswerReader>;

    /// The request for continuations of texts.
    fn complete(&self, _call: &CompletionCall, target: Target<'_>) -> Result<Outgoing, ProviderError> {
        Err(target.wrong_task("complete texts"))
    }

    /// What reads them.
    fn completion_reader(&self, choices: usize) -> Box<dyn AnswerReader> {
        self.chat_reader(choices)
    }

    /// The requests for vectors, whose answers together are those of the call.
    fn embed(&self, _call: &EmbeddingCall, target: Target<'_>) -> Result<Vec<Outgoing>, ProviderError> {
        Err(target.wrong_task("embed texts"))
    }

    /// Reads the answer to one of them.
    fn embeddings(&self, _body: &[u8]) -> Result<Embeddings, Fault> {
        Err(Fault::Malformed("vectors that nobody asked for".to_owned()))
    }
}

/// Whom a request is for.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    /// The provider's name.
    pub(super) provider: &'static str,
    /// The model's name.
    pub(super) model: &'a str,
    /// What holds for all providers.
    pub(super) settings: &'a ExternalSettings,
}

impl Target<'_> {
    /// The refusal of a field that the provider does not have.
    pub(super) fn refuse(&self, field: &str) -> ProviderError {
        ProviderError::invalid(field, format!("`{field}` is not supported by models of {}", self.provider))
    }

    /// The refusal of a call that the provider does not take.
    pub(super) fn wrong_task(&self, what: &str) -> ProviderError {
        ProviderError::WrongTask(format!("models of {} do not {what}", self.provider))
    }
}

/// A request of an API, but for its credential.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub(super) uri: Uri,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
}

impl Outgoing {
    /// A request, whose body is JSON unless a header says otherwise.
    ///
    /// # Errors
    /// Where there is no such address.
    pub(super) fn new(uri: Result<Uri, BaseUrlError>, body: impl Into<Bytes>) -> Result<Self, ProviderError> {
        let uri = uri.map_err(|error| ProviderError::Failed(format!("the address of a provider: {error}")))?;
        Ok(Self { uri, headers: Vec::new(), body: body.into() })
    }

    /// The same request with a header.
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// Reads one answer of an API, of one or several choices: either whole, or event by event.
pub(super) trait AnswerReader: Send {
    /// The events of an answer that comes in one piece.
    fn whole(&mut self, body: &[u8]) -> Result<Vec<AnswerEvent>, Fault>;

    /// What an event of the stream says.
    fn event(&mut self, event: Event) -> Result<Vec<AnswerEvent>, Fault>;

    /// What the end of the stream says, where no event has said that it is over.
    fn end(&mut self) -> Result<Vec<AnswerEvent>, Fault>;

    /// Whether the answer is complete, so that nothing that follows is of interest.
    fn is_over(&self) -> bool;
}

/// Why there is no answer, as far as it shows in what the API says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nobody understands it. The text does not repeat it.
    Malformed(String),
    /// The API says that it failed.
    Told {
        /// With this status, if it says so.
        status: Option<u16>,
        /// In these words.
        message: String,
    },
}

/// Reads a JSON document of an API.
///
/// # Errors
/// Where it is none, or of another shape. The message does not repeat it.
pub(super) fn document<T: DeserializeOwned>(text: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(text).map_err(|error| {
        let (what, line, column) = match error.classify() {
            serde_json::error::Category::Data => ("JSON of another shape", error.line(), error.column()),
            _ => ("no JSON", error.line(), error.column()),
        };
        Fault::Malformed(format!("{what} (line {line}, column {column})"))
    })
}

/// The choices of an answer: which have ended, and what all of them used.
#[derive(Debug)]
pub(super) struct Choices {
    reasons: Vec<Option<FinishReason>>,
    /// What was used.
    pub(super) usage: Usage,
    over: bool,
}

impl Choices {
    pub(super) fn new(choices: usize) -> Self {
        Self { reasons: vec![None; choices], usage: Usage::default(), over: false }
    }

    /// The choice `index`, if there is one.
    ///
    /// # Errors
    /// Where nobody asked for it.
    pub(super) fn check(&self, index: usize) -> Result<usize, Fault> {
        let bad = || Fault::Malformed(format!("choice {index}, where {} were asked for", self.reasons.len()));
        self.reasons.get(index).map(|_| index).ok_or_else(bad)
    }

    /// The choice has ended. What that means for the caller comes with [`end`](Self::end), since usage may follow.
    pub(super) fn finish(&mut self, index: usize, reason: FinishReason) -> Result<(), Fault> {
        let index = self.check(index)?;
        self.reasons[index] = Some(reason);
        Ok(())
    }

    /// The ends of all choices.
    ///
    /// # Errors
    /// Where one has not ended.
    pub(super) fn end(&mut self) -> Result<Vec<AnswerEvent>, Fault> {
        if self.over {
            return Ok(Vec::new());
        }
        let usage = self.usage;
        let ends = self.reasons.iter().enumerate();
        let ends = ends.map(|(index, reason)| reason.map(|reason| AnswerEvent::Finished { index, reason, usage }));
        let ends = ends.collect::<Option<Vec<_>>>();
        self.over = true;
        ends.ok_or_else(|| Fault::Malformed("the answer ended before it was complete".to_owned()))
    }

    /// Whether [`end`](Self::end) was called.
    pub(super) fn are_over(&self) -> bool {
        self.over
    }
}

/// The message in the body of an error, in any of the shapes that APIs give it.
pub(super) fn error_message(body: &Value) -> Option<String> {
    // A list with one error is Google's.
    let body = body.get(0).unwrap_or(body);
    let places = [&body["error"]["message"], &body["error"], &body["message"], &body["detail"]];
    let said = places.into_iter().find_map(|place| place.as_str().filter(|text| !text.is_empty()));
    said.map(str::to_owned).or_else(|| body["detail"].is_array().then(|| body["detail"].to_string()))
}

/// The status of an error that comes without one, inside a stream: by its number or its type.
pub(super) fn error_status(error: &Value) -> Option<u16> {
    let number = [&error["status"], &error["code"], &error["status_code"]].into_iter().find_map(|place| {
        let number = place.as_u64().or_else(|| place.as_str().and_then(|text| text.parse().ok()));
        number.and_then(|number| u16::try_from(number).ok()).filter(|status| (400..600).contains(status))
    });
    number.or_else(|| match error["type"].as_str()? {
        "invalid_request_error" | "BadRequestError" => Some(400),
        "authentication_error" => Some(401),
        "billing_error" => Some(402),
        "permission_error" => Some(403),
        "not_found_error" => Some(404),
        "request_too_large" => Some(413),
        "rate_limit_error" | "rate_limit_exceeded" => Some(429),
        "timeout_error" => Some(504),
        "overloaded_error" => Some(529),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_of_errors_are_found_in_every_shape() {
        for (body, message) in [
            (json!({"error": {"message": "a", "type": "t"}}), Some("a")),
            (json!({"error_code": "X", "message": "b"}), Some("b")),
            (json!({"type": "error", "error": {"type": "t", "message": "c"}}), Some("c")),
            (json!({"error": "d"}), Some("d")),
            (json!({"detail": "e"}), Some("e")),
            (json!([{"error": {"message": "f"}}]), Some("f")),
            (json!({"detail": [{"msg": "g"}]}), Some("[{\"msg\":\"g\"}]")),
            (json!({"error": {"code": 5}}), None),
            (json!("text"), None),
        ] {
            assert_eq!(error_message(&body).as_deref(), message, "{body}");
        }
    }

    #[test]
    fn the_status_of_an_error_in_a_stream_is_its_number_or_its_type() {
        for (error, status) in [
            (json!({"code": 429}), Some(429)),
            (json!({"code": "503"}), Some(503)),
            (json!({"code": "rate_limit_exceeded", "type": "overloaded_error"}), Some(529)),
            (json!({"code": 7, "type": "invalid_request_error"}), Some(400)),
            (json!({"type": "new_error"}), None),
        ] {
            assert_eq!(error_status(&error), status, "{error}");
        }
    }

    #[test]
    fn an_answer_ends_when_all_its_choices_have() {
        let mut choices = Choices::new(2);
        choices.finish(1, FinishReason::Stop).unwrap();
        assert!(choices.finish(2, FinishReason::Stop).is_err());
        choices.finish(0, FinishReason::Length).unwrap();
        choices.usage = Usage::new(3, 4);
        let ends = choices.end().unwrap();
        let first = AnswerEvent::Finished { index: 0, reason: FinishReason::Length, usage: Usage::new(3, 4) };
        assert_eq!((ends.len(), &ends[0], choices.are_over()), (2, &first, true));
        assert_eq!(choices.end(), Ok(Vec::new()), "they end once");
        assert!(Choices::new(1).end().is_err());
    }
}
