//! OpenAI, and Azure's form of its API.

use std::sync::Arc;

use hyper::header::HeaderValue;

use super::BaseUrl;
use super::address::escaped;
use super::model::{CredentialFields, Place, Protocol, ProviderEntry, base_url};
use crate::endpoints::Task;
use crate::wire::FieldError;
use crate::wire::external::{ExternalModelFields, OpenAiConfig, OpenAiType};

/// OpenAI.
pub(super) const PROVIDER: ProviderEntry = ProviderEntry {
    name: "openai",
    tasks: &[Task::Chat, Task::Completions, Task::Embeddings],
    config: "openai_config",
    credential,
    check,
};

const BASE: &str = "https://api.openai.com/v1";

#[derive(Debug)]
struct OpenAi {
    base: BaseUrl,
    organization: Option<HeaderValue>,
    azure: Option<Azure>,
}

/// What Azure needs to know besides.
#[derive(Debug)]
struct Azure {
    /// Escaped.
    deployment: String,
    /// Escaped.
    version: String,
    entra: Option<Entra>,
}

/// Whose token is used. Its secret is the credential.
#[derive(Debug)]
struct Entra {
    tenant: String,
    client: String,
}

impl Protocol for OpenAi {}

fn credential(fields: &mut ExternalModelFields) -> Option<CredentialFields<'_>> {
    let config = fields.openai_config.as_mut()?;
    Some(match config.openai_api_type.unwrap_or_default() {
        OpenAiType::OpenAi | OpenAiType::Azure => CredentialFields {
            field: "openai_config.openai_api_key",
            reference: &mut config.openai_api_key,
            plaintext: &mut config.openai_api_key_plaintext,
        },
        OpenAiType::AzureAd => CredentialFields {
            field: "openai_config.microsoft_entra_client_secret",
            reference: &mut config.microsoft_entra_client_secret,
            plaintext: &mut config.microsoft_entra_client_secret_plaintext,
        },
    })
}

fn check(fields: &ExternalModelFields, place: &Place) -> Result<Arc<dyn Protocol>, FieldError> {
    let config = fields.openai_config.clone().unwrap_or_default();
    let kind = config.openai_api_type.unwrap_or_default();
    let fields = Fields { place, kind };
    fields.refuse_those_of_others(&config)?;
    let organization = config.openai_organization.as_deref();
    let organization = organization.map(|value| fields.header("openai_organization", value)).transpose()?;
    let base = config.openai_api_base.as_deref();
    if kind == OpenAiType::OpenAi {
        let base = base_url("openai_config.openai_api_base", base.unwrap_or(BASE), place)?;
        return Ok(Arc::new(OpenAi { base, organization, azure: None }));
    }
    let base = base_url("openai_config.openai_api_base", fields.required("openai_api_base", base)?, place)?;
    let deployment = fields.required("openai_deployment_name", config.openai_deployment_name.as_deref())?;
    let version = fields.required("openai_api_version", config.openai_api_version.as_deref())?;
    let entra = match kind {
        OpenAiType::AzureAd => {
            let tenant = config.microsoft_entra_tenant_id.as_deref();
            let client = config.microsoft_entra_client_id.as_deref();
            Some(Entra {
                tenant: escaped(fields.required("microsoft_entra_tenant_id", tenant)?),
                client: fields.required("microsoft_entra_client_id", client)?.to_owned(),
            })
        }
        OpenAiType::OpenAi | OpenAiType::Azure => None,
    };
    let azure = Azure { deployment: escaped(deployment), version: escaped(version), entra };
    Ok(Arc::new(OpenAi { base, organization, azure: Some(azure) }))
}

/// The fields of a configuration, by the type that it has.
struct Fields<'a> {
    place: &'a Place<'a>,
    kind: OpenAiType,
}

impl Fields<'_> {
    fn place(&self, field: &str) -> String {
        self.place.of(&format!("openai_config.{field}"))
    }

    fn kind(&self) -> &'static str {
        match self.kind {
            OpenAiType::OpenAi => "openai",
            OpenAiType::Azure => "azure",
            OpenAiType::AzureAd => "azuread",
        }
    }

    /// Refuses what the type has no use for.
    fn refuse_those_of_others(&self, config: &OpenAiConfig) -> Result<(), FieldError> {
        let azure = [
            ("openai_api_version", config.openai_api_version.is_some()),
            ("openai_deployment_name", config.openai_deployment_name.is_some()),
        ];
        let keys = [
            ("openai_api_key", config.openai_api_key.is_some()),
            ("openai_api_key_plaintext", config.openai_api_key_plaintext.is_some()),
        ];
        let entra = [
            ("microsoft_entra_tenant_id", config.microsoft_entra_tenant_id.is_some()),
            ("microsoft_entra_client_id", config.microsoft_entra_client_id.is_some()),
            ("microsoft_entra_client_secret", config.microsoft_entra_client_secret.is_some()),
            ("microsoft_entra_client_secret_plaintext", config.microsoft_entra_client_secret_plaintext.is_some()),
        ];
        let refused: Vec<_> = match self.kind {
            OpenAiType::OpenAi => azure.into_iter().chain(entra).collect(),
            OpenAiType::Azure => entra.to_vec(),
            OpenAiType::AzureAd => keys.to_vec(),
        };
        match refused.into_iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((field, _)) => {
                let problem = format!("not with `openai_api_type`: \"{}\"", self.kind());
                Err(FieldError::conflict(self.place(field), problem))
            }
        }
    }

    fn required<'v>(&self, field: &str, value: Option<&'v str>) -> Result<&'v str, FieldError> {
        let missing =
            || FieldError::conflict(self.place(field), format!("required with `openai_api_type`: \"{}\"", self.kind()));
        value.filter(|value| !value.is_empty()).ok_or_else(missing)
    }

    fn header(&self, field: &str, value: &str) -> Result<HeaderValue, FieldError> {
        let bad = |_| FieldError::value(self.place(field), "visible ASCII", format!("{value:?}"));
        HeaderValue::from_str(value).map_err(bad)
    }
}
