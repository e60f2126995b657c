//! Models behind other people's APIs.
//!
//! Owns what such a model needs to be reached, the providers that are known, and how calls and answers become theirs. Knows
//! no endpoint and no store: secrets come through [`SecretSource`], and only when a request needs one.

mod address;
mod anthropic;
mod cohere;
mod custom;
mod databricks;
mod model;
mod openai;
mod secret;
mod settings;

pub use address::{BaseUrl, BaseUrlError};
pub use model::{Credential, ExternalModel};
pub use secret::{SecretError, SecretSource};
pub use settings::ExternalSettings;

use self::model::ProviderEntry;

/// The providers whose models can be called.
pub const PROVIDERS: &[&ProviderEntry] =
    &[&openai::PROVIDER, &anthropic::PROVIDER, &cohere::PROVIDER, &databricks::PROVIDER, &custom::PROVIDER];

/// Providers that are known by name and whose models are not called.
const OTHERS: [&str; 4] = ["ai21labs", "amazon-bedrock", "google-cloud-vertex-ai", "palm"];
