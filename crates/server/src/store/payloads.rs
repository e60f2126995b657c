//! Inference tables: one row a request that is kept.

use sqlx::any::AnyRow;
use sqlx::{Row, query};

use super::{Store, StoreError};
use crate::payloads::PayloadRow;
use crate::usage::Entry;

/// Rows that are removed at a time, so that whoever writes does not wait for long.
const REMOVED: i64 = 100;

/// Which rows.
#[derive(Debug, Clone, Default)]
pub struct PayloadFilter {
    /// Those of this endpoint.
    pub endpoint_id: String,
    /// Milliseconds since 1970, which are in.
    pub from: Option<i64>,
    /// Milliseconds since 1970, which are out.
    pub until: Option<i64>,
}

/// Where a page ends: the time and the key of its last row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadPlace(pub i64, pub String);

impl PayloadPlace {
    /// Of this row.
    pub fn of(row: &PayloadRow) -> Self {
        Self(row.request_time, row.databricks_request_id.clone())
    }
}

impl Store {
    /// Writes the payloads of entries that have one; those that are there already stay as they are.
    ///
    /// # Errors
    /// Where the store fails; some may be written then.
    pub async fn add_payloads(&self, entries: &[Entry]) -> Result<(), StoreError> {
        if entries.iter().all(|entry| entry.payload.is_none()) {
            return Ok(());
        }
        let mut transaction = self.pool.begin().await?;
        for entry in entries {
            let Some(payload) = &entry.payload else { continue };
            query(
                "INSERT INTO payloads (databricks_request_id, client_request_id, request_time, status_code,
                     sampling_fraction, execution_duration_ms, request, response, logging_error_codes, served_entity_id,
                     requester, endpoint_id)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
                 ON CONFLICT (databricks_request_id) DO NOTHING",
            )
            .bind(&entry.databricks_request_id)
            .bind(&entry.client_request_id)
            .bind(entry.request_time)
            .bind(i64::from(entry.status_code))
            .bind(payload.sampling_fraction)
            .bind(entry.execution_duration_ms)
            .bind(&payload.request)
            .bind(&payload.response)
            // A list of texts is always JSON.
            .bind(serde_json::to_string(&payload.logging_error_codes).unwrap_or_default())
            .bind(&entry.served_entity_id)
            .bind(&entry.requester)
            .bind(&entry.endpoint_id)
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }

    /// The first rows, oldest first: no more than `limit`, and only what comes after `after` in that order.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn payloads(
        &self,
        filter: &PayloadFilter,
        after: Option<&PayloadPlace>,
        limit: i64,
    ) -> Result<Vec<PayloadRow>, StoreError> {
        // Nothing is older than the oldest, and every key comes after the empty one.
        let place = after.cloned().unwrap_or(PayloadPlace(i64::MIN, String::new()));
        let sql = "SELECT databricks_request_id, client_request_id, request_time, status_code, sampling_fraction,
                 execution_duration_ms, request, response, logging_error_codes, served_entity_id, requester
             FROM payloads
             WHERE endpoint_id = $1 AND request_time >= $2 AND request_time < $3
                 AND (request_time, databricks_request_id) > ($4, $5)
             ORDER BY request_time, databricks_request_id LIMIT $6";
        let rows = query(sql)
            .bind(&filter.endpoint_id)
            .bind(filter.from.unwrap_or(i64::MIN))
            .bind(filter.until.unwrap_or(i64::MAX))
            .bind(place.0)
            .bind(place.1)
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(read).collect()
    }

    /// Removes what is older than `before`, in milliseconds since 1970.
    ///
    /// # Errors
    /// Where the store fails; some may be gone then.
    pub async fn remove_payloads(&self, before: i64) -> Result<(), StoreError> {
        self.remove_older("payloads", before, REMOVED).await
    }
}

fn read(row: &AnyRow) -> Result<PayloadRow, StoreError> {
    let codes: String = row.try_get("logging_error_codes")?;
    let request_time: i64 = row.try_get("request_time")?;
    let unknown = |_| StoreError::Unknown { what: "the codes of a payload", value: codes.clone() };
    Ok(PayloadRow {
        databricks_request_id: row.try_get("databricks_request_id")?,
        request_date: PayloadRow::date(request_time),
        client_request_id: row.try_get("client_request_id")?,
        request_time,
        status_code: row.try_get("status_code")?,
        sampling_fraction: row.try_get("sampling_fraction")?,
        execution_duration_ms: row.try_get("execution_duration_ms")?,
        request: row.try_get("request")?,
        response: row.try_get("response")?,
        logging_error_codes: serde_json::from_str(&codes).map_err(unknown)?,
        served_entity_id: row.try_get("served_entity_id")?,
        requester: row.try_get("requester")?,
    })
}
