//! The entry of a request that has not come to its end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use futures::StreamExt;
use serde_json::Value;
use uuid::Uuid;

use super::{Characters, Entry, UsageLog};
use crate::endpoints::Endpoint;
use crate::gate::Principal;
use crate::payloads::Payload;
use crate::policy::ServedBy;
use crate::policy::limits::{End, Rates, Reservation};
use crate::providers::{Answer, AnswerEvent, ProviderError};
use crate::store::now;
use crate::wire::options::{Bookkeeping, Usage};

/// The status of a request whose caller went away.
const CLIENT_CLOSED: u16 = 499;
/// The status of a request whose handler panicked.
const FAILED: u16 = 500;

/// Most bytes of a text of the caller's own, and most texts of a context. The log has all of them.
const TEXT_BYTES: usize = 1000;
const CONTEXT_TEXTS: usize = 64;

/// The entry of a request that has not come to its end; it is written once, when the end is known and before the caller sees
/// it. A clone is the same one, and with the last one a request ends whose caller went away.
#[derive(Clone)]
pub struct Draft(Arc<Inner>);

struct Inner {
    log: UsageLog,
    begun: Instant,
    /// What is left of the limits that hold for it.
    rates: OnceLock<Rates>,
    /// `None` once it is written.
    noted: Mutex<Option<Noted>>,
}

struct Noted {
    entry: Entry,
    /// Whether the entry is written, or only counted.
    tracked: bool,
    /// What is reserved of limits and budgets.
    reservation: Option<Reservation>,
    end: End,
    /// Whether what answers is in this process, and so tells of each token.
    hosted: bool,
}

impl Draft {
    /// Of a request that arrives now.
    pub fn new(log: UsageLog, request_id: &str) -> Self {
        let entry = Entry { request_id: stored(request_id), request_time: now(), ..Entry::default() };
        let noted =
            Mutex::new(Some(Noted { entry, tracked: false, reservation: None, end: End::default(), hosted: false }));
        Self(Arc::new(Inner { log, begun: Instant::now(), rates: OnceLock::new(), noted }))
    }

    fn note(&self, note: impl FnOnce(&mut Entry)) {
        self.change(|noted| note(&mut noted.entry));
    }

    fn change(&self, change: impl FnOnce(&mut Noted)) {
        if let Some(noted) = self.0.noted().as_mut() {
            change(noted);
        }
    }

    /// Keeps what is reserved until the request has ended, and says what is left of its limits.
    pub(crate) fn reserve(&self, reservation: Reservation, rates: Rates) {
        self.change(|noted| noted.reservation = Some(reservation));
        self.left(rates);
    }

    /// Notes what is left of its limits.
    pub(crate) fn left(&self, rates: Rates) {
        // A request has one call.
        let _ = self.0.rates.set(rates);
    }

    /// What is left of its limits.
    pub(crate) fn rates(&self) -> Rates {
        self.0.rates.get().copied().unwrap_or_default()
    }

    /// Notes who calls what. Without this nothing is written.
    pub(crate) fn open(&self, principal: &Principal, endpoint: &Endpoint) {
        if let Some(Noted { entry, tracked, .. }) = self.0.noted().as_mut() {
            *tracked = endpoint.tracks_usage();
            // Ids that begin with the time keep neighbours together in the store.
            let id = Uuid::now_v7();
            entry.databricks_request_id = id.to_string();
            let payload = endpoint.policies().table.and_then(|table| table.sample(id));
            entry.payload = payload.map(|payload| Box::new(Payload { untracked: !*tracked, ..payload }));
            principal.name().clone_into(&mut entry.requester);
            principal.id().clone_into(&mut entry.requester_id);
            endpoint.id().clone_into(&mut entry.endpoint_id);
            endpoint.name().clone_into(&mut entry.endpoint_name);
        }
    }

    /// Notes what is to answer, and what has failed to.
    pub(crate) fn served_by(&self, by: &ServedBy) {
        self.change(|noted| {
            noted.hosted = by.entity.provider().hosted().is_some();
            if let Some(reservation) = &mut noted.reservation {
                reservation.asks(by.entity.provider().model_name());
            }
        });
        self.note(|entry| {
            by.entity.id().clone_into(&mut entry.served_entity_id);
            by.entity.name().clone_into(&mut entry.served_entity_name);
            entry.passed_over = by.passed_over();
        });
    }

    /// Notes what the caller says of the call.
    pub(crate) fn record(&self, bookkeeping: &Bookkeeping) {
        let spelled = |value: &Value| match value {
            Value::String(text) => stored(text),
            other => stored(&other.to_string()),
        };
        let context = match &bookkeeping.usage_context {
            Some(Value::Object(context)) => {
                let texts = context.iter().map(|(name, value)| (stored(name), spelled(value)));
                texts.take(CONTEXT_TEXTS).collect()
            }
            _ => BTreeMap::new(),
        };
        self.note(|entry| {
            entry.client_request_id = bookkeeping.client_request_id.as_ref().map(spelled);
            entry.usage_context = context;
        });
    }

