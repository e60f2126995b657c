//! A server with models of all providers, whose APIs are stubs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request};
use axum::response::Response;
use futures::FutureExt;
use futures::future::BoxFuture;
use hearth::endpoints::Endpoint;
use hearth::gate::Access;
use hearth::models::Models;
use hearth::providers::external::{ExternalModel, ExternalSettings, SecretError, SecretSource, Upstreams};
use hearth::serve::{App, Limits, router};
use hearth_tests::{ProviderStubs, STUB_KEY};
use http_body_util::BodyExt;
use secrecy::SecretString;
use serde_json::{Value, json};
use tower::ServiceExt;

const LIMITS: Limits = Limits { body: 1 << 20, bodies: 1 << 20, texts: 200, choices: 32, request_timeout: None };

/// All ways to a model.
pub const PROVIDERS: [&str; 8] =
    ["openai", "azure", "azuread", "anthropic", "cohere", "databricks", "custom", "custom-key"];

/// Secrets by their key's name.
pub struct Secrets(pub Mutex<HashMap<String, String>>);

impl SecretSource for Secrets {
    fn secret<'a>(&'a self, scope: &'a str, key: &'a str) -> BoxFuture<'a, Result<SecretString, SecretError>> {
        let found = self.0.lock().unwrap().get(key).cloned().map(SecretString::from);
        let missing = || SecretError::Missing { scope: scope.to_owned(), key: key.to_owned() };
        async move { found.ok_or_else(missing) }.boxed()
    }
}

/// The server, the stubs, and the secrets.
pub struct House {
    pub stubs: ProviderStubs,
    pub secrets: Arc<Secrets>,
    upstreams: Upstreams,
    app: App,
}

/// A whole answer.
pub struct Answered {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answered {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The documents of a stream, and whether it said that it is over.
    pub fn events(&self) -> (Vec<Value>, bool) {
        assert_eq!(self.headers["content-type"], "text/event-stream", "{}", self.body);
        let mut documents: Vec<&str> =
            self.body.split_terminator("\n\n").map(|event| &event["data: ".len()..]).collect();
        let done = documents.last() == Some(&"[DONE]");
        documents.truncate(documents.len() - usize::from(done));
        (documents.iter().map(|document| serde_json::from_str(document).unwrap()).collect(), done)
    }
}

impl House {
    /// A server without endpoints; waits are short and so are tempers.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut ExternalSettings)) -> Self {
        let stubs = ProviderStubs::start().unwrap();
        let mut settings = ExternalSettings {
            anthropic_base: Some(stubs.base("anthropic").parse().unwrap()),
            entra_base: Some(stubs.base("entra").parse().unwrap()),
            longest_wait: Duration::from_millis(20),
            ..ExternalSettings::default()
        };
        change(&mut settings);
        let secrets = HashMap::from([("key".to_owned(), STUB_KEY.to_owned())]);
        let secrets = Arc::new(Secrets(Mutex::new(secrets)));
        let upstreams = Upstreams::new(settings, Arc::clone(&secrets) as _);
        Self { stubs, secrets, upstreams, app: App::new(Access::local(), LIMITS, Models::new(1000, false, None)) }
    }

    /// Serves a model under the provider's name.
    pub fn serve(&self, provider: &str, task: &str, model: &str) {
        let config = config(&self.stubs, provider);
        self.serve_as(provider, task, model, &config);
    }

    pub fn serve_as(&self, endpoint: &str, task: &str, model: &str, config: &Value) {
        let mut fields = json!({"name": model, "task": format!("llm/v1/{task}")});
        fields.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        let model = ExternalModel::check(serde_json::from_value(fields).unwrap(), "").unwrap();
        let endpoint = Endpoint::new(endpoint, self.upstreams.connect(model), 1).unwrap();
        self.app.endpoints().insert(endpoint).unwrap();
    }

    pub async fn send(&self, path: &str, body: &Value) -> Response {
        let request = Request::post(path).body(Body::from(body.to_string())).unwrap();
        router(self.app.clone()).oneshot(request).await.unwrap()
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answered {
        let (head, body) = self.send(path, body).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Answered { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub async fn chat(&self, body: &Value) -> Answered {
        self.post("/v1/chat/completions", body).await
    }
}

/// How a provider is reached.
pub fn config(stubs: &ProviderStubs, provider: &str) -> Value {
    let reference = "{{secrets/scope/key}}";
    let azure = |more: Value| {
        let mut config = json!({
            "openai_api_base": stubs.base("azure"), "openai_api_version": "2024-10-21", "openai_deployment_name": "stub"
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"provider": "openai", "openai_config": config})
    };
    let custom = |more: Value| {
        let mut config = json!({"custom_provider_url": stubs.base("custom")});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"provider": "custom", "custom_provider_config": config})
    };
    match provider {
        "openai" => {
            let config = json!({"openai_api_key": reference, "openai_api_base": stubs.base("openai"), "openai_organization": "o"});
            json!({"provider": "openai", "openai_config": config})
        }
        "azure" => azure(json!({"openai_api_type": "azure", "openai_api_key": reference})),
        "azuread" => azure(json!({
            "openai_api_type": "azuread", "microsoft_entra_tenant_id": "tenant-1",
            "microsoft_entra_client_id": "my client", "microsoft_entra_client_secret": reference
        })),
        "anthropic" => json!({"provider": "anthropic", "anthropic_config": {"anthropic_api_key": reference}}),
        "cohere" => {
            let config = json!({"cohere_api_key": reference, "cohere_api_base": stubs.base("cohere")});
            json!({"provider": "cohere", "cohere_config": config})
        }
        "databricks" => {
            let config =
                json!({"databricks_api_token": reference, "databricks_workspace_url": stubs.base("databricks")});
            json!({"provider": "databricks-model-serving", "databricks_model_serving_config": config})
        }
        "custom" => custom(json!({"bearer_token_auth": {"token": reference}})),
        "custom-key" => custom(json!({"api_key_auth": {"key": "X-Key", "value": reference}})),
        other => panic!("no such provider: {other}"),
    }
}
