//! An inference table as CSV: page by page, so that it takes no more memory than a page has.

use futures::stream::{self, Stream};

use super::PayloadRow;
use crate::store::{PayloadFilter, PayloadPlace, Store, StoreError};
use crate::usage::{csv_head, csv_rows};

/// Rows of a page, each of which may have some megabytes.
pub(super) const PAGE: i64 = 20;

/// The rows that `filter` lets through, oldest first, a page in each piece, after a line of the columns' names.
pub fn payloads_as_csv(store: Store, filter: PayloadFilter) -> impl Stream<Item = Result<Vec<u8>, StoreError>> + Send {
    let head = Some(csv_head(&PayloadRow::empty()));
    stream::try_unfold((head, Some(None)), move |(head, place): (Option<Vec<u8>>, Option<Option<PayloadPlace>>)| {
        let (store, filter) = (store.clone(), filter.clone());
        async move {
            let Some(place) = place else { return Ok(None) };
            let rows = store.payloads(&filter, place.as_ref(), PAGE).await?;
            let next = rows.last().filter(|_| rows.len() as i64 == PAGE).map(|last| Some(PayloadPlace::of(last)));
            // The first piece begins with the head, so that nothing has been said when the store fails at once.
            Ok(Some(([head.unwrap_or_default(), csv_rows(&rows)].concat(), (None, next))))
        }
    })
}
