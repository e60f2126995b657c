//! Guardrails, as clients set them. The names are those of `databricks-sdk`.

use serde::{Deserialize, Serialize};

/// What may not be said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardrailFields {
    /// To the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<SideFields>,
    /// By the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<SideFields>,
}

/// What may not be said on one side.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SideFields {
    /// Whether what a judge model holds unsafe is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safety: Option<bool>,
    /// What is done about what tells something about a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pii: Option<PiiFields>,
    /// Words that are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invalid_keywords: Option<Vec<String>>,
    /// What all else is refused but for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_topics: Option<Vec<String>>,
}

/// What is done about what tells something about a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PiiFields {
    /// Nothing, or what.
    pub behavior: Behavior,
}

/// What is done about a find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Behavior {
    /// It stays.
    None,
    /// The request is refused.
    Block,
    /// A label stands in its place.
    Mask,
}
