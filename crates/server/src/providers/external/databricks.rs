//! Endpoints of another Databricks workspace, or of another server like this one.

use std::sync::Arc;

use serde_json::Value;

use super::address::escaped;
use super::dialect::{ChatReader, CompletionReader, Texts, chat_body, completion_body, embeddings, stream, texts};
use super::model::{CredentialFields, Place, ProviderEntry, base_url};
use super::openai::refuse_cut;
use super::protocol::{AnswerReader, Fault, Outgoing, Protocol, Target};
use super::{BaseUrl, given};
use crate::endpoints::Task;
use crate::providers::{ChatCall, CompletionCall, EmbeddingCall, Embeddings, ProviderError};
use crate::wire::external::ExternalModelFields;
use crate::wire::{FieldError, JsonObject};

/// Databricks model serving.
pub(super) const PROVIDER: ProviderEntry = ProviderEntry {
    name: "databricks-model-serving",
    tasks: &[Task::Chat, Task::Completions, Task::Embeddings],
    config: "databricks_model_serving_config",
    credential,
    check,
};

/// What the workspace gets to know of the call besides.
const BOOKKEEPING: &[&str] = &["user"];

#[derive(Debug)]
struct Databricks {
    workspace: BaseUrl,
}

impl Databricks {
    /// The request that goes to the model's endpoint. Which fields it takes is for it to say.
    fn outgoing(&self, mut body: JsonObject, target: Target<'_>) -> Result<Outgoing, ProviderError> {
        // The path says it.
        body.remove("model");
        let path = format!("/serving-endpoints/{}/invocations", escaped(target.model));
        Outgoing::new(self.workspace.join(&path), Value::Object(body).to_string())
    }
}

impl Protocol for Databricks {
    fn chat(&self, call: &ChatCall, target: Target<'_>) -> Result<Outgoing, ProviderError> {
        let mut body = chat_body(call, given::all(&call.generation.given, BOOKKEEPING), target);
        // Usage stands in every piece of a stream, or in the last.
        stream(&mut body, call.generation.is_streamed(), false);
        self.outgoing(body, target)
    }

    fn chat_reader(&self, choices: usize) -> Box<dyn AnswerReader> {
        Box::new(ChatReader::new(choices))
    }

    fn complete(&self, call: &CompletionCall, target: Target<'_>) -> Result<Outgoing, ProviderError> {
        let mut body = completion_body(call, given::all(&call.generation.given, BOOKKEEPING), target)?;
        stream(&mut body, call.generation.is_streamed(), false);
        self.outgoing(body, target)
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
        body.insert("input".into(), texts(call, Texts::Bare, target)?.into());
        body.extend(call.dimensions.map(|dimensions| ("dimensions".to_owned(), dimensions.into())));
        body.extend(call.instruction.as_ref().map(|text| ("instruction".to_owned(), text.clone().into())));
        Ok(vec![self.outgoing(body, target)?])
    }

    fn embeddings(&self, body: &[u8]) -> Result<Embeddings, Fault> {
        embeddings(body)
    }
}

fn credential(fields: &mut ExternalModelFields) -> Option<CredentialFields<'_>> {
    let config = fields.databricks_model_serving_config.as_mut()?;
    Some(CredentialFields {
        field: "databricks_model_serving_config.databricks_api_token",
        reference: &mut config.databricks_api_token,
        plaintext: &mut config.databricks_api_token_plaintext,
    })
}

fn check(fields: &ExternalModelFields, place: &Place) -> Result<Arc<dyn Protocol>, FieldError> {
    let config = fields.databricks_model_serving_config.as_ref();
    let url = config.map(|config| config.databricks_workspace_url.as_str()).unwrap_or_default();
    let workspace = base_url("databricks_model_serving_config.databricks_workspace_url", url, place)?;
    Ok(Arc::new(Databricks { workspace }))
}
