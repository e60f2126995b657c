//! How an encoder's token vectors become one sentence vector: the files that sentence-transformers writes beside a
//! model (`modules.json`, `1_Pooling/config.json`, `sentence_bert_config.json`).

use std::path::Path;

use serde_json::Value;

use super::optional_json;
use crate::error::Error;

/// Which token vectors make the sentence vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The first token's.
    Cls,
    /// The average of all.
    Mean,
}

/// The steps after the encoder. Without `modules.json` it is the mean, not normalised, as sentence-transformers does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentenceConfig {
    /// Which vectors are used.
    pub pooling: Pooling,
    /// Whether the result is scaled to length 1.
    pub normalize: bool,
    /// The longest text in tokens, where it is shorter than the model's positions.
    pub max_length: Option<usize>,
}

impl Default for SentenceConfig {
    fn default() -> Self {
        Self { pooling: Pooling::Mean, normalize: false, max_length: None }
    }
}

impl SentenceConfig {
    /// Reads the files of a model's folder.
    ///
    /// # Errors
    /// When one is broken, or names a module or a pooling that is not supported.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let mut config = Self::default();
        let limits = optional_json(&folder.join("sentence_bert_config.json"))?;
        config.max_length = limits.get("max_seq_length").and_then(Value::as_u64).map(|length| length as usize);
        if limits.get("do_lower_case").and_then(Value::as_bool) == Some(true) {
            let path = folder.join("sentence_bert_config.json");
            return Err(Error::file(&path, "do_lower_case true is not supported; the tokenizer decides about case"));
        }
        let modules = optional_json(&folder.join("modules.json"))?;
        for module in modules.as_array().into_iter().flatten() {
            let kind = module.get("type").and_then(Value::as_str).unwrap_or_default();
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" => {}
                "Normalize" => config.normalize = true,
                "Pooling" => {
                    let path = module.get("path").and_then(Value::as_str).unwrap_or("1_Pooling");
                    config.pooling = Pooling::read(&folder.join(path).join("config.json"))?;
                }
                other => {
                    let reason = format!("module {other:?} is not supported; Transformer, Pooling and Normalize are");
                    return Err(Error::file(&folder.join("modules.json"), reason));
                }
            }
        }
        Ok(config)
    }
}

impl Pooling {
    /// Reads `1_Pooling/config.json`: `pooling_mode` as newer versions write it, or one switch a mode.
    fn read(path: &Path) -> Result<Self, Error> {
        let config = super::read_json(path)?;
        let switched = config.as_object().into_iter().flatten().filter_map(|(name, value)| match value {
            Value::Bool(true) => name.strip_prefix("pooling_mode_"),
            _ => None,
        });
        let modes: Vec<&str> = match config.get("pooling_mode").and_then(Value::as_str) {
            Some(mode) => vec![mode],
            None => switched.collect(),
        };
        match modes[..] {
            ["cls" | "cls_token"] => Ok(Self::Cls),
            ["mean" | "mean_tokens"] => Ok(Self::Mean),
            _ => Err(Error::file(path, format!("pooling {modes:?} is not supported; cls or mean alone is"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<SentenceConfig, Error> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        SentenceConfig::read(folder.path())
    }

    const MODULES: &str = r#"[{"type": "sentence_transformers.models.Transformer", "path": ""},
        {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
        {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"}]"#;

    #[test]
    fn the_files_of_sentence_transformers_are_read() {
        let pooling = r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#;
        let limits = r#"{"max_seq_length": 256}"#;
        let files =
            [("modules.json", MODULES), ("1_Pooling/config.json", pooling), ("sentence_bert_config.json", limits)];
        let config = SentenceConfig { pooling: Pooling::Cls, normalize: true, max_length: Some(256) };
        assert_eq!(read(&files).unwrap(), config);
        assert_eq!(read(&[]).unwrap(), SentenceConfig::default());
    }

    #[test]
    fn a_pooling_that_is_not_supported_is_named() {
        let both = r#"{"pooling_mode_max_tokens": true, "pooling_mode_mean_tokens": true}"#;
        let error = read(&[("modules.json", MODULES), ("1_Pooling/config.json", both)]).unwrap_err().to_string();
        assert!(error.contains("max_tokens") && error.contains("1_Pooling"), "{error}");
        let dense = r#"[{"type": "sentence_transformers.models.Dense"}]"#;
        assert!(read(&[("modules.json", dense)]).unwrap_err().to_string().contains("\"Dense\""));
    }
}
