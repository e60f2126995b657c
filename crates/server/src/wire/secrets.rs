//! Secrets: scopes, what is in them, and who may.

use std::fmt;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::external::Plaintext;

/// What a principal may do with a scope; each level holds the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AclPermission {
    /// Read its secrets.
    Read,
    /// Write and delete them.
    Write,
    /// Say who may, and delete the scope.
    Manage,
}

impl AclPermission {
    /// All levels, the lowest first.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Manage];

    /// As it is spelled.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "READ",
            Self::Write => "WRITE",
            Self::Manage => "MANAGE",
        }
    }
}

impl fmt::Display for AclPermission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Who keeps a scope's secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BackendType {
    /// This server.
    Databricks,
    /// Somebody else.
    AzureKeyvault,
}

/// The body of a call that makes a scope.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateScope {
    /// Its name.
    pub scope: String,
    /// Who may manage it: `users`, or by default who makes it.
    pub initial_manage_principal: Option<String>,
    /// Who keeps it, default this server.
    pub scope_backend_type: Option<BackendType>,
    /// Where somebody else keeps it.
    pub backend_azure_keyvault: Option<IgnoredAny>,
}

/// The call that lists scopes: it has no field.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListScopes {}

/// A call that names a scope.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeFields {
    /// Its name.
    pub scope: String,
}

/// The body of a call that writes a secret: one of the values.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutSecret {
    /// The scope.
    pub scope: String,
    /// The key.
    pub key: String,
    /// A text.
    pub string_value: Option<Plaintext>,
    /// Bytes in base64.
    pub bytes_value: Option<Plaintext>,
}

/// A call that names a secret.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretFields {
    /// The scope.
    pub scope: String,
    /// The key.
    pub key: String,
}

/// The body of a call that says what a principal may.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutAcl {
    /// The scope.
    pub scope: String,
    /// A user name, an application id, or the name of a group.
    pub principal: String,
    /// What they may.
    pub permission: AclPermission,
}

/// A call that names what a principal may.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AclFields {
    /// The scope.
    pub scope: String,
    /// A user name, an application id, or the name of a group.
    pub principal: String,
}

/// An answer that says nothing but that it was done.
#[derive(Debug, Serialize)]
pub struct Done {}

/// All scopes that the caller may read.
#[derive(Debug, Serialize)]
pub struct ScopeList {
    /// By name.
    pub scopes: Vec<ScopeItem>,
}

/// A scope.
#[derive(Debug, Serialize)]
pub struct ScopeItem {
    /// Its name.
    pub name: String,
    /// Who keeps it.
    pub backend_type: BackendType,
}

/// The keys of a scope.
#[derive(Debug, Serialize)]
pub struct SecretList {
    /// By key.
    pub secrets: Vec<SecretItem>,
}

/// A secret, but for its value.
#[derive(Debug, Serialize)]
pub struct SecretItem {
    /// Its key.
    pub key: String,
    /// Milliseconds since 1970.
    pub last_updated_timestamp: i64,
}

/// A secret with its value. It has no `Debug`.
#[derive(Serialize)]
pub struct SecretValue {
    /// Its key.
    pub key: String,
    /// The value in base64.
    pub value: String,
}

/// Who may do what with a scope.
#[derive(Debug, Serialize)]
pub struct AclList {
    /// By principal.
    pub items: Vec<AclItem>,
}

/// What a principal may.
#[derive(Debug, Serialize)]
pub struct AclItem {
    /// A user name, an application id, or the name of a group.
    pub principal: String,
    /// What they may.
    pub permission: AclPermission,
}
