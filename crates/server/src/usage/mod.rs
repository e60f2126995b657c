//! Who used what: one entry a request, made while the request goes by.
//!
//! Owns what is known of a request for accounting. Knows no route and no database: where entries go is the log's business.

mod draft;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use draft::Draft;

/// One request, as it is accounted for. The names are those of the columns of `system.serving.endpoint_usage`, and of
/// `system.serving.served_entities` as they were then.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The request's id, as in the header `x-request-id`.
    pub databricks_request_id: String,
    /// What the caller calls it.
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
    /// Tokens read.
    pub input_token_count: i64,
    /// Tokens generated.
    pub output_token_count: i64,
    /// Whether the answer was a stream.
    pub request_streaming: bool,
    /// What the caller wants to find in the usage.
    pub usage_context: BTreeMap<String, String>,
}

/// Where entries go. A clone is the same log.
#[derive(Clone, Default)]
pub struct UsageLog(Option<Arc<dyn Fn(Entry) + Send + Sync>>);

impl UsageLog {
    /// A log that gives each entry to `write`, which must not block.
    pub fn new(write: impl Fn(Entry) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(write)))
    }

    fn write(&self, entry: Entry) {
        if let Some(write) = &self.0 {
            write(entry);
        }
    }
}
