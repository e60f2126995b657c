//! Principals as SCIM resources: how they are answered, and what a filter and an order find in them.

use std::borrow::Cow;
use std::sync::Arc;

use super::attribute::{Attribute, Path, Selection};
use crate::control::Person;
use crate::error::ApiError;
use crate::gate::Directory;
use crate::store::{PrincipalKind, PrincipalRow, USERS};
use crate::wire::JsonObject;
use crate::wire::scim::{Details, GROUP, Meta, Part, Resource, SERVICE_PRINCIPAL, USER};

/// What a group says that it is.
pub(super) const GROUP_TYPE: &str = "WorkspaceGroup";

/// The schema of that kind.
pub(super) fn schema(kind: PrincipalKind) -> &'static str {
    match kind {
        PrincipalKind::User => USER,
        PrincipalKind::ServicePrincipal => SERVICE_PRINCIPAL,
        PrincipalKind::Group => GROUP,
    }
}

/// A principal and what it belongs to, among all that are known.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) row: &'a PrincipalRow,
    members: Ids<'a>,
    groups: Ids<'a>,
    directory: &'a Directory,
}

/// Ids from the directory, or from a change.
#[derive(Clone, Copy)]
enum Ids<'a> {
    Known(&'a [Arc<str>]),
    Changed(&'a [String]),
}

impl<'a> Ids<'a> {
    fn iter(self) -> impl Iterator<Item = &'a str> {
        let (known, changed): (&[Arc<str>], &[String]) = match self {
            Self::Known(known) => (known, &[]),
            Self::Changed(changed) => (&[], changed),
        };
        known.iter().map(AsRef::as_ref).chain(changed.iter().map(String::as_str))
    }
}

impl<'a> Shown<'a> {
    /// A principal as the directory knows it.
    pub(super) fn known(row: &'a PrincipalRow, directory: &'a Directory) -> Self {
        let (members, groups) = (Ids::Known(directory.members(&row.id)), Ids::Known(directory.memberships(&row.id)));
        Self { row, members, groups, directory }
    }

    /// A principal as a change has it.
    pub(super) fn changed(person: &'a Person, directory: &'a Directory) -> Self {
        let (members, groups) = (Ids::Changed(&person.members), Ids::Changed(&person.groups));
        Self { row: &person.row, members, groups, directory }
    }

    /// As it is answered.
    ///
    /// # Errors
    /// The server's own, where the store holds what cannot be read.
    pub(super) fn resource(self, selection: &Selection) -> Result<JsonObject, ApiError> {
        let (row, is) = (self.row, |kind| self.row.kind == kind);
        let Details { name, emails, entitlements, roles } = details(row)?;
        let person = is(PrincipalKind::User);
        let wanted = |attribute: Attribute| attribute.is_of(row.kind) && selection.wants(attribute);
        let resource = Resource {
            schemas: Some(vec![schema(row.kind).to_owned()]),
            id: Some(row.id.clone()),
            user_name: person.then(|| row.name.clone()),
            application_id: is(PrincipalKind::ServicePrincipal).then(|| row.name.clone()),
            display_name: Some(row.display_name.clone()),
            active: (!is(PrincipalKind::Group)).then_some(row.active),
            external_id: row.external_id.clone(),
            name: name.filter(|_| person),
            emails: person.then_some(emails),
            groups: wanted(Attribute::Groups).then(|| self.group_parts()),
            members: wanted(Attribute::Members).then(|| self.member_parts()),
            entitlements: Some(entitlements),
            roles: Some(roles),
            meta: is(PrincipalKind::Group).then(|| Meta { resource_type: Some(GROUP_TYPE.to_owned()) }),
        };
        let mut resource = match serde_json::to_value(resource) {
            Ok(serde_json::Value::Object(resource)) => resource,
            _ => return Err(ApiError::internal("the principal cannot be shown", "a resource is no object")),
        };
        selection.apply(&mut resource);
        Ok(resource)
    }

