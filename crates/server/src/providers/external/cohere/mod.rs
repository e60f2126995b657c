//! Cohere's API of version 2.

mod answer;
mod request;

use std::sync::Arc;

use serde_json::Value;

use self::answer::ChatReader;
use super::BaseUrl;
use super::model::{CredentialFields, Place, ProviderEntry, base_url};
use super::protocol::{AnswerReader, Fault, Outgoing, Protocol, Target};
use crate::endpoints::Task;
use crate::providers::{ChatCall, EmbeddingCall, Embeddings, ProviderError};
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

impl Protocol for Cohere {
    fn gives_choices(&self) -> bool {
        false
    }

    fn chat(&self, call: &ChatCall, target: Target<'_>) -> Result<Outgoing, ProviderError> {
        let body = request::chat_body(call, target)?;
        Outgoing::new(self.base.join("/v2/chat"), Value::Object(body).to_string())
    }

    fn chat_reader(&self, _choices: usize) -> Box<dyn AnswerReader> {
        Box::new(ChatReader::default())
    }

    fn embed(&self, call: &EmbeddingCall, target: Target<'_>) -> Result<Vec<Outgoing>, ProviderError> {
        let bodies = request::embed_bodies(call, target)?;
        let outgoing =
            bodies.into_iter().map(|body| Outgoing::new(self.base.join("/v2/embed"), Value::Object(body).to_string()));
        outgoing.collect()
    }

    fn embeddings(&self, body: &[u8]) -> Result<Embeddings, Fault> {
        answer::embeddings(body)
    }
}

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
