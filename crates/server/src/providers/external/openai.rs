//! OpenAI, and Azure's form of its API.

use std::sync::Arc;

use hyper::header::{HeaderName, HeaderValue};
use serde_json::Value;

use super::address::escaped;
use super::dialect::{ChatReader, CompletionReader, Texts, chat_body, completion_body, embeddings, stream, texts};
use super::entra::Entra;
use super::model::{CredentialFields, Place, ProviderEntry, base_url};
use super::protocol::{AnswerReader, Fault, Outgoing, Protocol, Target};
use super::{BaseUrl, given, key};
use crate::endpoints::Task;
use crate::providers::{ChatCall, CompletionCall, Cut, EmbeddingCall, Embeddings, ProviderError};
use crate::wire::external::{ExternalModelFields, OpenAiConfig, OpenAiType};
use crate::wire::{FieldError, JsonObject};

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

/// What OpenAI's chat models take.
const CHAT: &[&str] = &[
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "seed",
    "stop",
    "logprobs",
    "top_logprobs",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "user",
    "metadata",
    "store",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
];

/// What its older models for completions take.
const COMPLETIONS: &[&str] = &[
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "seed",
    "stop",
    "logprobs",
    "user",
];

impl OpenAi {
    /// The request that goes to `path`.
    fn outgoing(&self, path: &str, body: JsonObject) -> Result<Outgoing, ProviderError> {
        let uri = match &self.azure {
            None => self.base.join(path),
            Some(Azure { deployment, version, .. }) => {
                self.base.join(&format!("/openai/deployments/{deployment}{path}?api-version={version}"))
            }
        };
        let outgoing = Outgoing::new(uri, Value::Object(body).to_string())?;
        Ok(match &self.organization {
            Some(organization) => outgoing.with(HeaderName::from_static("openai-organization"), organization.clone()),
            None => outgoing,
        })
    }
}

impl Protocol for OpenAi {
    fn key_place(&self) -> key::Place {
        match &self.azure {
            Some(Azure { entra: None, .. }) => key::Place::Header(HeaderName::from_static("api-key")),
            _ => key::Place::Bearer,
        }
    }

    fn entra(&self) -> Option<&Entra> {
        self.azure.as_ref()?.entra.as_ref()
    }

    fn chat(&self, call: &ChatCall, target: Target<'_>) -> Result<Outgoing, ProviderError> {
        let mut fields = given::taken(&call.generation.given, CHAT, target)?;
        // Models that think refuse the older of the two names.
        if thinks(target.model)
            && let Some(most) = fields.remove("max_tokens")
        {
            fields.insert("max_completion_tokens".into(), most);
        }
        let mut body = chat_body(call, fields, target);
        stream(&mut body, call.generation.is_streamed(), true);
        self.outgoing("/chat/completions", body)
    }

    fn chat_reader(&self, choices: usize) -> Box<dyn AnswerReader> {
        Box::new(ChatReader::new(choices))
    }

    fn complete(&self, call: &CompletionCall, target: Target<'_>) -> Result<Outgoing, ProviderError> {
        let fields = given::taken(&call.generation.given, COMPLETIONS, target)?;
        let mut body = completion_body(call, fields, target)?;
        stream(&mut body, call.generation.is_streamed(), true);
        self.outgoing("/completions", body)
    }

    fn completion_reader(&self, choices: usize) -> Box<dyn AnswerReader> {
        Box::new(CompletionReader::new(choices))
    }

    fn embed(&self, call: &EmbeddingCall, target: Target<'_>) -> Result<Vec<Outgoing>, ProviderError> {
        refuse_cut(call, target)?;
        if call.input_type.is_some() {
            return Err(target.refuse("input_type"));
        }
        let mut body = JsonObject::new();
        body.insert("model".into(), target.model.into());
        body.insert("input".into(), texts(call, Texts::Instructed, target)?.into());
        body.extend(call.dimensions.map(|dimensions| ("dimensions".to_owned(), dimensions.into())));
        Ok(vec![self.outgoing("/embeddings", body)?])
    }

    fn embeddings(&self, body: &[u8]) -> Result<Embeddings, Fault> {
        embeddings(body)
    }
}

/// Whether a model is of those that think before they answer: o1 and its successors, and GPT-5.
fn thinks(model: &str) -> bool {
    let numbered = |rest: &str| rest.starts_with(|letter: char| letter.is_ascii_digit());
    model.starts_with("gpt-5") || model.strip_prefix('o').is_some_and(numbered)
}

/// Refuses what would cut texts.
pub(super) fn refuse_cut(call: &EmbeddingCall, target: Target<'_>) -> Result<(), ProviderError> {
    match call.cut {
        None => Ok(()),
        Some(Cut::Context) => Err(target.refuse("truncate")),
        Some(Cut::Tokens(_)) => Err(target.refuse("truncate_prompt_tokens")),
    }
}

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
                tenant: fields.required("microsoft_entra_tenant_id", tenant)?.to_owned(),
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
