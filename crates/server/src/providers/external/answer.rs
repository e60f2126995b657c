//! The answer of an API: in one piece or as a stream, read into the events of a choice or of several.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use futures::future::try_join_all;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;

use super::client::{silent, whole};
use super::event::EventReader;
use super::protocol::{AnswerReader, Fault, Outgoing};
use super::upstream::{LONGEST_ANSWER, Opening, Setback, Upstream};
use crate::providers::{Answer, AnswerEvent, ProviderError, UpstreamError, UpstreamFailure};
use crate::wire::options::Usage;

/// What is asked, and how its answer is read.
pub(super) struct Question {
    pub(super) outgoing: Outgoing,
    /// Makes a reader; each attempt needs its own.
    pub(super) reader: Box<dyn Fn() -> Box<dyn AnswerReader> + Send + Sync>,
    /// Answers of one request.
    pub(super) choices: usize,
    pub(super) deadline: Option<Instant>,
}

/// Asks, and waits for the first event of the answer. Until then a failure may be followed by another attempt.
pub(super) async fn ask(upstream: &Arc<Upstream>, question: &Question) -> Result<Answer, ProviderError> {
    let events = upstream.retried(question.deadline, || begin(upstream, question)).await?;
    Ok(Answer { choices: question.choices, events })
}

/// Asks for each of several answers, where a request gives but one.
pub(super) async fn ask_each(
    upstream: &Arc<Upstream>,
    question: &Question,
    times: usize,
) -> Result<Answer, ProviderError> {
    let answers = try_join_all((0..times).map(|_| ask(upstream, question))).await?;
    Ok(joined(answers))
}

/// Answers of one choice each as one of several. What each used is used: the prompt was read as often as it was sent.
fn joined(answers: Vec<Answer>) -> Answer {
    let choices = answers.len();
    let streams = answers.into_iter().enumerate().map(|(index, answer)| answer.events.map(move |event| (index, event)));
    let mut total = Usage::default();
    let events = stream::select_all(streams.map(StreamExt::boxed)).map(move |(index, event)| {
        Ok(match event? {
            AnswerEvent::Echo { delta, .. } => AnswerEvent::Echo { index, delta },
            AnswerEvent::Delta { delta, .. } => AnswerEvent::Delta { index, delta },
            AnswerEvent::Finished { reason, usage, .. } => {
                total = sum(total, usage);
                AnswerEvent::Finished { index, reason, usage: total }
            }
        })
    });
    Answer { choices, events: events.boxed() }
}

fn sum(a: Usage, b: Usage) -> Usage {
    let total = Usage::new(a.prompt_tokens + b.prompt_tokens, a.completion_tokens + b.completion_tokens);
    let cached =
        [a, b].into_iter().filter_map(|usage| usage.prompt_tokens_details).map(|details| details.cached_tokens);
    match cached.reduce(|a, b| a + b) {
        Some(cached) => total.with_cached(cached),
        None => total,
    }
}

type Events = BoxStream<'static, Result<AnswerEvent, ProviderError>>;

/// One attempt.
async fn begin(upstream: &Arc<Upstream>, question: &Question) -> Result<Events, Setback> {
    let (response, opening) = upstream.ask(&question.outgoing).await?;
    let mut reader = (question.reader)();
    if !is_stream(&response) {
        let body = whole(response.into_body(), LONGEST_ANSWER, upstream.settings().idle_timeout).await;
        let body = body.map_err(|error| upstream.setback(error, &opening))?;
        let events = reader.whole(&body).map_err(|fault| upstream.fault(fault, &opening))?;
        return Ok(stream::iter(events.into_iter().map(Ok)).boxed());
    }
    let mut streamed = Streamed {
        upstream: Arc::clone(upstream),
        opening,
        body: response.into_body(),
        events: EventReader::default(),
        reader,
        read: VecDeque::new(),
        deadline: question.deadline,
        over: false,
    };
    if let Some(event) = streamed.next().await? {
        streamed.read.push_front(event);
    }
    let events = stream::unfold(Some(streamed), |streamed| async {
        let mut streamed = streamed?;
        match streamed.next().await {
            Ok(None) => None,
            Ok(Some(event)) => Some((Ok(event), Some(streamed))),
            // After an error there is nothing.
            Err(setback) => Some((Err(setback.error), None)),
        }
    });
    Ok(events.boxed())
}

fn is_stream(response: &Response<Incoming>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// An answer that comes event by event. Dropping it closes the connection, which is how the API learns of it.
struct Streamed {
    upstream: Arc<Upstream>,
    opening: Opening,
    body: Incoming,
    events: EventReader,
    reader: Box<dyn AnswerReader>,
    /// What is read and not yet asked for.
    read: VecDeque<AnswerEvent>,
    deadline: Option<Instant>,
    over: bool,
}

impl Streamed {
    async fn next(&mut self) -> Result<Option<AnswerEvent>, Setback> {
        loop {
            if let Some(event) = self.read.pop_front() {
                return Ok(Some(event));
            }
            if self.over {
                return Ok(None);
            }
            let read = match self.frame().await? {
                Some(bytes) => self.events(&bytes),
                None => {
                    self.over = true;
                    self.reader.end()
                }
            };
            let read = read.map_err(|fault| self.upstream.fault(fault, &self.opening))?;
            self.read.extend(read);
            if self.reader.is_over() && !self.over {
                self.over = true;
                self.release();
            }
        }
    }

    fn events(&mut self, bytes: &[u8]) -> Result<Vec<AnswerEvent>, Fault> {
        let events = self.events.push(bytes).map_err(|error| Fault::Malformed(error.to_string()))?;
        let mut read = Vec::new();
        for event in events {
            if !self.reader.is_over() {
                read.extend(self.reader.event(event)?);
            }
        }
        Ok(read)
    }

    /// More bytes; `None` at the end.
    async fn frame(&mut self) -> Result<Option<hyper::body::Bytes>, Setback> {
        let idle = self.upstream.settings().idle_timeout;
        let frame = tokio::time::timeout(idle, self.body.frame());
        let frame = match self.deadline {
            None => frame.await,
            Some(deadline) => {
                let late = |_| ProviderError::Late { begun: true };
                tokio::time::timeout_at(deadline.into(), frame).await.map_err(late)?
            }
        };
        match frame {
            Ok(None) => Ok(None),
            Ok(Some(Ok(frame))) => Ok(Some(frame.into_data().unwrap_or_default())),
            Ok(Some(Err(_))) => {
                let error = UpstreamError::new(UpstreamFailure::Failed, "broke off its answer");
                Err(self.upstream.setback(error, &self.opening))
            }
            Err(_) => Err(self.upstream.setback(silent(idle), &self.opening)),
        }
    }

    /// Reads the end of the body if it is there, so that the connection can be used again.
    fn release(&mut self) {
        while let Some(Some(Ok(_))) = self.body.frame().now_or_never() {}
    }
}
