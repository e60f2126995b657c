//! Byte-level BPE with the ways to cut text that both llama.cpp and this engine know by name.

use serde_json::Value;

use super::{TokenTable, Vocabulary, merges};
use crate::weights::GgufValue;

/// The words of Llama 3 and DBRX, as their `tokenizer.json` writes them.
const LLAMA3_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Reads a `tokenizer.json`.
pub(super) fn read(file: &Value, vocab_size: u32) -> Result<Vocabulary, String> {
    if file["decoder"]["type"] != "ByteLevel" || !file["normalizer"].is_null() {
        return Err("is BPE, but not plain byte-level BPE, and cannot be written to a GGUF file".to_owned());
    }
    let pre = words(&file["pre_tokenizer"], file["model"]["ignore_merges"] == true)?;
    let TokenTable { tokens, types, ids } = TokenTable::read(file, vocab_size)?;
    let merges = merges(file)?.into_iter().map(|(left, right)| format!("{left} {right}")).collect();
    let keys = vec![("merges", GgufValue::Texts(merges))];
    Ok(Vocabulary { model: "gpt2", pre, tokens, types, keys, ids })
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
        [split, last] if split["pattern"]["Regex"] == LLAMA3_WORDS && bytes(last, false) => {
            Ok(if ignore_merges { "llama-bpe" } else { "dbrx" })
        }
        _ => Err("cuts text into words in a way that has no name in GGUF files; those of Llama 3, DBRX, SmolLM and GPT-2 have"
            .to_owned()),
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
        assert_eq!(words(&sequence(split.clone(), bytes(false)), false).unwrap(), "dbrx");
        assert!(words(&sequence(split, bytes(true)), true).unwrap_err().contains("no name in GGUF files"));
        assert!(words(&Value::Null, false).is_err());
    }

    #[test]
    fn ids_without_a_token_are_padded() {
        let file = json!({
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
            "decoder": {"type": "ByteLevel"},
            "added_tokens": [{"id": 0, "content": "<s>", "special": true}, {"id": 4, "content": "[x]", "special": false}],
            "model": {"type": "BPE", "vocab": {"<s>": 0, "a": 1, "b": 2, "ab": 3}, "merges": [["a", "b"]]},
        });
        let vocabulary = read(&file, 6).unwrap();
        assert_eq!(vocabulary.tokens, ["<s>", "a", "b", "ab", "[x]", "[PAD5]"]);
        assert_eq!(vocabulary.types, [3, 1, 1, 1, 4, 5]);
        assert_eq!(vocabulary.keys, [("merges", GgufValue::Texts(vec!["a b".to_owned()]))]);
        let error = read(&file, 4).unwrap_err();
        assert_eq!(error, "token 4 is outside the model's vocabulary of 4");
        let mut spaced = file;
        spaced["normalizer"] = json!({"type": "NFC"});
        assert!(read(&spaced, 6).unwrap_err().contains("not plain byte-level BPE"));
    }
}
