//! Server-sent events: a stream of JSON documents as a response.
//!
//! Only `data:` lines: some clients give up at comments (so there is no keep-alive) and at every other field.

use std::convert::Infallible;

use axum::body::Bytes;
use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use serde::Serialize;

/// The last event of a complete stream.
pub const DONE: &str = "[DONE]";

/// What such a response is called.
pub const CONTENT_TYPE: &str = "text/event-stream";

/// Tells reverse proxies to pass events on as they come.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A response of these documents, each on one line. Dropping the response's body drops `documents`.
pub fn response(documents: impl Stream<Item = String> + Send + 'static) -> Response {
    let events = documents.map(|document| Ok::<_, Infallible>(Event::default().data(document)));
    let mut response = Sse::new(events).into_response();
    response.headers_mut().insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// One event as it stands in the body, for whoever writes behind a response's own documents.
pub(crate) fn event(document: &impl Serialize) -> Bytes {
    let mut line = b"data: ".to_vec();
    // JSON has no line breaks; what cannot be written leaves an event that says nothing.
    let _ = serde_json::to_writer(&mut line, document);
    line.extend_from_slice(b"\n\n");
    line.into()
}

#[cfg(test)]
mod tests {
    use axum::http::header;
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn every_line_is_data() {
        let documents = ["{\"a\":\"x\\ny\"}", DONE].map(str::to_owned);
        let response = response(futures::stream::iter(documents));
        assert_eq!(response.headers()[header::CONTENT_TYPE], CONTENT_TYPE);
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-cache");
        assert_eq!(response.headers()[X_ACCEL_BUFFERING], "no");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "data: {\"a\":\"x\\ny\"}\n\ndata: [DONE]\n\n");
    }
}
