//! Who used what: one entry a request, made while the request goes by, written into a journal before the caller sees the end
//! of the answer, and brought into the store from there.
//!
//! Owns what is known of a request for accounting, and its way. Knows no route: what a request does is told to its [`Draft`].

mod characters;
mod counts;
mod csv;
mod draft;
mod ingest;
mod journal;
mod line;
mod segment;
mod served;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::payloads::Payload;

pub(crate) use characters::Characters;
pub(crate) use counts::Counts;
pub(crate) use csv::{head as csv_head, place_of, rows as csv_rows, sum};
pub use csv::{sums_as_csv, usage_as_csv};
pub use draft::Draft;
pub use ingest::{Ingest, IngestError, Retention};
pub use journal::{Batch, Journal};
pub use served::record_lasting;

/// One request, as it is accounted for. The names are those of the columns of `system.serving.endpoint_usage`, and of
/// `system.serving.served_entities` as they were then.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
// A journal may be an older version's.
#[serde(default)]
pub struct Entry {
    /// Made by the server, and never the same for two requests.
    pub databricks_request_id: String,
    /// As in the header `x-request-id` and in the log; callers choose it, so it may repeat.
    pub request_id: String,
    /// What the caller calls it in its body.
    pub client_request_id: Option<String>,
    /// When it arrived, in milliseconds since 1970.
    pub request_time: i64,
    /// Milliseconds until its answer was complete.
    pub execution_duration_ms: i64,
    /// Of the answer; 499 where the caller went away.
    pub status_code: u16,
    /// Name of who sent it.
    pub requester: String,
    /// Id of who sent it.
    pub requester_id: String,
    /// The endpoint.
    pub endpoint_id: String,
    /// Its name.
    pub endpoint_name: String,
    /// What answered; empty where the request was refused before that was decided.
    pub served_entity_id: String,
    /// Its name.
    pub served_entity_name: String,
    /// `NAME=STATUS` of what was asked before that and has failed, in order.
    pub passed_over: Option<String>,
    /// Tokens read.
    pub input_token_count: i64,
    /// Tokens generated.
    pub output_token_count: i64,
    /// Characters of the texts that were sent, where texts were.
    pub input_character_count: Option<i64>,
    /// Characters of the answer's text, where the answer is one.
    pub output_character_count: Option<i64>,
    /// Whether the answer was a stream.
    pub request_streaming: bool,
    /// What the caller wants to find in the usage.
    pub usage_context: BTreeMap<String, String>,
    /// What was asked and answered, where the endpoint keeps that: on the way to the store, where it has a table of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Box<Payload>>,
}

impl Entry {
    /// Whether it is a row of the usage, and not there only for its payload.
    pub(crate) fn is_tracked(&self) -> bool {
        self.payload.as_ref().is_none_or(|payload| !payload.untracked)
    }
}

/// Where entries go. A clone is the same log.
#[derive(Clone, Default)]
pub struct UsageLog {
    write: Option<Arc<dyn Fn(Entry) + Send + Sync>>,
    counts: Arc<Counts>,
}

impl UsageLog {
    /// A log that gives each entry to `write`, which must not block for long.
    pub fn new(write: impl Fn(Entry) + Send + Sync + 'static) -> Self {
        Self { write: Some(Arc::new(write)), counts: Arc::default() }
    }

    /// The numbers of each endpoint since the start.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    fn write(&self, entry: Entry) {
        if let Some(write) = &self.write {
            write(entry);
        }
    }
}
