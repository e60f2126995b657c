//! The tokenizer of a folder in Hugging Face layout: `tokenizer.json`, or else `tokenizer.model` with what
//! `tokenizer_config.json` says about it.

use std::path::Path;

use serde_json::Value;

use super::gguf_vocabulary::{SentencePieces, SpacePrefix};
use super::pipeline::TokenizerParts;
use super::sentence_piece_file::SentencePieceFile;
use super::{TextError, Tokenizer, tiktoken_file};

impl Tokenizer {
    /// Reads the tokenizer of a model's folder.
    ///
    /// # Errors
    /// [`TextError::Read`] when there is none, [`TextError::Tokenizer`] when it is broken or of a kind not supported.
    pub fn from_folder(folder: &Path) -> Result<Self, TextError> {
        let (file, model) = (folder.join("tokenizer.json"), folder.join("tokenizer.model"));
        if file.exists() || !model.exists() {
            return Self::from_file(file);
        }
        let config = match std::fs::read(folder.join("tokenizer_config.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(TextError::tokenizer)?,
            Err(_) => Value::Null,
        };
        Self::from_model(&read(&model)?, &config)
    }

    /// Reads the content of a `tokenizer.model`, of SentencePiece or of tiktoken. Of `config`, the content of
    /// `tokenizer_config.json` or null, the added tokens and the switches `legacy`, `add_bos_token` and
    /// `add_eos_token` are used.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] when it is broken or of a kind not supported.
    pub fn from_model(bytes: &[u8], config: &Value) -> Result<Self, TextError> {
        Self::assemble(match tiktoken_file::is_tiktoken(bytes) {
            true => tiktoken_file::read(bytes)?,
            false => sentence_piece(SentencePieceFile::read(bytes)?.with_added_tokens(config)?, config)?,
        })
    }
}

fn sentence_piece(file: SentencePieceFile, config: &Value) -> Result<TokenizerParts, TextError> {
    let flag = |name: &str| config.get(name).and_then(Value::as_bool);
    let prefix = match (file.adds_space, flag("legacy")) {
        (false, _) => SpacePrefix::Never,
        (true, Some(false)) => SpacePrefix::First,
        // What SentencePiece does with each text it is given, and it is given what stands between special tokens.
        (true, _) => SpacePrefix::EveryPart,
    };
    let pieces = file.pieces.len();
    let one = |name: &str, adds: bool, id: Option<u32>| match id.filter(|_| adds) {
        Some(id) if id as usize >= pieces => {
            Err(TextError::Tokenizer { message: format!("tokenizer.model: the {name} id is {id} of {pieces} pieces") })
        }
        id => Ok(id.into_iter().collect()),
    };
    let leading = one("bos", flag("add_bos_token").unwrap_or(true), file.bos)?;
    let trailing = one("eos", flag("add_eos_token").unwrap_or(false), file.eos)?;
    SentencePieces { pieces: file.pieces, unknown: file.unknown, prefix, leading, trailing }.build()
}

fn read(path: &Path) -> Result<Vec<u8>, TextError> {
    std::fs::read(path).map_err(|source| TextError::Read { path: path.display().to_string(), source })
}
