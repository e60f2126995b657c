//! From a resource as it was sent to the principal that is to be: names, bounds, and what a kind does not have.

use std::collections::HashSet;

use uuid::Uuid;

use super::attribute::Attribute;
use super::render::{GROUP_TYPE, details, schema};
use crate::control::{Person, check_name, check_text};
use crate::error::ApiError;
use crate::gate::Directory;
use crate::store::{PrincipalKind, PrincipalRow};
use crate::wire::FieldError;
use crate::wire::scim::{Details, Meta, Part, PersonName, Resource, WORKSPACE_USER};

/// Most values of an attribute that the store keeps as they are.
const VALUES: usize = 100;

/// A new principal.
///
/// # Errors
/// An attribute that is missing, not of this kind, or out of bounds.
pub(super) fn created(kind: PrincipalKind, resource: Resource) -> Result<Person, ApiError> {
    if resource.id.is_some() {
        return Err(FieldError::conflict("id", "the server chooses it").into());
    }
    check_kind(kind, &resource)?;
    let name = match kind {
        PrincipalKind::User => resource.user_name.clone().ok_or_else(|| missing("userName"))?,
        PrincipalKind::Group => resource.display_name.clone().ok_or_else(|| missing("displayName"))?,
        PrincipalKind::ServicePrincipal => match &resource.application_id {
            Some(id) => id.clone(),
            None => Uuid::new_v4().to_string(),
        },
    };
    let groups = resource.groups.as_deref().map(ids).unwrap_or_default();
    let row = PrincipalRow::new(kind, &name, "");
    complete(Person { row, members: Vec::new(), groups }, resource)
}

/// What becomes of `before`. An `active` that is left out stays; whatever else is left out goes.
///
/// # Errors
/// As [`created`]; and what stays as it is.
pub(super) fn replaced(before: &Person, resource: Resource, directory: &Directory) -> Result<Person, ApiError> {
    let row = &before.row;
    check_kind(row.kind, &resource)?;
    if let Some(id) = resource.id.as_deref().filter(|id| *id != row.id) {
        return Err(FieldError::conflict("id", format!("it is `{}` and stays so, not `{id}`", row.id)).into());
    }
    if let Some(given) = &resource.groups {
        check_groups(before, &ids(given), directory)?;
    }
    let name = match row.kind {
        PrincipalKind::User => resource.user_name.clone(),
        PrincipalKind::Group => resource.display_name.clone(),
        PrincipalKind::ServicePrincipal => resource.application_id.clone(),
    };
    let mut person = before.clone();
    person.row.name = name.unwrap_or_else(|| row.name.clone());
    complete(person, resource)
}

fn missing(field: &str) -> ApiError {
    FieldError::Missing { field: field.to_owned() }.into()
}

/// Gives `person`, who has a name, everything else.
fn complete(mut person: Person, resource: Resource) -> Result<Person, ApiError> {
    let row = &mut person.row;
    check_name(row.kind, &row.name)?;
    let name = resource.name.filter(|name| *name != PersonName::default());
    let full_name = name.as_ref().map(|name| {
        let parts = [&name.given_name, &name.family_name];
        parts.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ")
    });
    let shown = resource.display_name.or(full_name).filter(|shown| !shown.is_empty());
    row.display_name = shown.unwrap_or_else(|| row.name.clone());
    check_text("displayName", &row.display_name)?;
    row.active = resource.active.unwrap_or(row.active);
    row.external_id = resource.external_id;
    row.external_id.iter().try_for_each(|id| check_text("externalId", id))?;
    let emails = kept(Attribute::Emails, resource.emails)?;
    let entitlements = kept(Attribute::Entitlements, resource.entitlements)?;
    let known = Details { name, emails, entitlements, roles: kept(Attribute::Roles, resource.roles)? };
    if let Some(name) = &known.name {
        name.given_name.iter().try_for_each(|text| check_text("name.givenName", text))?;
        name.family_name.iter().try_for_each(|text| check_text("name.familyName", text))?;
    }
    // Written again only where it says something else, so that what has not changed is not stored.
    if details(row)? != known {
        row.details = serde_json::to_string(&known)
            .map_err(|error| ApiError::internal("the principal cannot be stored", error.to_string()))?;
    }
    if row.kind == PrincipalKind::Group {
        person.members = ids(&resource.members.unwrap_or_default());
        person.members.sort();
    }
    Ok(person)
}

/// Refuses what principals of that kind do not have.
fn check_kind(kind: PrincipalKind, resource: &Resource) -> Result<(), FieldError> {
    let given = [
        (Attribute::UserName, resource.user_name.is_some()),
        (Attribute::ApplicationId, resource.application_id.is_some()),
        (Attribute::Active, resource.active.is_some()),
        (Attribute::Name, resource.name.is_some()),
        (Attribute::Emails, resource.emails.is_some()),
        (Attribute::Members, resource.members.is_some()),
        (Attribute::Meta, resource.meta.is_some()),
    ];
    if let Some((odd, _)) = given.into_iter().find(|(attribute, given)| *given && !attribute.is_of(kind)) {
        return Err(FieldError::Unknown { field: odd.name().to_owned() });
    }
    let known = |text: &String| *text == schema(kind) || (kind == PrincipalKind::User && text == WORKSPACE_USER);
    if let Some(odd) = resource.schemas.iter().flatten().find(|text| !known(text)) {
        return Err(FieldError::value("schemas", format!("`{}`", schema(kind)), odd));
    }
    match &resource.meta {
        Some(Meta { resource_type: Some(odd) }) if odd != GROUP_TYPE && odd != "Group" => {
            Err(FieldError::value("meta.resourceType", format!("`{GROUP_TYPE}`"), odd))
        }
        _ => Ok(()),
    }
}

/// Groups of a principal that is there are told by the server, and changed through the groups.
fn check_groups(before: &Person, given: &[String], directory: &Directory) -> Result<(), FieldError> {
    let all = directory.groups_of(&before.row.id.as_str().into());
    let known = |id: &String| all.iter().any(|group| **group == **id) || before.groups.contains(id);
    if given.iter().all(known) && before.groups.iter().all(|id| given.contains(id)) {
        return Ok(());
    }
    Err(FieldError::conflict("groups", "membership is changed through the `members` of the group"))
}

/// Values that are kept as they are.
fn kept(attribute: Attribute, values: Option<Vec<Part>>) -> Result<Vec<Part>, FieldError> {
    let (values, name) = (values.unwrap_or_default(), attribute.name());
    if values.len() > VALUES {
        return Err(FieldError::value(name, format!("at most {VALUES} values"), values.len()));
    }
    for value in &values {
        check_text(&format!("{name}.value"), &value.value)?;
        value.display.iter().try_for_each(|text| check_text(&format!("{name}.display"), text))?;
        value.kind.iter().try_for_each(|text| check_text(&format!("{name}.type"), text))?;
        if value.reference.is_some() {
            return Err(FieldError::Unknown { field: format!("{name}.$ref") });
        }
    }
    Ok(values)
}

/// The ids that are named, each once.
fn ids(parts: &[Part]) -> Vec<String> {
    let mut seen = HashSet::new();
    parts.iter().map(|part| &part.value).filter(|id| seen.insert(*id)).cloned().collect()
}
