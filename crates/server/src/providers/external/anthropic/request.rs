//! A conversation as Anthropic's Messages API takes it.

use serde_json::{Value, json};

use crate::providers::call::{ChatMessage, ContentPart};
use crate::providers::external::given::{bounded, stops, taken};
use crate::providers::external::protocol::Target;
use crate::providers::external::tools::{GivenChoice, GivenFormat, choice, format, functions};
use crate::providers::{ChatCall, ProviderError};
use crate::wire::JsonObject;
use crate::wire::chat::Role;

/// What is taken of a request, by OpenAI's names.
const TAKEN: &[&str] = &[
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "stop",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "thinking",
    "user",
];

/// What asks for JSON, where the API has no field for any JSON at all.
const ONLY_JSON: &str = "Answer with one JSON object and nothing else: no text around it, no code fence.";

/// The body of the request.
pub(super) fn body(call: &ChatCall, target: Target<'_>) -> Result<JsonObject, ProviderError> {
    let given = taken(&call.generation.given, TAKEN, target)?;
    let mut body = JsonObject::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    put("model", Some(target.model.into()));
    // The API wants to hear it in any case.
    put("max_tokens", Some(call.generation.max_tokens.into()));
    put("system", system(&call.messages, &given));
    put("messages", Some(messages(&call.messages, target)?.into()));
    let stops = stops(&given);
    put("stop_sequences", (!stops.is_empty()).then(|| stops.into()));
    put("temperature", bounded(&given, "temperature", 1.0, target)?);
    put("top_p", given.get("top_p").cloned());
    put("top_k", given.get("top_k").cloned());
    let (tools, choice) = tools(&given);
    put("tools", tools);
    put("tool_choice", choice);
    put("thinking", given.get("thinking").cloned());
    put("output_config", output_config(&given));
    put("metadata", given.get("user").filter(|user| user.is_string()).map(|user| json!({"user_id": user})));
    put("stream", call.generation.is_streamed().then(|| true.into()));
    Ok(body)
}

/// The system's messages in one text.
fn system(messages: &[ChatMessage], given: &JsonObject) -> Option<Value> {
    let mut texts: Vec<&str> =
        messages.iter().filter(|message| is_system(message)).map(|message| message.content.as_str()).collect();
    if matches!(format(given), GivenFormat::JsonObject) {
        texts.push(ONLY_JSON);
    }
    texts.retain(|text| !text.trim().is_empty());
    (!texts.is_empty()).then(|| texts.join("\n").into())
}

fn is_system(message: &ChatMessage) -> bool {
    matches!(message.role, Role::System | Role::Developer)
}

/// All other messages, of which two that follow each other never have the same role.
fn messages(messages: &[ChatMessage], target: Target<'_>) -> Result<Vec<Value>, ProviderError> {
    let mut turns: Vec<(&str, Vec<Value>)> = Vec::new();
    for (index, message) in messages.iter().enumerate().filter(|(_, message)| !is_system(message)) {
        let role = if message.role == Role::Assistant { "assistant" } else { "user" };
        let blocks = blocks(message).map_err(|problem| {
            let field = format!("messages[{index}].content");
            ProviderError::invalid(&field, format!("`{field}`: {problem} for models of {}", target.provider))
        })?;
        if blocks.is_empty() {
            let field = format!("messages[{index}].content");
            let text = format!("`{field}` must not be blank for models of {}", target.provider);
            return Err(ProviderError::invalid(&field, text));
        }
        match turns.last_mut() {
            Some((last, content)) if *last == role => content.extend(blocks),
            _ => turns.push((role, blocks)),
        }
    }
    Ok(turns.into_iter().map(|(role, content)| json!({"role": role, "content": content})).collect())
}

