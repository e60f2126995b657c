//! Which requests are begun at all, and what becomes of them when the server stops before they have ended.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::body::{Frame, SizeHint};

use crate::connections::Crowded;
use crate::error::{ApiError, ErrorKind};
use crate::life::Running;
use crate::serve::App;
use crate::sse;

/// Answered however full the server is, and until its last moment.
const ALWAYS: [&str; 3] = ["/health/live", "/health/ready", "/metrics"];

/// Refuses requests that come when all places are taken or the server is stopping, and counts the others until their
/// answers are out.
pub(super) async fn admit(State(app): State<App>, request: Request, next: Next) -> Response {
    if ALWAYS.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    if request.extensions().get::<Crowded>().is_some() {
        return last(refusal("every connection that the server allows has a request already"));
    }
    let Some(running) = app.life().begin() else { return last(stopping()) };
    let mut cut = app.life().is_cut().boxed();
    let response = tokio::select! {
        biased;
        response = next.run(request) => response,
        () = &mut cut => stopping(),
    };
    let response = if app.life().is_stopping() { last(response) } else { response };
    let streamed = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == sse::CONTENT_TYPE);
    response.map(|inner| Body::new(RunningBody { inner, cut, streamed, running: Some(running) }))
}

fn refusal(text: &str) -> Response {
    ApiError::new(ErrorKind::Unavailable, text).into_response()
}

fn stopping() -> Response {
    refusal("the server is stopping")
}

/// Ends the connection with this answer, so that the next request goes where it will be taken.
fn last(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The body of an answer that counts as running until it is out.
struct RunningBody {
    inner: Body,
    cut: BoxFuture<'static, ()>,
    /// Whether it is made of events, so that its end can be told in one.
    streamed: bool,
    /// `None` after the cut.
    running: Option<Running>,
}

impl HttpBody for RunningBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.running.is_none() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            return Poll::Ready(frame);
        }
        std::task::ready!(self.cut.as_mut().poll(context));
        self.running = None;
        let error = ApiError::new(ErrorKind::Unavailable, "the server was stopped before the answer was complete");
        if self.streamed {
            return Poll::Ready(Some(Ok(Frame::data(sse::event(&error.stream_event())))));
        }
        Poll::Ready(Some(Err(axum::Error::new(error))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
