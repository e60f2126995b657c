//! `/api/2.0/permissions/serving-endpoints/{id}`: who may do what with an endpoint.
//!
//! Reading and changing them takes CAN_MANAGE, as everywhere in Databricks' permissions; the levels take CAN_VIEW. An
//! endpoint that is hidden from the caller is answered as one that does not exist.

use std::collections::HashSet;

use axum::Json;
use axum::extract::State;

use super::extract::{JsonBody, OptionalBody, PathName};
use super::serving::in_words_of_control;
use super::table::{Needs, Route};
use crate::control::{WantedGrant, does_not_exist, word};
use crate::error::ApiError;
use crate::gate::{Allowed, Caller, Directory, Level, Manage, Permission, View};
use crate::serve::App;
use crate::store::{ADMINS, PrincipalKind, PrincipalRow};
use crate::wire::permissions::{
    AccessControl, AccessControlFields, GrantedLevel, PermissionLevel, PermissionLevels, Permissions, PermissionsFields,
};
use crate::wire::{self, FieldError, JsonObject};

const BASE: &str = "/api/2.0/permissions/serving-endpoints/{id}";

/// What administrators' permission is inherited from: all endpoints together.
const ROOT: &str = "/serving-endpoints/";

/// Every route of permissions.
pub(super) fn routes() -> Vec<Route> {
    let manage = Needs::Level(Permission::CanManage);
    vec![
        Route::get(BASE, manage, get),
        Route::put(BASE, manage, set),
        Route::patch(BASE, manage, update),
        Route::get(format!("{BASE}/permissionLevels"), Needs::Level(Permission::CanView), levels),
    ]
}

/// `GET /api/2.0/permissions/serving-endpoints/{id}`.
async fn get(State(app): State<App>, PathName(id): PathName, caller: Caller) -> Result<Json<Permissions>, ApiError> {
    let allowed = open::<Manage>(&app, &caller, &id)?;
    Ok(answer(&app, &allowed))
}

/// `PUT /api/2.0/permissions/serving-endpoints/{id}`: grants this and nothing else.
async fn set(
    State(app): State<App>,
    PathName(id): PathName,
    caller: Caller,
    OptionalBody(fields): OptionalBody,
) -> Result<Json<Permissions>, ApiError> {
    change(&app, &caller, &id, fields, true).await
}

/// `PATCH /api/2.0/permissions/serving-endpoints/{id}`: grants this too.
async fn update(
    State(app): State<App>,
    PathName(id): PathName,
    caller: Caller,
    JsonBody(fields): JsonBody,
) -> Result<Json<Permissions>, ApiError> {
    change(&app, &caller, &id, fields, false).await
}

/// `GET /api/2.0/permissions/serving-endpoints/{id}/permissionLevels`.
async fn levels(
    State(app): State<App>,
    PathName(id): PathName,
    caller: Caller,
) -> Result<Json<PermissionLevels>, ApiError> {
    open::<View>(&app, &caller, &id)?;
    let level = |level: Permission| {
        let description = match level {
            Permission::CanView => "Can see that the endpoint exists, and what it serves",
            Permission::CanQuery => "Can call the endpoint",
            Permission::CanManage => "Can change and delete the endpoint, and say who may do what with it",
        };
        PermissionLevel { permission_level: level.name(), description }
    };
    Ok(Json(PermissionLevels { permission_levels: Permission::ALL.into_iter().map(level).collect() }))
}

async fn change(
    app: &App,
    caller: &Caller,
    id: &str,
    fields: JsonObject,
    replace: bool,
) -> Result<Json<Permissions>, ApiError> {
    let allowed = open::<Manage>(app, caller, id)?;
    let PermissionsFields { access_control_list } = wire::read_object(fields)?;
    let wanted = grants(&access_control_list, &app.gate().directory())?;
    app.control()?.grant(&allowed, &wanted, replace).await?;
    Ok(answer(app, &allowed))
}

