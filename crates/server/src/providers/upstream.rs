//! What can go wrong between this server and the API behind a model.

use std::fmt;

use crate::error::ErrorKind;

/// Most seconds after which a caller is told to try again: some clients sleep for as long as they are told.
const LONGEST_RETRY_AFTER: u16 = 60;

/// An API that did not answer, or with an error. Its texts hold no credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamError {
    /// What happened.
    pub failure: UpstreamFailure,
    /// For the caller: who says what.
    pub message: String,
    /// Seconds after which the API wants to be asked again.
    pub retry_after: Option<u64>,
}

/// What an API did instead of answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamFailure {
    /// It refused the request, with this status of 400 to 499.
    Refused(u16),
    /// It failed, broke off, or said what nobody understands.
    Failed,
    /// It could not be reached.
    Unreachable,
    /// It took too long.
    TimedOut,
}

impl UpstreamError {
    /// An error without a time to try again.
    pub fn new(failure: UpstreamFailure, message: impl Into<String>) -> Self {
        Self { failure, message: message.into(), retry_after: None }
    }

    /// Whether it is the request that was not good, and not the API: whoever asks another one gets no better answer, or
    /// should not.
    pub fn is_refusal(&self) -> bool {
        matches!(self.failure, UpstreamFailure::Refused(status) if !matches!(status, 408 | 425 | 429))
    }

    /// The kind of error that the caller gets.
    pub(super) fn kind(&self) -> ErrorKind {
        let seconds =
            self.retry_after.map(|seconds| u16::try_from(seconds).unwrap_or(u16::MAX).min(LONGEST_RETRY_AFTER));
        match self.failure {
            UpstreamFailure::Refused(status) => ErrorKind::Upstream { status, retry_after: seconds },
            UpstreamFailure::Failed | UpstreamFailure::Unreachable => ErrorKind::Unavailable,
            UpstreamFailure::TimedOut => ErrorKind::Timeout,
        }
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}
