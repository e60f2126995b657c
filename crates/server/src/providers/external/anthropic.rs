//! Anthropic's Messages API.

use std::sync::Arc;

use super::model::{CredentialFields, Place, Protocol, ProviderEntry};
use crate::endpoints::Task;
use crate::wire::FieldError;
use crate::wire::external::ExternalModelFields;

/// Anthropic.
pub(super) const PROVIDER: ProviderEntry =
    ProviderEntry { name: "anthropic", tasks: &[Task::Chat], config: "anthropic_config", credential, check };

#[derive(Debug)]
struct Anthropic;

impl Protocol for Anthropic {}

fn credential(fields: &mut ExternalModelFields) -> Option<CredentialFields<'_>> {
    let config = fields.anthropic_config.as_mut()?;
    Some(CredentialFields {
        field: "anthropic_config.anthropic_api_key",
        reference: &mut config.anthropic_api_key,
        plaintext: &mut config.anthropic_api_key_plaintext,
    })
}

fn check(_fields: &ExternalModelFields, _place: &Place) -> Result<Arc<dyn Protocol>, FieldError> {
    Ok(Arc::new(Anthropic))
}
