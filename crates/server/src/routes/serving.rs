//! The control plane of endpoints, `/api/2.0/serving-endpoints`.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::extract::{JsonBody, PathName};
use super::table::{Needs, Route};
use super::{MANAGE, VIEW};
use crate::control::{ControlPlane, no_mail};
use crate::error::{ApiError, ErrorKind};
use crate::gate::{Allowed, Caller, Level, Manage, View};
use crate::serve::App;
use crate::wire::served::{EndpointList, EndpointView, RateLimitList, TagList};
use crate::wire::serving::{AiGateway, CreateEndpoint, EndpointConfig, PatchNotifications, PatchTags, PutRateLimits};
use crate::wire::{self, FieldError};

const ENDPOINTS: &str = "/api/2.0/serving-endpoints";

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    let one = |rest: &str| format!("{ENDPOINTS}/{{name}}{rest}");
    vec![
        Route::get(ENDPOINTS, Needs::Caller, list),
        Route::post(ENDPOINTS, Needs::Admin, create),
        Route::get(one(""), VIEW, get),
        Route::delete(one(""), MANAGE, delete),
        Route::put(one("/config"), MANAGE, update_config),
        Route::post(format!("{ENDPOINTS}/pt"), Needs::Admin, create),
        Route::put(format!("{ENDPOINTS}/pt/{{name}}/config"), MANAGE, update_nested_config),
        Route::patch(one("/tags"), MANAGE, patch_tags),
        Route::put(one("/ai-gateway"), MANAGE, put_gateway),
        Route::put(one("/rate-limits"), MANAGE, put_rate_limits),
        Route::patch(one("/notifications"), MANAGE, patch_notifications),
        Route::get(one("/served-models/{model}/build-logs"), MANAGE, logs),
        Route::get(one("/served-models/{model}/logs"), MANAGE, logs),
    ]
}

/// The endpoint `name`, in the words of the control plane.
pub(super) fn allow<L: Level>(app: &App, caller: &Caller, name: &str) -> Result<Allowed<L>, ApiError> {
    app.gate().allow(caller, name).map_err(in_words_of_control)
}

/// On the control plane a missing endpoint is one of the things that can be missing.
pub(super) fn in_words_of_control(error: ApiError) -> ApiError {
    match error.kind() {
        ErrorKind::EndpointNotFound => ApiError::new(ErrorKind::NotFound, error.to_string()),
        _ => error,
    }
}

async fn list(State(app): State<App>, caller: Caller) -> Result<Json<EndpointList>, ApiError> {
    let control = app.control()?;
    let all = app.gate().all::<View>(&caller);
    let endpoints = all.iter().map(|allowed| EndpointView { permission_level: None, ..control.view(allowed) });
    Ok(Json(EndpointList { endpoints: endpoints.collect() }))
}

async fn create(State(app): State<App>, caller: Caller, body: JsonBody) -> Result<Json<EndpointView>, ApiError> {
    let (control, admin) = (app.control()?, app.gate().admin(&caller)?);
    let fields: CreateEndpoint = wire::read_object(body.0)?;
    let record = control.create_endpoint(&admin, caller.principal(), fields).await?;
    Ok(Json(control.view(&allow::<Manage>(&app, &caller, &record.name)?)))
}

async fn get(State(app): State<App>, PathName(name): PathName, caller: Caller) -> Result<Json<EndpointView>, ApiError> {
    Ok(Json(app.control()?.view(&allow::<View>(&app, &caller, &name)?)))
}

async fn delete(State(app): State<App>, PathName(name): PathName, caller: Caller) -> Result<Json<Value>, ApiError> {
    app.control()?.delete_endpoint(&allow(&app, &caller, &name)?).await?;
    Ok(Json(json!({})))
}

async fn update_config(
    State(app): State<App>,
    PathName(name): PathName,
    caller: Caller,
    body: JsonBody,
) -> Result<Json<EndpointView>, ApiError> {
    let allowed = allow(&app, &caller, &name)?;
    updated(app.control()?, &allowed, wire::read_object(body.0)?).await
}

/// As [`update_config`], where the configuration stands in a field of its own.
async fn update_nested_config(
    State(app): State<App>,
    PathName(name): PathName,
    caller: Caller,
    body: JsonBody,
) -> Result<Json<EndpointView>, ApiError> {
    let allowed = allow(&app, &caller, &name)?;
    let wire::serving::NestedConfig { config } = wire::read_object(body.0)?;
    updated(app.control()?, &allowed, config).await
}

async fn updated(
    control: &ControlPlane,
    allowed: &Allowed<Manage>,
    fields: EndpointConfig,
) -> Result<Json<EndpointView>, ApiError> {
    control.update_config(allowed, fields).await?;
    Ok(Json(control.view(allowed)))
}

async fn patch_tags(
    State(app): State<App>,
    PathName(name): PathName,
    caller: Caller,
    body: JsonBody,
) -> Result<Json<TagList>, ApiError> {
    let (control, allowed) = (app.control()?, allow(&app, &caller, &name)?);
    let fields: PatchTags = wire::read_object(body.0)?;
    control.patch_tags(&allowed, fields).await?;
    Ok(Json(TagList { tags: control.view(&allowed).tags }))
}

async fn put_gateway(
    State(app): State<App>,
    PathName(name): PathName,
    caller: Caller,
    body: JsonBody,
) -> Result<Json<AiGateway>, ApiError> {
    let (control, allowed) = (app.control()?, allow(&app, &caller, &name)?);
    let fields: AiGateway = wire::read_object(body.0)?;
    control.put_gateway(&allowed, fields).await?;
    Ok(Json(control.view(&allowed).ai_gateway.unwrap_or_default()))
}

async fn put_rate_limits(
    State(app): State<App>,
    PathName(name): PathName,
    caller: Caller,
    body: JsonBody,
) -> Result<Json<RateLimitList>, ApiError> {
    let (control, allowed) = (app.control()?, allow(&app, &caller, &name)?);
    let PutRateLimits { rate_limits } = wire::read_object(body.0)?;
    control.put_rate_limits(&allowed, rate_limits).await?;
    let rate_limits = control.view(&allowed).ai_gateway.and_then(|gateway| gateway.rate_limits);
    Ok(Json(RateLimitList { rate_limits: rate_limits.unwrap_or_default() }))
}

async fn patch_notifications(
    State(app): State<App>,
    PathName(name): PathName,
    caller: Caller,
    body: JsonBody,
) -> Result<Json<Value>, ApiError> {
    let allowed = allow::<Manage>(&app, &caller, &name)?;
    let PatchNotifications { email_notifications } = wire::read_object(body.0)?;
    no_mail(&email_notifications.unwrap_or_default())?;
    Ok(Json(json!({"name": allowed.endpoint().name(), "email_notifications": {}})))
}

/// What a served model has to say of itself: what it is doing, since nothing is built here.
async fn logs(
    State(app): State<App>,
    Path((name, model)): Path<(String, String)>,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    let view = app.control()?.view(&allow::<Manage>(&app, &caller, &name)?);
    let configs = [view.config, view.pending_config];
    let entity = configs.iter().flatten().flat_map(|config| &config.served_entities).find(|one| one.name == model);
    let missing = || FieldError::value("served_model_name", "the name of a served entity", format!("`{model}`"));
    let state = &entity.ok_or_else(missing)?.state;
    Ok(Json(json!({"logs": format!("{} {}", state.deployment, state.deployment_state_message).trim_end()})))
}
