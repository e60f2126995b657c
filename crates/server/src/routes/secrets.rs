//! Secrets, for whom the ACLs of their scopes name.

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::extract::{JsonBody, QueryFields};
use super::table::{Needs, Route};
use crate::error::ApiError;
use crate::gate::Caller;
use crate::serve::App;
use crate::wire;
use crate::wire::secrets::{
    AclFields, AclItem, AclList, BackendType, CreateScope, Done, ListScopes, PutAcl, PutSecret, ScopeFields, ScopeItem,
    ScopeList, SecretFields, SecretList, SecretValue,
};

/// Where secrets are found.
pub(super) fn routes() -> [Route; 11] {
    let path = |rest: &str| format!("/api/2.0/secrets/{rest}");
    [
        Route::post(path("scopes/create"), Needs::Caller, create_scope),
        Route::get(path("scopes/list"), Needs::Caller, list_scopes),
        Route::post(path("scopes/delete"), Needs::Scope, delete_scope),
        Route::post(path("put"), Needs::Scope, put),
        Route::get(path("get"), Needs::Scope, get),
        Route::get(path("list"), Needs::Scope, list),
        Route::post(path("delete"), Needs::Scope, delete),
        Route::post(path("acls/put"), Needs::Scope, put_acl),
        Route::get(path("acls/get"), Needs::Scope, get_acl),
        Route::get(path("acls/list"), Needs::Scope, list_acls),
        Route::post(path("acls/delete"), Needs::Scope, delete_acl),
    ]
}

async fn create_scope(
    State(app): State<App>,
    caller: Caller,
    JsonBody(fields): JsonBody,
) -> Result<Json<Done>, ApiError> {
    let fields: CreateScope = wire::read_object(fields)?;
    app.control()?.create_scope(caller.principal(), fields).await?;
    Ok(Json(Done {}))
}

async fn list_scopes(
    State(app): State<App>,
    caller: Caller,
    QueryFields(fields): QueryFields,
) -> Result<Json<ScopeList>, ApiError> {
    let ListScopes {} = wire::read_object(fields)?;
    let scopes = app.control()?.scopes(caller.principal()).await?;
    let item = |name| ScopeItem { name, backend_type: BackendType::Databricks };
    Ok(Json(ScopeList { scopes: scopes.into_iter().map(item).collect() }))
}

async fn delete_scope(
    State(app): State<App>,
    caller: Caller,
    JsonBody(fields): JsonBody,
) -> Result<Json<Done>, ApiError> {
    let ScopeFields { scope } = wire::read_object(fields)?;
    app.control()?.scope(caller.principal(), &scope).await?.remove().await?;
    Ok(Json(Done {}))
}

async fn put(State(app): State<App>, caller: Caller, JsonBody(fields): JsonBody) -> Result<Json<Done>, ApiError> {
    let PutSecret { scope, key, string_value, bytes_value } = wire::read_object(fields)?;
    app.control()?.scope(caller.principal(), &scope).await?.put(&key, string_value, bytes_value).await?;
    Ok(Json(Done {}))
}

async fn get(
    State(app): State<App>,
    caller: Caller,
    QueryFields(fields): QueryFields,
) -> Result<Json<SecretValue>, ApiError> {
    let SecretFields { scope, key } = wire::read_object(fields)?;
    let value = app.control()?.scope(caller.principal(), &scope).await?.get(&key).await?;
    Ok(Json(SecretValue { key, value: STANDARD.encode(&*value) }))
}

async fn list(
    State(app): State<App>,
    caller: Caller,
    QueryFields(fields): QueryFields,
) -> Result<Json<SecretList>, ApiError> {
    let ScopeFields { scope } = wire::read_object(fields)?;
    let secrets = app.control()?.scope(caller.principal(), &scope).await?.list().await?;
    Ok(Json(SecretList { secrets }))
}

async fn delete(State(app): State<App>, caller: Caller, JsonBody(fields): JsonBody) -> Result<Json<Done>, ApiError> {
    let SecretFields { scope, key } = wire::read_object(fields)?;
    app.control()?.scope(caller.principal(), &scope).await?.delete(&key).await?;
    Ok(Json(Done {}))
}

async fn put_acl(State(app): State<App>, caller: Caller, JsonBody(fields): JsonBody) -> Result<Json<Done>, ApiError> {
    let PutAcl { scope, principal, permission } = wire::read_object(fields)?;
    app.control()?.scope(caller.principal(), &scope).await?.put_acl(&principal, permission).await?;
    Ok(Json(Done {}))
}

async fn get_acl(
    State(app): State<App>,
    caller: Caller,
    QueryFields(fields): QueryFields,
) -> Result<Json<AclItem>, ApiError> {
    let AclFields { scope, principal } = wire::read_object(fields)?;
    app.control()?.scope(caller.principal(), &scope).await?.acl(&principal).await.map(Json)
}

async fn list_acls(
    State(app): State<App>,
    caller: Caller,
    QueryFields(fields): QueryFields,
) -> Result<Json<AclList>, ApiError> {
    let ScopeFields { scope } = wire::read_object(fields)?;
    let items = app.control()?.scope(caller.principal(), &scope).await?.acls().await?;
    Ok(Json(AclList { items }))
}

async fn delete_acl(
    State(app): State<App>,
    caller: Caller,
    JsonBody(fields): JsonBody,
) -> Result<Json<Done>, ApiError> {
    let AclFields { scope, principal } = wire::read_object(fields)?;
    app.control()?.scope(caller.principal(), &scope).await?.delete_acl(&principal).await?;
    Ok(Json(Done {}))
}
