//! SentencePiece's byte-pair vocabularies (`tokenizer.ggml.model` is `llama`): from a `tokenizer.model`, or from the
//! `tokenizer.json` that was made of one, where the order of the merges stands for the scores.

use std::collections::HashMap;

use serde_json::Value;

use super::{TokenTable, Vocabulary, merges, token_type};
use crate::text::SentencePieceFile;
use crate::weights::GgufValue;

/// Reads a `tokenizer.model`. Of `config`, the content of `tokenizer_config.json` or null, the added tokens are used.
pub(super) fn from_model(bytes: &[u8], config: &Value, vocab_size: u32) -> Result<Vocabulary, String> {
    let file = SentencePieceFile::read(bytes).and_then(|file| file.with_added_tokens(config));
    let file = file.map_err(|error| error.to_string())?;
    let mut table = padded(vocab_size);
    for (id, (text, score, kind)) in file.pieces.into_iter().enumerate() {
        place(&mut table, id, (text, score, kind))?;
    }
    Ok(vocabulary(table, file.adds_space))
}

/// Reads a `tokenizer.json` of BPE with a token for each byte.
pub(super) fn from_json(file: &Value, vocab_size: u32) -> Result<Vocabulary, String> {
    let TokenTable { tokens, types, .. } = TokenTable::read(file, vocab_size)?;
    let unknown = file["model"]["unk_token"].as_str();
    let mut ranks: HashMap<String, usize> = HashMap::new();
    let merges = merges(file)?;
    let last = merges.len();
    for (rank, (left, right)) in merges.into_iter().enumerate() {
        ranks.entry(format!("{left}{right}")).or_insert(rank);
    }
    let piece = |(text, kind): (String, i32)| match kind {
        _ if Some(text.as_str()) == unknown => (text, 0.0, token_type::UNKNOWN),
        token_type::NORMAL if is_byte(&text) => (text, 0.0, token_type::BYTE),
        // What no merge makes is a letter, and comes after all that one does.
        token_type::NORMAL => {
            let score = -(ranks.get(&text).copied().unwrap_or(last) as f32);
            (text, score, kind)
        }
        _ => (text, 0.0, kind),
    };
    let table = tokens.into_iter().zip(types).map(piece).collect();
    Ok(vocabulary(table, adds_space(file)))
}

/// Whether a space is put in front of a text: by the normalizer in older files, by the pre-tokenizer in newer ones.
fn adds_space(file: &Value) -> bool {
    let steps = |part: &Value, list: &str| part[list].as_array().cloned().unwrap_or_else(|| vec![part.clone()]);
    let prepends = steps(&file["normalizer"], "normalizers").iter().any(|step| step["type"] == "Prepend");
    let first = |step: &Value| step["type"] == "Metaspace" && step["prepend_scheme"] != "never";
    prepends || steps(&file["pre_tokenizer"], "pretokenizers").iter().any(first)
}

fn is_byte(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// Text, score and type.
type Piece = (String, f32, i32);

fn padded(vocab_size: u32) -> Vec<Piece> {
    (0..vocab_size).map(|id| (format!("[PAD{id}]"), 0.0, token_type::UNUSED)).collect()
}

fn place(table: &mut [Piece], id: usize, piece: Piece) -> Result<(), String> {
    let size = table.len();
    let place = table.get_mut(id).ok_or_else(|| format!("token {id} is outside the model's vocabulary of {size}"))?;
    *place = piece;
    Ok(())
}

fn vocabulary(table: Vec<Piece>, adds_space: bool) -> Vocabulary {
    let ids = table.iter().zip(0..).map(|((text, ..), id)| (text.clone(), id)).collect();
    let mut vocabulary = Vocabulary { model: "llama", pre: "default", ids, ..Vocabulary::default() };
    let mut scores = Vec::with_capacity(table.len());
    for (text, score, kind) in table {
        vocabulary.tokens.push(text);
        vocabulary.types.push(kind);
        scores.push(score);
    }
    let adds_space = ("add_space_prefix", GgufValue::Bool(adds_space));
    vocabulary.keys = vec![("scores", GgufValue::F32s(scores)), adds_space];
    vocabulary
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_order_of_merges_stands_for_scores() {
        let file = json!({
            "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]},
            "added_tokens": [{"id": 0, "content": "<unk>", "special": true}, {"id": 1, "content": "<s>", "special": true}],
            "model": {
                "type": "BPE", "byte_fallback": true, "unk_token": "<unk>",
                "vocab": {"<unk>": 0, "<s>": 1, "<0x0A>": 2, "a": 3, "b": 4, "ab": 5, "aba": 6},
                "merges": ["a b", "ab a"],
            },
        });
        let vocabulary = from_json(&file, 8).unwrap();
        assert_eq!(vocabulary.types, [2, 3, 6, 1, 1, 1, 1, 5]);
        let scores = GgufValue::F32s(vec![0.0, 0.0, 0.0, -2.0, -2.0, -0.0, -1.0, 0.0]);
        assert_eq!(vocabulary.keys, [("scores", scores), ("add_space_prefix", GgufValue::Bool(true))]);
        assert_eq!(vocabulary.tokens[7], "[PAD7]");
    }

    #[test]
    fn a_model_file_is_read_with_its_added_tokens() {
        let piece = b"\x0a\x0b\x0a\x02hi\x15\x00\x00\x80\xbf\x18\x01";
        let file = [&piece[..], b"\x12\x02\x18\x02\x1a\x04\x18\x00\x20\x00"].concat();
        let config = json!({"added_tokens_decoder": {"1": {"content": "[INST]", "special": true}}});
        let vocabulary = from_model(&file, &config, 3).unwrap();
        assert_eq!(vocabulary.tokens, ["hi", "[INST]", "[PAD2]"]);
        assert_eq!(vocabulary.types, [1, 3, 5]);
        let scores = GgufValue::F32s(vec![-1.0, 0.0, 0.0]);
        assert_eq!(vocabulary.keys, [("scores", scores), ("add_space_prefix", GgufValue::Bool(false))]);
        let error = from_model(&file, &config, 1).unwrap_err();
        assert_eq!(error, "token 1 is outside the model's vocabulary of 1");
    }
}
