//! The control plane of endpoints: what it answers. The names are those of `databricks-sdk`; times are milliseconds since 1970.

use serde::Serialize;
use serde_json::Value;

use super::serving::{AiGateway, RateLimit, Tag, Workload};

/// All endpoints that a caller may see.
#[derive(Debug, Serialize)]
pub struct EndpointList {
    /// By name.
    pub endpoints: Vec<EndpointView>,
}

/// An endpoint.
#[derive(Debug, Serialize)]
pub struct EndpointView {
    /// What calls name it.
    pub name: String,
    /// 32 hexadecimal digits.
    pub id: String,
    /// Name of who made it; of what the command line or the configuration file names, `hearth`.
    pub creator: String,
    /// When it was made.
    pub creation_timestamp: i64,
    /// When it was changed.
    pub last_updated_timestamp: i64,
    /// Whether it answers, and whether it is being changed.
    pub state: EndpointState,
    /// What it serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigView>,
    /// What it will serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_config: Option<ConfigView>,
    /// `llm/v1/chat`, `llm/v1/completions`, `llm/v1/embeddings` or `rerank`; not known before a model was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<&'static str>,
    /// `EXTERNAL_MODEL`, or `FOUNDATION_MODEL_API` where a model runs in this process.
    pub endpoint_type: &'static str,
    /// By key.
    pub tags: Vec<Tag>,
    /// Policies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ai_gateway: Option<AiGateway>,
    /// For people to read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// As it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_policy_id: Option<String>,
    /// All that the caller may do with it; not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission_level: Option<&'static str>,
    /// Always false.
    pub route_optimized: bool,
}

/// Whether an endpoint answers, and whether it is being changed.
#[derive(Debug, Serialize)]
pub struct EndpointState {
    /// `READY` or `NOT_READY`.
    pub ready: &'static str,
    /// `NOT_UPDATING`, `IN_PROGRESS` or `UPDATE_FAILED`.
    pub config_update: &'static str,
}

/// What an endpoint serves.
#[derive(Debug, Serialize)]
pub struct ConfigView {
    /// Counts up.
    pub config_version: i64,
    /// When it was asked for; only of one that is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<i64>,
    /// What is served.
    pub served_entities: Vec<EntityView>,
    /// The same in the older spelling, hosted ones alone.
    pub served_models: Vec<ServedModelView>,
    /// Who gets how many of the calls.
    pub traffic_config: TrafficView,
}

/// One thing that is served.
#[derive(Debug, Serialize)]
pub struct EntityView {
    /// Its name within the endpoint.
    pub name: String,
    /// 32 hexadecimal digits, as the usage names it.
    pub id: String,
    /// Of a hosted one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity_name: Option<String>,
    /// Of a hosted one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity_version: Option<String>,
    /// Of an external one, without its secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_model: Option<Value>,
    /// Of a hosted one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foundation_model: Option<FoundationModelView>,
    /// As it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_to_zero_enabled: Option<bool>,
    /// As it was given.
    #[serde(flatten)]
    pub workload: Workload,
    /// Name of who asked for it.
    pub creator: String,
    /// When it was asked for.
    pub creation_timestamp: i64,
    /// What its model is doing.
    pub state: DeploymentState,
}

/// A hosted model.
#[derive(Debug, Serialize)]
pub struct FoundationModelView {
    /// As it was asked for.
    pub name: String,
    /// For people to read.
    pub display_name: String,
}

/// What a model is doing.
#[derive(Debug, Clone, Serialize)]
pub struct DeploymentState {
    /// `DEPLOYMENT_CREATING`, `_READY`, `_FAILED` or `_ABORTED`.
    pub deployment: &'static str,
    /// For people to read.
    pub deployment_state_message: String,
}

/// A hosted model in the older spelling.
#[derive(Debug, Serialize)]
pub struct ServedModelView {
    /// Its name within the endpoint.
    pub name: String,
    /// The entity's name.
    pub model_name: String,
    /// The entity's version.
    pub model_version: String,
    /// What it is doing.
    pub state: DeploymentState,
}

/// Who gets how many of the calls.
#[derive(Debug, Serialize)]
pub struct TrafficView {
    /// One an entity.
    pub routes: Vec<TrafficRouteView>,
}

/// The share of one entity.
#[derive(Debug, Serialize)]
pub struct TrafficRouteView {
    /// The entity.
    pub served_entity_name: String,
    /// The same.
    pub served_model_name: String,
    /// 0 to 100.
    pub traffic_percentage: u32,
}

/// The tags of an endpoint.
#[derive(Debug, Serialize)]
pub struct TagList {
    /// By key.
    pub tags: Vec<Tag>,
}

/// The limits of an endpoint.
#[derive(Debug, Serialize)]
pub struct RateLimitList {
    /// All of them.
    pub rate_limits: Vec<RateLimit>,
}
