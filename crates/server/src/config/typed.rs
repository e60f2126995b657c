//! The tables and fields of `hearth.toml`, as they are typed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use toml::{Spanned, Value};

use crate::wire::serving::AiGateway;

/// The file as it is typed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Typed {
    /// Flags of `hearth serve`, with `_` for `-`.
    #[serde(default)]
    pub(super) server: BTreeMap<String, Spanned<Value>>,
    pub(super) endpoints: Option<Vec<EndpointTable>>,
    #[serde(default)]
    pub(super) users: Vec<PersonTable>,
    #[serde(default)]
    pub(super) service_principals: Vec<PersonTable>,
    #[serde(default)]
    pub(super) groups: Vec<GroupTable>,
    #[serde(default)]
    pub(super) budgets: Vec<Spanned<BudgetTable>>,
    #[serde(default)]
    pub(super) prices: Vec<PriceTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndpointTable {
    pub(super) name: Spanned<String>,
    pub(super) model: Spanned<String>,
    pub(super) on_demand: Option<bool>,
    #[serde(default)]
    pub(super) permissions: Vec<Spanned<PermissionTable>>,
    /// As in the API.
    pub(super) ai_gateway: Option<Spanned<AiGateway>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BudgetTable {
    pub(super) endpoint: Option<String>,
    pub(super) user: Option<String>,
    pub(super) group: Option<String>,
    pub(super) service_principal: Option<String>,
    pub(super) period: String,
    pub(super) tokens: Option<i64>,
    pub(super) money: Option<f64>,
}

/// What a million tokens cost.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PriceTable {
    pub(super) model: Spanned<String>,
    pub(super) input: Value,
    #[serde(default = "nothing")]
    pub(super) output: Value,
}

fn nothing() -> Value {
    Value::Integer(0)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PermissionTable {
    pub(super) user: Option<String>,
    pub(super) group: Option<String>,
    pub(super) service_principal: Option<String>,
    pub(super) level: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PersonTable {
    /// Of a service principal its application id.
    pub(super) name: Spanned<String>,
    pub(super) display_name: Option<String>,
    pub(super) token_file: Option<Spanned<PathBuf>>,
    pub(super) token_variable: Option<Spanned<String>>,
    pub(super) token_sha256: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupTable {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) members: Vec<Spanned<MemberTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberTable {
    pub(super) user: Option<String>,
    pub(super) group: Option<String>,
    pub(super) service_principal: Option<String>,
}
