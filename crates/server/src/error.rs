//! The one error of the HTTP side and its two bodies.
//!
//! A handler returns an [`ApiError`]; the response it becomes carries the error beside an empty body, and
//! [`render`](ApiError::render) writes the body once the dialect and the request id are known.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::wire::FieldError;
use crate::wire::error::{DatabricksError, OpenAiError, OpenAiErrorFields};

/// Whose error bodies a path answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `{"error": {...}}`.
    OpenAi,
    /// `{"error_code": ..., "message": ...}`.
    Databricks,
}

impl Dialect {
    /// The dialect of a path.
    pub fn of(path: &str) -> Self {
        const DATABRICKS: [&str; 3] = ["/serving-endpoints", "/ai-gateway/", "/api/2.0/"];
        if DATABRICKS.iter().any(|prefix| path.starts_with(prefix)) { Self::Databricks } else { Self::OpenAi }
    }
}

/// What went wrong, as far as status and codes tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The body or its combination of fields makes no sense.
    BadRequest,
    /// A field is unknown.
    UnknownField,
    /// A required field is absent.
    MissingField,
    /// A field has the wrong type.
    WrongType,
    /// A field is out of range.
    OutOfRange,
    /// A field, or its value, is not supported.
    Unsupported,
    /// The prompt is longer than the context.
    ContextLength,
    /// No token, or an unknown one.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden,
    /// No endpoint of this name.
    EndpointNotFound,
    /// No such path.
    RouteNotFound,
    /// Nothing in the control plane has this name or id.
    NotFound,
    /// Something in the control plane has this name already.
    AlreadyExists,
    /// There are as many of its kind as there may be.
    QuotaExceeded,
    /// There are as many as are allowed.
    LimitExceeded,
    /// Something else is being done with it.
    Conflict,
    /// Known to the clients and not done by this server.
    NotImplemented,
    /// The path exists for other methods.
    MethodNotAllowed,
    /// The body is longer than allowed.
    PayloadTooLarge,
    /// The body does not come to its end.
    SlowBody,
    /// The model's queue is full.
    RateLimited,
    /// A limit or a budget does not suffice.
    LimitReached {
        /// Seconds after which to try again.
        wait: u16,
    },
    /// The model is loading or has stopped.
    Unavailable,
    /// The model needs more memory than there is.
    InsufficientMemory,
    /// The answer was not complete in time.
    Timeout,
    /// The API behind the model refused the request.
    Upstream {
        /// With this status, of 400 to 499.
        status: u16,
        /// Seconds after which it wants to be asked again.
        retry_after: Option<u16>,
    },
    /// A guardrail does not let it through.
    Guarded,
    /// The server's own failure.
    Internal,
}

