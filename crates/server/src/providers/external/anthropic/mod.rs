//! Anthropic's Messages API.

mod answer;
mod request;

use std::sync::Arc;

use hyper::header::HeaderName;
use serde_json::Value;

use self::answer::MessageReader;
use super::model::{CredentialFields, Place, ProviderEntry};
use super::protocol::{AnswerReader, Outgoing, Protocol, Target};
use super::{BaseUrl, key};
use crate::endpoints::Task;
use crate::providers::{ChatCall, ProviderError};
use crate::wire::FieldError;
use crate::wire::external::ExternalModelFields;

/// Anthropic.
pub(super) const PROVIDER: ProviderEntry =
    ProviderEntry { name: "anthropic", tasks: &[Task::Chat], config: "anthropic_config", credential, check };

const BASE: &str = "https://api.anthropic.com";

#[derive(Debug)]
struct Anthropic;

impl Protocol for Anthropic {
    fn key_place(&self) -> key::Place {
        key::Place::Header(HeaderName::from_static("x-api-key"))
    }

    fn gives_choices(&self) -> bool {
        false
    }

    fn chat(&self, call: &ChatCall, target: Target<'_>) -> Result<Outgoing, ProviderError> {
        let body = request::body(call, target)?;
        let uri = match &target.settings.anthropic_base {
            Some(base) => base.join("/v1/messages"),
            None => BASE.parse::<BaseUrl>().and_then(|base| base.join("/v1/messages")),
        };
        let outgoing = Outgoing::new(uri, Value::Object(body).to_string())?;
        let version = target.settings.anthropic_version.clone();
        Ok(outgoing.with(HeaderName::from_static("anthropic-version"), version))
    }

    fn chat_reader(&self, _choices: usize) -> Box<dyn AnswerReader> {
        Box::new(MessageReader::default())
    }
}

fn credential(fields: &mut ExternalModelFields) -> Option<CredentialFields<'_>> {
    let config = fields.anthropic_config.as_mut()?;
    Some(CredentialFields {
        field: "anthropic_config.anthropic_api_key",
        reference: &mut config.anthropic_api_key,
        plaintext: &mut config.anthropic_api_key_plaintext,
    })
}

fn check(_fields: &ExternalModelFields, _place: &Place) -> Result<Arc<dyn Protocol>, FieldError> {
    Ok(Arc::new(Anthropic))
}
