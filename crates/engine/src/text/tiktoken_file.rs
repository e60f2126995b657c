//! tiktoken's vocabulary file, which Llama 3 calls `tokenizer.model` too: on each line the base64 of a token's bytes and
//! its rank, which is its id.
//!
//! The file has neither the words' rule nor the special tokens: both are Llama 3's here, no other model has such a file.
//! Source: `llama3/tokenizer.py` of <https://github.com/meta-llama/llama-models>.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokenizers::models::bpe::{BPE, Vocab};

use super::TextError;
use super::gguf_vocabulary::{LLAMA3_WORDS, added_tokens, word_splitter};
use super::pipeline::{Pipeline, TokenizerParts};
use super::ranked_merges::{Piece, RankedMerges, Unknown};
use super::token_table::{Decoding, Token, byte_alphabet};

/// Special tokens of Llama 3.
const SPECIAL_TOKENS: u32 = 256;

/// Those with a name, by their number behind the ranked tokens. `finetune_right_pad_id`, `eom_id` and `python_tag` came
/// with Llama 3.1; Llama 3 has reserved tokens in their places.
const NAMED: [(u32, &str); 8] = [
    (0, "begin_of_text"),
    (1, "end_of_text"),
    (4, "finetune_right_pad_id"),
    (6, "start_header_id"),
    (7, "end_header_id"),
    (8, "eom_id"),
    (9, "eot_id"),
    (10, "python_tag"),
];

/// Whether this is such a file.
pub(super) fn is_tiktoken(bytes: &[u8]) -> bool {
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    std::str::from_utf8(first).is_ok_and(|line| read_line(line.trim_end()).is_some())
}

/// Makes Llama 3's tokenizer of the content of the file.
///
/// # Errors
/// [`TextError::Tokenizer`] when a line is broken, or the ranks are not 0, 1, 2, ....
pub(super) fn read(bytes: &[u8]) -> Result<TokenizerParts, TextError> {
    let ranked = read_ranked(bytes)?;
    let count = ranked.len() as u32;
    let special = (0..SPECIAL_TOKENS).map(|number| (count + number, special_token(number)));
    let ordinary =
        (0..).zip(&ranked).map(|(id, text)| (id, Token { text: text.clone(), added: false, special: false }));
    let tokens: Vec<(u32, Token)> = ordinary.chain(special).collect();
    let vocabulary: Vocab = tokens.iter().map(|(id, token)| (token.text.clone(), *id)).collect();
    // The library's model only tells the ids of the added tokens; what lies between them is cut by our own.
    let names = BPE::builder().vocab_and_merges(vocabulary, Vec::new()).build().map_err(TextError::tokenizer)?;
    let mut library = tokenizers::Tokenizer::new(names);
    library.with_pre_tokenizer(Some(word_splitter(LLAMA3_WORDS)?));
    library.add_tokens(added_tokens(&tokens)).map_err(TextError::tokenizer)?;
    // Ranks are far below 2^24, so f32 tells them apart.
    let pieces = (0..).zip(ranked).map(|(id, text)| (text.into(), Piece { id, score: -(id as f32) }));
    let pieces: HashMap<Box<str>, Piece> = pieces.collect();
    let merges = RankedMerges::new(pieces, Unknown::Token(0)).whole_first();
    Ok(TokenizerParts {
        pipeline: Pipeline::ranked(library, merges),
        tokens,
        decoding: Decoding::BYTE_LEVEL,
        leading: vec![count],
        trailing: Vec::new(),
        pair: None,
    })
}

/// The tokens in GPT-2's alphabet, by rank. Every byte is one of them, so that any text can be spelt.
fn read_ranked(bytes: &[u8]) -> Result<Vec<String>, TextError> {
    let mut characters: Vec<(u8, char)> = byte_alphabet().into_iter().map(|(text, byte)| (byte, text)).collect();
    characters.sort_unstable();
    let text = std::str::from_utf8(bytes).map_err(|_| refuse("it is not UTF-8"))?;
    let mut tokens = Vec::new();
    let mut found = [false; 256];
    for (line, number) in text.lines().zip(1..) {
        let (token, rank) = read_line(line).ok_or_else(|| refuse(format!("line {number} is not base64 and a rank")))?;
        if rank != tokens.len() || rank >= 1 << 24 {
            return Err(refuse(format!("line {number} has the rank {rank}, not {}", tokens.len())));
        }
        if let [byte] = token[..] {
            found[usize::from(byte)] = true;
        }
        tokens.push(token.iter().map(|byte| characters[usize::from(*byte)].1).collect());
    }
    match found.iter().position(|found| !found) {
        Some(byte) => Err(refuse(format!("there is no token for the byte {byte}"))),
        None => Ok(tokens),
    }
}

fn read_line(line: &str) -> Option<(Vec<u8>, usize)> {
    let (token, rank) = line.split_once(' ')?;
    let token = STANDARD.decode(token).ok().filter(|token| !token.is_empty())?;
    Some((token, rank.parse().ok()?))
}

fn special_token(number: u32) -> Token {
    let name = NAMED.iter().find(|(named, _)| *named == number);
    let text = match name {
        Some((_, name)) => format!("<|{name}|>"),
        None => {
            let reserved = number - NAMED.iter().filter(|(named, _)| *named < number).count() as u32;
            format!("<|reserved_special_token_{reserved}|>")
        }
    };
    Token { text, added: true, special: true }
}

fn refuse(message: impl std::fmt::Display) -> TextError {
    TextError::Tokenizer { message: format!("tokenizer.model: {message}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{SpecialTokens, Tokenizer};

    /// Every byte, then what a few merges make.
    fn file() -> String {
        let merged: [&[u8]; 5] = [b"he", b"ll", b"hell", b"hello", b" hello"];
        let tokens = (0..=u8::MAX).map(|byte| vec![byte]).chain(merged.map(<[u8]>::to_vec));
        tokens.enumerate().map(|(rank, token)| format!("{} {rank}\n", STANDARD.encode(token))).collect()
    }

    #[test]
    fn the_file_makes_llama_3s_tokenizer() {
        assert!(is_tiktoken(file().as_bytes()) && !is_tiktoken(b"\n\x0e\n\x05<unk>") && !is_tiktoken(b"aGk="));
        let tokenizer = Tokenizer::assemble(read(file().as_bytes()).unwrap()).unwrap();
        let ids = tokenizer.encode("hello hello<|eot_id|>é", SpecialTokens::Add).unwrap();
        assert_eq!(ids, [261, 259, 260, 270, 0xC3, 0xA9]);
        assert_eq!(tokenizer.vocab_size(), 261 + 256);
        for (number, text) in
            [(2, "reserved_special_token_0"), (5, "reserved_special_token_2"), (255, "reserved_special_token_247")]
        {
            assert_eq!(tokenizer.token_text(261 + number), Some(format!("<|{text}|>").as_str()));
        }
        assert_eq!(tokenizer.encode_plain("<|eot_id|>", SpecialTokens::Omit).unwrap().len(), 10);
    }

    #[test]
    fn a_broken_file_names_the_line() {
        for (spoilt, expected) in [
            (file().replacen("aGU= 256", "aGU= 999", 1), "line 257 has the rank 999, not 256"),
            (file().replacen("aGU= 256", "!!! 256", 1), "line 257 is not base64 and a rank"),
            ("aGU= 0\n".to_owned(), "no token for the byte 0"),
        ] {
            let error = read(spoilt.as_bytes()).err().unwrap().to_string();
            assert!(error.contains(expected), "{error} should say {expected}");
        }
    }
}
