//! A checked `external_model`: everything that is needed to reach it, and how it is kept without its secret.

use std::fmt;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::protocol::Protocol;
use super::{BaseUrl, BaseUrlError, OTHERS, PROVIDERS};
use crate::endpoints::Task;
use crate::wire::FieldError;
use crate::wire::external::{ExternalModelFields, ExternalTask, Plaintext, SecretReference};

/// Checks a configuration.
type Check = fn(&ExternalModelFields, &Place) -> Result<Arc<dyn Protocol>, FieldError>;

/// A provider: a line of [`PROVIDERS`].
pub struct ProviderEntry {
    /// As configurations spell it.
    pub name: &'static str,
    /// What its models can be for.
    pub tasks: &'static [Task],
    /// The field with its configuration.
    pub config: &'static str,
    /// The two fields of the configuration of which one holds the credential; `None` where it needs none.
    pub(super) credential: for<'a> fn(&'a mut ExternalModelFields) -> Option<CredentialFields<'a>>,
    /// Checks the configuration. It is there, and its credential has been taken out.
    pub(super) check: Check,
}

impl fmt::Debug for ProviderEntry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

/// The two spellings of a credential.
pub(super) struct CredentialFields<'a> {
    /// The first one's path in the configuration of the model.
    pub(super) field: &'static str,
    pub(super) reference: &'a mut Option<SecretReference>,
    pub(super) plaintext: &'a mut Option<Plaintext>,
}

/// Where the configuration of a model stands in a request.
pub(super) struct Place<'a>(&'a str);

impl Place<'_> {
    /// The path of `field`.
    pub(super) fn of(&self, field: &str) -> String {
        if self.0.is_empty() { field.to_owned() } else { format!("{}.{field}", self.0) }
    }
}

/// What opens a provider's API.
#[derive(Debug, Clone)]
pub enum Credential {
    /// A secret of the store.
    Reference(SecretReference),
    /// The secret itself. It is shown nowhere.
    Literal(SecretString),
}

impl Credential {
    fn take(fields: CredentialFields<'_>, place: &Place) -> Result<Self, FieldError> {
        let CredentialFields { field, reference, plaintext } = fields;
        let both = format!("`{field}` and `{field}_plaintext`");
        match (reference.as_ref(), plaintext.take()) {
            (Some(reference), None) => Ok(Self::Reference(reference.clone())),
            (None, Some(Plaintext(secret))) if can_be_sent(&secret) => Ok(Self::Literal(secret)),
            (None, Some(_)) => {
                let problem = "must be visible ASCII without blanks, and not empty";
                Err(FieldError::conflict(place.of(&format!("{field}_plaintext")), problem))
            }
            (Some(_), Some(_)) => Err(FieldError::conflict(place.of(field), format!("only one of {both} is allowed"))),
            (None, None) => Err(FieldError::conflict(place.of(field), format!("one of {both} is required"))),
        }
    }
}

/// Whether a header can carry the secret.
pub(super) fn can_be_sent(secret: &SecretString) -> bool {
    let secret = secret.expose_secret();
    !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A model of another provider, checked.
#[derive(Debug, Clone)]
pub struct ExternalModel {
    entry: &'static ProviderEntry,
    /// Without the literal credential.
    fields: ExternalModelFields,
    credential: Option<Credential>,
    pub(super) protocol: Arc<dyn Protocol>,
}

impl ExternalModel {
    /// Checks what was typed; `place` is where it stood, such as `config.served_entities[0].external_model`.
    ///
    /// # Errors
    /// The field to blame, and never the credential.
    pub fn check(mut fields: ExternalModelFields, place: &str) -> Result<Self, FieldError> {
        let place = Place(place);
        let entry = entry(&fields.provider, &place)?;
        if let Some(other) = fields.configs().into_iter().find(|config| *config != entry.config) {
            let problem = format!("not with `provider`: \"{}\", which has `{}`", entry.name, entry.config);
            return Err(FieldError::conflict(place.of(other), problem));
        }
        if fields.configs().is_empty() {
            return Err(FieldError::Missing { field: place.of(entry.config) });
        }
        if fields.name.is_empty() || fields.name.chars().any(char::is_control) {
            return Err(FieldError::value(
                place.of("name"),
                "the provider's name of a model",
                format!("{:?}", fields.name),
            ));
        }
        let task = task(fields.task);
        if !entry.tasks.contains(&task) {
            let problem = format!("the provider {} has no models for {task}", entry.name);
            return Err(FieldError::conflict(place.of("task"), problem));
        }
        let credential = (entry.credential)(&mut fields).map(|fields| Credential::take(fields, &place)).transpose()?;
        let protocol = (entry.check)(&fields, &place)?;
        Ok(Self { entry, fields, credential, protocol })
    }

    /// Who runs it.
    pub fn provider(&self) -> &'static str {
        self.entry.name
    }

    /// What its provider calls it.
    pub fn name(&self) -> &str {
        &self.fields.name
    }

    /// What it is for.
    pub fn task(&self) -> Task {
        task(self.fields.task)
    }

    /// What opens the provider's API; `None` where it is open.
    pub fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    /// The same model with its credential under that name, and the credential if it was a literal, to be put there. A
    /// model with another credential stays as it is.
    pub fn with_credential_reference(mut self, reference: SecretReference) -> (Self, Option<SecretString>) {
        let Some(Credential::Literal(secret)) = &self.credential else { return (self, None) };
        let secret = secret.clone();
        if let Some(CredentialFields { reference: field, .. }) = (self.entry.credential)(&mut self.fields) {
            *field = Some(reference.clone());
        }
        self.credential = Some(Credential::Reference(reference));
        (self, Some(secret))
    }

    /// The model as it was typed, without a literal credential: for answers.
    pub fn redacted(&self) -> Value {
        // Text, and objects with names that are text: nothing that JSON has no form for.
        serde_json::to_value(&self.fields).unwrap_or_default()
    }

    /// The model as it can be kept; reading and checking it again gives this one. `None` for a literal credential, which
    /// must not be kept like that: see [`with_credential_reference`](Self::with_credential_reference).
    pub fn stored(&self) -> Option<Value> {
        (!matches!(self.credential, Some(Credential::Literal(_)))).then(|| self.redacted())
    }
}