/// The endpoint, in the words of the control plane: the same whether it is missing or hidden.
fn open<L: Level>(app: &App, caller: &Caller, id: &str) -> Result<Allowed<L>, ApiError> {
    app.gate().allow_id(caller, id).map_err(in_words_of_control)
}

/// What is wanted, by ids.
fn grants(list: &[AccessControlFields], directory: &Directory) -> Result<Vec<WantedGrant>, ApiError> {
    let mut seen = HashSet::new();
    let grant = |(index, fields): (usize, &AccessControlFields)| {
        let place = format!("access_control_list[{index}]");
        let (kind, name) = named(&place, fields)?;
        let level = fields.permission_level.parse().map_err(|_| {
            let bound = "CAN_VIEW, CAN_QUERY or CAN_MANAGE";
            FieldError::value(format!("{place}.permission_level"), bound, &fields.permission_level)
        })?;
        let row = directory.named(kind, name).ok_or_else(|| does_not_exist(word(kind), name))?;
        if !seen.insert(row.id.clone()) {
            return Err(FieldError::conflict(place, format!("`{name}` is named twice")).into());
        }
        Ok(WantedGrant { principal_id: row.id.clone(), name: name.to_owned(), level })
    };
    list.iter().enumerate().map(grant).collect()
}

/// The one principal that a grant names.
fn named<'a>(place: &str, fields: &'a AccessControlFields) -> Result<(PrincipalKind, &'a str), FieldError> {
    let AccessControlFields { user_name, group_name, service_principal_name, permission_level: _ } = fields;
    let names = [
        (PrincipalKind::User, user_name),
        (PrincipalKind::Group, group_name),
        (PrincipalKind::ServicePrincipal, service_principal_name),
    ];
    let mut given = names.into_iter().filter_map(|(kind, name)| Some((kind, name.as_deref()?)));
    match (given.next(), given.next()) {
        (Some(one), None) => Ok(one),
        _ => {
            let problem = "exactly one of `user_name`, `group_name` and `service_principal_name` is to be given";
            Err(FieldError::conflict(place, problem))
        }
    }
}

fn answer(app: &App, allowed: &Allowed<Manage>) -> Json<Permissions> {
    let id = allowed.endpoint().id();
    let directory = app.gate().directory();
    let direct = |level: Permission| GrantedLevel {
        permission_level: level.name(),
        inherited: false,
        inherited_from_object: None,
    };
    let mut granted: Vec<_> = directory.grants(id).collect();
    granted.sort_by(|(one, _), (other, _)| (one.kind, &one.name).cmp(&(other.kind, &other.name)));
    let mut list: Vec<AccessControl> = Vec::new();
    if let Some(admins) = directory.principal(ADMINS) {
        let inherited = GrantedLevel {
            permission_level: Permission::CanManage.name(),
            inherited: true,
            inherited_from_object: Some([ROOT]),
        };
        let own = granted.iter().find(|(row, _)| row.id == ADMINS).map(|(_, grant)| direct(grant.level));
        list.push(entry(admins, own.into_iter().chain([inherited]).collect()));
    }
    let others = granted.iter().filter(|(row, _)| row.id != ADMINS);
    list.extend(others.map(|(row, grant)| entry(row, vec![direct(grant.level)])));
    Json(Permissions { object_id: format!("{ROOT}{id}"), object_type: "serving-endpoint", access_control_list: list })
}

fn entry(row: &PrincipalRow, all_permissions: Vec<GrantedLevel>) -> AccessControl {
    let name = Some(row.name.clone());
    let shown = Some(row.display_name.clone());
    let entry = AccessControl { display_name: shown, all_permissions, ..AccessControl::default() };
    match row.kind {
        PrincipalKind::User => AccessControl { user_name: name, ..entry },
        PrincipalKind::ServicePrincipal => AccessControl { service_principal_name: name, ..entry },
        PrincipalKind::Group => AccessControl { group_name: name, display_name: None, ..entry },
    }
}
