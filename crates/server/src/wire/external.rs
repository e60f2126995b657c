//! `external_model`: a model behind somebody else's API, as the configuration of an endpoint spells it.
//!
//! Owns the names of the fields and how a reference to a secret is written. What is read here is not yet checked. Secrets
//! themselves show in no `Debug`, in no message, and are never written: `Serialize` leaves them out.

use std::fmt;
use std::str::FromStr;

use secrecy::SecretString;
use serde::de::{Deserializer, Error, IgnoredAny};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

/// A model, who runs it, and the configuration of that provider: one of the `..._config`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalModelFields {
    /// Who runs it.
    pub provider: String,
    /// What the provider calls it.
    pub name: String,
    /// What it is for.
    pub task: ExternalTask,
    /// Of `openai`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub openai_config: Option<OpenAiConfig>,
    /// Of `anthropic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anthropic_config: Option<AnthropicConfig>,
    /// Of `cohere`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cohere_config: Option<CohereConfig>,
    /// Of `databricks-model-serving`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub databricks_model_serving_config: Option<DatabricksConfig>,
    /// Of `custom`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_provider_config: Option<CustomConfig>,
    /// Of a provider that is known by name only; nothing of it is kept, since it may hold secrets.
    #[serde(skip_serializing)]
    pub ai21labs_config: Option<IgnoredAny>,
    /// As `ai21labs_config`.
    #[serde(skip_serializing)]
    pub amazon_bedrock_config: Option<IgnoredAny>,
    /// As `ai21labs_config`.
    #[serde(skip_serializing)]
    pub google_cloud_vertex_ai_config: Option<IgnoredAny>,
    /// As `ai21labs_config`.
    #[serde(skip_serializing)]
    pub palm_config: Option<IgnoredAny>,
}

impl ExternalModelFields {
    /// The names of the configurations that are given.
    pub fn configs(&self) -> Vec<&'static str> {
        let given = [
            ("openai_config", self.openai_config.is_some()),
            ("anthropic_config", self.anthropic_config.is_some()),
            ("cohere_config", self.cohere_config.is_some()),
            ("databricks_model_serving_config", self.databricks_model_serving_config.is_some()),
            ("custom_provider_config", self.custom_provider_config.is_some()),
            ("ai21labs_config", self.ai21labs_config.is_some()),
            ("amazon_bedrock_config", self.amazon_bedrock_config.is_some()),
            ("google_cloud_vertex_ai_config", self.google_cloud_vertex_ai_config.is_some()),
            ("palm_config", self.palm_config.is_some()),
        ];
        given.into_iter().filter_map(|(name, given)| given.then_some(name)).collect()
    }
}

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExternalTask {
    /// It answers conversations.
    #[serde(rename = "llm/v1/chat")]
    Chat,
    /// It completes texts.
    #[serde(rename = "llm/v1/completions")]
    Completions,
    /// It turns texts into vectors.
    #[serde(rename = "llm/v1/embeddings")]
    Embeddings,
}

/// How OpenAI's API is reached, or Azure's, which is of another type.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenAiConfig {
    /// The key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub openai_api_key: Option<SecretReference>,
    /// The key itself.
    #[serde(skip_serializing)]
    pub openai_api_key_plaintext: Option<Plaintext>,
    /// Base URL, default OpenAI's; Azure has no default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub openai_api_base: Option<String>,
    /// Default `openai`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub openai_api_type: Option<OpenAiType>,
    /// A date; Azure needs one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub openai_api_version: Option<String>,
    /// Azure's name of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub openai_deployment_name: Option<String>,
    /// Whose account pays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub openai_organization: Option<String>,
    /// With `azuread`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub microsoft_entra_tenant_id: Option<String>,
    /// With `azuread`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub microsoft_entra_client_id: Option<String>,
    /// With `azuread`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub microsoft_entra_client_secret: Option<SecretReference>,
    /// The client's secret itself.
    #[serde(skip_serializing)]
    pub microsoft_entra_client_secret_plaintext: Option<Plaintext>,
}

/// Whose form of OpenAI's API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpenAiType {
    /// OpenAI's own.
    #[default]
    OpenAi,
    /// Azure's, with a key.
    Azure,
    /// Azure's, with a token of Microsoft Entra.
    AzureAd,
}

