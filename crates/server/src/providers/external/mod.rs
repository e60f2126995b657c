//! Models behind other people's APIs.
//!
//! Owns what such a model needs to be reached, the providers that are known, and how calls and answers become theirs. Knows
//! no endpoint and no store: secrets come through [`SecretSource`], and only when a request needs one.

mod address;
mod answer;
mod anthropic;
mod client;
mod cohere;
mod custom;
mod databricks;
mod dialect;
mod entra;
mod event;
mod given;
mod key;
mod model;
mod openai;
mod protocol;
mod provider;
mod secret;
mod settings;
mod tools;
mod upstream;

use std::sync::Arc;

pub use address::{BaseUrl, BaseUrlError};
pub use model::{Credential, ExternalModel, ProviderEntry};
pub use secret::{SecretError, SecretSource};
pub use settings::ExternalSettings;

use self::client::Client;
use self::provider::ExternalProvider;
use self::upstream::{Shared, Upstream};
use super::Provider;

/// The providers whose models can be called.
pub const PROVIDERS: &[&ProviderEntry] =
    &[&openai::PROVIDER, &anthropic::PROVIDER, &cohere::PROVIDER, &databricks::PROVIDER, &custom::PROVIDER];

/// Providers that are known by name and whose models are not called.
const OTHERS: [&str; 4] = ["ai21labs", "amazon-bedrock", "google-cloud-vertex-ai", "palm"];

/// The way to all models of other providers. A clone is the same way.
#[derive(Clone)]
pub struct Upstreams(Arc<Shared>);

impl Upstreams {
    /// Nothing is opened and nothing is asked before a model gets its first request.
    pub fn new(settings: ExternalSettings, secrets: Arc<dyn SecretSource>) -> Self {
        Self(Arc::new(Shared { settings, secrets, client: Client::default() }))
    }

    /// The model, ready to be called.
    pub fn connect(&self, model: ExternalModel) -> Arc<dyn Provider> {
        Arc::new(ExternalProvider(Arc::new(Upstream::new(model, Arc::clone(&self.0)))))
    }
}
