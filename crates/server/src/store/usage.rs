//! Usage: one row a request, pages of them, and their sums.

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AssertSqlSafe, Row, query};

use super::{Store, StoreError};
use crate::usage::Entry;

/// In the order in which they are written; the first is the key.
const COLUMNS: [&str; 19] = [
    "databricks_request_id",
    "request_id",
    "client_request_id",
    "request_time",
    "execution_duration_ms",
    "status_code",
    "requester",
    "requester_id",
    "endpoint_id",
    "endpoint_name",
    "served_entity_id",
    "served_entity_name",
    "input_token_count",
    "output_token_count",
    "input_character_count",
    "output_character_count",
    "request_streaming",
    "usage_context",
    "passed_over",
];

/// Rows that one statement writes; SQLite takes 32,766 values in one.
const ROWS: usize = 500;

/// Rows that are removed at a time, so that whoever writes does not wait for long.
const REMOVED: i64 = 1000;

const DAY: i64 = 24 * 60 * 60 * 1000;

/// Which rows.
#[derive(Debug, Clone, Default)]
pub struct UsageFilter {
    /// Milliseconds since 1970, which are in.
    pub from: Option<i64>,
    /// Milliseconds since 1970, which are out.
    pub until: Option<i64>,
    /// Of the endpoint of that name.
    pub endpoint_name: Option<String>,
    /// Of the principal of that name.
    pub requester: Option<String>,
    /// Answered with that status.
    pub status_code: Option<i64>,
    /// Nothing but these, whatever else is asked for; all where there is none.
    pub visible: Option<Visible>,
}

/// Rows that somebody may see.
#[derive(Debug, Clone)]
pub struct Visible {
    /// Those of this principal,
    pub requester_id: String,
    /// and those of these endpoints.
    pub endpoint_ids: Vec<String>,
}

/// Where a page ends: the time and the key of its last row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsagePlace(pub i64, pub String);

/// What rows are summed up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// The endpoint.
    Endpoint,
    /// The principal.
    Requester,
    /// What has answered.
    ServedEntity,
    /// The day, in UTC.
    Day,
}

impl Grouping {
    /// The expressions that tell one group from the next: for people, and for certain.
    fn keys(self) -> [&'static str; 2] {
        match self {
            Self::Endpoint => ["endpoint_name", "endpoint_id"],
            Self::Requester => ["requester", "requester_id"],
            Self::ServedEntity => ["served_entity_name", "served_entity_id"],
            Self::Day => ["request_time / 86400000", "''"],
        }
    }
}

/// The sums of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsageSums {
    /// Name and id.
    pub endpoint: Option<(String, String)>,
    /// Name and id.
    pub requester: Option<(String, String)>,
    /// Name and id.
    pub served_entity: Option<(String, String)>,
    /// Its first moment, in milliseconds since 1970.
    pub day: Option<i64>,
    /// Requests.
    pub requests: i64,
    /// Of those, how many were refused or failed.
    pub failed: i64,
    /// Tokens read.
    pub input_tokens: i64,
    /// Tokens generated.
    pub output_tokens: i64,
}

impl Store {
    /// Writes the entries that are rows of the usage; those that are there already stay as they are.
    ///
    /// # Errors
    /// Where the store fails; some may be written then.
    pub async fn add_usage(&self, entries: &[Entry]) -> Result<(), StoreError> {
        let tracked: Vec<&Entry> = entries.iter().filter(|entry| entry.is_tracked()).collect();
        for entries in tracked.chunks(ROWS) {
            let row = |row: usize| {
                let places = (1..=COLUMNS.len()).map(|column| match self.is_file {
                    // SQLite looks for each numbered place among all the others.
                    true => "?".to_owned(),
                    false => format!("${}", row * COLUMNS.len() + column),
                });
                format!("({})", places.collect::<Vec<_>>().join(", "))
            };
            let rows: Vec<String> = (0..entries.len()).map(row).collect();
            let sql = format!(
                "INSERT INTO usage ({}) VALUES {} ON CONFLICT (databricks_request_id) DO NOTHING",
                COLUMNS.join(", "),
                rows.join(", ")
            );
            // Its length is another one each time, so there is no use in keeping it prepared.
            let statement = query(AssertSqlSafe(sql)).persistent(false);
            entries.iter().fold(statement, |statement, entry| bind(statement, entry)).execute(&self.pool).await?;
        }
        Ok(())
    }

