//! Reranking: the request and the answer in the shape of Cohere and Jina, and those in the shape of text-embeddings-inference.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::JsonObject;
use super::embeddings::EmbeddingUsage;

/// The fields of `/v1/rerank` and `/v2/rerank`, of Cohere's two versions and of Jina.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RerankFields {
    /// What is looked for.
    pub query: String,
    /// Where it is looked for.
    #[schema(value_type = Vec<Object>)]
    pub documents: Vec<Document>,
    /// Results to return, default all.
    pub top_n: Option<usize>,
    /// Whether results carry their documents, default false.
    pub return_documents: Option<bool>,
    /// Tokens after which a document is cut; in any case it is cut where it would not fit.
    pub max_tokens_per_doc: Option<usize>,
    /// Parts of a document that are scored on their own. Only 1 is honoured.
    pub max_chunks_per_doc: Option<usize>,
    /// The fields of documents that are read. Only `["text"]` is honoured.
    pub rank_fields: Option<Vec<String>>,
    /// Not honoured.
    pub relevant_spans: Option<Value>,
    /// Only 0 is honoured.
    pub priority: Option<i64>,
}

/// A document: its text, or an object with a `text`, which comes back whole.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(untagged, expecting = "expected a string or an object with a `text`")]
pub enum Document {
    /// The text.
    Text(String),
    /// An object with a `text` and whatever else.
    Object(JsonObject),
}

/// The answer in the shape of Cohere and Jina.
#[derive(Debug, Serialize, ToSchema)]
pub struct RerankAnswer<'a> {
    /// Id of the answer.
    pub id: &'a str,
    /// Name of the endpoint.
    pub model: &'a str,
    /// The best first.
    pub results: Vec<RankedDocument>,
    /// Tokens read, as Jina's clients expect them.
    pub usage: EmbeddingUsage,
    /// The same, as Cohere's clients expect it.
    pub meta: RerankMeta,
}

/// One document's place in the ranking.
#[derive(Debug, Serialize, ToSchema)]
pub struct RankedDocument {
    /// Which document of the request, from 0.
    pub index: usize,
    /// From 0, not relevant, to 1: the logistic function of the model's logit.
    pub relevance_score: f32,
    /// The document, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub document: Option<JsonObject>,
}

/// What Cohere's clients read beside the results.
#[derive(Debug, Serialize, ToSchema)]
pub struct RerankMeta {
    /// Which of Cohere's APIs this is the shape of.
    pub api_version: ApiVersion,
    /// Tokens read and written.
    pub tokens: RerankTokens,
}

/// A version of Cohere's API.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApiVersion {
    /// `1` or `2`.
    pub version: &'static str,
}

/// Tokens of a reranking request.
#[derive(Debug, Serialize, ToSchema)]
pub struct RerankTokens {
    /// Tokens of all pairs of the query and a document.
    pub input_tokens: usize,
    /// Always 0.
    pub output_tokens: usize,
}

/// The fields of `/rerank`, in the shape of text-embeddings-inference.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TextRankFields {
    /// What is looked for.
    pub query: String,
    /// Where it is looked for.
    pub texts: Vec<String>,
    /// Whether scores are the model's logits and not between 0 and 1, default false.
    pub raw_scores: Option<bool>,
    /// Whether ranks carry their texts, default false.
    pub return_text: Option<bool>,
    /// Whether a text that does not fit is cut and not refused, default false.
    pub truncate: Option<bool>,
    /// On which side it is then cut, default right.
    pub truncation_direction: Option<Side>,
}

/// A side of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
pub enum Side {
    /// Its beginning.
    #[serde(alias = "left")]
    Left,
    /// Its end.
    #[serde(alias = "right")]
    Right,
}

/// One text's place in the ranking, in the shape of text-embeddings-inference.
#[derive(Debug, Serialize, ToSchema)]
pub struct TextRank {
    /// Which text of the request, from 0.
    pub index: usize,
    /// Between 0 and 1, or the logit.
    pub score: f32,
    /// The text, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}
