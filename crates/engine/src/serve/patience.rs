//! The deadline of one request on the side of whoever waits for it: it holds though the model's thread hangs.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;

use crate::error::Error;

/// Until when somebody waits.
#[derive(Debug)]
pub(super) struct Patience {
    deadline: Option<Instant>,
    /// Set up when it is first waited for, which is where the runtime is.
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whether a step has computed any of the request; set by the model's thread.
    begun: Arc<AtomicBool>,
}

impl Patience {
    /// Until `deadline`, or for ever.
    pub(super) fn new(deadline: Option<Instant>, begun: Arc<AtomicBool>) -> Self {
        Self { deadline, sleep: None, begun }
    }

    /// Ready when the deadline has passed, with what to say then. With a deadline it has to be polled in a runtime that
    /// keeps time.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Error> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        sleep.as_mut().poll(context).map(|()| Error::Deadline { begun: self.begun.load(Ordering::Relaxed) })
    }
}
