//! Inference tables: what was asked and answered, of endpoints that keep that.
//!
//! Owns which requests are kept, how much of each, and the forms in which they are given out. A payload goes with the entry of
//! its request through the journal into the store, so what is kept outlives the process as usage does.

mod csv;
mod parquet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::wire::FieldError;
use crate::wire::serving::InferenceTableFields;

pub use self::csv::payloads_as_csv;
pub use self::parquet::{ExportError, payloads_as_parquet};

/// Longest request, and longest response, in bytes of JSON. Of a longer one only that it was too long is kept.
pub const LONGEST: usize = 1 << 20;

/// The code of a request that was too long.
const REQUEST_TOO_LONG: &str = "MAX_REQUEST_SIZE_EXCEEDED";
/// The code of a response that was too long.
const RESPONSE_TOO_LONG: &str = "MAX_RESPONSE_SIZE_EXCEEDED";

/// The inference table of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InferenceTable {
    /// Which share of the requests is kept, above 0 and at most 1.
    pub sampling_fraction: f64,
}

impl InferenceTable {
    /// Checks what is asked for; `before` is what stands until it does, and `place` the field.
    ///
    /// # Errors
    /// The field to blame.
    pub(crate) fn check(
        table: &InferenceTableFields,
        before: Option<&InferenceTableFields>,
        place: &str,
    ) -> Result<(), FieldError> {
        if let Some(fraction) = table.sampling_fraction.filter(|fraction| !(*fraction > 0.0 && *fraction <= 1.0)) {
            return Err(FieldError::value(format!("{place}.sampling_fraction"), "above 0 and at most 1", fraction));
        }
        let Some(before) = before.filter(|before| before.enabled && table.enabled) else { return Ok(()) };
        for (field, new, old) in [
            ("catalog_name", &table.catalog_name, &before.catalog_name),
            ("schema_name", &table.schema_name, &before.schema_name),
        ] {
            if new != old {
                let problem = "it cannot change while the table is enabled: disable it first";
                return Err(FieldError::conflict(format!("{place}.{field}"), problem));
            }
        }
        Ok(())
    }

    /// The one that is asked for, where it is enabled.
    pub(crate) fn of(fields: &InferenceTableFields) -> Option<Self> {
        fields.enabled.then(|| Self { sampling_fraction: fields.sampling_fraction.unwrap_or(1.0) })
    }

    /// What is to be kept of the request of that id; `None` where nothing is.
    pub(crate) fn sample(self, id: Uuid) -> Option<Payload> {
        // Ids of this version end with 32 random bits; the ones before them may count.
        let random = id.as_u64_pair().1 as u32;
        let place = f64::from(random) / 2_f64.powi(32);
        (place < self.sampling_fraction)
            .then(|| Payload { sampling_fraction: self.sampling_fraction, ..Payload::default() })
    }
}

/// What was asked and answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Payload {
    /// Which share of the requests was kept then.
    pub sampling_fraction: f64,
    /// The body as it came, but for the endpoint's name.
    pub request: Option<String>,
    /// The body of the answer; of a stream, the answer that it was the pieces of.
    pub response: Option<String>,
    /// Why one of them is not here.
    pub logging_error_codes: Vec<String>,
    /// Whether the request is not in the usage.
    pub untracked: bool,
}

impl Payload {
    pub(crate) fn set_request(&mut self, request: String) {
        self.request = self.kept(request, REQUEST_TOO_LONG);
    }

    pub(crate) fn set_response(&mut self, response: String) {
        self.response = self.kept(response, RESPONSE_TOO_LONG);
    }

    fn kept(&mut self, text: String, code: &str) -> Option<String> {
        if text.len() <= LONGEST {
            return Some(text);
        }
        self.logging_error_codes.push(code.to_owned());
        None
    }
}

/// A row of an inference table. The names are those of its columns.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PayloadRow {
    /// Made by the server, as in the usage.
    pub databricks_request_id: String,
    /// The day of `request_time`, in UTC.
    pub request_date: String,
    /// What the caller calls it in its body.
    pub client_request_id: Option<String>,
    /// When it arrived, in milliseconds since 1970.
    pub request_time: i64,
    /// Of the answer; 499 where the caller went away.
    pub status_code: i64,
    /// Which share of the requests was kept then.
    pub sampling_fraction: f64,
    /// Milliseconds until its answer was complete.
    pub execution_duration_ms: i64,
    /// JSON.
    pub request: Option<String>,
    /// JSON.
    pub response: Option<String>,
    /// Why one of them is not here.
    pub logging_error_codes: Vec<String>,
    /// What answered.
    pub served_entity_id: String,
    /// Name of who sent it.
    pub requester: String,
}

impl PayloadRow {
    /// The day of a moment in milliseconds since 1970, in UTC, as 2026-01-31.
    pub(crate) fn date(moment: i64) -> String {
        Timestamp::from_millisecond(moment).map_or_else(|_| String::new(), |time| time.strftime("%Y-%m-%d").to_string())
    }

    /// A row that says nothing, for the names of the columns.
    fn empty() -> Self {
        Self {
            databricks_request_id: String::new(),
            request_date: String::new(),
            client_request_id: None,
            request_time: 0,
            status_code: 0,
            sampling_fraction: 0.0,
            execution_duration_ms: 0,
            request: None,
            response: None,
            logging_error_codes: Vec::new(),
            served_entity_id: String::new(),
            requester: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_requests_the_share_is_kept_that_was_asked_for() {
        for fraction in [0.1, 0.5, 1.0] {
            let table = InferenceTable { sampling_fraction: fraction };
            let kept = (0..10_000).filter(|_| table.sample(Uuid::now_v7()).is_some()).count();
            assert!((kept as f64 / 10_000.0 - fraction).abs() < 0.03, "{kept} for {fraction}");
        }
    }

    #[test]
    fn of_what_is_too_long_the_code_is_kept() {
        let mut payload = Payload::default();
        payload.set_request("x".repeat(LONGEST));
        payload.set_response("x".repeat(LONGEST + 1));
        assert_eq!((payload.request.unwrap().len(), payload.response), (LONGEST, None));
        assert_eq!(payload.logging_error_codes, ["MAX_RESPONSE_SIZE_EXCEEDED"]);
    }
}
