//! A folder's tokenizer and chat template as the metadata of a GGUF file (`tokenizer.*`): byte-level BPE with the ways to cut
//! text that both llama.cpp and this engine know by name.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use crate::checkpoint::{Checkpoint, optional_json, read_json, template_source};
use crate::error::Error;
use crate::text::Tokenizer;
use crate::weights::{GgufValue, GgufWriter};

/// The words of Llama 3, as its `tokenizer.json` writes them.
const LLAMA3_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// `tokenizer.ggml.token_type`.
mod token_type {
    pub const NORMAL: i32 = 1;
    pub const CONTROL: i32 = 3;
    pub const USER_DEFINED: i32 = 4;
    pub const UNUSED: i32 = 5;
}

/// A tokenizer as its `tokenizer.json` says.
struct Vocabulary {
    tokens: Vec<String>,
    types: Vec<i32>,
    merges: Vec<String>,
    pre: &'static str,
    ids: HashMap<String, u32>,
}

/// Adds the keys of the tokenizer and the template, for a model of `vocab_size` tokens.
///
/// # Errors
/// When the tokenizer is of another kind, or has more tokens than the model.
pub(super) fn describe(
    writer: &mut GgufWriter,
    checkpoint: &Checkpoint,
    folder: &Path,
    vocab_size: u32,
) -> Result<(), Error> {
    let path = folder.join("tokenizer.json");
    let vocabulary = Vocabulary::read(&read_json(&path)?, vocab_size).map_err(|reason| Error::file(&path, reason))?;
    let bos = describe_ends(writer, checkpoint, folder, &vocabulary)?;
    let tokenizer = Tokenizer::from_file(&path)?;
    let surrounding = (tokenizer.leading_tokens(), tokenizer.trailing_tokens());
    let adds_bos = match surrounding {
        ([], []) => false,
        ([first], []) if Some(*first) == bos => true,
        (leading, trailing) => {
            let reason =
                format!("puts {leading:?} before and {trailing:?} behind a text; only bos before it can be written");
            return Err(Error::file(&path, reason));
        }
    };
    let text = |text: &str| GgufValue::Text(text.to_owned());
    writer.key("tokenizer.ggml.model", text("gpt2"));
    writer.key("tokenizer.ggml.pre", text(vocabulary.pre));
    writer.key("tokenizer.ggml.tokens", GgufValue::Texts(vocabulary.tokens));
    writer.key("tokenizer.ggml.token_type", GgufValue::I32s(vocabulary.types));
    writer.key("tokenizer.ggml.merges", GgufValue::Texts(vocabulary.merges));
    writer.key("tokenizer.ggml.add_bos_token", GgufValue::Bool(adds_bos));
    if let Some(template) = template_source(folder)? {
        writer.key("tokenizer.chat_template", GgufValue::Text(template));
    }
    Ok(())
}

/// Adds the tokens that begin and end sequences, and gives the first.
fn describe_ends(
    writer: &mut GgufWriter,
    checkpoint: &Checkpoint,
    folder: &Path,
    vocabulary: &Vocabulary,
) -> Result<Option<u32>, Error> {
    let config = optional_json(&folder.join("tokenizer_config.json"))?;
    let named = |field: &str| {
        let token = config.get(field)?;
        let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
        vocabulary.ids.get(text).copied()
    };
    let configured = |field: &str| u32::try_from(checkpoint.config.get(field)?.as_u64()?).ok();
    let bos = named("bos_token").or_else(|| configured("bos_token_id"));
    // Whatever ends a sequence here is to end it there: the file has three places for such tokens.
    let mut ends = checkpoint.end_tokens()?;
    if let Some(eos) = named("eos_token") {
        ends.retain(|id| *id != eos);
        ends.insert(0, eos);
    }
    if ends.len() > 3 {
        tracing::warn!(left_out = ?&ends[3..], "a GGUF file has room for three tokens that end a sequence");
    }
    let ends = ["eos", "eot", "eom"].into_iter().zip(ends);
    let others = [("bos", bos), ("unknown", named("unk_token")), ("padding", named("pad_token"))];
    for (name, id) in others.into_iter().filter_map(|(name, id)| Some((name, id?))).chain(ends) {
        if id as usize >= vocabulary.tokens.len() {
            let reason = format!("is {id}, the vocabulary has {} tokens", vocabulary.tokens.len());
            return Err(Error::config(format!("{name}_token_id"), reason));
        }
        writer.key(format!("tokenizer.ggml.{name}_token_id"), GgufValue::U32(id));
    }
    Ok(bos)
}

