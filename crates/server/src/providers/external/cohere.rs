//! Cohere's API of version 2.

use std::sync::Arc;

use super::BaseUrl;
use super::model::{CredentialFields, Place, Protocol, ProviderEntry, base_url};
use crate::endpoints::Task;
use crate::wire::FieldError;
use crate::wire::external::ExternalModelFields;

/// Cohere.
pub(super) const PROVIDER: ProviderEntry = ProviderEntry {
    name: "cohere",
    tasks: &[Task::Chat, Task::Embeddings],
    config: "cohere_config",
    credential,
    check,
};

const BASE: &str = "https://api.cohere.com";

#[derive(Debug)]
struct Cohere {
    base: BaseUrl,
}

impl Protocol for Cohere {}

fn credential(fields: &mut ExternalModelFields) -> Option<CredentialFields<'_>> {
    let config = fields.cohere_config.as_mut()?;
    Some(CredentialFields {
        field: "cohere_config.cohere_api_key",
        reference: &mut config.cohere_api_key,
        plaintext: &mut config.cohere_api_key_plaintext,
    })
}

fn check(fields: &ExternalModelFields, place: &Place) -> Result<Arc<dyn Protocol>, FieldError> {
    let base = fields.cohere_config.as_ref().and_then(|config| config.cohere_api_base.as_deref()).unwrap_or(BASE);
    Ok(Arc::new(Cohere { base: base_url("cohere_config.cohere_api_base", base, place)? }))
}
