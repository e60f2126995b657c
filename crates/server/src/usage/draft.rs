//! The entry of a request that has not come to its end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures::StreamExt;
use serde_json::Value;

use super::{Entry, UsageLog};
use crate::endpoints::{Endpoint, ServedEntity};
use crate::error::ApiError;
use crate::gate::Principal;
use crate::providers::{Answer, AnswerEvent, ProviderError};
use crate::store::now;
use crate::wire::options::{Bookkeeping, Usage};

/// The status of a request whose caller went away.
const CLIENT_CLOSED: u16 = 499;

/// The entry of a request that has not come to its end; it is written once, when the end is known and before the caller sees
/// it. A clone is the same one.
#[derive(Clone)]
pub struct Draft(Arc<Inner>);

struct Inner {
    log: UsageLog,
    begun: Instant,
    /// `None` once it is written.
    entry: Mutex<Option<Entry>>,
}

impl Draft {
    /// Of a request that arrives now.
    pub fn new(log: UsageLog, request_id: &str) -> Self {
        let entry = Entry { databricks_request_id: request_id.to_owned(), request_time: now(), ..Entry::default() };
        Self(Arc::new(Inner { log, begun: Instant::now(), entry: Mutex::new(Some(entry)) }))
    }

    fn entry(&self) -> MutexGuard<'_, Option<Entry>> {
        // An entry is never left half written, so a poisoned lock still guards a sound value.
        self.0.entry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, note: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.entry().as_mut() {
            note(entry);
        }
    }

    /// Notes who calls what. Without this nothing is written.
    pub(crate) fn open(&self, principal: &Principal, endpoint: &Endpoint) {
        if !endpoint.tracks_usage() {
            return;
        }
        self.note(|entry| {
            principal.name().clone_into(&mut entry.requester);
            principal.id().clone_into(&mut entry.requester_id);
            endpoint.id().clone_into(&mut entry.endpoint_id);
            endpoint.name().clone_into(&mut entry.endpoint_name);
        });
    }

    /// Notes what is to answer.
    pub(crate) fn serve(&self, entity: &ServedEntity) {
        self.note(|entry| {
            entity.id().clone_into(&mut entry.served_entity_id);
            entity.name().clone_into(&mut entry.served_entity_name);
        });
    }

    /// Notes what the caller says of the call.
    pub(crate) fn record(&self, bookkeeping: &Bookkeeping) {
        let spelled = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let context = match &bookkeeping.usage_context {
            Some(Value::Object(context)) => {
                context.iter().map(|(name, value)| (name.clone(), spelled(value))).collect()
            }
            _ => BTreeMap::new(),
        };
        self.note(|entry| {
            entry.client_request_id = bookkeeping.client_request_id.as_ref().map(spelled);
            entry.usage_context = context;
        });
    }

    /// Notes the tokens.
    pub(crate) fn count(&self, usage: Usage) {
        self.note(|entry| {
            entry.input_token_count = i64::try_from(usage.prompt_tokens).unwrap_or(i64::MAX);
            entry.output_token_count = i64::try_from(usage.completion_tokens).unwrap_or(i64::MAX);
        });
    }

    /// Notes that the answer is a stream.
    pub(crate) fn streaming(&self) {
        self.note(|entry| entry.request_streaming = true);
    }

    /// Counts an answer while it goes by, and ends the entry with it.
    pub(crate) fn streamed(&self, answer: Answer) -> Answer {
        let mut meter = Meter { draft: self.clone(), unfinished: answer.choices };
        let events = answer.events.inspect(move |event| meter.see(event));
        Answer { choices: answer.choices, events: events.boxed() }
    }

    /// Writes the entry with this status, unless it is written or nobody has called anything.
    pub(crate) fn finish(&self, status: u16) {
        let Some(mut entry) = self.entry().take_if(|entry| !entry.endpoint_id.is_empty()) else { return };
        entry.status_code = status;
        entry.execution_duration_ms = i64::try_from(self.0.begun.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.0.log.write(entry);
    }
}

/// Sees an answer go by, and knows when it has come to its end, or will not.
struct Meter {
    draft: Draft,
    unfinished: usize,
}

impl Meter {
    fn see(&mut self, event: &Result<AnswerEvent, ProviderError>) {
        match event {
            Ok(AnswerEvent::Finished { usage, .. }) => {
                self.draft.count(*usage);
                self.unfinished = self.unfinished.saturating_sub(1);
                if self.unfinished == 0 {
                    self.draft.finish(200);
                }
            }
            Ok(_) => {}
            Err(error) => self.draft.finish(ApiError::from(error.clone()).status().as_u16()),
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        // Nothing is left to write after an end.
        self.draft.finish(CLIENT_CLOSED);
    }
}
