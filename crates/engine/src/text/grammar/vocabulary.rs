//! A model's vocabulary as the grammar library reads it: a tree of the tokens' bytes.
//!
//! Owns which tokens a grammar may speak of, and as what. Knows no grammar.

use std::sync::Arc;

use llguidance::ParserFactory;
use llguidance::toktrie::{ApproximateTokEnv, INVALID_TOKEN, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};

use super::super::Tokenizer;
use super::GrammarError;
use super::limits;

/// Begins the bytes of a token that is no text. No text has this byte.
const MARKER: u8 = TokTrie::SPECIAL_TOKEN_MARKER;
/// Longest token that a grammar may use, in bytes; the tree cannot be deeper than 1,024.
const LONGEST_TOKEN: usize = 512;
/// Ids that the tree has room for.
const HIGHEST_VOCABULARY: usize = 1 << 24;

/// What compiles grammars over this vocabulary. Takes some hundred milliseconds for a large one.
pub(super) fn factory(tokenizer: &Tokenizer, end_tokens: &[u32]) -> Result<ParserFactory, GrammarError> {
    let size = tokenizer.vocab_size();
    if size == 0 || size > HIGHEST_VOCABULARY {
        let bound = format!("between 1 and {HIGHEST_VOCABULARY} tokens for grammars, not {size}");
        return Err(GrammarError::Vocabulary(format!("the vocabulary must have {bound}")));
    }
    let words: Vec<Vec<u8>> = (0..size as u32).map(|id| word(tokenizer, id, end_tokens.contains(&id))).collect();
    let trie = TokTrie::from(&TokRxInfo::new(size as u32, INVALID_TOKEN), &words);
    let known: Vec<u32> = end_tokens.iter().copied().filter(|id| (*id as usize) < size).collect();
    let trie = if known.is_empty() { trie } else { trie.with_eos_tokens(&known) };
    // Texts are never cut into tokens here: which of several spellings comes next is the model's to choose.
    let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let slices = llguidance::earley::SlicedBiasComputer::general_slices();
    let factory = ParserFactory::new(&environment, InferenceCapabilities::default(), &slices);
    let mut factory = factory.map_err(|error| GrammarError::Vocabulary(error.to_string()))?;
    factory.quiet();
    *factory.limits_mut() = limits();
    Ok(factory)
}

/// The bytes of a token: marked if it is special, none if it can be no part of a text.
fn word(tokenizer: &Tokenizer, id: u32, is_end: bool) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(id).unwrap_or_default();
    if bytes.len() > LONGEST_TOKEN {
        return Vec::new();
    }
    if is_end || tokenizer.is_special(id) {
        return [&[MARKER], bytes].concat();
    }
    if bytes.first() == Some(&MARKER) { Vec::new() } else { bytes.to_vec() }
}
