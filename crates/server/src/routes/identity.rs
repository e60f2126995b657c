//! What every piece of one answer has in common.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use uuid::Uuid;

use crate::endpoints::ServedEntity;
use crate::policy::ServedBy;
use crate::wire::answer::AnswerObject;
use crate::wire::options::{FinishReason, Usage};

/// The header that says which entity answered.
pub(super) const SERVED_MODEL_NAME: HeaderName = HeaderName::from_static("served-model-name");

/// The header that says which entities were asked before that one and have failed: `NAME=STATUS, ...`.
pub(super) const PASSED_OVER: HeaderName = HeaderName::from_static("hearth-passed-over");

/// How finish reasons are spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// `finish_reason`.
    Snake,
    /// `finish_reason`, and `finishReason` for the Databricks client, which reads no other.
    SnakeAndCamel,
}

/// Id, time and model of an answer.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) id: String,
    created: u64,
    pub(super) model: String,
    spelling: Spelling,
}

impl Identity {
    /// A new answer of endpoint `model`; `prefix` tells the kind of answer by its id.
    pub(super) fn new(prefix: &str, model: &str, spelling: Spelling) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id = format!("{prefix}-{}", Uuid::new_v4().simple());
        Self { id, created: now.as_secs(), model: model.to_owned(), spelling }
    }

    /// The answer, or a piece of it, with those choices.
    pub(super) fn wrap<Choice>(
        &self,
        object: &'static str,
        choices: Vec<Choice>,
        usage: Option<Option<Usage>>,
    ) -> AnswerObject<'_, Choice> {
        AnswerObject { id: &self.id, object, created: self.created, model: &self.model, choices, usage }
    }

    /// The second spelling of a finish reason, where there is one.
    pub(super) fn camel(&self, reason: FinishReason) -> Option<FinishReason> {
        (self.spelling == Spelling::SnakeAndCamel).then_some(reason)
    }
}

/// Says in the head of `response` which entity answered, and which ones have failed to.
pub(super) fn served_by(by: &ServedBy, response: Response) -> Response {
    let mut response = served_by_entity(&by.entity, response);
    if let Some(passed) = by.passed_over().and_then(|passed| HeaderValue::from_str(&passed).ok()) {
        response.headers_mut().insert(PASSED_OVER, passed);
    }
    response
}

/// Says in the head of `response` which entity answered.
pub(super) fn served_by_entity(entity: &ServedEntity, mut response: Response) -> Response {
    if let Ok(name) = HeaderValue::from_str(entity.name()) {
        response.headers_mut().insert(SERVED_MODEL_NAME, name);
    }
    response
}