    /// The latest rows, newest first: no more than `limit`, and only what comes after `after` in that order.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn usage(
        &self,
        filter: &UsageFilter,
        after: Option<&UsagePlace>,
        limit: i64,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut asked = Asked::new(filter);
        if let Some(UsagePlace(time, id)) = after {
            let (time, id) = (asked.number(*time), asked.text(id));
            asked.conditions.push(format!("(request_time, databricks_request_id) < ({time}, {id})"));
        }
        let limit = asked.number(limit);
        let sql = format!(
            "SELECT {} FROM usage WHERE {} ORDER BY request_time DESC, databricks_request_id DESC LIMIT {limit}",
            COLUMNS.join(", "),
            asked.conditions()
        );
        asked.rows(self, sql).await?.iter().map(read).collect()
    }

    /// The sums of all rows, or of each group of them, in the order of the groups' names: `limit` after the first `skipped`.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn usage_sums(
        &self,
        filter: &UsageFilter,
        groupings: &[Grouping],
        skipped: i64,
        limit: i64,
    ) -> Result<Vec<UsageSums>, StoreError> {
        let mut asked = Asked::new(filter);
        let keys: Vec<&str> = groupings.iter().flat_map(|grouping| grouping.keys()).collect();
        let keys_before = keys.iter().map(|key| format!("{key}, ")).collect::<String>();
        let places: Vec<String> = (1..=keys.len()).map(|place| place.to_string()).collect();
        let (grouped, ordered) = match places.join(", ") {
            places if places.is_empty() => (String::new(), String::new()),
            places => (format!("GROUP BY {places}"), format!("ORDER BY {places}")),
        };
        let (limit, skipped) = (asked.number(limit), asked.number(skipped));
        // Sums are as wide as Postgres likes without the casts.
        let sql = format!(
            "SELECT {keys_before}COUNT(*),
                CAST(COALESCE(SUM(CASE WHEN status_code >= 400 THEN 1 ELSE 0 END), 0) AS BIGINT),
                CAST(COALESCE(SUM(input_token_count), 0) AS BIGINT),
                CAST(COALESCE(SUM(output_token_count), 0) AS BIGINT)
             FROM usage WHERE {} {grouped} {ordered} LIMIT {limit} OFFSET {skipped}",
            asked.conditions()
        );
        asked.rows(self, sql).await?.iter().map(|row| read_sums(row, groupings)).collect()
    }

    /// Removes what is older than `before`, in milliseconds since 1970.
    ///
    /// # Errors
    /// Where the store fails; some may be gone then.
    pub async fn remove_usage(&self, before: i64) -> Result<(), StoreError> {
        self.remove_older("usage", before, REMOVED).await
    }

    /// Removes the requests of that table that are older than `before`, so many at a time.
    pub(super) async fn remove_older(&self, table: &str, before: i64, rows: i64) -> Result<(), StoreError> {
        let sql = format!(
            "DELETE FROM {table} WHERE databricks_request_id IN
             (SELECT databricks_request_id FROM {table} WHERE request_time < $1 LIMIT $2)"
        );
        while query(AssertSqlSafe(sql.clone())).bind(before).bind(rows).execute(&self.pool).await?.rows_affected() > 0 {
        }
        Ok(())
    }
}

