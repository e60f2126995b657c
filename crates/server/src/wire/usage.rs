//! Usage, as it is asked for and answered.

use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::{FieldError, JsonObject};

/// Most rows of a page.
const MOST_RESULTS: i64 = 10_000;
/// Rows of a page where nobody says how many.
const USUAL_RESULTS: i64 = 1000;

/// What is asked for in a URL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageQuestion {
    /// Milliseconds since 1970, which are in.
    pub start_time: Option<i64>,
    /// Milliseconds since 1970, which are out.
    pub end_time: Option<i64>,
    /// Only of this endpoint.
    pub endpoint_name: Option<String>,
    /// Only of this principal.
    pub requester: Option<String>,
    /// Only answered so.
    pub status_code: Option<i64>,
    /// What rows are summed up by; rows as they are where it says nothing.
    pub group_by: Vec<GroupBy>,
    /// Rows of a page.
    pub max_results: Option<i64>,
    /// Where the page before ended.
    pub page_token: Option<String>,
    /// How the answer is written.
    pub format: Option<UsageFormat>,
}

/// What rows are summed up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum GroupBy {
    Endpoint,
    Requester,
    ServedEntity,
    Day,
}

const GROUPS: [(GroupBy, &str); 4] = [
    (GroupBy::Endpoint, "endpoint"),
    (GroupBy::Requester, "requester"),
    (GroupBy::ServedEntity, "served_entity"),
    (GroupBy::Day, "day"),
];

impl FromStr for GroupBy {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let known = GROUPS.iter().find(|(_, known)| *known == word).map(|(group, _)| *group);
        known.ok_or_else(|| "`endpoint`, `requester`, `served_entity` or `day`".to_owned())
    }
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum UsageFormat {
    Json,
    Csv,
}

impl UsageQuestion {
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
                "endpoint_name" => question.endpoint_name = Some(text.to_owned()),
                "requester" => question.requester = Some(text.to_owned()),
                "status_code" => question.status_code = Some(number(name, text, 100..=999)?),
                "group_by" => question.group_by = groups(name, text)?,
                "max_results" => question.max_results = Some(number(name, text, 1..=MOST_RESULTS)?),
                "page_token" => question.page_token = Some(text.to_owned()),
                "format" => {
                    question.format = Some(match text {
                        "json" => UsageFormat::Json,
                        "csv" => UsageFormat::Csv,
                        _ => return Err(FieldError::value(name, "`json` or `csv`", text)),
                    });
                }
                _ => return Err(FieldError::Unknown { field: name.clone() }),
            }
        }
        Ok(question)
    }

    /// Rows of a page.
    pub fn results(&self) -> i64 {
        self.max_results.unwrap_or(USUAL_RESULTS)
    }

    /// Refuses what has no meaning for an answer that is all rows in one piece.
    ///
    /// # Errors
    /// Where there is something of it.
    pub fn check_whole(&self) -> Result<(), FieldError> {
        let paged = [("max_results", self.max_results.is_some()), ("page_token", self.page_token.is_some())];
        match paged.into_iter().find(|(_, given)| *given) {
            Some((field, _)) => Err(FieldError::conflict(field, "CSV has no pages: all rows come")),
            None => Ok(()),
        }
    }
}

pub(super) fn number(field: &str, text: &str, range: std::ops::RangeInclusive<i64>) -> Result<i64, FieldError> {
    let bound = || format!("a whole number from {} to {}", range.start(), range.end());
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| FieldError::value(field, bound(), text))
}

fn groups(field: &str, text: &str) -> Result<Vec<GroupBy>, FieldError> {
    let mut groups = Vec::new();
    for word in text.split(',') {
        let group = word.parse().map_err(|bound: String| FieldError::value(field, bound, word))?;
        if groups.contains(&group) {
            return Err(FieldError::conflict(field, format!("`{word}` is given twice")));
        }
        groups.push(group);
    }
    Ok(groups)
}

