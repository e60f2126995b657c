//! Loading and unloading, for those who may manage an endpoint.

use axum::Json;
use axum::extract::State;

use super::extract::{OptionalBody, PathName};
use crate::endpoints::Endpoint;
use crate::error::{ApiError, ErrorKind};
use crate::gate::{Allowed, Caller, Manage};
use crate::models::{HostedModel, ModelState, Residence};
use crate::serve::App;
use crate::wire;
use crate::wire::admin::{Hosted, HostedList, LoadFields, UnloadFields};

/// `GET /admin/models`.
pub(super) async fn list(State(app): State<App>, caller: Caller) -> Json<HostedList> {
    let managed = app.gate().all::<Manage>(&caller);
    let data = managed.iter().filter_map(|allowed| described(allowed.endpoint())).collect();
    let (memory_reserved, memory_total) = app.models().memory();
    Json(HostedList { object: "list", data, memory_reserved, memory_total })
}

/// `POST /admin/models/{name}/load`: answers when the model does.
pub(super) async fn load(
    State(app): State<App>,
    PathName(name): PathName,
    caller: Caller,
    OptionalBody(fields): OptionalBody,
) -> Result<Json<Hosted>, ApiError> {
    let allowed = app.gate().allow::<Manage>(&caller, &name)?;
    let LoadFields {} = wire::read_object(fields)?;
    hosted(&allowed)?.load().await?;
    answer(&allowed)
}

/// `POST /admin/models/{name}/unload`: answers when the memory has been given back.
pub(super) async fn unload(
    State(app): State<App>,
    PathName(name): PathName,
    caller: Caller,
    OptionalBody(fields): OptionalBody,
) -> Result<Json<Hosted>, ApiError> {
    let allowed = app.gate().allow::<Manage>(&caller, &name)?;
    let UnloadFields { force } = wire::read_object(fields)?;
    let unloaded = hosted(&allowed)?.unload(force.unwrap_or(false)).await;
    unloaded.map_err(|error| ApiError::new(ErrorKind::Unavailable, error.to_string()))?;
    answer(&allowed)
}

fn hosted(allowed: &Allowed<Manage>) -> Result<&HostedModel, ApiError> {
    model_of(allowed.endpoint()).ok_or_else(|| {
        let text = format!("the model of endpoint `{}` is not one that is loaded here", allowed.endpoint().name());
        ApiError::new(ErrorKind::BadRequest, text)
    })
}

fn model_of(endpoint: &Endpoint) -> Option<&HostedModel> {
    endpoint.entities().iter().find_map(|entity| entity.provider().hosted())
}

fn answer(allowed: &Allowed<Manage>) -> Result<Json<Hosted>, ApiError> {
    let missing = || ApiError::internal("the model's state is not known", "the endpoint has no hosted model");
    described(allowed.endpoint()).map(Json).ok_or_else(missing)
}

fn described(endpoint: &Endpoint) -> Option<Hosted> {
    let model = model_of(endpoint)?;
    let status = model.status();
    let load = endpoint.entities().iter().find_map(|entity| entity.provider().load());
    let (state, reason) = match status.state {
        ModelState::Unloaded => ("unloaded", None),
        ModelState::Loading => ("loading", None),
        ModelState::Ready => ("ready", None),
        ModelState::Failed(reason) => ("failed", Some(reason)),
        ModelState::Unloading => ("unloading", None),
    };
    Some(Hosted {
        name: endpoint.name().to_owned(),
        model: status.model,
        state,
        reason,
        on_demand: status.residence == Residence::OnDemand,
        memory: status.memory,
        loads: status.loads,
        load_seconds: status.load_seconds,
        idle_seconds: status.idle_seconds,
        requests: status.requests,
        running: load.map(|load| load.running),
        waiting: load.map(|load| load.waiting),
    })
}
