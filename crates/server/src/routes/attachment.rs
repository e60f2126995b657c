//! Answers that are files, made while they are sent.

use std::error::Error;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};

use crate::error::ApiError;

/// The type of a file of CSV whose first line has the names of the columns.
pub(super) const CSV: &str = "text/csv; charset=utf-8; header=present";

/// The response of a file in these pieces. The first is waited for, since it can still be told by the status that there is none.
/// The name holds nothing that would end its quotes.
///
/// # Errors
/// The first piece's.
pub(super) async fn attachment<E: Into<ApiError> + Error + Send + Sync + 'static>(
    pieces: impl Stream<Item = Result<Vec<u8>, E>> + Send + 'static,
    kind: &'static str,
    name: &str,
) -> Result<Response, ApiError> {
    let mut pieces = Box::pin(pieces);
    let first = pieces.next().await.transpose().map_err(Into::into)?.unwrap_or_default();
    let body = Body::from_stream(stream::once(async { Ok(first) }).chain(pieces));
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(disposition) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}
