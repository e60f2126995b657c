//! Where a model's folder keeps its chat template.

use std::path::Path;

use serde_json::Value;

use super::optional_json;
use crate::error::Error;

/// `chat_template.jinja`, or `chat_template` of `tokenizer_config.json`: a string, or a list of named ones of which
/// `default` is taken.
///
/// # Errors
/// When a file is there and cannot be read.
pub fn template_source(folder: &Path) -> Result<Option<String>, Error> {
    let file = folder.join("chat_template.jinja");
    if file.exists() {
        return std::fs::read_to_string(&file).map(Some).map_err(|error| Error::file(&file, error));
    }
    let config = optional_json(&folder.join("tokenizer_config.json"))?;
    let source = match config.get("chat_template") {
        Some(Value::Array(named)) => {
            let default = named.iter().find(|one| one.get("name").and_then(Value::as_str) == Some("default"));
            default.and_then(|one| one.get("template"))
        }
        one => one,
    };
    Ok(source.and_then(Value::as_str).map(str::to_owned))
}
