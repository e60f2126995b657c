//! What endpoints have served, for those who read the usage afterwards.

use super::{Config, What, task_name};
use crate::endpoints::Task;
use crate::store::{Change, EndpointRow, ServedEntityRow, StoreError, now};

/// Writes down the entities of a configuration that has come up. `task` is what they do, where that is known.
pub(super) async fn record(
    change: &mut Change,
    row: &EndpointRow,
    config: &Config,
    task: Option<Task>,
) -> Result<(), StoreError> {
    for entity in &config.entities {
        let written = ServedEntityRow {
            served_entity_id: entity.id.clone(),
            change_time: now(),
            endpoint_id: row.id.clone(),
            endpoint_name: row.name.clone(),
            served_entity_name: entity.name.clone(),
            endpoint_config_version: config.version,
            task: task.map(|task| task_name(task).to_owned()),
            created_by: entity.creator.clone(),
            ..ServedEntityRow::default()
        };
        let written = match &entity.what {
            What::Hosted(hosted) => ServedEntityRow {
                entity_type: "FOUNDATION_MODEL".to_owned(),
                entity_name: hosted.entity_name.clone(),
                entity_version: Some(hosted.entity_version.clone()),
                ..written
            },
            What::External(model) => ServedEntityRow {
                entity_type: "EXTERNAL_MODEL".to_owned(),
                entity_name: model["name"].as_str().unwrap_or_default().to_owned(),
                // Its secret is a reference.
                external_model_config: Some(model.to_string()),
                ..written
            },
        };
        change.record_served_entities(&[written]).await?;
    }
    Ok(())
}
