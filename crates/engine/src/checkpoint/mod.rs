//! An opened checkpoint: its configuration as one JSON object whatever the file format, and its weights.
//!
//! A GGUF file's metadata is translated into the `config.json` of the same model ([`gguf_config`]), so that an
//! architecture reads one spelling.

mod gguf_config;
mod outline;
mod sentence;
mod template;

use std::path::{Path, PathBuf};

use hearth_kernels::RotaryStyle;
use serde_json::Value;

use crate::error::Error;
use crate::weights::{Gguf, Weights};

pub use outline::outline;
pub use sentence::{Pooling, SentenceConfig};
pub use template::template_source;

/// Where a checkpoint's other parts (tokenizer, template) are found.
pub enum CheckpointSource {
    /// In the metadata of this file.
    Gguf(Gguf),
    /// In files of this folder.
    Folder(PathBuf),
}

/// A model's configuration and weights, ready for its architecture to load.
pub struct Checkpoint {
    /// The content of `config.json`.
    pub config: Value,
    /// The content of `generation_config.json`; null where there is none.
    pub generation: Value,
    /// How the sentence vector is made, for encoders.
    pub sentence: SentenceConfig,
    /// How the rows of the query and key weights pair up for rotation.
    pub rotary: RotaryStyle,
    /// The tensors.
    pub weights: Weights,
    /// The rest.
    pub source: CheckpointSource,
}

impl Checkpoint {
    /// Opens a `.gguf` file or a folder in Hugging Face layout.
    ///
    /// # Errors
    /// When a file is missing or broken.
    pub fn open(path: &Path) -> Result<Self, Error> {
        match path.is_dir() {
            true => Self::open_folder(path),
            false => Self::open_gguf(path),
        }
    }

    fn open_gguf(path: &Path) -> Result<Self, Error> {
        let gguf = Gguf::open(path)?;
        Ok(Self {
            config: gguf_config::config(&gguf)?,
            generation: Value::Null,
            sentence: gguf_config::sentence(&gguf)?,
            rotary: gguf_config::rotary_style(&gguf)?,
            weights: Weights::open_gguf(&gguf)?,
            source: CheckpointSource::Gguf(gguf),
        })
    }

    fn open_folder(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            config: read_json(&path.join("config.json"))?,
            generation: optional_json(&path.join("generation_config.json"))?,
            sentence: SentenceConfig::read(path)?,
            rotary: RotaryStyle::Halves,
            weights: Weights::open_folder(path)?,
            source: CheckpointSource::Folder(path.to_owned()),
        })
    }

    /// The ids that end a sequence, of `generation_config.json` and `config.json`: a number or a list in either.
    ///
    /// # Errors
    /// When one is no token id.
    pub fn end_tokens(&self) -> Result<Vec<u32>, Error> {
        let ids = [&self.generation, &self.config].into_iter().flat_map(|config| match config.get("eos_token_id") {
            Some(Value::Array(ids)) => ids.iter().collect(),
            Some(Value::Null) | None => Vec::new(),
            Some(id) => vec![id],
        });
        let token = |id: &Value| {
            let token = id.as_u64().and_then(|id| u32::try_from(id).ok());
            token.ok_or_else(|| Error::config("eos_token_id", format!("must be a token id, not {id}")))
        };
        let mut tokens = ids.map(token).collect::<Result<Vec<u32>, Error>>()?;
        tokens.sort_unstable();
        tokens.dedup();
        Ok(tokens)
    }
}

/// Reads a JSON file.
///
/// # Errors
/// When it cannot be read or parsed; the message has the path, and the line where there is one.
pub fn read_json(path: &Path) -> Result<Value, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, error))?;
    serde_json::from_str(&text).map_err(|error| Error::file(path, error))
}

/// Reads a JSON file that may be absent; null then.
///
/// # Errors
/// When it is there and cannot be read or parsed.
pub fn optional_json(path: &Path) -> Result<Value, Error> {
    match path.exists() {
        true => read_json(path),
        false => Ok(Value::Null),
    }
}
