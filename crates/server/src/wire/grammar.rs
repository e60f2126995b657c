//! Fields that say what an answer must look like, as OpenAI and as vLLM spell them.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

/// At most one of these, of which `structured_outputs` has one.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrammarFields {
    /// Text, JSON, or JSON of a schema.
    pub response_format: Option<ResponseFormat>,
    /// What else there is.
    pub structured_outputs: Option<StructuredOutputs>,
    /// The older name of `structured_outputs.json`.
    pub guided_json: Option<Value>,
    /// The older name of `structured_outputs.regex`.
    pub guided_regex: Option<String>,
    /// The older name of `structured_outputs.choice`.
    pub guided_choice: Option<Vec<String>>,
    /// The older name of `structured_outputs.grammar`.
    pub guided_grammar: Option<String>,
}

/// The form of an answer.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResponseFormat {
    /// Which one.
    #[serde(rename = "type")]
    pub kind: FormatKind,
    /// With `json_schema`, and only then.
    pub json_schema: Option<JsonSchemaFormat>,
}

/// Kinds of forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FormatKind {
    /// Any text.
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON of a schema.
    JsonSchema,
}

/// A schema and its name.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonSchemaFormat {
    /// For people.
    pub name: String,
    /// For people.
    pub description: Option<String>,
    /// The schema; required.
    pub schema: Option<Value>,
    /// Whether what is not known in the schema is refused, default false.
    pub strict: Option<bool>,
}

/// One constraint.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StructuredOutputs {
    /// A JSON schema, or its text.
    pub json: Option<Value>,
    /// Whether the answer is any JSON object.
    pub json_object: Option<bool>,
    /// A regular expression that the whole answer matches.
    pub regex: Option<String>,
    /// Texts, of which the answer is one.
    pub choice: Option<Vec<String>>,
    /// A grammar in the Lark notation.
    pub grammar: Option<String>,
}