    fn group_parts(self) -> Vec<Part> {
        let everybody = (self.row.kind != PrincipalKind::Group).then_some(USERS);
        let ids = self.groups.iter().chain(everybody);
        ids.map(|id| Part { kind: Some("direct".to_owned()), ..self.part(id) }).collect()
    }

    fn member_parts(self) -> Vec<Part> {
        self.members.iter().map(|id| self.part(id)).collect()
    }

    fn part(self, id: &str) -> Part {
        let row = self.directory.principal(id);
        let folder = row.map(|row| folder(row.kind));
        let reference = folder.map(|folder| format!("{folder}/{id}"));
        Part { value: id.to_owned(), display: row.map(|row| row.display_name.clone()), reference, ..Part::default() }
    }

    /// What stands under that path, for filters and orders.
    pub(super) fn values(self, path: &Path) -> Vec<Cow<'a, str>> {
        let row = self.row;
        let one = |text: &'a str| vec![Cow::Borrowed(text)];
        match path.attribute {
            Attribute::Schemas => one(schema(row.kind)),
            Attribute::Id => one(&row.id),
            Attribute::UserName | Attribute::ApplicationId => one(&row.name),
            Attribute::DisplayName => one(&row.display_name),
            Attribute::Active => one(if row.active { "true" } else { "false" }),
            Attribute::ExternalId => row.external_id.as_deref().into_iter().map(Cow::Borrowed).collect(),
            Attribute::Groups => parts(self.group_parts(), path.part),
            Attribute::Members => parts(self.member_parts(), path.part),
            Attribute::Meta => one(GROUP_TYPE),
            // What cannot be read holds nothing; it is told where it is shown.
            Attribute::Name | Attribute::Emails | Attribute::Entitlements | Attribute::Roles => {
                let details = details(row).unwrap_or_default();
                match (path.attribute, path.part) {
                    (Attribute::Name, part) => name_values(details, part),
                    (Attribute::Emails, part) => parts(details.emails, part),
                    (Attribute::Roles, part) => parts(details.roles, part),
                    (_, part) => parts(details.entitlements, part),
                }
            }
        }
    }
}

fn name_values<'a>(details: Details, part: Option<&str>) -> Vec<Cow<'a, str>> {
    let name = details.name.unwrap_or_default();
    let texts = match part {
        Some("givenName") => [name.given_name, None],
        Some(_) => [name.family_name, None],
        None => [name.given_name, name.family_name],
    };
    texts.into_iter().flatten().map(Cow::Owned).collect()
}

fn parts<'a>(parts: Vec<Part>, part: Option<&str>) -> Vec<Cow<'a, str>> {
    let text = |one: Part| match part {
        None | Some("value") => Some(one.value),
        Some("display") => one.display,
        Some("primary") => one.primary.map(|primary| primary.to_string()),
        Some("type") => one.kind,
        Some(_) => one.reference,
    };
    parts.into_iter().filter_map(text).map(Cow::Owned).collect()
}

/// Where principals of that kind are found.
pub(super) fn folder(kind: PrincipalKind) -> &'static str {
    match kind {
        PrincipalKind::User => "Users",
        PrincipalKind::ServicePrincipal => "ServicePrincipals",
        PrincipalKind::Group => "Groups",
    }
}

/// What else is known of a principal. A user whose name is an address is written to there, unless others are given.
pub(super) fn details(row: &PrincipalRow) -> Result<Details, ApiError> {
    let mut details: Details = serde_json::from_str(&row.details).map_err(|error| {
        let detail = format!("the details of principal {}: {error}", row.id);
        ApiError::internal("the store holds what this version cannot read", detail)
    })?;
    if row.kind == PrincipalKind::User && details.emails.is_empty() && row.name.contains('@') {
        let kind = Some("work".to_owned());
        details.emails.push(Part { value: row.name.clone(), primary: Some(true), kind, ..Part::default() });
    }
    Ok(details)
}
