//! Routes: which path is answered by which handler, and what stands around all of them.
//!
//! Handlers are thin: read, ask the gate, check, call the provider, render. They know no model and no permission.

mod admin;
mod admission;
mod around;
mod chat;
mod checks;
mod collect;
mod completions;
mod conversation;
mod embeddings;
mod extract;
mod grammar;
mod health;
mod identity;
mod invocations;
mod models;
mod rerank;
mod stream;
#[cfg(test)]
mod tests;
mod tokenize;
mod tools;

use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware;
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};

use crate::error::{ApiError, ErrorKind};
use crate::serve::App;

/// Every route of the server. Layers are listed from the inside out.
pub(crate) fn router(app: App) -> Router {
    let routes = Router::new()
        .nest("/v1", data_plane())
        .nest("/serving-endpoints", data_plane())
        .nest("/ai-gateway/mlflow/v1", data_plane())
        .nest("/ai-gateway/openai/v1", data_plane())
        .merge(tokenizer())
        .route("/v2/rerank", post(rerank::create_v2))
        .route("/rerank", post(rerank::create_text_ranks))
        .route("/serving-endpoints/{name}/invocations", post(invocations::invoke))
        .route("/.well-known/databricks-config", get(health::databricks_config))
        .route("/admin/models", get(admin::list))
        .route("/admin/models/{name}/load", post(admin::load))
        .route("/admin/models/{name}/unload", post(admin::unload))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown_route)
        .with_state(app.clone())
        .layer(middleware::from_fn_with_state(app.clone(), around::account))
        .layer(middleware::from_fn_with_state(app, admission::admit))
        .layer(middleware::from_fn(around::count));
    // A router of its own, because the path is trimmed before the inner one looks at it.
    Router::new()
        .fallback_service(routes)
        .layer(CatchPanicLayer::custom(around::panicked))
        .layer(middleware::from_fn(around::render_errors))
        .layer(middleware::map_request(around::without_trailing_slash))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
}

/// The paths that all prefixes share.
fn data_plane() -> Router<App> {
    Router::new()
        .route("/chat/completions", post(chat::create))
        .route("/completions", post(completions::create))
        .route("/embeddings", post(embeddings::create))
        .route("/rerank", post(rerank::create))
        .route("/models", get(models::list))
        .route("/models/{id}", get(models::get))
        .merge(tokenizer())
}

/// The paths of tokenizers, which evaluation harnesses look for at the root.
fn tokenizer() -> Router<App> {
    Router::new()
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .route("/tokenizer_info", get(tokenize::info))
}

async fn unknown_route(method: Method, uri: Uri) -> ApiError {
    ApiError::route_not_found(method.as_str(), uri.path())
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(ErrorKind::MethodNotAllowed, format!("{} does not take {method} requests", uri.path()))
}