/// Status, OpenAI type, OpenAI code, Databricks code.
type Codes = (StatusCode, &'static str, Option<&'static str>, &'static str);

impl ErrorKind {
    fn codes(self) -> Codes {
        const INVALID: &str = "invalid_request_error";
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        match self {
            Self::BadRequest => (BAD, INVALID, None, "BAD_REQUEST"),
            Self::UnknownField => (BAD, INVALID, Some("unknown_parameter"), "BAD_REQUEST"),
            Self::MissingField => (BAD, INVALID, Some("missing_required_parameter"), "BAD_REQUEST"),
            Self::WrongType => (BAD, INVALID, Some("invalid_type"), "BAD_REQUEST"),
            Self::OutOfRange => (BAD, INVALID, Some("invalid_value"), "INVALID_PARAMETER_VALUE"),
            Self::Unsupported => (BAD, INVALID, Some("unsupported_parameter"), "BAD_REQUEST"),
            Self::ContextLength => (BAD, INVALID, Some("context_length_exceeded"), "BAD_REQUEST"),
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, INVALID, Some("invalid_api_key"), "UNAUTHENTICATED"),
            Self::Forbidden => {
                (StatusCode::FORBIDDEN, "permission_error", Some("permission_denied"), "PERMISSION_DENIED")
            }
            Self::EndpointNotFound => (StatusCode::NOT_FOUND, INVALID, Some("model_not_found"), "ENDPOINT_NOT_FOUND"),
            Self::RouteNotFound => (StatusCode::NOT_FOUND, INVALID, Some("unknown_url"), "ENDPOINT_NOT_FOUND"),
            Self::NotFound => (StatusCode::NOT_FOUND, INVALID, Some("not_found"), "RESOURCE_DOES_NOT_EXIST"),
            Self::AlreadyExists => (BAD, INVALID, Some("already_exists"), "RESOURCE_ALREADY_EXISTS"),
            Self::QuotaExceeded => (BAD, INVALID, Some("quota_exceeded"), "QUOTA_EXCEEDED"),
            Self::LimitExceeded => (BAD, INVALID, Some("limit_exceeded"), "RESOURCE_LIMIT_EXCEEDED"),
            Self::Conflict => (StatusCode::CONFLICT, INVALID, Some("conflict"), "RESOURCE_CONFLICT"),
            Self::NotImplemented => (StatusCode::NOT_IMPLEMENTED, INVALID, Some("not_implemented"), "NOT_IMPLEMENTED"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, INVALID, Some("method_not_allowed"), "BAD_REQUEST")
            }
            Self::PayloadTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, INVALID, Some("payload_too_large"), "BAD_REQUEST"),
            Self::SlowBody => (StatusCode::REQUEST_TIMEOUT, INVALID, Some("request_timeout"), "DEADLINE_EXCEEDED"),
            Self::RateLimited | Self::LimitReached { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_error",
                Some("rate_limit_exceeded"),
                "REQUEST_LIMIT_EXCEEDED",
            ),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "service_unavailable_error",
                Some("service_unavailable"),
                "TEMPORARILY_UNAVAILABLE",
            ),
            Self::InsufficientMemory => {
                (StatusCode::INSUFFICIENT_STORAGE, "server_error", Some("insufficient_memory"), "RESOURCE_EXHAUSTED")
            }
            Self::Timeout => {
                (StatusCode::GATEWAY_TIMEOUT, "timeout_error", Some("request_timeout"), "DEADLINE_EXCEEDED")
            }
            Self::Guarded => (BAD, INVALID, Some("content_filter"), "BAD_REQUEST"),
            Self::Upstream { status, .. } => upstream(status),
            Self::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "server_error", Some("internal_error"), "INTERNAL_ERROR")
            }
        }
    }

    /// Seconds after which trying again makes sense. Small, because some clients sleep for as long as they are told.
    fn retry_after(self) -> Option<u32> {
        match self {
            Self::RateLimited => Some(1),
            Self::LimitReached { wait } => Some(wait.into()),
            Self::Unavailable => Some(2),
            Self::Upstream { status: 429, retry_after } => Some(retry_after.map_or(1, u32::from)),
            _ => None,
        }
    }
}

/// The codes of another API's refusal: its status is passed on.
fn upstream(status: u16) -> Codes {
    let (kind, code) = match status {
        401 => ("authentication_error", "UNAUTHENTICATED"),
        403 => ("permission_error", "PERMISSION_DENIED"),
        404 => ("invalid_request_error", "NOT_FOUND"),
        408 => ("timeout_error", "DEADLINE_EXCEEDED"),
        409 => ("invalid_request_error", "ABORTED"),
        429 => ("rate_limit_error", "REQUEST_LIMIT_EXCEEDED"),
        _ => ("invalid_request_error", "BAD_REQUEST"),
    };
    (StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), kind, Some("upstream_error"), code)
}

/// An error that a caller gets to see.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    kind: ErrorKind,
    message: String,
    field: Option<String>,
    detail: Option<String>,
}

