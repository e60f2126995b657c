//! The vocabulary inside a real GGUF file against the reference tokenizer (`scripts/make-tokenizer-goldens`).
//!
//! `HEARTH_TEST_SMOLLM2` is the path of `SmolLM2-135M-Instruct.Q4_1.gguf`; without it the tests say so and pass.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking and says when it is skipped")]

use std::path::Path;

use hearth_engine::text::{Detokenizer, DetokenizerOptions, GgufVocabulary, SpecialTokens, Tokenizer};
use hearth_engine::weights::Gguf;

#[derive(serde::Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/smollm2-tokens.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn tokenizer() -> Option<Tokenizer> {
    let Ok(path) = std::env::var("HEARTH_TEST_SMOLLM2") else {
        eprintln!("skipped: HEARTH_TEST_SMOLLM2 does not name a SmolLM2 GGUF file");
        return None;
    };
    let gguf = Gguf::open(Path::new(&path)).unwrap();
    Some(Tokenizer::from_vocabulary(GgufVocabulary::from_metadata(gguf.metadata()).unwrap()).unwrap())
}

#[test]
fn token_ids_are_the_reference_tokenizers() {
    let Some(tokenizer) = tokenizer() else { return };
    assert_eq!(tokenizer.vocab_size(), 49152);
    let cases = cases();
    assert!(cases.len() >= 200);
    for case in cases {
        assert_eq!(tokenizer.encode(&case.text, SpecialTokens::Omit).unwrap(), case.ids, "{:?}", case.text);
    }
}

#[test]
fn every_text_comes_back() {
    let Some(tokenizer) = tokenizer() else { return };
    for case in cases() {
        let options = DetokenizerOptions { keep_special: true, ..DetokenizerOptions::default() };
        let mut detokenizer = Detokenizer::new(&tokenizer, options);
        let mut text: String = case.ids.iter().map(|id| detokenizer.push(*id)).collect();
        text.push_str(&detokenizer.finish());
        assert_eq!(text, case.text);
    }
}

#[test]
fn plain_text_cannot_steer() {
    let Some(tokenizer) = tokenizer() else { return };
    for case in cases() {
        let ids = tokenizer.encode_plain(&case.text, SpecialTokens::Omit).unwrap();
        assert!(!ids.iter().any(|id| tokenizer.is_special(*id)), "{:?} gives {ids:?}", case.text);
    }
}
