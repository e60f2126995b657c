//! Servers that speak OpenAI's dialect: vLLM and its like.

use std::sync::Arc;

use hyper::header::HeaderName;
use serde_json::{Value, json};

use super::dialect::{ChatReader, CompletionReader, Texts, chat_body, completion_body, embeddings, stream, texts};
use super::model::{CredentialFields, Place, ProviderEntry, base_url};
use super::protocol::{AnswerReader, Fault, Outgoing, Protocol, Target};
use super::{BaseUrl, given, key};
use crate::endpoints::Task;
use crate::providers::{ChatCall, CompletionCall, Cut, EmbeddingCall, Embeddings, ProviderError};
use crate::wire::external::ExternalModelFields;
use crate::wire::{FieldError, JsonObject};

/// Any server.
pub(super) const PROVIDER: ProviderEntry = ProviderEntry {
    name: "custom",
    tasks: &[Task::Chat, Task::Completions, Task::Embeddings],
    config: "custom_provider_config",
    credential,
    check,
};

/// What the server gets to know of the call besides, as OpenAI does.
const BOOKKEEPING: &[&str] = &["user", "metadata", "service_tier", "prompt_cache_key", "safety_identifier"];

#[derive(Debug)]
struct Custom {
    base: BaseUrl,
    /// The header of the key; without, it is a bearer token.
    header: Option<HeaderName>,
}

impl Custom {
    /// The request that goes to `path`, unless the address that was configured is the whole one. Which fields it takes is for
    /// the server to say.
    fn outgoing(&self, path: &str, body: JsonObject) -> Result<Outgoing, ProviderError> {
        let path = if self.base.as_str().ends_with(path) { "" } else { path };
        Outgoing::new(self.base.join(path), Value::Object(body).to_string())
    }
}

impl Protocol for Custom {
    fn key_place(&self) -> key::Place {
        self.header.clone().map_or(key::Place::Bearer, key::Place::Header)
    }

    fn chat(&self, call: &ChatCall, target: Target<'_>) -> Result<Outgoing, ProviderError> {
        let mut body = chat_body(call, given::all(&call.generation.given, BOOKKEEPING), target);
        stream(&mut body, call.generation.is_streamed(), true);
        self.outgoing("/chat/completions", body)
    }

    fn chat_reader(&self, choices: usize) -> Box<dyn AnswerReader> {
        Box::new(ChatReader::new(choices))
    }

    fn complete(&self, call: &CompletionCall, target: Target<'_>) -> Result<Outgoing, ProviderError> {
        let mut body = completion_body(call, given::all(&call.generation.given, BOOKKEEPING), target)?;
        stream(&mut body, call.generation.is_streamed(), true);
        self.outgoing("/completions", body)
    }

    fn completion_reader(&self, choices: usize) -> Box<dyn AnswerReader> {
        Box::new(CompletionReader::new(choices))
    }

    fn embed(&self, call: &EmbeddingCall, target: Target<'_>) -> Result<Vec<Outgoing>, ProviderError> {
        let mut body = JsonObject::new();
        body.insert("model".into(), target.model.into());
        body.insert("input".into(), texts(call, Texts::Instructed, target)?.into());
        body.extend(call.dimensions.map(|dimensions| ("dimensions".to_owned(), dimensions.into())));
        body.extend(call.input_type.as_ref().map(|kind| ("input_type".to_owned(), kind.clone().into())));
        // As vLLM spells it.
        let cut = call.cut.map(|cut| match cut {
            Cut::Context => json!(-1),
            Cut::Tokens(tokens) => json!(tokens),
        });
        body.extend(cut.map(|tokens| ("truncate_prompt_tokens".to_owned(), tokens)));
        Ok(vec![self.outgoing("/embeddings", body)?])
    }

    fn embeddings(&self, body: &[u8]) -> Result<Embeddings, Fault> {
        embeddings(body)
    }
}

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