fn bind<'q>(statement: Query<'q, Any, AnyArguments>, entry: &'q Entry) -> Query<'q, Any, AnyArguments> {
    statement
        .bind(&entry.databricks_request_id)
        .bind(&entry.request_id)
        .bind(&entry.client_request_id)
        .bind(entry.request_time)
        .bind(entry.execution_duration_ms)
        .bind(i64::from(entry.status_code))
        .bind(&entry.requester)
        .bind(&entry.requester_id)
        .bind(&entry.endpoint_id)
        .bind(&entry.endpoint_name)
        .bind(&entry.served_entity_id)
        .bind(&entry.served_entity_name)
        .bind(entry.input_token_count)
        .bind(entry.output_token_count)
        .bind(entry.input_character_count)
        .bind(entry.output_character_count)
        .bind(i64::from(entry.request_streaming))
        // A map of texts is always JSON.
        .bind(serde_json::to_string(&entry.usage_context).unwrap_or_default())
        .bind(&entry.passed_over)
}

fn read(row: &AnyRow) -> Result<Entry, StoreError> {
    let unknown = |what, value: String| StoreError::Unknown { what, value };
    let status: i64 = row.try_get("status_code")?;
    let context: String = row.try_get("usage_context")?;
    Ok(Entry {
        databricks_request_id: row.try_get("databricks_request_id")?,
        request_id: row.try_get("request_id")?,
        client_request_id: row.try_get("client_request_id")?,
        request_time: row.try_get("request_time")?,
        execution_duration_ms: row.try_get("execution_duration_ms")?,
        status_code: u16::try_from(status).map_err(|_| unknown("the status", status.to_string()))?,
        requester: row.try_get("requester")?,
        requester_id: row.try_get("requester_id")?,
        endpoint_id: row.try_get("endpoint_id")?,
        endpoint_name: row.try_get("endpoint_name")?,
        served_entity_id: row.try_get("served_entity_id")?,
        served_entity_name: row.try_get("served_entity_name")?,
        input_token_count: row.try_get("input_token_count")?,
        output_token_count: row.try_get("output_token_count")?,
        input_character_count: row.try_get("input_character_count")?,
        output_character_count: row.try_get("output_character_count")?,
        request_streaming: row.try_get::<i64, _>("request_streaming")? != 0,
        usage_context: serde_json::from_str(&context).map_err(|_| unknown("the usage context", context))?,
        passed_over: row.try_get("passed_over")?,
        payload: None,
    })
}

fn read_sums(row: &AnyRow, groupings: &[Grouping]) -> Result<UsageSums, StoreError> {
    let mut sums = UsageSums::default();
    for (index, grouping) in groupings.iter().enumerate() {
        let named = || Ok::<_, StoreError>((row.try_get(2 * index)?, row.try_get(2 * index + 1)?));
        match grouping {
            Grouping::Endpoint => sums.endpoint = Some(named()?),
            Grouping::Requester => sums.requester = Some(named()?),
            Grouping::ServedEntity => sums.served_entity = Some(named()?),
            Grouping::Day => sums.day = Some(row.try_get::<i64, _>(2 * index)? * DAY),
        }
    }
    let first = 2 * groupings.len();
    let numbers = (first..first + 4).map(|index| row.try_get(index)).collect::<Result<Vec<i64>, _>>()?;
    if let [requests, failed, input_tokens, output_tokens] = numbers[..] {
        return Ok(UsageSums { requests, failed, input_tokens, output_tokens, ..sums });
    }
    Ok(sums)
}

/// The conditions of a query, and the values that stand for their `$n`.
struct Asked {
    conditions: Vec<String>,
    values: Vec<Value>,
}

enum Value {
    Text(String),
    Number(i64),
}

