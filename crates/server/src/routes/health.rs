//! Life signs, metrics, and what Databricks' clients ask before anything else.

use std::collections::HashSet;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::gate::{Caller, View};
use crate::metrics;
use crate::serve::App;

/// `GET /health/live`: the process runs.
pub(super) async fn live() -> Json<Value> {
    Json(json!({"status": "live"}))
}

/// `GET /health/ready`: every configured model answers, and the server is not stopping. Endpoints that do not are named.
pub(super) async fn ready(State(app): State<App>) -> Response {
    let unready = app.endpoints().unready();
    if unready.is_empty() && !app.life().is_stopping() {
        Json(json!({"status": "ready"})).into_response()
    } else {
        let status = json!({"status": "not ready", "endpoints": unready});
        (StatusCode::SERVICE_UNAVAILABLE, Json(status)).into_response()
    }
}

/// `GET /metrics`. The labels name endpoints, so this takes a caller, who gets the lines of those that he may see.
pub(super) async fn metrics(State(app): State<App>, caller: Caller) -> Response {
    metrics::memory(app.models().memory());
    let all = app.gate().all::<View>(&caller);
    for allowed in &all {
        let endpoint = allowed.endpoint();
        for load in endpoint.entities().iter().filter_map(|entity| entity.provider().load()) {
            metrics::load(endpoint.name(), load);
        }
        for model in endpoint.entities().iter().filter_map(|entity| entity.provider().hosted()) {
            metrics::hosted(endpoint.name(), &model.status());
        }
    }
    let mut text = app.metrics().render();
    if app.gate().admin(&caller).is_err() {
        let seen: HashSet<&str> = all.iter().map(|allowed| allowed.endpoint().name()).collect();
        text =
            text.split_inclusive('\n').filter(|line| model_of(line).is_none_or(|name| seen.contains(name))).collect();
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// The endpoint that a line of the metrics is about.
fn model_of(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("model=\"").filter(|_| !line.starts_with('#'))?;
    rest.split_once('"').map(|(name, _)| name)
}

/// `GET /.well-known/databricks-config`: clients ask for it without a token, and an empty object satisfies them.
pub(super) async fn databricks_config() -> Json<Value> {
    Json(json!({}))
}
