//! What is used of limits and budgets: one row a counter and window.

use sqlx::query::QueryAs;
use sqlx::{Any, AssertSqlSafe, Transaction, any::AnyArguments, query, query_as};

use super::{Store, StoreError};

/// Rows that one statement writes.
const ROWS: usize = 500;

/// Statements of so many rows are kept prepared.
const PREPARED: usize = 16;

/// A counter within one of its windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CounterRow {
    /// What is counted of whom.
    pub name: String,
    /// Milliseconds since 1970.
    pub window_start: i64,
    /// Milliseconds since 1970; where the next window begins.
    pub window_end: i64,
    /// How much, or how much more.
    pub used: i64,
}

type Counted<'q> = QueryAs<'q, Any, (String, i64, i64), AnyArguments>;

/// Adds so many rows to the counters, and gives what these are then.
fn addition(rows: usize) -> String {
    let row = |row: usize| format!("(${}, ${}, ${}, ${})", 4 * row + 1, 4 * row + 2, 4 * row + 3, 4 * row + 4);
    let rows: Vec<String> = (0..rows).map(row).collect();
    format!(
        "INSERT INTO counters (name, window_start, window_end, used) VALUES {}
         ON CONFLICT (name, window_start) DO UPDATE SET used = counters.used + excluded.used
         RETURNING name, window_start, used",
        rows.join(", ")
    )
}

impl Store {
    /// All counters whose windows end after `moment`, in milliseconds since 1970.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn counters(&self, moment: i64) -> Result<Vec<CounterRow>, StoreError> {
        let sql = "SELECT name, window_start, window_end, used FROM counters WHERE window_end > $1";
        let rows: Vec<(String, i64, i64, i64)> = query_as(sql).bind(moment).fetch_all(&self.pool).await?;
        let row = |(name, window_start, window_end, used)| CounterRow { name, window_start, window_end, used };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Removes the counters whose windows have ended before `moment`.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn remove_counters(&self, moment: i64) -> Result<(), StoreError> {
        query("DELETE FROM counters WHERE window_end < $1").bind(moment).execute(&self.pool).await?;
        Ok(())
    }

    /// Begins to count.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn count(&self) -> Result<Count, StoreError> {
        // What the last milliseconds before a breakdown of the database have counted may be lost; waiting for its disk each
        // time would cost every request that.
        let begin = if self.is_file { "BEGIN IMMEDIATE" } else { "BEGIN; SET LOCAL synchronous_commit = off" };
        Ok(Count { transaction: self.pool.begin_with(begin).await? })
    }

    /// Whether the store is a file, which belongs to one server alone.
    pub fn is_file(&self) -> bool {
        self.is_file
    }
}

/// Counting that is not seen yet; dropping it undoes it.
pub struct Count {
    transaction: Transaction<'static, Any>,
}

impl Count {
    /// Adds to counters, and gives what they are then. Nobody else changes them until this is committed or dropped. All who
    /// count must name them in the same order, so that nobody waits for somebody who waits for them.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn add(&mut self, rows: &[CounterRow]) -> Result<Vec<CounterRow>, StoreError> {
        let mut counted = Vec::with_capacity(rows.len());
        for rows in rows.chunks(ROWS) {
            let sql = addition(rows.len());
            // The short ones come again and again.
            let statement: Counted<'_> = query_as(AssertSqlSafe(sql)).persistent(rows.len() <= PREPARED);
            let bound = rows.iter().fold(statement, |statement, row| {
                statement.bind(&row.name).bind(row.window_start).bind(row.window_end).bind(row.used)
            });
            for (name, window_start, used) in bound.fetch_all(&mut *self.transaction).await? {
                counted.push(CounterRow { name, window_start, window_end: 0, used });
            }
        }
        Ok(counted)
    }

    /// Makes it last.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.transaction.commit().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, start: i64, used: i64) -> CounterRow {
        CounterRow { name: name.to_owned(), window_start: start, window_end: start + 60, used }
    }

    #[tokio::test]
    async fn counters_are_added_to_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::temporary(folder.path()).await;
        let mut count = store.count().await.unwrap();
        count.add(&[row("a", 0, 6), row("b", 60, 7)]).await.unwrap();
        count.commit().await.unwrap();
        let mut count = store.count().await.unwrap();
        let counted = count.add(&[row("a", 0, 10), row("c", 60, 0)]).await.unwrap();
        let used: Vec<(&str, i64)> = counted.iter().map(|row| (row.name.as_str(), row.used)).collect();
        assert_eq!(used, [("a", 16), ("c", 0)]);
        count.commit().await.unwrap();
        let mut undone = store.count().await.unwrap();
        undone.add(&[row("a", 0, 100)]).await.unwrap();
        drop(undone);
        let mut rows = store.counters(0).await.unwrap();
        rows.sort_by(|one, other| one.name.cmp(&other.name));
        assert_eq!(rows, [row("a", 0, 16), row("b", 60, 7), row("c", 60, 0)]);
        store.remove_counters(61).await.unwrap();
        assert_eq!(store.counters(0).await.unwrap().len(), 2);
    }
}
