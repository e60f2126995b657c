//! `/api/2.0/preview/scim/v2`: users, groups and service principals (RFC 7644).
//!
//! Whoever is known may list and read them, as in a workspace of Databricks; administrators change them.

mod attribute;
mod filter;
mod page;
mod patch;
mod render;
mod wanted;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use self::attribute::Selection;
use self::page::Page;
use self::render::{Shown, folder};
use super::extract::{JsonBody, PathName, QueryFields};
use super::table::{Needs, Route};
use crate::control::{Person, does_not_exist, word};
use crate::error::ApiError;
use crate::gate::Caller;
use crate::serve::App;
use crate::store::PrincipalKind;
use crate::wire::scim::{ListQuery, ListResponse, OneQuery, PATCH, PatchFields, Resource};
use crate::wire::{self, FieldError, JsonObject};

const BASE: &str = "/api/2.0/preview/scim/v2";

/// The answer's header from which clients read the number of their workspace; there is one.
const WORKSPACE: (&str, &str) = ("x-databricks-org-id", "1");

/// Every route of SCIM.
pub(super) fn routes() -> Vec<Route> {
    let mut routes = vec![Route::get(format!("{BASE}/Me"), Needs::Caller, me)];
    for kind in [PrincipalKind::User, PrincipalKind::Group, PrincipalKind::ServicePrincipal] {
        routes.extend(routes_of(kind));
    }
    routes
}

fn routes_of(kind: PrincipalKind) -> [Route; 6] {
    let all = format!("{BASE}/{}", folder(kind));
    let one = format!("{all}/{{id}}");
    [
        Route::get(
            &all,
            Needs::Caller,
            move |State(app): State<App>, _: Caller, QueryFields(query): QueryFields| async move { list(&app, kind, query) },
        ),
        Route::get(
            &one,
            Needs::Caller,
            move |State(app): State<App>, PathName(id): PathName, _: Caller, QueryFields(query): QueryFields| async move {
                get(&app, kind, &id, query)
            },
        ),
        Route::post(
            &all,
            Needs::Admin,
            move |State(app): State<App>, caller: Caller, JsonBody(body): JsonBody| async move {
                create(&app, &caller, kind, body).await
            },
        ),
        Route::put(
            &one,
            Needs::Admin,
            move |State(app): State<App>, PathName(id): PathName, caller: Caller, JsonBody(body): JsonBody| async move {
                replace(&app, &caller, kind, &id, body).await
            },
        ),
        Route::patch(
            &one,
            Needs::Admin,
            move |State(app): State<App>, PathName(id): PathName, caller: Caller, JsonBody(body): JsonBody| async move {
                patch(&app, &caller, kind, &id, body).await
            },
        ),
        Route::delete(
            &one,
            Needs::Admin,
            move |State(app): State<App>, PathName(id): PathName, caller: Caller| async move {
                delete(&app, &caller, kind, &id).await
            },
        ),
    ]
}

/// `GET .../Me`.
async fn me(State(app): State<App>, caller: Caller, QueryFields(query): QueryFields) -> Result<Response, ApiError> {
    let me = caller.principal();
    let Json(mut resource) = get(&app, me.kind(), me.id(), query)?;
    // Clients ask who they are by this name alone, whatever they are.
    resource.entry("userName").or_insert_with(|| me.name().into());
    Ok(([WORKSPACE], Json(resource)).into_response())
}

fn list(app: &App, kind: PrincipalKind, query: JsonObject) -> Result<Json<ListResponse>, ApiError> {
    let query: ListQuery = wire::read_object(query)?;
    let page = Page::read(kind, &query)?;
    Ok(Json(page.of(&app.gate().directory())?))
}

fn get(app: &App, kind: PrincipalKind, id: &str, query: JsonObject) -> Result<Json<JsonObject>, ApiError> {
    let OneQuery { attributes, excluded_attributes } = wire::read_object(query)?;
    let selection = Selection::read(attributes.as_deref(), excluded_attributes.as_deref())?;
    let directory = app.gate().directory();
    let row = directory.principal(id).filter(|row| row.kind == kind);
    let row = row.ok_or_else(|| does_not_exist(word(kind), id))?;
    Ok(Json(Shown::known(row, &directory).resource(&selection)?))
}

async fn create(app: &App, caller: &Caller, kind: PrincipalKind, body: JsonObject) -> Result<Response, ApiError> {
    let admin = app.gate().admin(caller)?;
    let resource: Resource = wire::read_object(body)?;
    let person = wanted::created(kind, resource)?;
    app.control()?.create_principal(&admin, &person).await?;
    Ok((StatusCode::CREATED, shown(app, &person)?).into_response())
}

async fn replace(
    app: &App,
    caller: &Caller,
    kind: PrincipalKind,
    id: &str,
    body: JsonObject,
) -> Result<Json<JsonObject>, ApiError> {
    let admin = app.gate().admin(caller)?;
    let resource: Resource = wire::read_object(body)?;
    let edit = |before: &Person| wanted::replaced(before, resource, &app.gate().directory());
    shown(app, &app.control()?.edit_principal(&admin, kind, id, edit).await?)
}

async fn patch(
    app: &App,
    caller: &Caller,
    kind: PrincipalKind,
    id: &str,
    body: JsonObject,
) -> Result<Json<JsonObject>, ApiError> {
    let admin = app.gate().admin(caller)?;
    let fields: PatchFields = wire::read_object(body)?;
    if let Some(odd) = fields.schemas.iter().flatten().find(|schema| *schema != PATCH) {
        return Err(FieldError::value("schemas", format!("`{PATCH}`"), odd).into());
    }
    let edit = |before: &Person| {
        let directory = app.gate().directory();
        let mut resource = Shown::changed(before, &directory).resource(&Selection::default())?;
        for operation in fields.operations {
            patch::apply(kind, &mut resource, operation)?;
        }
        resource.retain(|_, value| *value != Value::Null);
        wanted::replaced(before, wire::read_object(resource)?, &directory)
    };
    shown(app, &app.control()?.edit_principal(&admin, kind, id, edit).await?)
}

async fn delete(app: &App, caller: &Caller, kind: PrincipalKind, id: &str) -> Result<StatusCode, ApiError> {
    let admin = app.gate().admin(caller)?;
    app.control()?.delete_principal(&admin, kind, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(app: &App, person: &Person) -> Result<Json<JsonObject>, ApiError> {
    let directory = app.gate().directory();
    Ok(Json(Shown::changed(person, &directory).resource(&Selection::default())?))
}
