//! A folder's tokenizer and chat template as the metadata of a GGUF file (`tokenizer.*`): one file a kind of tokenizer.

mod byte_pair;
mod sentence_piece;
mod word_piece;

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use super::metadata::Description;
use crate::checkpoint::{Checkpoint, optional_json, read_json, template_source};
use crate::error::Error;
use crate::text::Tokenizer;
use crate::weights::{GgufValue, GgufWriter};

/// `tokenizer.ggml.token_type`.
mod token_type {
    pub const NORMAL: i32 = 1;
    pub const UNKNOWN: i32 = 2;
    pub const CONTROL: i32 = 3;
    pub const USER_DEFINED: i32 = 4;
    pub const UNUSED: i32 = 5;
    pub const BYTE: i32 = 6;
}

/// A tokenizer as a GGUF file tells it.
#[derive(Debug, Default)]
struct Vocabulary {
    /// `tokenizer.ggml.model`: the algorithm.
    model: &'static str,
    /// `tokenizer.ggml.pre`: how text is cut into words.
    pre: &'static str,
    /// By id, one for each row of the model's table.
    tokens: Vec<String>,
    types: Vec<i32>,
    /// What is particular to the algorithm, by the last part of the key.
    keys: Vec<(&'static str, GgufValue)>,
    /// The ids of the texts that a configuration may name.
    ids: HashMap<String, u32>,
}

/// Adds the keys of the tokenizer and the template.
///
/// # Errors
/// When the tokenizer is of another kind, or has more tokens than the model.
pub(super) fn describe(
    writer: &mut GgufWriter,
    checkpoint: &Checkpoint,
    folder: &Path,
    description: &Description,
) -> Result<(), Error> {
    let vocabulary = read(folder, description.vocab_size)?;
    let named = NamedTokens::read(checkpoint, folder, &vocabulary)?;
    let surroundings = surroundings(folder, &vocabulary, &named)?;
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    for (name, id) in named.ids {
        writer.key(key(&format!("{name}_token_id")), GgufValue::U32(id));
    }
    writer.key(key("model"), GgufValue::Text(vocabulary.model.to_owned()));
    writer.key(key("pre"), GgufValue::Text(vocabulary.pre.to_owned()));
    writer.key(key("tokens"), GgufValue::Texts(vocabulary.tokens));
    writer.key(key("token_type"), GgufValue::I32s(vocabulary.types));
    for (name, value) in vocabulary.keys.into_iter().chain(surroundings) {
        writer.key(key(name), value);
    }
    if let Some(count) = description.token_types {
        writer.key(key("token_type_count"), GgufValue::U32(count));
    }
    if let Some(template) = template_source(folder)? {
        writer.key("tokenizer.chat_template", GgufValue::Text(template));
    }
    Ok(())
}

/// The tokenizer of a folder: what its `tokenizer.json` says, or its `tokenizer.model`.
fn read(folder: &Path, vocab_size: u32) -> Result<Vocabulary, Error> {
    let (path, model) = (folder.join("tokenizer.json"), folder.join("tokenizer.model"));
    if !path.exists() && model.exists() {
        let config = optional_json(&folder.join("tokenizer_config.json"))?;
        let bytes = std::fs::read(&model).map_err(|error| Error::file(&model, error))?;
        return sentence_piece::from_model(&bytes, &config, vocab_size).map_err(|reason| Error::file(&model, reason));
    }
    let file = read_json(&path)?;
    let kind = (file["model"]["type"].as_str(), file["model"]["byte_fallback"] == true);
    let vocabulary = match kind {
        (Some("BPE"), true) => sentence_piece::from_json(&file, vocab_size),
        (Some("BPE"), false) => byte_pair::read(&file, vocab_size),
        (Some("WordPiece"), _) => word_piece::read(&file, vocab_size),
        (kind, _) => Err(format!(
            "is of the kind {}; byte-level BPE, SentencePiece's BPE and WordPiece can be written to a GGUF file",
            kind.unwrap_or("(none given)")
        )),
    };
    vocabulary.map_err(|reason| Error::file(&path, reason))
}

/// Whether the model's tokenizer puts tokens around a text.
fn surroundings(
    folder: &Path,
    vocabulary: &Vocabulary,
    named: &NamedTokens,
) -> Result<Vec<(&'static str, GgufValue)>, Error> {
    let tokenizer = Tokenizer::from_folder(folder)?;
    let around = (tokenizer.leading_tokens(), tokenizer.trailing_tokens());
    let expected = |name: &str, tokens: &[u32]| tokens.is_empty() || named.get(name).is_some_and(|id| tokens == [id]);
    let (first, last) = if vocabulary.model == "bert" { ("cls", "seperator") } else { ("bos", "eos") };
    if !expected(first, around.0) || !expected(last, around.1) {
        let (leading, trailing) = around;
        let reason = format!(
            "the tokenizer puts {leading:?} before and {trailing:?} behind a text; only {first} before and {last} behind \
             it can be written"
        );
        return Err(Error::file(folder, reason));
    }
    let flag = |tokens: &[u32]| GgufValue::Bool(!tokens.is_empty());
    Ok(vec![("add_bos_token", flag(around.0)), ("add_eos_token", flag(around.1))])
}

/// The tokens that have a part to play, as the last parts of their keys begin.
struct NamedTokens {
    ids: Vec<(&'static str, u32)>,
}

impl NamedTokens {
    fn read(checkpoint: &Checkpoint, folder: &Path, vocabulary: &Vocabulary) -> Result<Self, Error> {
        let config = optional_json(&folder.join("tokenizer_config.json"))?;
        let named = |field: &str| {
            let token = config.get(field)?;
            let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
            vocabulary.ids.get(text).copied()
        };
        let configured = |field: &str| u32::try_from(checkpoint.config.get(field)?.as_u64()?).ok();
        let cls = named("cls_token").or_else(|| vocabulary.ids.get("[CLS]").copied());
        let separator = named("sep_token").or_else(|| vocabulary.ids.get("[SEP]").copied());
        let mut ids: Vec<(&'static str, Option<u32>)> = match vocabulary.model {
            // llama.cpp takes the first of these for the one that begins a text.
            "bert" => {
                let mask = named("mask_token");
                vec![("bos", cls), ("eos", separator), ("cls", cls), ("seperator", separator), ("mask", mask)]
            }
            _ => vec![("bos", named("bos_token").or_else(|| configured("bos_token_id")))],
        };
        ids.extend([("unknown", named("unk_token")), ("padding", named("pad_token"))]);
        if vocabulary.model != "bert" {
            ids.extend(ends(checkpoint, named("eos_token"))?);
        }
        let ids: Vec<(&'static str, u32)> = ids.into_iter().filter_map(|(name, id)| Some((name, id?))).collect();
        for (name, id) in &ids {
            if *id as usize >= vocabulary.tokens.len() {
                let reason = format!("is {id}, the vocabulary has {} tokens", vocabulary.tokens.len());
                return Err(Error::config(format!("{name}_token_id"), reason));
            }
        }
        Ok(Self { ids })
    }

    fn get(&self, name: &str) -> Option<u32> {
        self.ids.iter().find(|(known, _)| *known == name).map(|(_, id)| *id)
    }
}

/// Whatever ends a sequence here is to end it there: the file has three places for such tokens.
fn ends(checkpoint: &Checkpoint, eos: Option<u32>) -> Result<Vec<(&'static str, Option<u32>)>, Error> {
    let mut ends = checkpoint.end_tokens()?;
    if let Some(eos) = eos {
        ends.retain(|id| *id != eos);
        ends.insert(0, eos);
    }
    if ends.len() > 3 {
        tracing::warn!(left_out = ?&ends[3..], "a GGUF file has room for three tokens that end a sequence");
    }
    Ok(["eos", "eot", "eom"].into_iter().zip(ends.into_iter().map(Some)).collect())
}

/// The tokens of a `tokenizer.json` by id, those that only pad the model's table included, with their types.
struct TokenTable {
    tokens: Vec<String>,
    types: Vec<i32>,
    ids: HashMap<String, u32>,
}

impl TokenTable {
    fn read(file: &Value, vocab_size: u32) -> Result<Self, String> {
        let mut ids = HashMap::new();
        for (text, id) in file["model"]["vocab"].as_object().ok_or("has no vocabulary")? {
            ids.insert(text.clone(), id_of(id)?);
        }
        let mut marked = HashMap::new();
        for token in file["added_tokens"].as_array().into_iter().flatten() {
            let text = token["content"].as_str().ok_or("has an added token without content")?;
            let kind = if token["special"] == true { token_type::CONTROL } else { token_type::USER_DEFINED };
            marked.insert(id_of(&token["id"])?, kind);
            ids.insert(text.to_owned(), id_of(&token["id"])?);
        }
        // Numbers no token has: the model's table is often longer, for the sake of its shape.
        let mut tokens: Vec<String> = (0..vocab_size).map(|id| format!("[PAD{id}]")).collect();
        let mut types = vec![token_type::UNUSED; tokens.len()];
        for (text, &id) in &ids {
            let Some(place) = tokens.get_mut(id as usize) else {
                return Err(format!("token {id} is outside the model's vocabulary of {vocab_size}"));
            };
            place.clone_from(text);
            types[id as usize] = marked.get(&id).copied().unwrap_or(token_type::NORMAL);
        }
        Ok(Self { tokens, types, ids })
    }
}

fn id_of(id: &Value) -> Result<u32, String> {
    id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| format!("{id} is no token id"))
}

/// The two tokens of a merge in either spelling, `"a b"` or `["a", "b"]`.
fn merge(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        // A token may itself begin with a space, never be empty.
        Value::String(merge) => {
            let (at, _) = merge.char_indices().skip(1).find(|(_, letter)| *letter == ' ')?;
            Some((&merge[..at], &merge[at + 1..]))
        }
        Value::Array(pair) => match &pair[..] {
            [Value::String(left), Value::String(right)] => Some((left, right)),
            _ => None,
        },
        _ => None,
    }
}

fn merges(file: &Value) -> Result<Vec<(&str, &str)>, String> {
    let merges = file["model"]["merges"].as_array().ok_or("has no merges")?;
    merges.iter().map(merge).collect::<Option<_>>().ok_or_else(|| "has a merge that is not two tokens".to_owned())
}
