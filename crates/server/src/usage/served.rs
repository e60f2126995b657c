//! Writing down what the endpoints of the command line and the configuration file serve.

use crate::endpoints::{Endpoint, Task};
use crate::store::{ServedEntityRow, Store, StoreError, now};

/// Writes down what `endpoint` serves, unless that is what it served before. `creator` is whoever the listing of endpoints names.
///
/// # Errors
/// Where the store fails.
pub async fn record_lasting(store: &Store, endpoint: &Endpoint, creator: &str) -> Result<(), StoreError> {
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
            task: entity.provider().task().map(|task| task_name(task).to_owned()),
            created_by: creator.to_owned(),
            ..ServedEntityRow::default()
        };
        change.record_lasting_entity(&row).await?;
    }
    change.commit().await
}

const FOUNDATION: &str = "FOUNDATION_MODEL";
const EXTERNAL: &str = "EXTERNAL_MODEL";

/// A task as Databricks spells it; reranking is ours.
fn task_name(task: Task) -> &'static str {
    match task {
        Task::Chat => "llm/v1/chat",
        Task::Completions => "llm/v1/completions",
        Task::Embeddings => "llm/v1/embeddings",
        Task::Rerank => "rerank",
    }
}