fn entry(provider: &str, place: &Place) -> Result<&'static ProviderEntry, FieldError> {
    let found = PROVIDERS.iter().find(|entry| entry.name == provider);
    found.copied().ok_or_else(|| {
        let ours: Vec<&str> = PROVIDERS.iter().map(|entry| entry.name).collect();
        let ours = ours.join(", ");
        if OTHERS.contains(&provider) {
            let problem = format!("models of \"{provider}\" are not called by this server; those of {ours} are");
            return FieldError::conflict(place.of("provider"), problem);
        }
        FieldError::value(place.of("provider"), format!("one of {ours}"), format!("\"{provider}\""))
    })
}

fn task(task: ExternalTask) -> Task {
    match task {
        ExternalTask::Chat => Task::Chat,
        ExternalTask::Completions => Task::Completions,
        ExternalTask::Embeddings => Task::Embeddings,
    }
}

/// The base URL in a field of a configuration.
pub(super) fn base_url(field: &str, value: &str, place: &Place) -> Result<BaseUrl, FieldError> {
    let bad = |error: BaseUrlError| FieldError::conflict(place.of(field), error.to_string());
    value.parse().map_err(bad)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::{parse_object, read_object};

    const REFERENCE: &str = "{{secrets/scope/key}}";

    fn check(provider: &str, task: &str, config: &Value) -> Result<ExternalModel, FieldError> {
        let mut model = json!({"provider": provider, "name": "m", "task": format!("llm/v1/{task}")});
        model.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        let fields = read_object(parse_object(model.to_string().as_bytes()).unwrap())?;
        ExternalModel::check(fields, "here")
    }

    /// A configuration of each provider, with a literal credential.
    fn literal_configs() -> Vec<(&'static str, Value)> {
        let azure = json!({
            "openai_api_type": "azure", "openai_api_key_plaintext": "top-secret", "openai_api_base": "https://x.example",
            "openai_api_version": "2024-10-21", "openai_deployment_name": "d", "openai_organization": "o"
        });
        let entra = json!({
            "openai_api_type": "azuread", "openai_api_base": "https://x.example", "openai_api_version": "v",
            "openai_deployment_name": "d", "microsoft_entra_tenant_id": "t", "microsoft_entra_client_id": "c",
            "microsoft_entra_client_secret_plaintext": "top-secret"
        });
        let bearer = json!({"custom_provider_url": "http://127.0.0.1:1", "bearer_token_auth": {"token_plaintext": "top-secret"}});
        let key = json!({"custom_provider_url": "http://127.0.0.1:1", "api_key_auth": {"key": "x-key", "value_plaintext": "top-secret"}});
        let databricks =
            json!({"databricks_workspace_url": "https://w.example/", "databricks_api_token_plaintext": "top-secret"});
        vec![
            ("openai", json!({"openai_config": {"openai_api_key_plaintext": "top-secret"}})),
            ("openai", json!({"openai_config": azure})),
            ("openai", json!({"openai_config": entra})),
            ("anthropic", json!({"anthropic_config": {"anthropic_api_key_plaintext": "top-secret"}})),
            ("cohere", json!({"cohere_config": {"cohere_api_key_plaintext": "top-secret"}})),
            ("databricks-model-serving", json!({"databricks_model_serving_config": databricks})),
            ("custom", json!({"custom_provider_config": bearer})),
            ("custom", json!({"custom_provider_config": key})),
        ]
    }

    #[test]
    fn a_literal_credential_is_shown_nowhere_and_is_not_kept() {
        for (provider, config) in literal_configs() {
            let model = check(provider, "chat", &config).unwrap();
            assert!(
                matches!(model.credential(), Some(Credential::Literal(secret)) if secret.expose_secret() == "top-secret")
            );
            let shown = format!("{model:?} {:?} {}", model.credential(), model.redacted());
            assert!(!shown.contains("top-secret"), "{shown}");
            assert_eq!(model.stored(), None);
            let (model, literal) = model.with_credential_reference(SecretReference::new("s", "k").unwrap());
            assert_eq!(literal.unwrap().expose_secret(), "top-secret");
            let stored = model.stored().unwrap();
            assert!(!stored.to_string().contains("top-secret"), "{stored}");
            let again = ExternalModel::check(serde_json::from_value(stored.clone()).unwrap(), "").unwrap();
            assert_eq!(again.stored().unwrap(), stored, "{provider}");
            let Some(Credential::Reference(reference)) = again.credential() else { panic!("{provider}") };
            assert_eq!(reference.to_string(), "{{secrets/s/k}}");
            assert!(again.with_credential_reference(SecretReference::new("a", "b").unwrap()).1.is_none());
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn what_is_missing_contradicts_or_is_not_known_is_refused_by_name() {
        let openai = |config: Value| json!({"openai_config": config});
        let key = json!({"openai_api_key": REFERENCE});
        let custom = |more: Value| {
            let mut config = json!({"custom_provider_url": "http://127.0.0.1:1"});
            config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"custom_provider_config": config})
        };
        for (provider, task, config, field, problem) in [
            ("openai", "chat", json!({}), "openai_config", "required"),
            (
                "openai",
                "chat",
                openai(json!({})),
                "openai_config.openai_api_key",
                "one of `openai_config.openai_api_key` and",
            ),
            (
                "openai",
                "chat",
                openai(json!({"openai_api_key": REFERENCE, "openai_api_key_plaintext": "top-secret"})),
                "openai_config.openai_api_key",
                "only one of",
            ),
            (
                "openai",
                "chat",
                openai(json!({"openai_api_key_plaintext": "top-secret\n"})),
                "openai_config.openai_api_key_plaintext",
                "visible ASCII",
            ),
            ("openai", "chat", json!({"openai_config": key, "palm_config": {}}), "palm_config", "not with `provider`"),
            (
                "openai",
                "chat",
                openai(json!({"openai_api_key": REFERENCE, "openai_deployment_name": "d"})),
                "openai_config.openai_deployment_name",
                "not with `openai_api_type`: \"openai\"",
            ),
            (
                "openai",
                "chat",
                openai(json!({"openai_api_key": REFERENCE, "openai_api_type": "azure"})),
                "openai_config.openai_api_base",
                "required with `openai_api_type`: \"azure\"",
            ),
            (
                "openai",
                "chat",
                openai(json!({"openai_api_key": REFERENCE, "openai_api_base": "api.openai.com"})),
                "openai_config.openai_api_base",
                "http:// or https://",
            ),
            (
                "anthropic",
                "embeddings",
                json!({"anthropic_config": {"anthropic_api_key": REFERENCE}}),
                "task",
                "the provider anthropic has no models for embeddings",
            ),
            ("cohere", "completions", json!({"cohere_config": {"cohere_api_key": REFERENCE}}), "task", "no models for"),
            (
                "custom",
                "chat",
                custom(json!({"api_key_auth": {"key": "a b", "value": REFERENCE}})),
                "custom_provider_config.api_key_auth.key",
                "the name of a header",
            ),
            (
                "custom",
                "chat",
                custom(
                    json!({"api_key_auth": {"key": "k", "value": REFERENCE}, "bearer_token_auth": {"token": REFERENCE}}),
                ),
                "custom_provider_config.api_key_auth",
                "one credential",
            ),
            (
                "palm",
                "chat",
                json!({"palm_config": {}}),
                "provider",
                "models of \"palm\" are not called by this server",
            ),
            ("mistral", "chat", json!({}), "provider", "one of openai, anthropic, cohere"),
        ] {
            let error = check(provider, task, &config).unwrap_err();
            assert_eq!(error.field(), Some(&*format!("here.{field}")), "{config}: {error}");
            let text = error.to_string();
            assert!(text.contains(problem) && !text.contains("top-secret"), "{config}: {text}");
        }
        let open = check("custom", "chat", &custom(json!({}))).unwrap();
        assert!(open.credential().is_none() && open.stored().is_some(), "a server of one's own may be open");
    }
}
