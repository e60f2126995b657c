//! SCIM (RFC 7643, RFC 7644) as Databricks' clients speak it: users, groups and service principals.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Schema of a user.
pub const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
/// Schema of a group.
pub const GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";
/// Schema of a service principal.
pub const SERVICE_PRINCIPAL: &str = "urn:ietf:params:scim:schemas:core:2.0:ServicePrincipal";
/// What Databricks adds to a user; it has no field of its own here.
pub const WORKSPACE_USER: &str = "urn:ietf:params:scim:schemas:extension:workspace:2.0:User";
/// Schema of a list.
pub const LIST: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";
/// Schema of a patch.
pub const PATCH: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";

/// A user, a group or a service principal, as it is sent and as it is answered: each has some of these attributes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[serde(default)]
pub struct Resource {
    /// The schemas that the attributes are of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schemas: Option<Vec<String>>,
    /// Digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Of a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_name: Option<String>,
    /// Of a service principal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_id: Option<String>,
    /// For people to read; of a group its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Whether its tokens count.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "flag")]
    pub active: Option<bool>,
    /// What another directory calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// Of a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<PersonName>,
    /// Of a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emails: Option<Vec<Part>>,
    /// The groups it is a direct member of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Part>>,
    /// Of a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<Part>>,
    /// What Databricks lets it do; kept, and without effect here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entitlements: Option<Vec<Part>>,
    /// Kept, and without effect here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<Part>>,
    /// Of a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta: Option<Meta>,
}

/// A person's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PersonName {
    /// First name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given_name: Option<String>,
    /// Last name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family_name: Option<String>,
}

/// One of several values of an attribute.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The value; of members and groups the id.
    pub value: String,
    /// For people to read; of members and groups the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display: Option<String>,
    /// Whether it is the one that counts.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "flag")]
    pub primary: Option<bool>,
    /// What kind of value.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Where it is found; the server's.
    #[serde(rename = "$ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// What a resource is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Meta {
    /// `WorkspaceGroup`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_type: Option<String>,
}

/// What is known of a principal beyond its names: this is how the store keeps it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// A person's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<PersonName>,
    /// Where a person is written to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub emails: Vec<Part>,
    /// What Databricks lets it do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entitlements: Vec<Part>,
    /// Its roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Part>,
}

/// The query of a list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListQuery {
    /// The first one wanted, counted from 1: a number, as text.
    pub start_index: Option<String>,
    /// Most that are wanted: a number, as text.
    pub count: Option<String>,
    /// Which ones, as RFC 7644 section 3.4.2.2 writes it.
    pub filter: Option<String>,
    /// Attributes wanted, separated by commas.
    pub attributes: Option<String>,
    /// Attributes not wanted, separated by commas.
    pub excluded_attributes: Option<String>,
    /// The attribute that gives the order.
    pub sort_by: Option<String>,
    /// `ascending` or `descending`.
    pub sort_order: Option<String>,
}

/// The query of one resource.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OneQuery {
    /// Attributes wanted, separated by commas.
    pub attributes: Option<String>,
    /// Attributes not wanted, separated by commas.
    pub excluded_attributes: Option<String>,
}

/// A page of a list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListResponse {
    /// Of a list.
    pub schemas: [&'static str; 1],
    /// How many there are on all pages.
    pub total_results: usize,
    /// The first one, counted from 1.
    pub start_index: usize,
    /// How many there are on this page.
    pub items_per_page: usize,
    /// Those on this page.
    #[serde(rename = "Resources")]
    pub resources: Vec<Value>,
}

/// The body of a patch.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchFields {
    /// Of a patch.
    #[serde(default)]
    pub schemas: Option<Vec<String>>,
    /// What is to be done, in order.
    #[serde(rename = "Operations")]
    pub operations: Vec<Operation>,
}

/// One step of a patch.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// `add`, `remove` or `replace`, in any case.
    pub op: String,
    /// What it is done to.
    #[serde(default)]
    pub path: Option<String>,
    /// What with.
    #[serde(default)]
    pub value: Option<Value>,
}

/// A boolean, which some clients write as a text.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    struct Flag;

    impl Visitor<'_> for Flag {
        type Value = Option<bool>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("true or false")
        }

        fn visit_bool<E>(self, value: bool) -> Result<Option<bool>, E> {
            Ok(Some(value))
        }

        fn visit_str<E: Error>(self, value: &str) -> Result<Option<bool>, E> {
            match value.to_ascii_lowercase().as_str() {
                "true" => Ok(Some(true)),
                "false" => Ok(Some(false)),
                _ => Err(E::invalid_value(serde::de::Unexpected::Str(value), &self)),
            }
        }

        fn visit_unit<E>(self) -> Result<Option<bool>, E> {
            Ok(None)
        }
    }

    deserializer.deserialize_any(Flag)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::{FieldError, JsonObject, read_object};

    fn read(value: Value) -> Result<Resource, FieldError> {
        let object: JsonObject = serde_json::from_value(value).unwrap();
        read_object(object)
    }

    #[test]
    fn booleans_come_as_texts_too() {
        for (value, expected) in [(json!(true), true), (json!("False"), false), (json!("true"), true)] {
            assert_eq!(read(json!({"active": value})).unwrap().active, Some(expected));
        }
        let error = read(json!({"active": "yes"})).unwrap_err();
        assert_eq!(error.to_string(), r#"`active`: invalid value: string "yes", expected true or false"#);
    }

    #[test]
    fn what_is_not_known_is_named_at_any_depth() {
        let error = read(json!({"userName": "a", "nickName": "b"})).unwrap_err();
        assert_eq!(error, FieldError::Unknown { field: "nickName".into() });
        let error = read(json!({"emails": [{"value": "a"}, {"address": "b"}]})).unwrap_err();
        assert_eq!(error, FieldError::Unknown { field: "emails[1].address".into() });
        let error = read(json!({"members": [{"display": "a"}]})).unwrap_err();
        assert_eq!(error, FieldError::Missing { field: "members[0].value".into() });
    }
}