impl Asked {
    fn new(filter: &UsageFilter) -> Self {
        let mut asked = Self { conditions: Vec::new(), values: Vec::new() };
        for (condition, value) in [
            ("request_time >=", filter.from.map(Value::Number)),
            ("request_time <", filter.until.map(Value::Number)),
            ("status_code =", filter.status_code.map(Value::Number)),
            ("endpoint_name =", filter.endpoint_name.clone().map(Value::Text)),
            ("requester =", filter.requester.clone().map(Value::Text)),
        ] {
            if let Some(value) = value {
                let place = asked.place(value);
                asked.conditions.push(format!("{condition} {place}"));
            }
        }
        if let Some(visible) = &filter.visible {
            let requester = asked.text(&visible.requester_id);
            let endpoints: Vec<String> = visible.endpoint_ids.iter().map(|id| asked.text(id)).collect();
            asked.conditions.push(match endpoints.is_empty() {
                true => format!("requester_id = {requester}"),
                false => format!("(requester_id = {requester} OR endpoint_id IN ({}))", endpoints.join(", ")),
            });
        }
        asked
    }

    fn place(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }

    fn text(&mut self, text: &str) -> String {
        self.place(Value::Text(text.to_owned()))
    }

    fn number(&mut self, number: i64) -> String {
        self.place(Value::Number(number))
    }

    fn conditions(&self) -> String {
        if self.conditions.is_empty() { "1 = 1".to_owned() } else { self.conditions.join(" AND ") }
    }

    async fn rows(self, store: &Store, sql: String) -> Result<Vec<AnyRow>, StoreError> {
        let statement = self.values.into_iter().fold(query(AssertSqlSafe(sql)), |statement, value| match value {
            Value::Text(text) => statement.bind(text),
            Value::Number(number) => statement.bind(number),
        });
        Ok(statement.fetch_all(&store.pool).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, time: i64) -> Entry {
        Entry { databricks_request_id: id.to_owned(), request_time: time, status_code: 200, ..Entry::default() }
    }

    fn of(requester: &str, endpoint: &str, entry: Entry) -> Entry {
        let text = |kind: &str, name: &str| (format!("{kind}-{name}"), name.to_owned());
        let ((requester_id, requester), (endpoint_id, endpoint_name)) = (text("r", requester), text("e", endpoint));
        Entry { requester_id, requester, endpoint_id, endpoint_name, ..entry }
    }

    async fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::temporary(folder.path()).await;
        let busy = Entry { status_code: 429, ..entry("3", DAY + 2) };
        let rows = [
            of("ada", "chat", Entry { input_token_count: 5, output_token_count: 7, ..entry("1", 0) }),
            of("bob", "chat", Entry { input_token_count: 2, ..entry("2", DAY - 1) }),
            of("bob", "vectors", busy),
            of("ada", "vectors", Entry { output_token_count: 1, ..entry("4", DAY + 2) }),
        ];
        store.add_usage(&rows).await.unwrap();
        (folder, store)
    }

    async fn ids(store: &Store, filter: UsageFilter) -> String {
        let rows = store.usage(&filter, None, 100).await.unwrap();
        rows.into_iter().map(|row| row.databricks_request_id).collect()
    }

    #[tokio::test]
    async fn a_row_comes_back_as_it_was_written_and_a_second_time_changes_nothing() {
        let (_folder, store) = store().await;
        let full = Entry {
            request_id: "r".into(),
            client_request_id: Some("c".into()),
            execution_duration_ms: 9,
            served_entity_id: "s".into(),
            served_entity_name: "only".into(),
            input_character_count: Some(3),
            request_streaming: true,
            usage_context: [("team".to_owned(), "a \" b".to_owned())].into(),
            ..of("eve", "chat", entry("5", 2 * DAY))
        };
        store.add_usage(std::slice::from_ref(&full)).await.unwrap();
        store.add_usage(&[Entry { status_code: 500, ..full.clone() }]).await.unwrap();
        assert_eq!(store.usage(&UsageFilter::default(), None, 1).await.unwrap(), [full]);
    }