/// What a message says. Texts of blanks alone, which some clients send beside calls, are refused by the API.
fn blocks(message: &ChatMessage) -> Result<Vec<Value>, &'static str> {
    if let Some(id) = &message.answers {
        return Ok(vec![json!({"type": "tool_result", "tool_use_id": id, "content": message.content})]);
    }
    let mut blocks = if message.parts.is_empty() {
        text_block(&message.content).into_iter().collect()
    } else {
        message.parts.iter().filter_map(part_block).collect::<Result<Vec<_>, _>>()?
    };
    blocks.extend(
        message
            .calls
            .iter()
            .map(|call| json!({"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments})),
    );
    Ok(blocks)
}

fn text_block(text: &str) -> Option<Value> {
    (!text.trim().is_empty()).then(|| json!({"type": "text", "text": text}))
}

fn part_block(part: &ContentPart) -> Option<Result<Value, &'static str>> {
    match part {
        ContentPart::Text(text) => text_block(text).map(Ok),
        ContentPart::Image { url, .. } => {
            Some(image_source(url).map(|source| json!({"type": "image", "source": source})))
        }
    }
}

/// Where an image is: `data:TYPE;base64,DATA` holds it.
fn image_source(url: &str) -> Result<Value, &'static str> {
    let Some(inline) = url.strip_prefix("data:") else { return Ok(json!({"type": "url", "url": url})) };
    let (media_type, data) = inline.split_once(";base64,").ok_or("the data of an image must be base64")?;
    Ok(json!({"type": "base64", "media_type": media_type, "data": data}))
}

/// The functions, and which of them is called.
fn tools(given: &JsonObject) -> (Option<Value>, Option<Value>) {
    let functions = functions(given);
    if functions.is_empty() {
        return (None, None);
    }
    let tools: Vec<Value> = functions
        .into_iter()
        .map(|function| {
            let mut tool = json!({"name": function.name, "input_schema": function.parameters});
            if let Some(description) = function.description {
                tool["description"] = description.into();
            }
            if function.strict {
                tool["strict"] = true.into();
            }
            tool
        })
        .collect();
    let one_at_a_time = given.get("parallel_tool_calls") == Some(&Value::Bool(false));
    let mut choice = match choice(given) {
        GivenChoice::Auto if !one_at_a_time && !given.contains_key("tool_choice") => return (Some(tools.into()), None),
        GivenChoice::Auto => json!({"type": "auto"}),
        GivenChoice::None => return (Some(tools.into()), Some(json!({"type": "none"}))),
        GivenChoice::Required => json!({"type": "any"}),
        GivenChoice::Named(name) => json!({"type": "tool", "name": name}),
    };
    if one_at_a_time {
        choice["disable_parallel_tool_use"] = true.into();
    }
    (Some(tools.into()), Some(choice))
}

/// How the answer is made and what form it has.
fn output_config(given: &JsonObject) -> Option<Value> {
    let mut config = JsonObject::new();
    if let Some(effort) = given.get("reasoning_effort").filter(|effort| *effort != "none") {
        config.insert("effort".into(), effort.clone());
    }
    if let GivenFormat::JsonSchema(schema) = format(given) {
        let mut schema = schema.clone();
        close(&mut schema);
        config.insert("format".into(), json!({"type": "json_schema", "schema": schema}));
    }
    (!config.is_empty()).then_some(Value::Object(config))
}

/// Says of every object in a schema that says nothing of it that it has no other fields: the API wants to hear that.
fn close(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    if fields.get("type").is_some_and(|kind| kind == "object") || fields.contains_key("properties") {
        fields.entry("additionalProperties").or_insert(Value::Bool(false));
    }
    for (name, value) in fields.iter_mut() {
        match (name.as_str(), value) {
            ("properties" | "$defs" | "definitions", Value::Object(schemas)) => schemas.values_mut().for_each(close),
            ("anyOf" | "allOf" | "oneOf" | "prefixItems", Value::Array(schemas)) => schemas.iter_mut().for_each(close),
            ("items", schema) => close(schema),
            _ => {}
        }
    }
}
