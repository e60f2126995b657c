//! Fields that clients know and this server does not do yet: refused by name, unless the value asks for nothing.

use serde_json::{Value, json};

use super::{FieldError, JsonObject};

/// Fields of chat requests that some models of other providers have, and an older form of `tools`.
pub(super) const CHAT: &[&str] =
    &["functions", "function_call", "verbosity", "modalities", "audio", "prediction", "web_search_options"];

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
        "functions" => *value == json!([]),
        "function_call" => *value == json!("none"),
        "modalities" => *value == json!(["text"]),
        _ => false,
    }
}

fn unsupported(field: &str) -> FieldError {
    match field {
        "modalities" => FieldError::unsupported_value(field, " other than [\"text\"]"),
        _ => FieldError::unsupported(field),
    }
}