impl Vocabulary {
    fn read(file: &Value, vocab_size: u32) -> Result<Self, String> {
        let model = &file["model"];
        if model["type"] != "BPE" || file["decoder"]["type"] != "ByteLevel" || !file["normalizer"].is_null() {
            return Err("is not plain byte-level BPE, the only kind that can be written to a GGUF file".to_owned());
        }
        let pre = words(&file["pre_tokenizer"], model["ignore_merges"] == true)?;
        let mut ids = HashMap::new();
        for (text, id) in model["vocab"].as_object().ok_or("has no vocabulary")? {
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
        let merges = model["merges"].as_array().ok_or("has no merges")?.iter().map(merge).collect::<Option<_>>();
        Ok(Self { tokens, types, merges: merges.ok_or("has a merge that is not two tokens")?, pre, ids })
    }
}

fn id_of(id: &Value) -> Result<u32, String> {
    id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| format!("{id} is no token id"))
}

/// A merge in either spelling, `"a b"` or `["a", "b"]`.
fn merge(merge: &Value) -> Option<String> {
    match merge {
        Value::String(merge) => Some(merge.clone()),
        Value::Array(pair) => match &pair[..] {
            [Value::String(left), Value::String(right)] => Some(format!("{left} {right}")),
            _ => None,
        },
        _ => None,
    }
}

/// The name llama.cpp has for this way to cut text into words.
fn words(pre_tokenizer: &Value, ignore_merges: bool) -> Result<&'static str, String> {
    let steps = match pre_tokenizer["type"].as_str() {
        Some("Sequence") => pre_tokenizer["pretokenizers"].as_array().map(Vec::as_slice).unwrap_or_default(),
        _ => std::slice::from_ref(pre_tokenizer),
    };
    let bytes = |step: &Value, regex: bool| {
        step["type"] == "ByteLevel" && step["add_prefix_space"] == false && step["use_regex"] == regex
    };
    match steps {
        [only] if bytes(only, true) && !ignore_merges => Ok("gpt-2"),
        [digits, last] if digits["type"] == "Digits" && digits["individual_digits"] == true && bytes(last, true) => {
            Ok("smollm")
        }
        [split, last] if split["pattern"]["Regex"] == LLAMA3_WORDS && bytes(last, false) && ignore_merges => {
            Ok("llama-bpe")
        }
        _ => {
            Err("cuts text into words in a way that has no name in GGUF files; those of Llama 3, SmolLM and GPT-2 have"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ways_to_cut_text_have_names() {
        let bytes = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": regex});
        let sequence = |first: Value, last: Value| json!({"type": "Sequence", "pretokenizers": [first, last]});
        let digits = json!({"type": "Digits", "individual_digits": true});
        let split =
            json!({"type": "Split", "pattern": {"Regex": LLAMA3_WORDS}, "behavior": "Isolated", "invert": false});
        assert_eq!(words(&bytes(true), false).unwrap(), "gpt-2");
        assert_eq!(words(&sequence(digits.clone(), bytes(true)), false).unwrap(), "smollm");
        assert_eq!(words(&sequence(split.clone(), bytes(false)), true).unwrap(), "llama-bpe");
        assert!(words(&sequence(split, bytes(true)), true).unwrap_err().contains("no name in GGUF files"));
        assert!(words(&Value::Null, false).is_err());
    }

    #[test]
    fn numbers_without_a_token_are_filled() {
        let file = json!({
            "normalizer": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
            "decoder": {"type": "ByteLevel"},
            "added_tokens": [{"id": 0, "content": "<s>", "special": true}, {"id": 4, "content": "[x]", "special": false}],
            "model": {"type": "BPE", "vocab": {"<s>": 0, "a": 1, "b": 2, "ab": 3}, "merges": [["a", "b"]]},
        });
        let vocabulary = Vocabulary::read(&file, 6).unwrap();
        assert_eq!(vocabulary.tokens, ["<s>", "a", "b", "ab", "[x]", "[PAD5]"]);
        assert_eq!(vocabulary.types, [3, 1, 1, 1, 4, 5]);
        assert_eq!(vocabulary.merges, ["a b"]);
        let error = Vocabulary::read(&file, 4).err().unwrap();
        assert_eq!(error, "token 4 is outside the model's vocabulary of 4");
        let unigram = json!({"model": {"type": "Unigram"}});
        assert!(Vocabulary::read(&unigram, 4).err().unwrap().contains("byte-level BPE"));
    }
}
