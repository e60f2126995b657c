//! `POST /serving-endpoints/{name}/invocations`: one path for all tasks, told apart by the body.

use axum::extract::State;
use axum::response::Response;

use super::extract::{JsonBody, PathName};
use super::identity::Spelling;
use super::{chat, completions, embeddings, rerank};
use crate::endpoints::Task;
use crate::error::ApiError;
use crate::gate::{Caller, Query};
use crate::serve::App;
use crate::wire::{self, JsonObject};

/// Answers whatever the body asks for. Its `model` is ignored, since the path names the endpoint.
pub(super) async fn invoke(
    State(app): State<App>,
    PathName(name): PathName,
    caller: Caller,
    JsonBody(mut fields): JsonBody,
) -> Result<Response, ApiError> {
    let endpoint = app.gate().allow::<Query>(&caller, &name)?;
    wire::take_text(&mut fields, "model")?;
    let spelling = Spelling::SnakeAndCamel;
    // A body that names no task is for what the endpoint does; where that is not known yet, as for a chat.
    match asked_for(&fields).or(endpoint.endpoint().task()).unwrap_or(Task::Chat) {
        Task::Chat => chat::answer(&app, &endpoint, fields, spelling).await,
        Task::Completions => completions::answer(&app, &endpoint, fields, spelling).await,
        Task::Embeddings => embeddings::answer(&app, &endpoint, fields).await,
        Task::Rerank => rerank::answer(&app, &endpoint, fields, "1").await,
    }
}

fn asked_for(fields: &JsonObject) -> Option<Task> {
    let tasks =
        [("messages", Task::Chat), ("prompt", Task::Completions), ("input", Task::Embeddings), ("query", Task::Rerank)];
    tasks.into_iter().find(|(field, _)| fields.contains_key(*field)).map(|(_, task)| task)
}
