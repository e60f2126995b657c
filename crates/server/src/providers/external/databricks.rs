//! Endpoints of another Databricks workspace, or of another server like this one.

use std::sync::Arc;

use super::BaseUrl;
use super::model::{CredentialFields, Place, Protocol, ProviderEntry, base_url};
use crate::endpoints::Task;
use crate::wire::FieldError;
use crate::wire::external::ExternalModelFields;

/// Databricks model serving.
pub(super) const PROVIDER: ProviderEntry = ProviderEntry {
    name: "databricks-model-serving",
    tasks: &[Task::Chat, Task::Completions, Task::Embeddings],
    config: "databricks_model_serving_config",
    credential,
    check,
};

#[derive(Debug)]
struct Databricks {
    workspace: BaseUrl,
}

impl Protocol for Databricks {}

fn credential(fields: &mut ExternalModelFields) -> Option<CredentialFields<'_>> {
    let config = fields.databricks_model_serving_config.as_mut()?;
    Some(CredentialFields {
        field: "databricks_model_serving_config.databricks_api_token",
        reference: &mut config.databricks_api_token,
        plaintext: &mut config.databricks_api_token_plaintext,
    })
}

fn check(fields: &ExternalModelFields, place: &Place) -> Result<Arc<dyn Protocol>, FieldError> {
    let config = fields.databricks_model_serving_config.as_ref();
    let url = config.map(|config| config.databricks_workspace_url.as_str()).unwrap_or_default();
    let workspace = base_url("databricks_model_serving_config.databricks_workspace_url", url, place)?;
    Ok(Arc::new(Databricks { workspace }))
}
