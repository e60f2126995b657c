//! The functions of a request as they were sent, for APIs that spell them in their own way.

use serde_json::{Value, json};

use crate::wire::JsonObject;

/// One function.
pub(super) struct GivenFunction<'a> {
    pub(super) name: &'a str,
    pub(super) description: Option<&'a str>,
    /// A schema of an object.
    pub(super) parameters: Value,
    pub(super) strict: bool,
}

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GivenChoice<'a> {
    /// Nobody says, or it is left to the model.
    Auto,
    None,
    Required,
    Named(&'a str),
}

/// The functions, which were checked when the request was read.
pub(super) fn functions(given: &JsonObject) -> Vec<GivenFunction<'_>> {
    let tools = given.get("tools").and_then(Value::as_array).into_iter().flatten();
    tools.map(|tool| function(&tool["function"])).collect()
}

fn function(function: &Value) -> GivenFunction<'_> {
    let mut parameters = match &function["parameters"] {
        Value::Object(parameters) if !parameters.is_empty() => Value::Object(parameters.clone()),
        _ => json!({"type": "object", "properties": {}}),
    };
    if parameters["type"].is_null() {
        parameters["type"] = json!("object");
    }
    GivenFunction {
        name: function["name"].as_str().unwrap_or_default(),
        description: function["description"].as_str().filter(|text| !text.is_empty()),
        parameters,
        strict: function["strict"] == true,
    }
}

/// What is to be called.
pub(super) fn choice(given: &JsonObject) -> GivenChoice<'_> {
    match given.get("tool_choice") {
        Some(Value::String(mode)) if mode == "none" => GivenChoice::None,
        Some(Value::String(mode)) if mode == "required" => GivenChoice::Required,
        Some(named @ Value::Object(_)) => GivenChoice::Named(named["function"]["name"].as_str().unwrap_or_default()),
        _ => GivenChoice::Auto,
    }
}

/// The form that an answer is to have.
pub(super) enum GivenFormat<'a> {
    Any,
    JsonObject,
    JsonSchema(&'a Value),
}

/// The form of the answer, which was checked when the request was read.
pub(super) fn format(given: &JsonObject) -> GivenFormat<'_> {
    let Some(format) = given.get("response_format") else { return GivenFormat::Any };
    match format["type"].as_str() {
        Some("json_object") => GivenFormat::JsonObject,
        Some("json_schema") => GivenFormat::JsonSchema(&format["json_schema"]["schema"]),
        _ => GivenFormat::Any,
    }
}