    /// Notes how much was sent.
    pub(crate) fn read(&self, call: &impl Characters) {
        let characters = call.characters().and_then(|characters| i64::try_from(characters).ok());
        self.note(|entry| entry.input_character_count = characters);
    }

    /// Whether what is asked and answered is kept.
    pub(crate) fn keeps_payload(&self) -> bool {
        self.0.noted().as_ref().is_some_and(|noted| noted.entry.payload.is_some())
    }

    /// Keeps the body of the request, where that is kept.
    pub(crate) fn asked(&self, request: String) {
        self.note_payload(|payload| payload.set_request(request));
    }

    /// Keeps the body of the response, where that is kept.
    pub(crate) fn answered(&self, response: String) {
        self.note_payload(|payload| payload.set_response(response));
    }

    fn note_payload(&self, note: impl FnOnce(&mut Payload)) {
        self.note(|entry| {
            if let Some(payload) = &mut entry.payload {
                note(payload);
            }
        });
    }

    /// Notes the tokens. `complete`: there are no more to come.
    pub(crate) fn count(&self, usage: Usage, complete: bool) {
        self.change(|noted| (noted.end.usage, noted.end.complete) = (Some(usage), complete));
        self.note(|entry| {
            entry.input_token_count = i64::try_from(usage.prompt_tokens).unwrap_or(i64::MAX);
            entry.output_token_count = i64::try_from(usage.completion_tokens).unwrap_or(i64::MAX);
        });
    }

    /// Notes that the answer is a stream.
    pub(crate) fn streaming(&self) {
        self.note(|entry| entry.request_streaming = true);
    }

    /// Counts an answer while it goes by.
    pub(crate) fn streamed(&self, answer: Answer) -> Answer {
        let mut meter = Meter { draft: self.clone(), unfinished: answer.choices, characters: 0, pieces: 0, bytes: 0 };
        let events = answer.events.inspect(move |event| meter.see(event));
        Answer { choices: answer.choices, events: events.boxed() }
    }

    /// Writes the entry with this status, unless it is written or nobody has called anything.
    pub(crate) fn finish(&self, status: u16) {
        self.0.finish(status);
    }
}

impl Inner {
    fn noted(&self) -> MutexGuard<'_, Option<Noted>> {
        // An entry is never left half written, so a poisoned lock still guards a sound value.
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, status: u16) {
        let opened = self.noted().take_if(|noted| !noted.entry.endpoint_id.is_empty());
        let Some(Noted { mut entry, tracked, reservation, mut end, .. }) = opened else { return };
        let elapsed = self.begun.elapsed();
        entry.status_code = status;
        entry.execution_duration_ms = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        if let Some(reservation) = reservation {
            end.abandoned = status == CLIENT_CLOSED;
            reservation.settle(end);
        }
        self.log.counts().add(&entry, elapsed);
        if tracked || entry.payload.is_some() {
            self.log.write(entry);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nothing is left to write after an end.
        self.finish(if std::thread::panicking() { FAILED } else { CLIENT_CLOSED });
    }
}

/// A caller's text as the store takes it: no longer than a row should be, and without the character that Postgres refuses.
fn stored(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT_BYTES);
    text[..end].replace('\0', "\u{fffd}")
}

/// Sees an answer go by.
struct Meter {
    draft: Draft,
    unfinished: usize,
    characters: usize,
    pieces: usize,
    bytes: usize,
}

/// Bytes of a token, where nobody knows better.
const TOKEN_BYTES: usize = 4;

impl Meter {
    fn see(&mut self, event: &Result<AnswerEvent, ProviderError>) {
        match event {
            Ok(AnswerEvent::Delta { delta, .. }) => {
                let arguments = delta.calls.iter().map(|call| call.arguments.chars().count()).sum::<usize>();
                self.characters += delta.text.chars().count() + arguments;
                self.pieces += 1;
                self.bytes += delta.text.len() + delta.calls.iter().map(|call| call.arguments.len()).sum::<usize>();
            }
            Ok(AnswerEvent::Finished { usage, .. }) => {
                self.unfinished = self.unfinished.saturating_sub(1);
                self.draft.count(*usage, self.unfinished == 0);
                if self.unfinished == 0 {
                    let characters = i64::try_from(self.characters).ok();
                    self.draft.note(|entry| entry.output_character_count = characters);
                }
            }
            Ok(AnswerEvent::Echo { .. }) => {}
            Err(_) => self.seen(),
        }
    }

    /// Notes how many tokens have gone by, as far as one can tell: a piece is one at least.
    fn seen(&self) {
        let (pieces, estimated) = (self.pieces, self.bytes.div_ceil(TOKEN_BYTES));
        self.draft.change(|noted| noted.end.seen = if noted.hosted { pieces } else { pieces.max(estimated) });
    }
}

impl Drop for Meter {
    /// The answer is over, or nobody reads it any more.
    fn drop(&mut self) {
        self.seen();
    }
}