/// How Anthropic's API is reached.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnthropicConfig {
    /// The key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anthropic_api_key: Option<SecretReference>,
    /// The key itself.
    #[serde(skip_serializing)]
    pub anthropic_api_key_plaintext: Option<Plaintext>,
}

/// How Cohere's API is reached.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CohereConfig {
    /// The key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cohere_api_key: Option<SecretReference>,
    /// The key itself.
    #[serde(skip_serializing)]
    pub cohere_api_key_plaintext: Option<Plaintext>,
    /// Base URL, default Cohere's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cohere_api_base: Option<String>,
}

/// How another workspace's endpoints are reached.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabricksConfig {
    /// The token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub databricks_api_token: Option<SecretReference>,
    /// The token itself.
    #[serde(skip_serializing)]
    pub databricks_api_token_plaintext: Option<Plaintext>,
    /// The workspace.
    pub databricks_workspace_url: String,
}

/// How a server that speaks OpenAI's dialect is reached.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomConfig {
    /// What comes before `/chat/completions` and its like; it may also be the whole address of one of them.
    pub custom_provider_url: String,
    /// A token in the header `Authorization`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer_token_auth: Option<BearerTokenAuth>,
    /// A key in a header of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_auth: Option<ApiKeyAuth>,
}

/// A token in the header `Authorization`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BearerTokenAuth {
    /// The token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretReference>,
    /// The token itself.
    #[serde(skip_serializing)]
    pub token_plaintext: Option<Plaintext>,
}

/// A key in a header of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyAuth {
    /// The name of the header.
    pub key: String,
    /// The key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<SecretReference>,
    /// The key itself.
    #[serde(skip_serializing)]
    pub value_plaintext: Option<Plaintext>,
}

/// A secret as it was typed.
#[derive(Debug, Clone)]
pub struct Plaintext(pub SecretString);

impl<'de> Deserialize<'de> for Plaintext {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer)?.map(|text| Self(text.into())).ok_or_else(|| Error::custom("expected a string"))
    }
}

/// A secret of the store, by name: `{{secrets/SCOPE/KEY}}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretReference {
    scope: String,
    key: String,
}

/// Longest name of a scope or a key.
const LONGEST_NAME: usize = 128;

impl SecretReference {
    /// The secret `key` of `scope`; `None` where one of the names cannot be one: 1 to 128 letters, digits, `-`, `_` and
    /// `.`, in a scope also `@`.
    pub fn new(scope: impl Into<String>, key: impl Into<String>) -> Option<Self> {
        let (scope, key) = (scope.into(), key.into());
        let legal = |name: &str, more: char| {
            let of_name = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter) || letter == more;
            (1..=LONGEST_NAME).contains(&name.len()) && name.chars().all(of_name)
        };
        (legal(&scope, '@') && legal(&key, '.')).then_some(Self { scope, key })
    }

    /// The scope's name.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// The key's name within the scope.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// A text that is no reference. It may be the secret itself, so nothing of it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a reference to a secret, {{{{secrets/SCOPE/KEY}}}}; a secret itself goes into the field of this name with \
     `_plaintext` at its end"
)]
pub struct NoReference;

impl FromStr for SecretReference {
    type Err = NoReference;

    fn from_str(text: &str) -> Result<Self, NoReference> {
        let inner = text.strip_prefix("{{secrets/").and_then(|rest| rest.strip_suffix("}}"));
        let (scope, key) = inner.and_then(|inner| inner.split_once('/')).ok_or(NoReference)?;
        Self::new(scope, key).ok_or(NoReference)
    }
}

impl fmt::Display for SecretReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{{{{secrets/{}/{}}}}}", self.scope, self.key)
    }
}

impl Serialize for SecretReference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SecretReference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer)?.ok_or(NoReference).and_then(|text| text.parse()).map_err(Error::custom)
    }
}

