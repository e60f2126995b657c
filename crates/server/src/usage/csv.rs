//! Usage as CSV: page by page, so that it takes no more memory than a page has.

use futures::stream::{self, Stream};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::Entry;
use crate::store::{Grouping, Store, StoreError, UsageFilter, UsagePlace, UsageSums};
use crate::wire::usage::UsageSum;

/// Rows of a page.
const PAGE: i64 = 1000;

/// The rows that `filter` lets through, newest first, a page in each piece, after a line of the columns' names.
pub fn usage_as_csv(store: Store, filter: UsageFilter) -> impl Stream<Item = Result<Vec<u8>, StoreError>> + Send {
    let pages = stream::try_unfold(Some(None), move |place: Option<Option<UsagePlace>>| {
        let (store, filter) = (store.clone(), filter.clone());
        async move {
            let Some(place) = place else { return Ok(None) };
            let entries = store.usage(&filter, place.as_ref(), PAGE).await?;
            let last = entries.last().filter(|_| entries.len() as i64 == PAGE).map(place_of);
            Ok(Some((rows(&entries), last.map(Some))))
        }
    });
    with_head(head(&Entry::default()), pages)
}

/// The sums of the groups of rows that `filter` lets through, as [`usage_as_csv`].
pub fn sums_as_csv(
    store: Store,
    filter: UsageFilter,
    groupings: Vec<Grouping>,
) -> impl Stream<Item = Result<Vec<u8>, StoreError>> + Send {
    let empty = |grouping: &Grouping, sums: UsageSums| {
        let nothing = Some(Default::default());
        match grouping {
            Grouping::Endpoint => UsageSums { endpoint: nothing, ..sums },
            Grouping::Requester => UsageSums { requester: nothing, ..sums },
            Grouping::ServedEntity => UsageSums { served_entity: nothing, ..sums },
            Grouping::Day => UsageSums { day: Some(0), ..sums },
        }
    };
    let empty = groupings.iter().fold(UsageSums::default(), |sums, grouping| empty(grouping, sums));
    let pages = stream::try_unfold(Some(0), move |skipped: Option<i64>| {
        let (store, filter, groupings) = (store.clone(), filter.clone(), groupings.clone());
        async move {
            let Some(skipped) = skipped else { return Ok(None) };
            let sums = store.usage_sums(&filter, &groupings, skipped, PAGE).await?;
            let more = (sums.len() as i64 == PAGE).then_some(skipped + PAGE);
            Ok(Some((rows(&sums.into_iter().map(sum).collect::<Vec<_>>()), more)))
        }
    });
    with_head(head(&sum(empty)), pages)
}

/// The place of an entry among the others.
pub(crate) fn place_of(entry: &Entry) -> UsagePlace {
    UsagePlace(entry.request_time, entry.databricks_request_id.clone())
}

/// Sums as they are told.
pub(crate) fn sum(sums: UsageSums) -> UsageSum {
    let (endpoint_name, endpoint_id) = sums.endpoint.unzip();
    let (requester, requester_id) = sums.requester.unzip();
    let (served_entity_name, served_entity_id) = sums.served_entity.unzip();
    let day = sums.day.and_then(|day| Timestamp::from_millisecond(day).ok());
    UsageSum {
        endpoint_name,
        endpoint_id,
        requester,
        requester_id,
        served_entity_name,
        served_entity_id,
        day: day.map(|day| day.strftime("%Y-%m-%d").to_string()),
        request_count: sums.requests,
        failed_request_count: sums.failed,
        input_token_count: sums.input_tokens,
        output_token_count: sums.output_tokens,
    }
}

/// The first piece begins with the head, so that nothing has been said when the store fails at once.
fn with_head(
    head: Vec<u8>,
    pages: impl Stream<Item = Result<Vec<u8>, StoreError>> + Send,
) -> impl Stream<Item = Result<Vec<u8>, StoreError>> + Send {
    use futures::StreamExt;
    let mut head = Some(head);
    pages.map(move |page| page.map(|page| head.take().map_or(page.clone(), |head| [head, page].concat())))
}

/// The names of a row's columns, as a line.
pub(crate) fn head(row: &impl Serialize) -> Vec<u8> {
    line(fields(row).into_iter().map(|(name, _)| name))
}

/// Rows as lines.
pub(crate) fn rows(rows: &[impl Serialize]) -> Vec<u8> {
    rows.iter().flat_map(|row| line(fields(row).into_iter().map(|(_, value)| value))).collect()
}

/// The fields of a row in their order: texts as they are, nothing for null, JSON for what has parts.
fn fields(row: &impl Serialize) -> Vec<(String, String)> {
    let spelled = |value: Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text,
        other => other.to_string(),
    };
    match serde_json::to_value(row) {
        Ok(Value::Object(fields)) => fields.into_iter().map(|(name, value)| (name, spelled(value))).collect(),
        _ => Vec::new(),
    }
}

fn line(values: impl Iterator<Item = String>) -> Vec<u8> {
    let mut writer = ::csv::WriterBuilder::new().from_writer(Vec::new());
    // Memory takes whatever is written into it.
    let _ = writer.write_record(values);
    writer.into_inner().unwrap_or_default()
}