    #[tokio::test]
    async fn filters_let_through_what_they_say() {
        let (_folder, store) = store().await;
        let none = UsageFilter::default;
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(ids(&store, none()).await, "4321");
        assert_eq!(ids(&store, UsageFilter { from: Some(1), until: Some(DAY), ..none() }).await, "2");
        assert_eq!(ids(&store, UsageFilter { requester: text("ada"), ..none() }).await, "41");
        let both = UsageFilter { requester: text("ada"), endpoint_name: text("chat"), ..none() };
        assert_eq!(ids(&store, both).await, "1");
        assert_eq!(ids(&store, UsageFilter { status_code: Some(429), ..none() }).await, "3");
        let visible = |endpoint_ids: &[&str]| {
            let endpoint_ids = endpoint_ids.iter().map(|id| (*id).to_owned()).collect();
            Some(Visible { requester_id: "r-bob".into(), endpoint_ids })
        };
        assert_eq!(ids(&store, UsageFilter { visible: visible(&[]), ..none() }).await, "32");
        assert_eq!(ids(&store, UsageFilter { visible: visible(&["e-chat", "e-x"]), ..none() }).await, "321");
        let others = UsageFilter { visible: visible(&[]), requester: text("ada"), ..none() };
        assert_eq!(ids(&store, others).await, "", "what is asked for does not widen what may be seen");
    }

    #[tokio::test]
    async fn pages_have_every_row_once_those_of_the_same_moment_too() {
        let (_folder, store) = store().await;
        let mut found = String::new();
        let mut place = None;
        loop {
            let page = store.usage(&UsageFilter::default(), place.as_ref(), 1).await.unwrap();
            let Some(row) = page.into_iter().next() else { break };
            found += &row.databricks_request_id;
            place = Some(UsagePlace(row.request_time, row.databricks_request_id));
        }
        assert_eq!(found, "4321");
    }

    #[tokio::test]
    async fn sums_are_of_each_group() {
        let (_folder, store) = store().await;
        let sums =
            async |groupings: &[Grouping]| store.usage_sums(&UsageFilter::default(), groupings, 0, 100).await.unwrap();
        let numbers = |sums: &UsageSums| (sums.requests, sums.failed, sums.input_tokens, sums.output_tokens);
        assert_eq!(sums(&[]).await.iter().map(numbers).collect::<Vec<_>>(), [(4, 1, 7, 8)]);
        let days = sums(&[Grouping::Day]).await;
        assert_eq!(
            days.iter().map(|sums| (sums.day, sums.requests)).collect::<Vec<_>>(),
            [(Some(0), 2), (Some(DAY), 2)]
        );
        let both = sums(&[Grouping::Endpoint, Grouping::Requester]).await;
        let named = |sums: &UsageSums| {
            let name = |pair: &Option<(String, String)>| pair.clone().unwrap().0;
            (name(&sums.endpoint), name(&sums.requester), sums.requests)
        };
        let expected = [("chat", "ada"), ("chat", "bob"), ("vectors", "ada"), ("vectors", "bob")];
        let expected = expected.map(|(endpoint, requester)| (endpoint.to_owned(), requester.to_owned(), 1));
        assert_eq!(both.iter().map(named).collect::<Vec<_>>(), expected);
        let page = store.usage_sums(&UsageFilter::default(), &[Grouping::Requester], 1, 1).await.unwrap();
        assert_eq!(
            page.iter().map(|sums| sums.requester.clone()).collect::<Vec<_>>(),
            [Some(("bob".into(), "r-bob".into()))]
        );
    }

    #[tokio::test]
    async fn more_rows_are_written_and_removed_than_a_statement_takes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::temporary(folder.path()).await;
        let rows: Vec<Entry> = (0..2 * ROWS as i64 + 3).map(|number| entry(&format!("{number:05}"), number)).collect();
        store.add_usage(&rows).await.unwrap();
        let newest = store.usage(&UsageFilter::default(), None, 5000).await.unwrap();
        assert_eq!(newest.len(), rows.len());
        store.remove_usage(1001).await.unwrap();
        assert_eq!(ids(&store, UsageFilter::default()).await, "0100201001");
    }
}
