//! `GET /api/2.0/serving-endpoints/{name}/openapi`: what an endpoint takes and answers, in OpenAPI's form, out of the types that
//! read requests and write answers.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::extract::PathName;
use super::serving::allow;
use crate::endpoints::Task;
use crate::error::{ApiError, ErrorKind};
use crate::gate::{Caller, View};
use crate::serve::App;
use crate::wire::answer::AnswerObject;
use crate::wire::chat::{ChatChoice, ChatFields, ReasoningFields};
use crate::wire::completions::{CompletionChoice, CompletionFields};
use crate::wire::embeddings::{EmbeddingFields, EmbeddingList};
use crate::wire::grammar::GrammarFields;
use crate::wire::options::{Bookkeeping, OutputFields, SamplingFields};
use crate::wire::rerank::{RerankAnswer, RerankFields};
use crate::wire::tools::ToolFields;

/// `GET .../openapi`.
pub(super) async fn get(
    State(app): State<App>,
    PathName(name): PathName,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    let allowed = allow::<View>(&app, &caller, &name)?;
    let task = allowed.endpoint().task().ok_or_else(|| {
        let text = format!("endpoint `{name}` serves nothing yet, so that it is not known what it takes");
        ApiError::new(ErrorKind::Unavailable, text)
    })?;
    Ok(Json(document(&name, task)))
}

/// The document of an endpoint of that task.
fn document(name: &str, task: Task) -> Value {
    let mut schemas = Schemas::default();
    let (request, answer) = match task {
        Task::Chat => (chat(&mut schemas), schemas.answer::<ChatChoice>()),
        Task::Completions => (completion(&mut schemas), schemas.answer::<CompletionChoice>()),
        Task::Embeddings => (embedding(&mut schemas), schemas.name::<EmbeddingList<'_>>()),
        Task::Rerank => (rerank(&mut schemas), schemas.name::<RerankAnswer<'_>>()),
    };
    let content = |schema: Value| json!({"application/json": {"schema": schema}});
    let failure = json!({
        "type": "object",
        "required": ["error_code", "message"],
        "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
    });
    json!({
        "openapi": "3.1.0",
        "info": {"title": name, "version": env!("CARGO_PKG_VERSION")},
        "servers": [{"url": "/"}],
        "paths": {format!("/serving-endpoints/{name}/invocations"): {"post": {
            "operationId": "query",
            "security": [{"token": []}],
            "requestBody": {"required": true, "content": content(request)},
            "responses": {
                "200": {"description": "The answer; with `stream`, events of its pieces.", "content": content(answer)},
                "default": {"description": "What is wrong.", "content": content(failure)},
            },
        }}},
        "components": {
            "schemas": schemas.0,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn chat(schemas: &mut Schemas) -> Value {
    let mut body = Body::default();
    body.add::<ChatFields>(schemas);
    body.add::<SamplingFields>(schemas);
    body.add::<OutputFields>(schemas);
    body.add::<ToolFields>(schemas);
    body.add::<GrammarFields>(schemas);
    body.add::<ReasoningFields>(schemas);
    body.whole(schemas)
}

fn completion(schemas: &mut Schemas) -> Value {
    let mut body = Body::default();
    body.add::<CompletionFields>(schemas);
    body.add::<SamplingFields>(schemas);
    body.add::<OutputFields>(schemas);
    body.add::<GrammarFields>(schemas);
    body.whole(schemas)
}

fn embedding(schemas: &mut Schemas) -> Value {
    let mut body = Body::default();
    body.add::<EmbeddingFields>(schemas);
    body.whole(schemas)
}

fn rerank(schemas: &mut Schemas) -> Value {
    let mut body = Body::default();
    body.add::<RerankFields>(schemas);
    body.whole(schemas)
}

/// The schemas that others refer to, by name.
#[derive(Default)]
struct Schemas(BTreeMap<String, Value>);

impl Schemas {
    /// Takes in what `T` refers to.
    fn around<T: ToSchema>(&mut self) {
        let mut found: Vec<(String, RefOr<Schema>)> = Vec::new();
        T::schemas(&mut found);
        self.0.extend(found.into_iter().map(|(name, schema)| (name, written(&schema))));
    }

    /// Takes in `T` and what it refers to; the reference to it.
    fn name<T: ToSchema>(&mut self) -> Value {
        self.around::<T>();
        let name = T::name().into_owned();
        self.0.insert(name.clone(), written(&T::schema()));
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    /// Takes in an answer with such choices; the reference to it.
    fn answer<Choice: ToSchema>(&mut self) -> Value {
        self.name::<Choice>();
        self.name::<AnswerObject<'_, Choice>>()
    }
}

/// A request's body, whose fields several types read.
#[derive(Default)]
struct Body {
    properties: Map<String, Value>,
    required: Vec<Value>,
}

impl Body {
    fn add<T: ToSchema + PartialSchema>(&mut self, schemas: &mut Schemas) {
        schemas.around::<T>();
        let mut schema = written(&T::schema());
        if let Some(Value::Object(properties)) = schema.get_mut("properties").map(Value::take) {
            self.properties.extend(properties);
        }
        if let Some(Value::Array(required)) = schema.get_mut("required").map(Value::take) {
            self.required.extend(required);
        }
    }

    /// With the fields that every body may have.
    fn whole(mut self, schemas: &mut Schemas) -> Value {
        self.add::<Bookkeeping>(schemas);
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": self.required,
            "properties": self.properties,
        })
    }
}

fn written(schema: &RefOr<Schema>) -> Value {
    // Schemas are nothing but names, texts and numbers.
    serde_json::to_value(schema).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_task_has_a_document_in_which_nothing_is_missing() {
        for (task, field) in [
            (Task::Chat, "messages"),
            (Task::Completions, "prompt"),
            (Task::Embeddings, "input"),
            (Task::Rerank, "query"),
        ] {
            let document = document("e", task);
            let post = &document["paths"]["/serving-endpoints/e/invocations"]["post"];
            let body = &post["requestBody"]["content"]["application/json"]["schema"];
            assert!(body["properties"][field].is_object(), "{task}: {body}");
            assert!(body["required"].as_array().unwrap().contains(&json!(field)), "{task}: {body}");
            let mut found = Vec::new();
            references(&document, &mut found);
            assert!(!found.is_empty());
            for reference in found {
                let name = reference.strip_prefix("#/components/schemas/").unwrap();
                assert!(document["components"]["schemas"][name].is_object(), "{task}: {reference}");
            }
        }
        let chat = document("e", Task::Chat);
        let body = &chat["paths"]["/serving-endpoints/e/invocations"]["post"]["requestBody"];
        let properties = &body["content"]["application/json"]["schema"]["properties"];
        for field in ["temperature", "max_tokens", "tools", "stream", "response_format", "usage_context"] {
            assert!(properties[field].is_object(), "{field}");
        }
    }
}
