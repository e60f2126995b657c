//! Fields that several kinds of requests share: sampling, the form of the answer, bookkeeping.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};
use utoipa::ToSchema;

/// How tokens are chosen and when an answer ends. Absent fields take the fixed defaults.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SamplingFields {
    /// Most tokens to generate, default 256.
    pub max_tokens: Option<u32>,
    /// The newer name of `max_tokens`.
    pub max_completion_tokens: Option<u32>,
    /// 0 is greedy; default 1.
    pub temperature: Option<f64>,
    /// Nucleus of the distribution, default 1.
    pub top_p: Option<f64>,
    /// Number of most likely tokens kept, at least 1; absent: all.
    pub top_k: Option<u32>,
    /// Tokens less likely than this share of the most likely one are dropped; default 0.
    pub min_p: Option<f64>,
    /// Default 0.
    pub frequency_penalty: Option<f64>,
    /// Default 0.
    pub presence_penalty: Option<f64>,
    /// Default 1.
    pub repetition_penalty: Option<f64>,
    /// Added to the logits of single tokens, by token id.
    pub logit_bias: Option<BTreeMap<u32, f32>>,
    /// No end token before so many tokens; default 0.
    pub min_tokens: Option<u32>,
    /// End tokens do not end the answer; default false.
    pub ignore_eos: Option<bool>,
    /// Makes the answer reproducible. Negative values are taken by their bits.
    #[schema(value_type = Option<i64>)]
    pub seed: Option<Number>,
    /// Texts that end the answer and are not part of it.
    pub stop: Option<Stop>,
}

/// One text or several.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub enum Stop {
    /// One text.
    One(String),
    /// Any of these.
    Many(Vec<String>),
}

/// How the answer is delivered.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputFields {
    /// Number of answers, default 1.
    pub n: Option<u32>,
    /// Whether the answer is a stream of events, default false.
    pub stream: Option<bool>,
    /// Options that need `stream`.
    pub stream_options: Option<StreamOptions>,
}

/// Options of a streamed answer.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamOptions {
    /// Whether a last chunk without choices carries the usage.
    pub include_usage: Option<bool>,
    /// Padding against traffic analysis; only `false` is honoured.
    pub include_obfuscation: Option<bool>,
}

/// Fields that describe the caller or the call and change nothing in the answer: any value is accepted and recorded.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "their meaning is the caller's own")]
pub struct Bookkeeping {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_request_id: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_context: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub databricks_options: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_inputs: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_cache_key: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_cache_retention: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safety_identifier: Option<Value>,
}

/// Tokens read and written for one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Tokens of the prompts, template included.
    pub prompt_tokens: usize,
    /// Tokens generated over all choices.
    pub completion_tokens: usize,
    /// Their sum.
    pub total_tokens: usize,
    /// What is known of the prompts' tokens, where something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens_details: Option<PromptTokensDetails>,
}

/// What became of the tokens of the prompts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PromptTokensDetails {
    /// Those that were found in the cache and not computed again.
    pub cached_tokens: usize,
}

impl Usage {
    /// The usage of `prompt_tokens` read and `completion_tokens` written.
    pub fn new(prompt_tokens: usize, completion_tokens: usize) -> Self {
        let total_tokens = prompt_tokens + completion_tokens;
        Self { prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details: None }
    }

    /// The same, of which so many of the prompts' tokens were found in the cache.
    pub fn with_cached(self, cached_tokens: usize) -> Self {
        Self { prompt_tokens_details: Some(PromptTokensDetails { cached_tokens }), ..self }
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// An end token or a stop text.
    Stop,
    /// `max_tokens` or the context.
    Length,
    /// The caller is to call functions.
    ToolCalls,
    /// Another provider's model did not want to say more.
    ContentFilter,
}
