//! Fields that clients know and this server does not do yet: refused by name, unless the value asks for nothing.

use serde_json::{Value, json};

use super::{FieldError, JsonObject};

/// Fields of chat requests that come with function calling and external models.
pub(super) const CHAT: &[&str] = &[
    "tools",
    "tool_choice",
    "functions",
    "function_call",
    "reasoning_effort",
    "thinking",
    "verbosity",
    "modalities",
    "audio",
    "prediction",
    "web_search_options",
    "parallel_tool_calls",
];

/// Fields of requests to a tokenizer that come with templates of the caller's own and with other media.
pub(super) const TOKENIZE: &[&str] =
    &["chat_template", "chat_template_kwargs", "media_io_kwargs", "mm_processor_kwargs"];

/// Takes `fields` out of `object`; the first one that asks for something is the error.
pub(super) fn refuse(object: &mut JsonObject, fields: &[&str]) -> Result<(), FieldError> {
    for field in fields {
        match object.remove(*field) {
            Some(value) if !asks_for_nothing(field, &value) => return Err(unsupported(field)),
            _ => {}
        }
    }
    Ok(())
}

/// Whether the answer without the feature is what the caller asked for.
fn asks_for_nothing(field: &str, value: &Value) -> bool {
    match field {
        "tools" | "functions" => *value == json!([]),
        "tool_choice" | "function_call" => *value == json!("none"),
        "modalities" => *value == json!(["text"]),
        // Without tools there are no calls to be parallel or not.
        "parallel_tool_calls" => value.is_boolean(),
        _ => false,
    }
}

fn unsupported(field: &str) -> FieldError {
    match field {
        "tool_choice" => FieldError::unsupported_value(field, " other than \"none\""),
        "modalities" => FieldError::unsupported_value(field, " other than [\"text\"]"),
        _ => FieldError::unsupported(field),
    }
}
