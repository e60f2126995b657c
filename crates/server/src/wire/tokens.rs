//! Tokens, as Databricks' clients ask for them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::JsonObject;

/// The body of `POST /api/2.0/token/create`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateFields {
    /// What the owner says of it.
    pub comment: Option<String>,
    /// Seconds for which it counts; for ever without.
    pub lifetime_seconds: Option<i64>,
    /// What it is limited to; nothing can be named here.
    pub scopes: Option<Vec<Value>>,
    /// Whether the scopes are found out; they are not.
    pub autoscope_enabled: Option<bool>,
}

/// The body of `POST /api/2.0/token-management/on-behalf-of/tokens`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnBehalfFields {
    /// The service principal that gets it.
    pub application_id: String,
    /// What is said of it.
    pub comment: Option<String>,
    /// Seconds for which it counts; for ever without.
    pub lifetime_seconds: Option<i64>,
    /// What it is limited to; nothing can be named here.
    pub scopes: Option<Vec<Value>>,
    /// Whether the scopes are found out; they are not.
    pub autoscope_enabled: Option<bool>,
}

/// The body of `POST /api/2.0/token/delete`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteFields {
    /// Which one.
    pub token_id: String,
}

/// The body of a change of a token.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateFields {
    /// What it is to be; fields that the mask does not name change nothing.
    pub token: JsonObject,
    /// The fields that are to be changed, separated by commas.
    pub update_mask: String,
}

/// The query of `GET /api/2.0/token-management/tokens`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokensQuery {
    /// Those that the principal of this id made.
    pub created_by_id: Option<String>,
    /// Those that the principal of this name made.
    pub created_by_username: Option<String>,
}

/// A token as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublicTokenInfo {
    /// What it is called.
    pub token_id: String,
    /// What its owner says of it.
    pub comment: String,
    /// Milliseconds since 1970.
    pub creation_time: i64,
    /// Milliseconds since 1970, or -1 for never.
    pub expiry_time: i64,
}

/// A token as an administrator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenInfo {
    /// What its owner sees.
    #[serde(flatten)]
    pub public: PublicTokenInfo,
    /// Id of who made it; left out where that principal is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by_id: Option<i64>,
    /// Name of who made it.
    pub created_by_username: String,
    /// Id of whose it is.
    pub owner_id: i64,
    /// Always 1.
    pub workspace_id: i64,
}

/// A new token: the only answer that holds one.
#[derive(Serialize)]
pub struct Created<Info> {
    /// What to send.
    pub token_value: String,
    /// What is kept of it.
    pub token_info: Info,
}

/// Tokens.
#[derive(Debug, Serialize)]
pub struct TokenList<Info> {
    /// Oldest first.
    pub token_infos: Vec<Info>,
}

/// One token.
#[derive(Debug, Serialize)]
pub struct OneToken {
    /// The token.
    pub token_info: TokenInfo,
}
