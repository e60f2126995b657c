//! The attributes that principals have in SCIM, how they are named in queries, and which of them are answered.

use serde_json::Value;

use crate::store::PrincipalKind;
use crate::wire::scim::{GROUP, SERVICE_PRINCIPAL, USER, WORKSPACE_USER};
use crate::wire::{FieldError, JsonObject};

/// An attribute of some principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attribute {
    Schemas,
    Id,
    UserName,
    ApplicationId,
    DisplayName,
    Active,
    ExternalId,
    Name,
    Emails,
    Groups,
    Members,
    Entitlements,
    Roles,
    Meta,
}

const PART: &[&str] = &["value", "display", "primary", "type", "$ref"];

/// Each attribute, its name and its sub-attributes.
const ATTRIBUTES: [(Attribute, &str, &[&str]); 14] = [
    (Attribute::Schemas, "schemas", &[]),
    (Attribute::Id, "id", &[]),
    (Attribute::UserName, "userName", &[]),
    (Attribute::ApplicationId, "applicationId", &[]),
    (Attribute::DisplayName, "displayName", &[]),
    (Attribute::Active, "active", &[]),
    (Attribute::ExternalId, "externalId", &[]),
    (Attribute::Name, "name", &["givenName", "familyName"]),
    (Attribute::Emails, "emails", PART),
    (Attribute::Groups, "groups", PART),
    (Attribute::Members, "members", PART),
    (Attribute::Entitlements, "entitlements", PART),
    (Attribute::Roles, "roles", PART),
    (Attribute::Meta, "meta", &["resourceType"]),
];

impl Attribute {
    /// As it is spelled.
    pub(super) fn name(self) -> &'static str {
        ATTRIBUTES.iter().find(|(attribute, ..)| *attribute == self).map_or("", |(_, name, _)| name)
    }

    /// Whether principals of that kind have it.
    pub(super) fn is_of(self, kind: PrincipalKind) -> bool {
        match self {
            Self::UserName | Self::Name | Self::Emails => kind == PrincipalKind::User,
            Self::ApplicationId => kind == PrincipalKind::ServicePrincipal,
            Self::Active => kind != PrincipalKind::Group,
            Self::Members | Self::Meta => kind == PrincipalKind::Group,
            _ => true,
        }
    }

    /// Whether it has several values.
    pub(super) fn is_list(self) -> bool {
        matches!(self, Self::Emails | Self::Groups | Self::Members | Self::Entitlements | Self::Roles)
    }

    /// Whether its value has parts.
    pub(super) fn has_parts(self) -> bool {
        matches!(self, Self::Name | Self::Meta)
    }
}

/// An attribute, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) attribute: Attribute,
    pub(super) part: Option<&'static str>,
}

impl Path {
    /// The attribute of that name, in any case, with or without its schema. `None`: there is none.
    pub(super) fn read(text: &str) -> Option<Self> {
        let text = [USER, GROUP, SERVICE_PRINCIPAL, WORKSPACE_USER]
            .iter()
            .find_map(|schema| without_prefix(text, schema)?.strip_prefix(':'))
            .unwrap_or(text);
        let (name, part) = text.split_once('.').map_or((text, None), |(name, part)| (name, Some(part)));
        let (attribute, _, parts) = ATTRIBUTES.iter().find(|(_, known, _)| known.eq_ignore_ascii_case(name))?;
        let part = match part {
            Some(part) => Some(*parts.iter().find(|known| known.eq_ignore_ascii_case(part))?),
            None => None,
        };
        Some(Self { attribute: *attribute, part })
    }

    /// The same, of a principal of that kind.
    pub(super) fn read_of(kind: PrincipalKind, text: &str) -> Option<Self> {
        Self::read(text).filter(|path| path.attribute.is_of(kind))
    }
}

fn without_prefix<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Which attributes are answered.
#[derive(Debug, Default)]
pub(super) struct Selection {
    only: Option<Vec<Path>>,
    without: Vec<Path>,
}

