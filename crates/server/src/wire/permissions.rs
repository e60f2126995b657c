//! Permissions on endpoints, as Databricks' clients ask for them.

use serde::{Deserialize, Serialize};

/// The body of a change of permissions.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermissionsFields {
    /// What is granted to whom.
    #[serde(default)]
    pub access_control_list: Vec<AccessControlFields>,
}

/// One grant; exactly one of the names is given.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessControlFields {
    /// A user, by name.
    #[serde(default)]
    pub user_name: Option<String>,
    /// A group, by name.
    #[serde(default)]
    pub group_name: Option<String>,
    /// A service principal, by application id.
    #[serde(default)]
    pub service_principal_name: Option<String>,
    /// `CAN_VIEW`, `CAN_QUERY` or `CAN_MANAGE`.
    pub permission_level: String,
}

/// What is granted on an endpoint.
#[derive(Debug, Serialize)]
pub struct Permissions {
    /// `/serving-endpoints/ID`
    pub object_id: String,
    /// `serving-endpoint`
    pub object_type: &'static str,
    /// By principal.
    pub access_control_list: Vec<AccessControl>,
}

/// What one principal was granted.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct AccessControl {
    /// Of a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_name: Option<String>,
    /// Of a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_name: Option<String>,
    /// Of a service principal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_principal_name: Option<String>,
    /// For people to read; of a group its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Everything that it was granted.
    pub all_permissions: Vec<GrantedLevel>,
}

/// A level, and where it comes from.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct GrantedLevel {
    /// `CAN_VIEW`, `CAN_QUERY` or `CAN_MANAGE`.
    pub permission_level: &'static str,
    /// Whether it holds on every endpoint.
    pub inherited: bool,
    /// What it is inherited from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inherited_from_object: Option<[&'static str; 1]>,
}

/// The levels that there are.
#[derive(Debug, Serialize)]
pub struct PermissionLevels {
    /// The lowest first.
    pub permission_levels: Vec<PermissionLevel>,
}

/// A level in words.
#[derive(Debug, Serialize)]
pub struct PermissionLevel {
    /// `CAN_VIEW`, `CAN_QUERY` or `CAN_MANAGE`.
    pub permission_level: &'static str,
    /// What it allows.
    pub description: &'static str,
}
