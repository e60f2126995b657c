//! Byte-level byte-pair vocabularies (`tokenizer.ggml.model` is `gpt2`).
//!
//! Owns how each `tokenizer.ggml.pre` cuts text into words.

use std::collections::HashSet;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

use super::{GgufVocabulary, broken};
use crate::text::TextError;
use crate::text::pipeline::{Pipeline, TokenizerParts};
use crate::text::token_table::Decoding;

/// GPT-2's words. Source: <https://github.com/openai/gpt-2/blob/master/src/encoder.py>
const GPT2_WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Llama 3's words, those of tiktoken's `cl100k_base` but for the bounds on repetition. DBRX's are the same.
pub(in crate::text) const LLAMA3_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How one `tokenizer.ggml.pre` cuts text.
struct WordRule {
    pre_tokenizer: PreTokenizerWrapper,
    /// A word that is a token is that token, whatever the merges say.
    ignore_merges: bool,
    /// What a missing `add_bos_token` means.
    adds_bos: bool,
}

impl GgufVocabulary {
    pub(super) fn build_byte_pair(self) -> Result<TokenizerParts, TextError> {
        let rule = word_rule(&self.pre)?;
        let (leading, trailing) = self.surroundings(rule.adds_bos)?;
        let model = BPE::builder()
            .vocab_and_merges(
                (0u32..).zip(&self.tokens).map(|(id, text)| (text.clone(), id)).collect::<Vocab>(),
                self.split_merges()?,
            )
            .ignore_merges(rule.ignore_merges)
            .build()
            .map_err(broken)?;
        let mut library = tokenizers::Tokenizer::new(model);
        library.with_pre_tokenizer(Some(rule.pre_tokenizer));
        let (tokens, added) = self.tokens();
        library.add_tokens(added).map_err(broken)?;
        Ok(TokenizerParts {
            pipeline: Pipeline::library(library),
            tokens,
            decoding: Decoding::BYTE_LEVEL,
            leading,
            trailing,
            pair: None,
        })
    }

    /// The merges as pairs of tokens, each known to make a token.
    fn split_merges(&self) -> Result<Vec<(String, String)>, TextError> {
        let known: HashSet<&str> = self.tokens.iter().map(String::as_str).collect();
        let pair = |(rank, merge): (usize, &String)| {
            // A token may itself begin with a space, never be empty.
            let space = merge.char_indices().skip(1).find(|(_, character)| *character == ' ');
            let (left, right) = space.map(|(at, _)| (&merge[..at], &merge[at + 1..])).unwrap_or_default();
            let whole = format!("{left}{right}");
            if [left, right, &whole].iter().all(|token| known.contains(token)) && !right.is_empty() {
                Ok((left.to_owned(), right.to_owned()))
            } else {
                Err(broken(format!("merge {rank} ({merge:?}) does not name two tokens that make a third")))
            }
        };
        self.merges.iter().enumerate().map(pair).collect()
    }
}

fn word_rule(pre: &str) -> Result<WordRule, TextError> {
    let is_llama3 = matches!(pre, "llama-bpe" | "llama3" | "llama-v3");
    let steps = match pre {
        "smollm" => vec![Digits::new(true).into(), pattern(GPT2_WORDS)?],
        "gpt-2" | "gpt2" => vec![pattern(GPT2_WORDS)?],
        "dbrx" => vec![pattern(LLAMA3_WORDS)?],
        _ if is_llama3 => vec![pattern(LLAMA3_WORDS)?],
        // What llama.cpp does for files that do not say: not exactly any known model's rule.
        "default" => {
            let steps = [r"[\p{P}\$\+<=>\^~\|]+", GPT2_WORDS, r"\p{N}+", "[0-9][0-9][0-9]"];
            steps.into_iter().map(pattern).collect::<Result<_, _>>()?
        }
        _ => {
            return Err(TextError::UnsupportedVocabulary {
                field: "tokenizer.ggml.pre",
                value: pre.to_owned(),
                supported: "smollm, llama-bpe, dbrx, gpt-2, default",
            });
        }
    };
    Ok(WordRule { pre_tokenizer: byte_level_after(steps), ignore_merges: is_llama3, adds_bos: is_llama3 })
}

/// Cuts a text where a regular expression says, and writes its bytes in GPT-2's alphabet.
pub(in crate::text) fn word_splitter(regex: &str) -> Result<PreTokenizerWrapper, TextError> {
    Ok(byte_level_after(vec![pattern(regex)?]))
}

fn byte_level_after(steps: Vec<PreTokenizerWrapper>) -> PreTokenizerWrapper {
    let bytes = PreTokenizerWrapper::from(ByteLevel::new(false, true, false));
    Sequence::new(steps.into_iter().chain([bytes]).collect()).into()
}

fn pattern(regex: &str) -> Result<PreTokenizerWrapper, TextError> {
    let pattern = SplitPattern::Regex(regex.to_owned());
    Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map(Into::into).map_err(TextError::tokenizer)
}
