//! Embeddings: the request and the answer.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::completions::TextInput;

/// The fields of an embedding request.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingFields {
    /// The texts.
    pub input: TextInput,
    /// Put before each text.
    pub instruction: Option<String>,
    /// Default `float`.
    pub encoding_format: Option<EncodingFormat>,
    /// Must be the size of the model's vectors.
    pub dimensions: Option<usize>,
    /// Whether a text that does not fit the model's context is cut and not refused, default false; as
    /// text-embeddings-inference spells it.
    pub truncate: Option<bool>,
    /// Tokens after which a text is cut, special tokens included; -1 is the model's context. As vLLM spells it.
    pub truncate_prompt_tokens: Option<i64>,
    /// What the vectors are for, such as `search_query`; for models of Cohere.
    pub input_type: Option<String>,
}

/// How a vector is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncodingFormat {
    /// A list of numbers.
    #[default]
    Float,
    /// Base64 of little-endian 32-bit floats.
    Base64,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingList<'a> {
    /// Id of the answer.
    pub id: &'a str,
    /// Always `list`.
    pub object: &'static str,
    /// Name of the endpoint.
    pub model: &'a str,
    /// One vector a text, in order.
    pub data: Vec<EmbeddingItem>,
    /// Tokens read.
    pub usage: EmbeddingUsage,
}

/// The vector of one text.
#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingItem {
    /// Always `embedding`.
    pub object: &'static str,
    /// Which text.
    pub index: usize,
    /// The vector.
    pub embedding: Vector,
}

/// A vector in one of the two spellings.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Vector {
    /// A list of numbers.
    Float(Vec<f32>),
    /// Base64 of little-endian 32-bit floats.
    Base64(String),
}

/// Tokens read; embeddings write none.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct EmbeddingUsage {
    /// Tokens of all texts.
    pub prompt_tokens: usize,
    /// The same.
    pub total_tokens: usize,
}
