//! The control plane of endpoints: what clients send to make and change them. The names are those of `databricks-sdk`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::JsonObject;
use super::external::ExternalModelFields;
use super::guardrails::GuardrailFields;

/// The body of a call that makes an endpoint.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateEndpoint {
    /// What calls will name it.
    pub name: String,
    /// What it serves; without it, nothing yet.
    pub config: Option<EndpointConfig>,
    /// Policies.
    pub ai_gateway: Option<AiGateway>,
    /// At most 20.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// The older place of `ai_gateway.rate_limits`.
    pub rate_limits: Option<Vec<RateLimit>>,
    /// Kept and shown.
    pub description: Option<String>,
    /// Kept and shown.
    pub budget_policy_id: Option<String>,
    /// Only `false`: calls come straight here anyway.
    pub route_optimized: Option<bool>,
    /// Nobody is sent mail: only empty lists.
    pub email_notifications: Option<EmailNotifications>,
}

/// What an endpoint serves.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    /// The endpoint's name again; some clients send it.
    pub name: Option<String>,
    /// At least one, at most 10.
    pub served_entities: Option<Vec<ServedEntityFields>>,
    /// The older spelling of `served_entities`.
    pub served_models: Option<Vec<ServedEntityFields>>,
    /// Who gets how many of the calls.
    pub traffic_config: Option<TrafficConfig>,
    /// The older place of inference tables.
    pub auto_capture_config: Option<Value>,
}

/// The body of a call that changes what an endpoint serves, where that stands in a field of its own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NestedConfig {
    /// What it is to serve.
    pub config: EndpointConfig,
}

/// One thing to serve.
#[derive(Debug, Default, Deserialize)]
pub struct ServedEntityFields {
    /// Its name within the endpoint.
    pub name: Option<String>,
    /// A model of another provider.
    pub external_model: Option<ExternalModelFields>,
    /// A hosted model.
    #[serde(alias = "model_name")]
    pub entity_name: Option<String>,
    /// Kept and shown; a model of the catalogue has one version.
    #[serde(alias = "model_version")]
    pub entity_version: Option<String>,
    /// Whether the model is loaded when it is asked for, and goes when its memory is needed.
    pub scale_to_zero_enabled: Option<bool>,
    /// The fields of a [`Workload`], and whatever else there is, which is to be refused.
    #[serde(flatten)]
    pub workload: JsonObject,
}

/// How large somebody else's machine would have to be; this one is as large as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "kept and shown as they come")]
pub struct Workload {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_size: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_provisioned_throughput: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_provisioned_throughput: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_provisioned_concurrency: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_provisioned_concurrency: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provisioned_model_units: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst_scaling_enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment_vars: Option<std::collections::BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_profile_arn: Option<String>,
}

/// Who gets how many of the calls.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrafficConfig {
    /// Percentages that sum up to 100.
    #[serde(default)]
    pub routes: Vec<TrafficRoute>,
}

/// The share of one entity.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrafficRoute {
    /// The entity.
    pub served_entity_name: Option<String>,
    /// The older spelling of `served_entity_name`.
    pub served_model_name: Option<String>,
    /// 0 to 100.
    pub traffic_percentage: u32,
}

/// A label of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// Unique within the endpoint.
    pub key: String,
    /// Any text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// The body of a call that changes tags.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchTags {
    /// Added, or given another value.
    #[serde(default)]
    pub add_tags: Vec<Tag>,
    /// Keys to remove.
    #[serde(default)]
    pub delete_tags: Vec<String>,
}

/// Who is sent mail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "their names say it")]
pub struct EmailNotifications {
    #[serde(default)]
    pub on_update_failure: Vec<String>,
    #[serde(default)]
    pub on_update_success: Vec<String>,
}

/// The body of a call that changes notifications.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchNotifications {
    /// The new ones.
    pub email_notifications: Option<EmailNotifications>,
}

/// The policies of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AiGateway {
    /// Whether requests are written into the usage; they are, without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_tracking_config: Option<Enabled>,
    /// Whether another entity is asked where one fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_config: Option<Enabled>,
    /// How much may be asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limits: Option<Vec<RateLimit>>,
    /// What may not be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guardrails: Option<GuardrailFields>,
    /// Where requests and answers are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inference_table_config: Option<InferenceTableFields>,
}

impl AiGateway {
    /// Whether requests are written into the usage.
    pub fn tracks_usage(&self) -> bool {
        self.usage_tracking_config.is_none_or(|usage| usage.enabled)
    }
}

/// Where requests and answers are kept. The three names are kept and shown; an endpoint has one table, under its own name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InferenceTableFields {
    /// Whether they are kept.
    #[serde(default)]
    pub enabled: bool,
    /// Cannot change while they are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog_name: Option<String>,
    /// Cannot change while they are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema_name: Option<String>,
    /// What the name of the table begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_name_prefix: Option<String>,
    /// Which share of the requests is kept, above 0 and at most 1; all of them without it. Hearth's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling_fraction: Option<f64>,
}

/// Something that is on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enabled {
    /// Whether it is on.
    pub enabled: bool,
}

/// How often something may be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Calls in each period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<i64>,
    /// Tokens in each period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<i64>,
    /// `minute`.
    pub renewal_period: String,
    /// `endpoint`, `user`, `user_group` or `service_principal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whom the limit is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
}

/// The body of the older call that changes limits.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PutRateLimits {
    /// All limits.
    #[serde(default)]
    pub rate_limits: Vec<RateLimit>,
}
