//! Writing down what the endpoints of the command line and the configuration file serve.

use crate::control::{OURSELVES, task_name};
use crate::endpoints::Endpoint;
use crate::store::{ServedEntityRow, Store, StoreError, now};

/// Writes down what `endpoint` serves, unless that is what it served before. ///
/// # Errors
/// Where the store fails.
pub async fn record_lasting(store: &Store, endpoint: &Endpoint) -> Result<(), StoreError> {
    let mut change = store.change().await?;
    for entity in endpoint.entities() {
        let model = entity.provider().model_name();
        let row = ServedEntityRow {
            served_entity_id: entity.id().to_owned(),
            change_time: now(),
            endpoint_id: endpoint.id().to_owned(),
            endpoint_name: endpoint.name().to_owned(),
            served_entity_name: entity.name().to_owned(),
            entity_type: if entity.provider().hosted().is_some() { FOUNDATION } else { EXTERNAL }.to_owned(),
            entity_name: model.to_owned(),
            entity_version: Some("1".to_owned()),
            task: entity.provider().task().map(|task| task_name(task).to_owned()),
            created_by: OURSELVES.to_owned(),
            ..ServedEntityRow::default()
        };
        change.record_lasting_entity(&row).await?;
    }
    change.commit().await
}

const FOUNDATION: &str = "FOUNDATION_MODEL";
const EXTERNAL: &str = "EXTERNAL_MODEL";
