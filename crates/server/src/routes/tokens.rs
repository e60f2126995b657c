//! `/api/2.0/token` for everybody's own tokens, `/api/2.0/token-management` for administrators.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::extract::{JsonBody, OptionalBody, PathName, QueryFields};
use super::table::{Needs, Route};
use crate::control::{NewToken, TokensOf, check_text, does_not_exist};
use crate::error::ApiError;
use crate::gate::{Caller, Directory};
use crate::serve::App;
use crate::store::{PrincipalKind, TokenRow, now};
use crate::wire::tokens::{
    CreateFields, Created, DeleteFields, OnBehalfFields, OneToken, PublicTokenInfo, TokenInfo, TokenList, TokensQuery,
    UpdateFields,
};
use crate::wire::{self, FieldError, JsonObject};

const MANAGED: &str = "/api/2.0/token-management/tokens";

/// Every route of tokens.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::post("/api/2.0/token/create", Needs::Caller, create),
        Route::get("/api/2.0/token/list", Needs::Caller, list),
        Route::post("/api/2.0/token/delete", Needs::Caller, delete),
        Route::patch("/api/2.0/token/{id}", Needs::Caller, update),
        Route::post("/api/2.0/token-management/on-behalf-of/tokens", Needs::Admin, create_on_behalf),
        Route::get(MANAGED, Needs::Admin, list_all),
        Route::get(format!("{MANAGED}/{{id}}"), Needs::Admin, get_any),
        Route::patch(format!("{MANAGED}/{{id}}"), Needs::Admin, update_any),
        Route::delete(format!("{MANAGED}/{{id}}"), Needs::Admin, delete_any),
    ]
}

/// `POST /api/2.0/token/create`.
async fn create(
    State(app): State<App>,
    caller: Caller,
    OptionalBody(fields): OptionalBody,
) -> Result<Json<Created<PublicTokenInfo>>, ApiError> {
    let CreateFields { comment, lifetime_seconds, scopes, autoscope_enabled } = wire::read_object(fields)?;
    refuse_scopes(scopes.as_deref(), autoscope_enabled)?;
    let wanted = NewToken::new(comment.unwrap_or_default(), lifetime_seconds)?;
    let (token, row) = app.control()?.create_token(&caller, wanted).await?;
    Ok(Json(Created { token_value: token.text().to_owned(), token_info: public(&row) }))
}

/// `GET /api/2.0/token/list`: the caller's own that count.
async fn list(State(app): State<App>, caller: Caller) -> Json<TokenList<PublicTokenInfo>> {
    let (owner, now) = (caller.principal().id(), now());
    let alive = |row: &&TokenRow| row.principal_id == owner && row.expires.is_none_or(|expires| expires > now);
    let directory = app.gate().directory();
    let rows = oldest_first(directory.tokens().filter(alive));
    Json(TokenList { token_infos: rows.into_iter().map(public).collect() })
}

/// `POST /api/2.0/token/delete`.
async fn delete(State(app): State<App>, caller: Caller, JsonBody(fields): JsonBody) -> Result<Json<Value>, ApiError> {
    let DeleteFields { token_id } = wire::read_object(fields)?;
    app.control()?.revoke_token(TokensOf::Caller(&caller), &token_id).await?;
    Ok(Json(json!({})))
}

/// `PATCH /api/2.0/token/{id}`.
async fn update(
    State(app): State<App>,
    PathName(id): PathName,
    caller: Caller,
    JsonBody(fields): JsonBody,
) -> Result<Json<Value>, ApiError> {
    let comment = described(fields)?;
    app.control()?.describe_token(TokensOf::Caller(&caller), &id, &comment).await?;
    Ok(Json(json!({})))
}

/// `POST /api/2.0/token-management/on-behalf-of/tokens`.
async fn create_on_behalf(
    State(app): State<App>,
    caller: Caller,
    JsonBody(fields): JsonBody,
) -> Result<Json<Created<TokenInfo>>, ApiError> {
    let admin = app.gate().admin(&caller)?;
    let fields: OnBehalfFields = wire::read_object(fields)?;
    refuse_scopes(fields.scopes.as_deref(), fields.autoscope_enabled)?;
    let wanted = NewToken::new(fields.comment.unwrap_or_default(), fields.lifetime_seconds)?;
    let made = app.control()?.create_token_on_behalf(&admin, &caller, &fields.application_id, wanted).await;
    let (token, row) = made?;
    let token_info = info(&row, &app.gate().directory());
    Ok(Json(Created { token_value: token.text().to_owned(), token_info }))
}