impl ApiError {
    /// An error without a field to blame.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: shortened(message.into()), field: None, detail: None }
    }

    /// The same error, blamed on `field`.
    pub fn with_field(self, field: impl Into<String>) -> Self {
        Self { field: Some(shortened(field.into())), ..self }
    }

    /// The server's own failure: `detail` goes to the log and not to the caller.
    pub fn internal(message: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..Self::new(ErrorKind::Internal, message) }
    }

    /// What a guardrail does not let through; the message is a whole document, however long it is.
    pub fn guarded(document: String) -> Self {
        Self { kind: ErrorKind::Guarded, message: document, field: None, detail: None }
    }

    /// Something that the server needs does not answer: `detail` goes to the log and not to the caller.
    pub fn unavailable(message: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..Self::new(ErrorKind::Unavailable, message) }
    }

    /// A path that does not exist.
    pub fn route_not_found(method: &str, path: &str) -> Self {
        Self::new(ErrorKind::RouteNotFound, format!("unknown request path: {method} {path}"))
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The field to blame.
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// What only the log gets to see.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// Writes the error to the log: the server's own failures as errors, the caller's as notes.
    pub fn log(&self) {
        let (status, detail) = (self.status().as_u16(), self.detail().unwrap_or_default());
        // What was said is nobody's to read.
        let error = if self.kind == ErrorKind::Guarded { "a guardrail does not let it through" } else { &self.message };
        if self.status().is_server_error() {
            tracing::error!(status, detail, error, "the request failed");
        } else {
            tracing::info!(status, error, "the request was refused");
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.kind.codes().0
    }

    /// The error as an event inside a stream: the OpenAI form in both dialects, since the other one is swallowed there.
    pub fn stream_event(&self) -> OpenAiError<'_> {
        let (_, kind, code, _) = self.kind.codes();
        let fields = OpenAiErrorFields { message: &self.message, kind, param: self.field(), code };
        OpenAiError { error: fields }
    }

    /// The body of the response.
    pub(crate) fn body(&self, dialect: Dialect) -> Vec<u8> {
        let body = match dialect {
            Dialect::OpenAi => serde_json::to_vec(&self.stream_event()),
            Dialect::Databricks => {
                let error_code = self.kind.codes().3;
                serde_json::to_vec(&DatabricksError { error_code, message: &self.message })
            }
        };
        // Texts always are JSON.
        body.unwrap_or_default()
    }

    /// Writes the body of an error's response.
    pub fn render(&self, dialect: Dialect, response: Response) -> Response {
        let (mut head, _) = response.into_parts();
        head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        head.headers.remove(header::CONTENT_LENGTH);
        Response::from_parts(head, Body::from(self.body(dialect)))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        if let Some(seconds) = self.kind.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.kind == ErrorKind::Unauthenticated {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<FieldError> for ApiError {
    fn from(error: FieldError) -> Self {
        let kind = match &error {
            FieldError::Malformed { .. } | FieldError::NotAnObject(_) | FieldError::Conflict { .. } => {
                ErrorKind::BadRequest
            }
            FieldError::Unknown { .. } => ErrorKind::UnknownField,
            FieldError::Missing { .. } => ErrorKind::MissingField,
            FieldError::Type { .. } => ErrorKind::WrongType,
            FieldError::Value { .. } => ErrorKind::OutOfRange,
            FieldError::Unsupported { .. } => ErrorKind::Unsupported,
        };
        let field = error.field().map(str::to_owned);
        Self { kind, message: error.to_string(), field, detail: None }
    }
}

/// Longest message, in bytes: a caller's own value may be in it, and that may be a whole book.
const LONGEST_MESSAGE: usize = 1000;

/// The beginning of a text that is too long to be repeated.
fn shortened(text: String) -> String {
    if text.len() <= LONGEST_MESSAGE {
        return text;
    }
    let end = text.floor_char_boundary(LONGEST_MESSAGE);
    format!("{}... ({} bytes in all)", &text[..end], text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_decides_the_dialect() {
        assert_eq!(Dialect::of("/v1/chat/completions"), Dialect::OpenAi);
        assert_eq!(Dialect::of("/serving-endpoints/x/invocations"), Dialect::Databricks);
        assert_eq!(Dialect::of("/ai-gateway/mlflow/v1/embeddings"), Dialect::Databricks);
        assert_eq!(Dialect::of("/api/2.0/serving-endpoints"), Dialect::Databricks);
        assert_eq!(Dialect::of("/nowhere"), Dialect::OpenAi);
    }

    #[test]
    fn only_waiting_errors_say_when_to_try_again() {
        let response = ApiError::new(ErrorKind::RateLimited, "full").into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let response = ApiError::new(ErrorKind::Internal, "broken").into_response();
        assert!(!response.headers().contains_key(header::RETRY_AFTER));
    }
}
