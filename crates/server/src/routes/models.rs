//! The list of models: the endpoints that the caller may see.

use axum::Json;
use axum::extract::State;

use super::extract::PathName;
use crate::endpoints::Endpoint;
use crate::error::ApiError;
use crate::gate::{Caller, View};
use crate::serve::App;
use crate::wire::models::{Model, ModelList};

/// `GET .../models`.
pub(super) async fn list(State(app): State<App>, caller: Caller) -> Json<ModelList> {
    let endpoints = app.gate().all::<View>(&caller);
    let data = endpoints.iter().map(|allowed| model(allowed.endpoint())).collect();
    Json(ModelList { object: "list", data })
}

/// `GET .../models/{id}`.
pub(super) async fn get(
    State(app): State<App>,
    PathName(name): PathName,
    caller: Caller,
) -> Result<Json<Model>, ApiError> {
    let allowed = app.gate().allow::<View>(&caller, &name)?;
    Ok(Json(model(allowed.endpoint())))
}

fn model(endpoint: &Endpoint) -> Model {
    Model { id: endpoint.name().to_owned(), object: "model", created: endpoint.created(), owned_by: "hearth" }
}