impl Selection {
    /// What `attributes` and `excludedAttributes` say.
    ///
    /// # Errors
    /// An attribute that no principal has.
    pub(super) fn read(only: Option<&str>, without: Option<&str>) -> Result<Self, FieldError> {
        let only = only.map(|names| paths("attributes", names)).transpose()?;
        let without = without.map(|names| paths("excludedAttributes", names)).transpose()?;
        Ok(Self { only, without: without.unwrap_or_default() })
    }

    /// Whether something of the attribute is answered.
    pub(super) fn wants(&self, attribute: Attribute) -> bool {
        let named = |paths: &[Path]| paths.iter().any(|path| path.attribute == attribute);
        let dropped = self.without.iter().any(|path| path.attribute == attribute && path.part.is_none());
        is_fixed(attribute) || (self.only.as_deref().is_none_or(named) && !dropped)
    }

    /// Takes away what is not answered.
    pub(super) fn apply(&self, resource: &mut JsonObject) {
        if let Some(only) = &self.only {
            resource.retain(|name, value| keep(name, value, only));
        }
        for path in self.without.iter().filter(|path| !is_fixed(path.attribute)) {
            match path.part {
                None => drop(resource.remove(path.attribute.name())),
                Some(part) => {
                    if let Some(value) = resource.get_mut(path.attribute.name()) {
                        each_object(value, &mut |object| drop(object.remove(part)));
                    }
                }
            }
        }
    }
}

/// Whether it is answered whatever is asked for.
fn is_fixed(attribute: Attribute) -> bool {
    matches!(attribute, Attribute::Id | Attribute::Schemas)
}

fn keep(name: &str, value: &mut Value, only: &[Path]) -> bool {
    let Some(attribute) = Path::read(name).map(|path| path.attribute) else { return true };
    let parts: Vec<_> = only.iter().filter(|path| path.attribute == attribute).map(|path| path.part).collect();
    if !parts.is_empty() && !parts.contains(&None) {
        each_object(value, &mut |object| object.retain(|part, _| parts.contains(&Some(part.as_str()))));
    }
    is_fixed(attribute) || !parts.is_empty()
}

/// Does something with an object, or with each object of a list.
fn each_object(value: &mut Value, act: &mut dyn FnMut(&mut JsonObject)) {
    match value {
        Value::Object(object) => act(object),
        Value::Array(list) => list.iter_mut().filter_map(Value::as_object_mut).for_each(act),
        _ => {}
    }
}

fn paths(field: &str, names: &str) -> Result<Vec<Path>, FieldError> {
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    let path = |name: &str| {
        let unknown = || FieldError::conflict(field, format!("no user, group or service principal has `{name}`"));
        Path::read(name).ok_or_else(unknown)
    };
    names.map(path).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selected(only: Option<&str>, without: Option<&str>) -> Value {
        let resource = json!({
            "schemas": [USER], "id": "7", "userName": "a@x.org", "name": {"givenName": "A", "familyName": "B"},
            "emails": [{"value": "a@x.org", "type": "work"}, {"value": "b@x.org"}]
        });
        let Value::Object(mut resource) = resource else { panic!("an object") };
        Selection::read(only, without).unwrap().apply(&mut resource);
        resource.remove("schemas").unwrap();
        Value::Object(resource)
    }

    #[test]
    fn only_what_is_asked_for_is_answered_and_the_id_always() {
        assert_eq!(selected(Some("USERNAME"), None), json!({"id": "7", "userName": "a@x.org"}));
        let emails = json!({"id": "7", "emails": [{"value": "a@x.org"}, {"value": "b@x.org"}]});
        assert_eq!(selected(Some("emails.value, id"), None), emails);
        let rest = json!({"id": "7", "userName": "a@x.org", "name": {"familyName": "B"}});
        assert_eq!(selected(None, Some("id,emails,name.givenName")), rest);
        let urn = format!("{USER}:userName");
        assert_eq!(selected(Some(&urn), None), selected(Some("userName"), None));
        let error = Selection::read(Some("userName,shoeSize"), None).unwrap_err();
        assert_eq!(error.to_string(), "`attributes`: no user, group or service principal has `shoeSize`");
    }
}
