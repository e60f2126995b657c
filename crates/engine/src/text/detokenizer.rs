//! Tokens to text, one token at a time, never cutting a character in two.
//!
//! Owns the bytes of an unfinished character. Does not know stop strings or who reads the text.

use super::Tokenizer;

/// How a stream of tokens is written as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DetokenizerOptions {
    /// Write special tokens as their text; otherwise they are skipped.
    pub keep_special: bool,
    /// Special tokens that are written in any case.
    pub kept: Vec<u32>,
    /// The tokens go on from other text, so a space in front of the first one is part of it. Otherwise vocabularies
    /// that put a space in front of every word lose the first one, as their reference decoder does.
    pub continues_text: bool,
}

/// Turns tokens into text as they come.
///
/// The pieces joined are exactly [`String::from_utf8_lossy`] of all tokens' bytes: bytes that may still become a
/// character are held back, bytes that no longer can become U+FFFD.
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    options: DetokenizerOptions,
    /// At most three bytes between calls: the start of a character.
    pending: Vec<u8>,
    /// No visible token has come yet, and the first one loses its leading space.
    strip_space: bool,
}

impl Detokenizer {
    /// A detokenizer at the start of a text.
    #[must_use]
    pub fn new(tokenizer: &Tokenizer, options: DetokenizerOptions) -> Self {
        let strip_space = tokenizer.strips_first_space() && !options.continues_text;
        Self { tokenizer: tokenizer.clone(), options, pending: Vec::new(), strip_space }
    }

    /// The text this token completes; empty while a character is unfinished. An unknown id adds nothing.
    pub fn push(&mut self, token: u32) -> String {
        let kept = self.options.keep_special || self.options.kept.contains(&token);
        if !kept && self.tokenizer.is_special(token) {
            return String::new();
        }
        let bytes = self.tokenizer.token_bytes(token).unwrap_or_default();
        if bytes.is_empty() {
            return String::new();
        }
        let bytes = if self.strip_space { bytes.strip_prefix(b" ").unwrap_or(bytes) } else { bytes };
        self.strip_space = false;
        self.pending.extend_from_slice(bytes);
        take_completed(&mut self.pending)
    }

    /// The end of the text: an unfinished character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let rest = std::mem::take(&mut self.pending);
        String::from_utf8_lossy(&rest).into_owned()
    }
}

/// Takes everything out of `pending` but the start of a character at its end.
fn take_completed(pending: &mut Vec<u8>) -> String {
    let mut text = String::with_capacity(pending.len());
    let mut done = 0;
    for chunk in pending.utf8_chunks() {
        let broken = chunk.invalid();
        let last = done + chunk.valid().len() + broken.len() == pending.len();
        text.push_str(chunk.valid());
        done += chunk.valid().len();
        if last && is_unfinished(broken) {
            break;
        }
        if !broken.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
            done += broken.len();
        }
    }
    pending.drain(..done);
    text
}

/// Whether more bytes could make these a character.
fn is_unfinished(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::gguf_vocabulary::tests::byte_vocabulary;
    use proptest::prelude::*;

    fn tokenizer() -> Tokenizer {
        Tokenizer::from_vocabulary(byte_vocabulary("gpt-2")).unwrap()
    }

    fn id_of_byte(tokenizer: &Tokenizer, byte: u8) -> u32 {
        (0..tokenizer.vocab_size() as u32)
            .find(|id| !tokenizer.is_special(*id) && tokenizer.token_bytes(*id) == Some(&[byte]))
            .unwrap()
    }

    #[test]
    fn a_character_comes_whole() {
        let tokenizer = tokenizer();
        let mut detokenizer = Detokenizer::new(&tokenizer, DetokenizerOptions::default());
        let pieces: Vec<String> = "é€😀".bytes().map(|byte| detokenizer.push(id_of_byte(&tokenizer, byte))).collect();
        assert_eq!(pieces, ["", "é", "", "", "€", "", "", "", "😀"]);
        assert_eq!(detokenizer.finish(), "");
    }

    #[test]
    fn a_character_that_never_ends_is_replaced_once() {
        let tokenizer = tokenizer();
        let mut detokenizer = Detokenizer::new(&tokenizer, DetokenizerOptions::default());
        assert_eq!(detokenizer.push(id_of_byte(&tokenizer, 0xE2)), "");
        assert_eq!(detokenizer.push(id_of_byte(&tokenizer, 0x82)), "");
        assert_eq!(detokenizer.push(id_of_byte(&tokenizer, b'a')), "\u{FFFD}a");
        assert_eq!(detokenizer.push(id_of_byte(&tokenizer, 0xF0)), "");
        assert_eq!(detokenizer.finish(), "\u{FFFD}");
    }

    #[test]
    fn special_tokens_are_skipped_unless_kept() {
        let tokenizer = tokenizer();
        let bos = tokenizer.id_of("<s>").unwrap();
        let mut skipping = Detokenizer::new(&tokenizer, DetokenizerOptions::default());
        let mut keeping =
            Detokenizer::new(&tokenizer, DetokenizerOptions { keep_special: true, ..DetokenizerOptions::default() });
        let one = DetokenizerOptions { kept: vec![bos], ..DetokenizerOptions::default() };
        let mut keeping_one = Detokenizer::new(&tokenizer, one);
        assert_eq!((skipping.push(bos), keeping.push(bos)), (String::new(), "<s>".to_owned()));
        assert_eq!((keeping_one.push(bos), keeping_one.push(bos + 1)), ("<s>".to_owned(), String::new()));
        assert_eq!(skipping.push(u32::MAX), "");
    }

    proptest! {
        #[test]
        fn pieces_join_to_the_lossy_text(bytes in prop::collection::vec(
            prop_oneof![any::<u8>(), prop::sample::select(vec![0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x98, 0x80, 0xED, 0xC3])],
            0..40,
        )) {
            let mut pending = Vec::new();
            let mut joined = String::new();
            for piece in bytes.chunks(3) {
                pending.extend_from_slice(piece);
                joined.push_str(&take_completed(&mut pending));
                prop_assert!(pending.len() <= 3);
            }
            joined.push_str(&String::from_utf8_lossy(&pending));
            prop_assert_eq!(joined, String::from_utf8_lossy(&bytes).into_owned());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn tokens_join_to_the_lossy_text(ids in prop::collection::vec(0u32..400, 0..60)) {
            let tokenizer = tokenizer();
            let mut detokenizer = Detokenizer::new(&tokenizer, DetokenizerOptions::default());
            let mut joined: String = ids.iter().map(|id| detokenizer.push(*id)).collect();
            joined.push_str(&detokenizer.finish());
            let bytes: Vec<u8> = ids.iter()
                .filter(|id| !tokenizer.is_special(**id))
                .flat_map(|id| tokenizer.token_bytes(*id).unwrap_or_default().to_vec())
                .collect();
            prop_assert_eq!(joined, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}
