//! Routes: which path is answered by which handler, and what stands around all of them.
//!
//! Handlers are thin: read, ask the gate, check, call the provider, render. They know no model and no permission.

mod admin;
mod admission;
mod around;
mod attachment;
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
mod openapi;
mod payloads;
mod permissions;
mod rerank;
mod scim;
mod secrets;
mod serving;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod tokenize;
mod tokens;
mod tools;
mod usage;

use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};

use self::table::{Needs, Route};
use crate::error::{ApiError, ErrorKind};
use crate::gate::Permission;
use crate::serve::App;

/// Where the data plane is found, in either dialect.
const DATA_PLANES: [&str; 4] = ["/v1", "/serving-endpoints", "/ai-gateway/mlflow/v1", "/ai-gateway/openai/v1"];

/// The server with everything that stands around its routes. Layers are listed from the inside out.
pub(crate) fn router(app: App) -> Router {
    let cors = around::cors(app.gate().origins());
    let routes = table::router(routes())
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown_route)
        .with_state(app.clone())
        .layer(middleware::from_fn_with_state(app.clone(), around::account))
        .layer(middleware::from_fn_with_state(app, admission::admit))
        .layer(middleware::from_fn(around::count));
    // A router of its own, because the path is trimmed before the inner one looks at it.
    let router = Router::new()
        .fallback_service(routes)
        .layer(CatchPanicLayer::custom(around::panicked))
        .layer(middleware::from_fn(around::render_errors))
        .layer(middleware::map_request(around::without_trailing_slash))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid));
    match cors {
        Some(cors) => router.layer(cors),
        None => router,
    }
}

/// Every route.
fn routes() -> Vec<Route> {
    let mut routes = vec![
        Route::post("/v2/rerank", QUERY, rerank::create_v2),
        Route::post("/rerank", QUERY, rerank::create_text_ranks),
        Route::post("/serving-endpoints/{name}/invocations", QUERY, invocations::invoke),
        Route::get("/.well-known/databricks-config", Needs::Nothing, health::databricks_config),
        Route::get("/admin/models", Needs::Caller, admin::list),
        Route::post("/admin/models/{name}/load", MANAGE, admin::load),
        Route::post("/admin/models/{name}/unload", MANAGE, admin::unload),
        Route::get("/health/live", Needs::Nothing, health::live),
        Route::get("/health/ready", Needs::Nothing, health::ready),
        Route::get("/metrics", Needs::Caller, health::metrics),
    ];
    routes.extend(tokenizer(""));
    routes.extend(scim::routes());
    routes.extend(tokens::routes());
    routes.extend(permissions::routes());
    routes.extend(serving::routes());
    routes.extend(secrets::routes());
    routes.extend(usage::routes());
    routes.extend(payloads::routes());
    for prefix in DATA_PLANES {
        routes.extend([
            Route::post(format!("{prefix}/chat/completions"), QUERY, chat::create),
            Route::post(format!("{prefix}/completions"), QUERY, completions::create),
            Route::post(format!("{prefix}/embeddings"), QUERY, embeddings::create),
            Route::post(format!("{prefix}/rerank"), QUERY, rerank::create),
            Route::get(format!("{prefix}/models"), Needs::Caller, models::list),
            Route::get(format!("{prefix}/models/{{id}}"), VIEW, models::get),
        ]);
        routes.extend(tokenizer(prefix));
    }
    routes
}

const VIEW: Needs = Needs::Level(Permission::CanView);
const QUERY: Needs = Needs::Level(Permission::CanQuery);
const MANAGE: Needs = Needs::Level(Permission::CanManage);

/// The paths of tokenizers, which evaluation harnesses look for at the root too.
fn tokenizer(prefix: &str) -> [Route; 3] {
    [
        Route::post(format!("{prefix}/tokenize"), QUERY, tokenize::tokenize),
        Route::post(format!("{prefix}/detokenize"), QUERY, tokenize::detokenize),
        Route::get(format!("{prefix}/tokenizer_info"), QUERY, tokenize::info),
    ]
}

async fn unknown_route(method: Method, uri: Uri) -> ApiError {
    ApiError::route_not_found(method.as_str(), uri.path())
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(ErrorKind::MethodNotAllowed, format!("{} does not take {method} requests", uri.path()))
}
