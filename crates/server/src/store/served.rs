//! The history of what has answered: served entities, version by version, after their endpoints are gone too.

use sqlx::any::AnyRow;
use sqlx::{Row, query};

use super::{Change, Store, StoreError};

/// A served entity as one version of its endpoint's configuration had it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServedEntityRow {
    /// 32 hexadecimal digits.
    pub served_entity_id: String,
    /// Which version of the endpoint's configuration brought it.
    pub endpoint_config_version: i64,
    /// When, in milliseconds since 1970.
    pub change_time: i64,
    /// When the endpoint was deleted, in milliseconds since 1970.
    pub endpoint_delete_time: Option<i64>,
    /// The endpoint.
    pub endpoint_id: String,
    /// Its name.
    pub endpoint_name: String,
    /// Its own name.
    pub served_entity_name: String,
    /// `FOUNDATION_MODEL` or `EXTERNAL_MODEL`.
    pub entity_type: String,
    /// The model.
    pub entity_name: String,
    /// The model's version, where it has one.
    pub entity_version: Option<String>,
    /// What it does, as `llm/v1/chat`, where that is known.
    pub task: Option<String>,
    /// Name of who made it.
    pub created_by: String,
    /// How the other API is called, as JSON and without a secret.
    pub external_model_config: Option<String>,
    /// How the model is run, as JSON.
    pub foundation_model_config: Option<String>,
}

const LATEST: &str = "SELECT served_entity_id, endpoint_config_version, change_time, endpoint_delete_time, endpoint_id,
        endpoint_name, served_entity_name, entity_type, entity_name, entity_version, task, created_by,
        external_model_config, foundation_model_config
    FROM served_entities WHERE served_entity_id = $1 ORDER BY endpoint_config_version DESC LIMIT 1";
const ALL: &str = "SELECT served_entity_id, endpoint_config_version, change_time, endpoint_delete_time, endpoint_id,
        endpoint_name, served_entity_name, entity_type, entity_name, entity_version, task, created_by,
        external_model_config, foundation_model_config
    FROM served_entities ORDER BY change_time, served_entity_id, endpoint_config_version";

impl ServedEntityRow {
    /// Whether the row says the same of the same entity, whenever that was. A task that shows only later makes no difference.
    fn says(&self, other: &Self) -> bool {
        let task = self.task.clone().or_else(|| other.task.clone());
        let (endpoint_config_version, change_time) = (other.endpoint_config_version, other.change_time);
        Self { endpoint_config_version, change_time, task, ..self.clone() } == *other
    }
}

fn read(row: &AnyRow) -> Result<ServedEntityRow, StoreError> {
    Ok(ServedEntityRow {
        served_entity_id: row.try_get("served_entity_id")?,
        endpoint_config_version: row.try_get("endpoint_config_version")?,
        change_time: row.try_get("change_time")?,
        endpoint_delete_time: row.try_get("endpoint_delete_time")?,
        endpoint_id: row.try_get("endpoint_id")?,
        endpoint_name: row.try_get("endpoint_name")?,
        served_entity_name: row.try_get("served_entity_name")?,
        entity_type: row.try_get("entity_type")?,
        entity_name: row.try_get("entity_name")?,
        entity_version: row.try_get("entity_version")?,
        task: row.try_get("task")?,
        created_by: row.try_get("created_by")?,
        external_model_config: row.try_get("external_model_config")?,
        foundation_model_config: row.try_get("foundation_model_config")?,
    })
}

impl Store {
    /// All that has ever answered, oldest first.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn served_entities(&self) -> Result<Vec<ServedEntityRow>, StoreError> {
        query(ALL).fetch_all(&self.pool).await?.iter().map(read).collect()
    }
}

impl Change {
    /// Writes down the entities of a new version of an endpoint's configuration.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn record_served_entities(&mut self, rows: &[ServedEntityRow]) -> Result<(), StoreError> {
        for row in rows {
            query(
                "INSERT INTO served_entities (served_entity_id, endpoint_config_version, change_time, endpoint_id,
                    endpoint_name, served_entity_name, entity_type, entity_name, entity_version, task, created_by,
                    external_model_config, foundation_model_config)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
                 ON CONFLICT (served_entity_id, endpoint_config_version) DO NOTHING",
            )
            .bind(&row.served_entity_id)
            .bind(row.endpoint_config_version)
            .bind(row.change_time)
            .bind(&row.endpoint_id)
            .bind(&row.endpoint_name)
            .bind(&row.served_entity_name)
            .bind(&row.entity_type)
            .bind(&row.entity_name)
            .bind(&row.entity_version)
            .bind(&row.task)
            .bind(&row.created_by)
            .bind(&row.external_model_config)
            .bind(&row.foundation_model_config)
            .execute(self.connection())
            .await?;
        }
        Ok(())
    }

    /// Writes down an entity that the command line or the configuration file names: as the next version, unless the latest one
    /// says the same.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn record_lasting_entity(&mut self, row: &ServedEntityRow) -> Result<(), StoreError> {
        let latest = query(LATEST).bind(&row.served_entity_id).fetch_optional(self.connection()).await?;
        let latest = latest.as_ref().map(read).transpose()?;
        if latest.as_ref().is_some_and(|latest| row.says(latest)) {
            return Ok(());
        }
        let endpoint_config_version = latest.map_or(1, |latest| latest.endpoint_config_version + 1);
        self.record_served_entities(&[ServedEntityRow { endpoint_config_version, ..row.clone() }]).await
    }

    /// Writes down that an endpoint was deleted.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn end_served_entities(&mut self, endpoint_id: &str, time: i64) -> Result<(), StoreError> {
        query(
            "UPDATE served_entities SET endpoint_delete_time = $2
             WHERE endpoint_id = $1 AND endpoint_delete_time IS NULL",
        )
        .bind(endpoint_id)
        .bind(time)
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(model: &str, time: i64, task: Option<&str>) -> ServedEntityRow {
        let task = task.map(str::to_owned);
        let (id, entity_name) = ("e1".to_owned(), model.to_owned());
        ServedEntityRow {
            served_entity_id: id,
            endpoint_id: "p".into(),
            entity_name,
            task,
            change_time: time,
            ..Default::default()
        }
    }

    async fn keep(store: &Store, row: &ServedEntityRow) {
        let mut change = store.change().await.unwrap();
        change.record_lasting_entity(row).await.unwrap();
        change.commit().await.unwrap();
    }

    #[tokio::test]
    async fn what_answers_is_written_down_when_it_becomes_something_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::temporary(folder.path()).await;
        let chat = Some("llm/v1/chat");
        for same in [row("a", 1, chat), row("a", 2, chat), row("a", 3, None)] {
            keep(&store, &same).await;
        }
        keep(&store, &row("b", 4, chat)).await;
        let mut change = store.change().await.unwrap();
        change.end_served_entities("p", 5).await.unwrap();
        change.commit().await.unwrap();
        keep(&store, &row("b", 6, chat)).await;
        let found: Vec<_> = store.served_entities().await.unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|row| (row.endpoint_config_version, &*row.entity_name, row.change_time, row.endpoint_delete_time))
            .collect();
        assert_eq!(found, [(1, "a", 1, Some(5)), (2, "b", 4, Some(5)), (3, "b", 6, None)]);
    }
}
