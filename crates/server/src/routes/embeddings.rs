//! Embeddings.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::checks;
use super::extract::JsonBody;
use super::identity::{Identity, Spelling, served_by};
use crate::endpoints::Task;
use crate::error::ApiError;
use crate::gate::{Allowed, Caller, Query};
use crate::policy::Served;
use crate::serve::App;
use crate::wire::embeddings::{EmbeddingFields, EmbeddingItem, EmbeddingList, EmbeddingUsage, EncodingFormat, Vector};
use crate::wire::{JsonObject, Request};

/// `POST .../embeddings`.
pub(super) async fn create(State(app): State<App>, caller: Caller, body: JsonBody) -> Result<Response, ApiError> {
    let (endpoint, fields) = body.open(&app, &caller)?;
    answer(&app, &endpoint, fields).await
}

/// Answers the embedding request in `fields`.
pub(super) async fn answer(app: &App, endpoint: &Allowed<Query>, fields: JsonObject) -> Result<Response, ApiError> {
    endpoint.begin(Task::Embeddings, &fields).await?;
    let Request { fields: embedding, bookkeeping } = Request::<EmbeddingFields>::read(fields)?;
    endpoint.record(&bookkeeping);
    let format = embedding.encoding_format.unwrap_or_default();
    let call = checks::embedding(embedding, app.limits())?;
    let name = endpoint.endpoint().name();
    let Served { answer: embeddings, by } = endpoint.embed(call).await?;
    let prompt_tokens = embeddings.prompt_tokens;
    let items = embeddings.vectors.into_iter().enumerate().map(|(index, vector)| EmbeddingItem {
        object: "embedding",
        index,
        embedding: written(vector, format),
    });
    let identity = Identity::new("embd", name, Spelling::Snake);
    let list = EmbeddingList {
        id: &identity.id,
        object: "list",
        model: name,
        data: items.collect(),
        usage: EmbeddingUsage { prompt_tokens, total_tokens: prompt_tokens },
    };
    Ok(served_by(&by, Json(list).into_response()))
}

fn written(vector: Vec<f32>, format: EncodingFormat) -> Vector {
    match format {
        EncodingFormat::Float => Vector::Float(vector),
        EncodingFormat::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            Vector::Base64(STANDARD.encode(bytes))
        }
    }
}
