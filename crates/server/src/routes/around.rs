//! What stands around every handler: request ids in the log, errors in the path's dialect, counting, panics.

use std::any::Any;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowHeaders, CorsLayer};
use tower_http::request_id::RequestId;
use tracing::Instrument;
use tracing::field::Empty;

use super::identity::{PASSED_OVER, SERVED_MODEL_NAME};
use crate::error::{ApiError, Dialect};
use crate::gate::Origins;
use crate::metrics;
use crate::policy::limits::rate_headers;
use crate::serve::App;
use crate::sse;
use crate::usage::Draft;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How long a browser may go by what it was told when it asked beforehand.
const ASKED_BEFOREHAND: Duration = Duration::from_secs(600);

/// Writes the body of an error in the dialect of the path, and the error into the log beside the request's id.
pub(super) async fn render_errors(request: Request, next: Next) -> Response {
    let dialect = Dialect::of(request.uri().path());
    let id = request.extensions().get::<RequestId>().and_then(|id| id.header_value().to_str().ok());
    let (method, path) = (request.method(), request.uri().path());
    let span = tracing::info_span!(
        "request", id, %method, path, status = Empty, model = Empty, prompt_tokens = Empty, completion_tokens = Empty
    );
    let mut response = next.run(request).instrument(span.clone()).await;
    span.record("status", i64::from(response.status().as_u16()));
    match response.extensions_mut().remove::<ApiError>() {
        None => response,
        Some(error) => {
            span.in_scope(|| error.log());
            error.render(dialect, response)
        }
    }
}

/// Opens the account of a request, and closes it where the answer is not a stream, which closes it itself.
pub(super) async fn account(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let id = request.extensions().get::<RequestId>().and_then(|id| id.header_value().to_str().ok());
    let draft = Draft::new(app.usage().clone(), id.unwrap_or_default());
    let dialect = Dialect::of(request.uri().path());
    request.extensions_mut().insert(draft.clone());
    let mut response = next.run(request).await;
    response.headers_mut().extend(draft.rates().headers());
    if response.headers().get(header::CONTENT_TYPE).is_none_or(|kind| kind != sse::CONTENT_TYPE) {
        if draft.keeps_payload() {
            response = keep(&draft, dialect, response).await;
        }
        draft.finish(response.status().as_u16());
    }
    response
}

/// Keeps the body of a response that is in one piece.
async fn keep(draft: &Draft, dialect: Dialect, response: Response) -> Response {
    if let Some(error) = response.extensions().get::<ApiError>() {
        draft.answered(String::from_utf8_lossy(&error.body(dialect)).into_owned());
        return response;
    }
    let (head, body) = response.into_parts();
    match to_bytes(body, usize::MAX).await {
        Ok(bytes) => {
            draft.answered(String::from_utf8_lossy(&bytes).into_owned());
            Response::from_parts(head, Body::from(bytes))
        }
        // What is in memory is there.
        Err(error) => ApiError::internal("the answer failed", error.to_string()).into_response(),
    }
}

/// Lets the pages of those sites read answers, and answers browsers that ask beforehand, who send no token yet. Nothing of a
/// browser's own is let along: callers name themselves by a token. `None` where no site is let in.
pub(super) fn cors(origins: &Origins) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> = origins.headers().collect();
    let exposed = [header::RETRY_AFTER, X_REQUEST_ID, SERVED_MODEL_NAME, PASSED_OVER];
    let exposed: Vec<HeaderName> = exposed.into_iter().chain(rate_headers()).collect();
    let layer = || {
        CorsLayer::new()
            .allow_origin(origins.clone())
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers(exposed.clone())
            .max_age(ASKED_BEFOREHAND)
    };
    (!origins.is_empty()).then(layer)
}

/// Counts requests by route and status. Stands inside the router, where the route is known.
pub(super) async fn count(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let response = next.run(request).await;
    // Methods can be made up by callers too; those that no route takes are all the same to us.
    let (route, method) = match &route {
        Some(route) if response.status() != 405 => (route.as_str(), method.as_str()),
        _ => ("unknown", "any"),
    };
    metrics::request(route, method, response.status().as_u16(), begun.elapsed().as_secs_f64());
    response
}

/// Drops slashes at the end of the path: some clients send one, and a redirect would lose the body.
pub(super) async fn without_trailing_slash(mut request: Request) -> Request {
    let uri = request.uri();
    let trimmed = uri.path().trim_end_matches('/');
    if trimmed.is_empty() || trimmed.len() == uri.path().len() {
        return request;
    }
    let path = match uri.query() {
        Some(query) => format!("{trimmed}?{query}"),
        None => trimmed.to_owned(),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(path).ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

/// The answer of a handler that panicked.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message");
    ApiError::internal("the server failed to answer", format!("panic: {text}")).into_response()
}