/// A moment in milliseconds since 1970, written as such or as a day in UTC, whose beginning it is.
///
/// # Errors
/// Where it is neither.
pub fn moment(field: &str, text: &str) -> Result<i64, FieldError> {
    let day = |date: Date| Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond());
    let moment = text.parse().ok().or_else(|| day(text.parse().ok()?));
    moment.ok_or_else(|| FieldError::value(field, "milliseconds since 1970, or a day as 2026-01-31", text))
}

/// A page of rows or of sums.
#[derive(Debug, Serialize)]
pub struct UsagePage<Row> {
    /// The rows.
    pub usage: Vec<Row>,
    /// Where the next page begins; absent where this is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// The sums of a group. What it is not grouped by is absent.
#[derive(Debug, Default, Serialize)]
#[expect(missing_docs, reason = "they are what they are called")]
pub struct UsageSum {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requester: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requester_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served_entity_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served_entity_id: Option<String>,
    /// In UTC, as 2026-01-31.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub day: Option<String>,
    pub request_count: i64,
    /// Of these, those that were refused or failed, or whose caller went away.
    pub failed_request_count: i64,
    pub input_token_count: i64,
    pub output_token_count: i64,
}

/// All that has answered and that the caller may know of.
#[derive(Debug, Serialize)]
pub struct ServedEntityList {
    /// Oldest first.
    pub served_entities: Vec<ServedEntityVersion>,
}

/// A served entity as one version of its endpoint's configuration had it.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "they are the columns of `system.serving.served_entities`")]
pub struct ServedEntityVersion {
    pub served_entity_id: String,
    pub endpoint_config_version: i64,
    /// Milliseconds since 1970.
    pub change_time: i64,
    /// Milliseconds since 1970; null while the endpoint stands.
    pub endpoint_delete_time: Option<i64>,
    pub endpoint_id: String,
    pub endpoint_name: String,
    pub served_entity_name: String,
    pub entity_type: String,
    pub entity_name: String,
    pub entity_version: Option<String>,
    pub task: Option<String>,
    pub created_by: String,
    /// JSON.
    pub external_model_config: Option<String>,
    /// JSON.
    pub foundation_model_config: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &[(&str, &str)]) -> Result<UsageQuestion, String> {
        let fields = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        UsageQuestion::read(&fields).map_err(|error| error.to_string())
    }

    #[test]
    fn moments_are_numbers_or_days() {
        let question = read(&[("start_time", "1970-01-02"), ("end_time", "-5")]).unwrap();
        assert_eq!((question.start_time, question.end_time), (Some(86_400_000), Some(-5)));
        let problem = "`end_time` must be milliseconds since 1970, or a day as 2026-01-31, not 2026-02-30";
        assert_eq!(read(&[("end_time", "2026-02-30")]).unwrap_err(), problem);
    }

    #[test]
    fn what_cannot_be_asked_is_refused_by_name() {
        for (query, problem) in [
            (&[("endpoint", "x")][..], "unknown field `endpoint`"),
            (
                &[("group_by", "day,hour")],
                "`group_by` must be `endpoint`, `requester`, `served_entity` or `day`, not hour",
            ),
            (&[("group_by", "day,day")], "`group_by`: `day` is given twice"),
            (&[("max_results", "0")], "`max_results` must be a whole number from 1 to 10000, not 0"),
            (&[("status_code", "2xx")], "`status_code` must be a whole number from 100 to 999, not 2xx"),
            (&[("format", "xml")], "`format` must be `json` or `csv`, not xml"),
        ] {
            assert_eq!(read(query).unwrap_err(), problem);
        }
        let paged = read(&[("max_results", "5"), ("format", "csv")]).unwrap();
        assert_eq!(paged.check_whole().unwrap_err().to_string(), "`max_results`: CSV has no pages: all rows come");
    }
}
