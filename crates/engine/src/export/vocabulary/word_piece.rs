//! BERT's WordPiece. GGUF files mark the beginning of a word with `▁` instead of its continuation with `##`.

use serde_json::Value;

use super::{TokenTable, Vocabulary, token_type};
use crate::weights::GgufValue;

/// Reads a `tokenizer.json`.
pub(super) fn read(file: &Value, vocab_size: u32) -> Result<Vocabulary, String> {
    let (normalizer, model) = (&file["normalizer"], &file["model"]);
    if normalizer["type"] != "BertNormalizer" || file["pre_tokenizer"]["type"] != "BertPreTokenizer" {
        return Err("is WordPiece, but does not cut text as BERT does, and cannot be written to a GGUF file".to_owned());
    }
    if model["continuing_subword_prefix"] != "##" {
        return Err(format!(
            "marks what continues a word with {}; ## is supported",
            model["continuing_subword_prefix"]
        ));
    }
    let TokenTable { tokens, types, ids } = TokenTable::read(file, vocab_size)?;
    let spelt = |(text, kind): (String, &i32)| match text.strip_prefix("##") {
        _ if matches!(*kind, token_type::CONTROL | token_type::UNUSED) => text,
        Some(continuation) => continuation.to_owned(),
        None => format!("▁{text}"),
    };
    let tokens = tokens.into_iter().zip(&types).map(spelt).collect();
    let flag = |name: &str| normalizer[name].as_bool().map(GgufValue::Bool);
    let keys = [("normalizer.lowercase", flag("lowercase")), ("normalizer.strip_accents", flag("strip_accents"))];
    let keys = keys.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    Ok(Vocabulary { model: "bert", pre: "default", tokens, types, keys, ids })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_are_marked_where_they_begin() {
        let mut file = json!({
            "normalizer": {"type": "BertNormalizer", "lowercase": false, "strip_accents": null},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "added_tokens": [{"id": 0, "content": "[CLS]", "special": true}],
            "model": {
                "type": "WordPiece", "continuing_subword_prefix": "##",
                "vocab": {"[CLS]": 0, "rain": 1, "##ing": 2, "[unused1]": 3},
            },
        });
        let vocabulary = read(&file, 5).unwrap();
        assert_eq!(vocabulary.tokens, ["[CLS]", "▁rain", "ing", "▁[unused1]", "[PAD4]"]);
        assert_eq!(vocabulary.types, [3, 1, 1, 1, 5]);
        assert_eq!(vocabulary.keys, [("normalizer.lowercase", GgufValue::Bool(false))]);
        file["pre_tokenizer"]["type"] = json!("Whitespace");
        assert!(read(&file, 5).unwrap_err().contains("as BERT does"));
    }
}
