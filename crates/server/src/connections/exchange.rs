//! One request and its answer on a connection: what comes in must keep coming, and the answer ends with its client.
//!
//! Knows the router as a service and nothing of what it answers.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper::{Request, Response};
use tokio::time::{Instant, Sleep};
use tower::ServiceExt;

use super::places::{Begin, Place};
use super::socket::Socket;

/// In a request's extensions: all places are taken, and only health checks are answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowded;

/// Why a body did not come to its end.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("nothing more of the body has come for {} seconds", .0.as_secs_f64())]
pub(crate) struct BodyStalled(Duration);

impl BodyStalled {
    /// The stalled body among the causes of `error`.
    pub(crate) fn among<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        std::iter::successors(Some(error), |error| (*error).source()).find_map(|error| error.downcast_ref())
    }
}

/// The end of an answer whose client is gone.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the client has gone away")]
pub(super) struct HungUp;

/// Answers the requests of one connection, one after the other.
pub(super) struct Exchange {
    pub(super) router: Router,
    pub(super) socket: Socket,
    pub(super) place: Arc<Place>,
    /// Whether a body has come that was not read to its end.
    pub(super) unread: Arc<AtomicBool>,
    pub(super) body_timeout: Duration,
}

impl Service<Request<Incoming>> for Exchange {
    type Response = Response<LeavingBody>;
    type Error = HungUp;
    type Future = BoxFuture<'static, Result<Self::Response, HungUp>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let begin = self.place.begin();
        let busy = Busy(Arc::clone(&self.place));
        self.unread.store(!request.body().is_end_stream(), Ordering::Relaxed);
        let arriving = |inner| ArrivingBody {
            inner,
            unread: Arc::clone(&self.unread),
            timeout: self.body_timeout,
            stalled: Box::pin(tokio::time::sleep(self.body_timeout)),
        };
        let mut request = request.map(|body| Body::new(arriving(body)));
        if begin == Begin::Crowded {
            request.extensions_mut().insert(Crowded);
        }
        let answer = self.router.clone().oneshot(request).unwrap_or_else(|never| match never {});
        let mut hung_up = self.socket.clone().hung_up().boxed();
        async move {
            // What is ready at once is still sent to a client who said that nothing more would come.
            let response = tokio::select! {
                biased;
                response = answer => response,
                () = &mut hung_up => return Err(HungUp),
            };
            Ok(response.map(|inner| LeavingBody { inner, hung_up, _busy: busy }))
        }
        .boxed()
    }
}

/// Ends the request at its place when dropped.
struct Busy(Arc<Place>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The body of a request; fails when nothing more of it comes.
struct ArrivingBody {
    inner: Incoming,
    unread: Arc<AtomicBool>,
    timeout: Duration,
    stalled: Pin<Box<Sleep>>,
}

impl HttpBody for ArrivingBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let timeout = self.timeout;
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Pending => self.stalled.as_mut().poll(context).map(|()| Some(Err(BodyStalled(timeout).into()))),
            Poll::Ready(frame) => {
                self.unread.store(frame.is_some(), Ordering::Relaxed);
                self.stalled.as_mut().reset(Instant::now() + timeout);
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of an answer; ends with its client. Dropping it drops whatever makes the answer.
pub(super) struct LeavingBody {
    inner: Body,
    hung_up: BoxFuture<'static, ()>,
    _busy: Busy,
}

impl HttpBody for LeavingBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Pending => self.hung_up.as_mut().poll(context).map(|()| Some(Err(HungUp.into()))),
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
