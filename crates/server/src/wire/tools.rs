//! Functions that a model may call, and the calls it makes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::JsonObject;

/// The fields of a request that offers functions.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolFields {
    /// The functions, default none.
    pub tools: Option<Vec<Tool>>,
    /// Whether the model calls one, default `auto` where there are some.
    pub tool_choice: Option<ToolChoice>,
    /// Whether it may call several in one answer, default true.
    pub parallel_tool_calls: Option<bool>,
}

/// One function, wrapped.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// `function`, or something that is refused by this name.
    #[serde(rename = "type")]
    pub kind: String,
    /// The function.
    pub function: Option<FunctionFields>,
}

/// A function.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FunctionFields {
    /// Letters, digits, `_` and `-`, at most 64.
    pub name: String,
    /// What it does, for the model.
    pub description: Option<String>,
    /// A JSON schema of its arguments, default: it takes none.
    #[schema(value_type = Option<Object>)]
    pub parameters: Option<JsonObject>,
    /// Whether what is not known in the schema is refused, default false.
    pub strict: Option<bool>,
}

/// Whether the model calls a function.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected none, auto, required, or a `type` and a `function` with its `name`")]
pub enum ToolChoice {
    /// Whether at all.
    Mode(ToolMode),
    /// Which one.
    Named(NamedTool),
}

/// Whether at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ToolMode {
    /// It does not.
    None,
    /// It decides.
    Auto,
    /// It does.
    Required,
}

/// One function by its name.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedTool {
    /// `function`.
    #[serde(rename = "type")]
    pub kind: FunctionKind,
    /// Which one.
    pub function: FunctionName,
}

/// The only kind of tools.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FunctionKind {
    /// A function.
    #[default]
    Function,
}

/// The name of a function.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FunctionName {
    /// As among the tools.
    pub name: String,
}

/// A call that was made, in an answer or in the conversation so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// What the result refers to.
    pub id: String,
    /// Always a function.
    #[serde(rename = "type", default)]
    pub kind: FunctionKind,
    /// The function and its arguments.
    pub function: CalledFunction,
}

/// A function that is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CalledFunction {
    /// Its name.
    pub name: String,
    /// A JSON object, as text.
    pub arguments: String,
}

/// More of a call in a streamed answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ToolCallDelta {
    /// Which call of the answer, from 0.
    pub index: usize,
    /// In the first piece of the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// In the first piece of the call.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<FunctionKind>,
    /// What is new.
    pub function: FunctionDelta,
}

/// More of a function's call.
#[derive(Debug, Serialize, ToSchema)]
pub struct FunctionDelta {
    /// In the first piece of the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// More of the arguments' text.
    pub arguments: String,
}