/// `GET /api/2.0/token-management/tokens`.
async fn list_all(
    State(app): State<App>,
    caller: Caller,
    QueryFields(query): QueryFields,
) -> Result<Json<TokenList<TokenInfo>>, ApiError> {
    app.gate().admin(&caller)?;
    let TokensQuery { created_by_id, created_by_username } = wire::read_object(query)?;
    let directory = app.gate().directory();
    let by_id = created_by_id.map(|id| directory.principal(&id).map(|row| row.name.clone()));
    let by_name = created_by_username.map(Some);
    let creators: Vec<Option<String>> = by_id.into_iter().chain(by_name).collect();
    let made = |row: &&TokenRow| creators.iter().all(|creator| creator.as_ref() == Some(&row.created_by));
    let rows = oldest_first(directory.tokens().filter(made));
    Ok(Json(TokenList { token_infos: rows.into_iter().map(|row| info(row, &directory)).collect() }))
}

/// `GET /api/2.0/token-management/tokens/{id}`.
async fn get_any(State(app): State<App>, PathName(id): PathName, caller: Caller) -> Result<Json<OneToken>, ApiError> {
    app.gate().admin(&caller)?;
    let directory = app.gate().directory();
    let row = directory.tokens().find(|row| row.id == id).ok_or_else(|| does_not_exist("token", &id))?;
    Ok(Json(OneToken { token_info: info(row, &directory) }))
}

/// `PATCH /api/2.0/token-management/tokens/{id}`.
async fn update_any(
    State(app): State<App>,
    PathName(id): PathName,
    caller: Caller,
    JsonBody(fields): JsonBody,
) -> Result<Json<TokenInfo>, ApiError> {
    let admin = app.gate().admin(&caller)?;
    let comment = described(fields)?;
    let row = app.control()?.describe_token(TokensOf::Anybody(&admin), &id, &comment).await?;
    Ok(Json(info(&row, &app.gate().directory())))
}

/// `DELETE /api/2.0/token-management/tokens/{id}`.
async fn delete_any(State(app): State<App>, PathName(id): PathName, caller: Caller) -> Result<Json<Value>, ApiError> {
    let admin = app.gate().admin(&caller)?;
    app.control()?.revoke_token(TokensOf::Anybody(&admin), &id).await?;
    Ok(Json(json!({})))
}

/// Every token is good for all that its owner may do.
fn refuse_scopes(scopes: Option<&[Value]>, autoscope: Option<bool>) -> Result<(), FieldError> {
    if scopes.is_some_and(|scopes| !scopes.is_empty()) {
        return Err(FieldError::unsupported("scopes"));
    }
    if autoscope == Some(true) {
        return Err(FieldError::unsupported("autoscope_enabled"));
    }
    Ok(())
}

/// The comment that an update sets; nothing else of a token can be changed.
fn described(fields: JsonObject) -> Result<String, FieldError> {
    let UpdateFields { mut token, update_mask } = wire::read_object(fields)?;
    let mut masked = update_mask.split(',').map(str::trim);
    if let Some(odd) = masked.find(|field| *field != "comment") {
        return Err(FieldError::value("update_mask", "`comment`", odd));
    }
    token.retain(|_, value| !value.is_null());
    let comment = wire::take_text(&mut token, "comment")?;
    let comment = comment.ok_or_else(|| FieldError::Missing { field: "token.comment".into() })?;
    check_text("token.comment", &comment)?;
    Ok(comment)
}

fn oldest_first<'a>(rows: impl Iterator<Item = &'a TokenRow>) -> Vec<&'a TokenRow> {
    let mut rows: Vec<&TokenRow> = rows.collect();
    rows.sort_by(|one, other| (one.created, &one.id).cmp(&(other.created, &other.id)));
    rows
}

fn public(row: &TokenRow) -> PublicTokenInfo {
    PublicTokenInfo {
        token_id: row.id.clone(),
        comment: row.comment.clone(),
        creation_time: row.created,
        expiry_time: row.expires.unwrap_or(-1),
    }
}

fn info(row: &TokenRow, directory: &Directory) -> TokenInfo {
    let creator = [PrincipalKind::User, PrincipalKind::ServicePrincipal]
        .iter()
        .find_map(|kind| directory.named(*kind, &row.created_by));
    TokenInfo {
        public: public(row),
        created_by_id: creator.and_then(|creator| creator.id.parse().ok()),
        created_by_username: row.created_by.clone(),
        // Every id is a number.
        owner_id: row.principal_id.parse().unwrap_or_default(),
        workspace_id: 1,
    }
}