/// The text that is given, if it is one. Of anything else, the deserializer's own message would repeat the value.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Value::deserialize(deserializer).map(|value| match value {
        Value::String(text) => Some(text),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::{FieldError, parse_object, read_object};

    fn read(config: Value) -> Result<ExternalModelFields, FieldError> {
        let mut model = json!({"provider": "openai", "name": "gpt-4o", "task": "llm/v1/chat"});
        model.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        read_object(parse_object(model.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn a_reference_is_spelled_in_one_way() {
        let reference: SecretReference = "{{secrets/my.scope@x/key_1}}".parse().unwrap();
        assert_eq!((reference.scope(), reference.key()), ("my.scope@x", "key_1"));
        assert_eq!(reference.to_string(), "{{secrets/my.scope@x/key_1}}");
        let long = format!("{{{{secrets/s/{}}}}}", "k".repeat(129));
        for bad in [
            "sk-1234",
            "{{secrets/s}}",
            "{{secrets//k}}",
            "{{secrets/s/}}",
            "{{secrets/s/k/l}}",
            "{{ secrets/s/k }}",
            "{secrets/s/k}",
            "{{secrets/s/k}} ",
            "{{secrets/s/k@x}}",
            "{{secrets/ü/k}}",
            &long,
        ] {
            assert_eq!(bad.parse::<SecretReference>(), Err(NoReference), "{bad}");
        }
    }

    #[test]
    fn a_secret_is_neither_shown_nor_written_nor_repeated() {
        let fields = read(json!({"openai_config": {
            "openai_api_key_plaintext": "sk-very-secret", "openai_api_base": "http://127.0.0.1:1/v1"
        }}))
        .unwrap();
        let shown = format!("{fields:?}");
        assert!(!shown.contains("sk-very") && shown.contains("REDACTED"), "{shown}");
        let written = serde_json::to_value(&fields).unwrap();
        assert_eq!(written["openai_config"], json!({"openai_api_base": "http://127.0.0.1:1/v1"}));
        for config in [
            json!({"openai_api_key": "sk-very-secret"}),
            json!({"openai_api_key": {"sk-very-secret": 1}}),
            json!({"openai_api_key_plaintext": ["sk-very-secret"]}),
            json!({"microsoft_entra_client_secret": "sk-very-secret"}),
        ] {
            let field = format!("openai_config.{}", config.as_object().unwrap().keys().next().unwrap());
            let error = read(json!({"openai_config": config})).unwrap_err();
            assert_eq!(error.field(), Some(&*field), "{error}");
            assert!(!error.to_string().contains("sk-very"), "{error}");
        }
        let error = read(json!({"openai_config": {"openai_api_key": "sk-1"}})).unwrap_err().to_string();
        let expected = "`openai_config.openai_api_key`: expected a reference to a secret, {{secrets/SCOPE/KEY}}; a secret \
                        itself goes into the field of this name with `_plaintext` at its end";
        assert_eq!(error, expected);
    }

    #[test]
    fn every_field_is_known_by_name_and_no_other() {
        let reference = "{{secrets/s/k}}";
        let all = json!({
            "openai_config": {
                "openai_api_key": reference, "openai_api_base": "b", "openai_api_type": "azuread",
                "openai_api_version": "v", "openai_deployment_name": "d", "openai_organization": "o",
                "microsoft_entra_tenant_id": "t", "microsoft_entra_client_id": "c",
                "microsoft_entra_client_secret": reference
            },
            "anthropic_config": {"anthropic_api_key": reference},
            "cohere_config": {"cohere_api_key": reference, "cohere_api_base": "b"},
            "databricks_model_serving_config": {"databricks_api_token": reference, "databricks_workspace_url": "w"},
            "custom_provider_config": {
                "custom_provider_url": "u", "bearer_token_auth": {"token": reference},
                "api_key_auth": {"key": "k", "value": reference}
            }
        });
        let fields = read(all.clone()).unwrap();
        let written = serde_json::to_value(&fields).unwrap();
        for (config, value) in all.as_object().unwrap() {
            assert_eq!(written[config], *value);
        }
        let secret = json!({"palm_config": {"palm_api_key_plaintext": "secret"}, "amazon_bedrock_config": {},
            "ai21labs_config": {}, "google_cloud_vertex_ai_config": {}});
        let fields = read(secret).unwrap();
        assert_eq!(fields.configs().len(), 4);
        assert!(!format!("{fields:?}").contains("secret"));
        assert_eq!(read(json!({"mistral_config": {}})).unwrap_err().to_string(), "unknown field `mistral_config`");
        let error = read(json!({"anthropic_config": {"anthropic_api_base": "x"}})).unwrap_err();
        assert_eq!(error.field(), Some("anthropic_config.anthropic_api_base"));
        assert_eq!(read(json!({"task": "llm/v1/rerank"})).unwrap_err().field(), Some("task"));
    }
}
