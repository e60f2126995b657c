//! An endpoint as the store keeps it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::wire::serving::{AiGateway, Tag, Workload};

/// An endpoint, but for what the row beside it says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// For people to read.
    pub description: Option<String>,
    /// Labels, by key.
    pub tags: Vec<Tag>,
    /// Whose budget it counts against.
    pub budget_policy_id: Option<String>,
    /// Policies.
    pub ai_gateway: Option<AiGateway>,
    /// What is served; `None` before the first configuration has come up.
    pub config: Option<Config>,
    /// What will be served once it has come up.
    pub pending: Option<Config>,
    /// Why the last change of the configuration did not come up.
    pub failure: Option<String>,
    /// The version of the last configuration, whether it came up or not.
    pub last_version: i64,
}

impl Document {
    /// What is to be brought up next: what is pending, unless it has failed.
    pub fn awaited(&self) -> Option<&Config> {
        self.pending.as_ref().filter(|_| self.failure.is_none())
    }

    /// What to show as the configuration.
    pub fn shown(&self) -> Option<&Config> {
        self.config.as_ref().or(self.pending.as_ref())
    }
}

/// What an endpoint serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Counts up with each change.
    pub version: i64,
    /// When it was asked for, in milliseconds since 1970.
    pub started: i64,
    /// At least one; the shares sum up to 100.
    pub entities: Vec<Entity>,
}

/// One thing that is served.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entity {
    /// 32 hexadecimal digits; the same from one configuration to the next, where nothing but the share is different.
    pub id: String,
    /// Unique in the endpoint.
    pub name: String,
    /// Name of who asked for it.
    pub creator: String,
    /// Milliseconds since 1970.
    pub created: i64,
    /// Percentage of the calls.
    pub share: u32,
    /// What it is.
    pub what: What,
}

/// What an entity is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A model that this process runs.
    Hosted(HostedEntity),
    /// A model behind somebody else's API: the configuration, without its secret.
    External(Value),
}

/// A model that this process runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostedEntity {
    /// As it was asked for.
    pub entity_name: String,
    /// As it was asked for.
    pub entity_version: String,
    /// Whether it is loaded when it is asked for, and goes when its memory is needed.
    pub scale_to_zero: Option<bool>,
    /// As it was asked for.
    pub workload: Workload,
}
