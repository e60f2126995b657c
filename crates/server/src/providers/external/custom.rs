//! Servers that speak OpenAI's dialect: vLLM and its like.

use std::sync::Arc;

use hyper::header::HeaderName;

use super::BaseUrl;
use super::model::{CredentialFields, Place, Protocol, ProviderEntry, base_url};
use crate::endpoints::Task;
use crate::wire::FieldError;
use crate::wire::external::ExternalModelFields;

/// Any server.
pub(super) const PROVIDER: ProviderEntry = ProviderEntry {
    name: "custom",
    tasks: &[Task::Chat, Task::Completions, Task::Embeddings],
    config: "custom_provider_config",
    credential,
    check,
};

#[derive(Debug)]
struct Custom {
    base: BaseUrl,
    /// The header of the key; without, it is a bearer token.
    header: Option<HeaderName>,
}

impl Protocol for Custom {}

fn credential(fields: &mut ExternalModelFields) -> Option<CredentialFields<'_>> {
    let config = fields.custom_provider_config.as_mut()?;
    if let Some(auth) = &mut config.bearer_token_auth {
        let field = "custom_provider_config.bearer_token_auth.token";
        return Some(CredentialFields { field, reference: &mut auth.token, plaintext: &mut auth.token_plaintext });
    }
    let auth = config.api_key_auth.as_mut()?;
    let field = "custom_provider_config.api_key_auth.value";
    Some(CredentialFields { field, reference: &mut auth.value, plaintext: &mut auth.value_plaintext })
}

fn check(fields: &ExternalModelFields, place: &Place) -> Result<Arc<dyn Protocol>, FieldError> {
    const CONFIG: &str = "custom_provider_config";
    let Some(config) = &fields.custom_provider_config else {
        return Err(FieldError::Missing { field: place.of(CONFIG) });
    };
    if config.bearer_token_auth.is_some() && config.api_key_auth.is_some() {
        let problem = "not with `bearer_token_auth`: a request has one credential";
        return Err(FieldError::conflict(place.of(&format!("{CONFIG}.api_key_auth")), problem));
    }
    let base = base_url(&format!("{CONFIG}.custom_provider_url"), &config.custom_provider_url, place)?;
    let header = config.api_key_auth.as_ref().map(|auth| {
        let field = || place.of(&format!("{CONFIG}.api_key_auth.key"));
        let bad = |_| FieldError::value(field(), "the name of a header", format!("{:?}", auth.key));
        HeaderName::from_bytes(auth.key.as_bytes()).map_err(bad)
    });
    Ok(Arc::new(Custom { base, header: header.transpose()? }))
}
