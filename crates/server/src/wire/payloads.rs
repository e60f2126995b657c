//! Inference tables, as they are asked for and answered.

use serde::Serialize;

use super::usage::{moment, number};
use super::{FieldError, JsonObject};
use crate::payloads::PayloadRow;

/// Most rows of a page.
const MOST_RESULTS: i64 = 100;
/// Rows of a page where nobody says how many.
const USUAL_RESULTS: i64 = 20;

/// What is asked for in a URL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PayloadQuestion {
    /// Milliseconds since 1970, which are in.
    pub start_time: Option<i64>,
    /// Milliseconds since 1970, which are out.
    pub end_time: Option<i64>,
    /// Rows of a page.
    pub max_results: Option<i64>,
    /// Where the page before ended.
    pub page_token: Option<String>,
    /// How the answer is written.
    pub format: PayloadFormat,
}

/// How an inference table is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PayloadFormat {
    /// Pages of JSON.
    #[default]
    Json,
    /// All rows, as lines.
    Csv,
    /// All rows, as a Parquet file.
    Parquet,
}

impl PayloadQuestion {
    /// Reads the parameters of a URL.
    ///
    /// # Errors
    /// One that is not known, or not what it should be.
    pub fn read(fields: &JsonObject) -> Result<Self, FieldError> {
        let mut question = Self::default();
        for (name, value) in fields {
            let text = value.as_str().unwrap_or_default();
            match name.as_str() {
                "start_time" => question.start_time = Some(moment(name, text)?),
                "end_time" => question.end_time = Some(moment(name, text)?),
                "max_results" => question.max_results = Some(number(name, text, 1..=MOST_RESULTS)?),
                "page_token" => question.page_token = Some(text.to_owned()),
                "format" => {
                    question.format = match text {
                        "json" => PayloadFormat::Json,
                        "csv" => PayloadFormat::Csv,
                        "parquet" => PayloadFormat::Parquet,
                        _ => return Err(FieldError::value(name, "`json`, `csv` or `parquet`", text)),
                    };
                }
                _ => return Err(FieldError::Unknown { field: name.clone() }),
            }
        }
        let paged = [("max_results", question.max_results.is_some()), ("page_token", question.page_token.is_some())];
        match paged.into_iter().find(|(_, given)| *given && question.format != PayloadFormat::Json) {
            Some((field, _)) => Err(FieldError::conflict(field, "only JSON has pages: all rows come")),
            None => Ok(question),
        }
    }

    /// Rows of a page.
    pub fn results(&self) -> i64 {
        self.max_results.unwrap_or(USUAL_RESULTS)
    }
}

/// A page of an inference table.
#[derive(Debug, Serialize)]
pub struct PayloadPage {
    /// Oldest first.
    pub payloads: Vec<PayloadRow>,
    /// Where the next page begins; absent where this is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}
