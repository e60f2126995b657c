//! The tokenizer over the wire, in the shapes that vLLM serves and evaluation harnesses read.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::chat::Message;
use super::tools::Tool;
use super::{FieldError, JsonObject, Request, later};

/// Reads a request to a tokenizer.
///
/// # Errors
/// As [`Request::read`]; a field that is not supported yet.
pub fn read<Fields: DeserializeOwned>(mut object: JsonObject) -> Result<Request<Fields>, FieldError> {
    later::refuse(&mut object, later::TOKENIZE)?;
    Request::read(object)
}

/// The fields of `/tokenize`: a text or a conversation.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizeFields {
    /// A text.
    pub prompt: Option<String>,
    /// A conversation.
    pub messages: Option<Vec<Message>>,
    /// Whether the tokens that the model expects around every text are put there, default true. A conversation has them
    /// from its template, and here gets those that the template leaves out.
    pub add_special_tokens: Option<bool>,
    /// Whether the answer has the tokens' spelling too, default false.
    pub return_token_strs: Option<bool>,
    /// Whether a conversation ends where the answer begins, default true.
    pub add_generation_prompt: Option<bool>,
    /// Whether a conversation ends with the text of its last message, default false.
    pub continue_final_message: Option<bool>,
    /// Functions that the model may call.
    pub tools: Option<Vec<Tool>>,
}

/// The fields of `/detokenize`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetokenizeFields {
    /// Token ids.
    pub tokens: Vec<u32>,
}

/// The answer of `/tokenize`.
#[derive(Debug, Serialize)]
pub struct Tokenized {
    /// Number of tokens.
    pub count: usize,
    /// Most tokens of a text that the model takes.
    pub max_model_len: usize,
    /// Their ids.
    pub tokens: Vec<u32>,
    /// As the vocabulary spells them; null unless they were asked for.
    pub token_strs: Option<Vec<String>>,
}

/// The answer of `/detokenize`.
#[derive(Debug, Serialize)]
pub struct Detokenized {
    /// The text.
    pub prompt: String,
}

/// The answer of `/tokenizer_info`: what `tokenizer_config.json` says.
#[derive(Debug, Serialize)]
pub struct TokenizerDescription {
    /// The reference implementation's class.
    pub tokenizer_class: String,
    /// `bos_token` and its like; null for those that the model does not have.
    #[serde(flatten)]
    pub special: BTreeMap<&'static str, Option<String>>,
    /// The chat template; null where there is none.
    pub chat_template: Option<String>,
    /// Most tokens of a text.
    pub model_max_length: usize,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
}
