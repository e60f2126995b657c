//! SentencePiece's byte-pair vocabularies, from a GGUF file (`tokenizer.ggml.model` is `llama`) or a `tokenizer.model`.
//!
//! Owns how spaces become `▁` and what may be merged. The merging is [`RankedMerges`]'s.

use std::collections::HashMap;

use tokenizers::NormalizerWrapper;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{Prepend, Replace, Sequence};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};

use super::{GgufVocabulary, added_tokens, broken, token_type};
use crate::text::TextError;
use crate::text::pipeline::{Pipeline, TokenizerParts};
use crate::text::ranked_merges::{Piece, RankedMerges, Unknown};
use crate::text::token_table::{Decoding, Token, TokenSpelling, byte_token};

/// Where a space is put that the text does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::text) enum SpacePrefix {
    /// Nowhere.
    Never,
    /// In front of the text, and again after each special token.
    EveryPart,
    /// In front of a text that begins with neither a space nor a special token.
    First,
}

/// A SentencePiece vocabulary: what a tokenizer is made of, wherever it came from.
pub(in crate::text) struct SentencePieces {
    /// Text, score and type ([`token_type`]), by id.
    pub pieces: Vec<(String, f32, i32)>,
    /// Stands for what cannot be spelt; used only where there is not a token for each byte.
    pub unknown: Option<u32>,
    pub prefix: SpacePrefix,
    pub leading: Vec<u32>,
    pub trailing: Vec<u32>,
}

impl GgufVocabulary {
    pub(super) fn build_sentence_piece(mut self) -> Result<TokenizerParts, TextError> {
        let (unknown, bos, eos) = (self.special.unknown.or(Some(0)), Some(1), Some(2));
        self.special.unknown = unknown;
        self.special.bos = self.special.bos.or(bos);
        self.special.eos = self.special.eos.or(eos);
        self.check()?;
        if self.scores.is_empty() {
            return Err(broken("a vocabulary of the kind `llama` needs scores, and there are none"));
        }
        let (leading, trailing) = self.surroundings(true)?;
        let prefix = match self.add_space_prefix.unwrap_or(true) {
            true => SpacePrefix::EveryPart,
            false => SpacePrefix::Never,
        };
        let kind = |id: u32| match self.token_type(id) {
            Some(kind) => kind,
            None if self.is_special(id) => token_type::CONTROL,
            None => token_type::NORMAL,
        };
        let kinds: Vec<i32> = (0..self.tokens.len() as u32).map(kind).collect();
        let texts = self.tokens.into_iter().zip(self.scores).zip(kinds);
        let pieces = texts.map(|((text, score), kind)| (text, score, kind)).collect();
        SentencePieces { pieces, unknown, prefix, leading, trailing }.build()
    }
}

impl SentencePieces {
    /// Makes a tokenizer of it.
    pub fn build(self) -> Result<TokenizerParts, TextError> {
        let merges = self.merges()?;
        let strip_first_space = self.prefix != SpacePrefix::Never;
        let tokens: Vec<(u32, Token)> =
            (0u32..).zip(self.pieces).map(|(id, (text, _, kind))| (id, token(text, kind))).collect();
        let vocabulary: Vocab = tokens.iter().map(|(id, token)| (token.text.clone(), *id)).collect();
        // The library's model only tells the ids of the added tokens; what lies between them is cut by our own.
        let names = BPE::builder().vocab_and_merges(vocabulary, Vec::new()).build().map_err(broken)?;
        let mut library = tokenizers::Tokenizer::new(names);
        match self.prefix {
            SpacePrefix::First => {
                library.with_pre_tokenizer(Some(Metaspace::new('▁', PrependScheme::First, false)));
            }
            SpacePrefix::EveryPart => {
                let steps = vec![Prepend::new("▁".to_owned()).into(), spaces()?];
                library.with_normalizer(Some(Sequence::new(steps))).map_err(broken)?;
            }
            SpacePrefix::Never => {
                library.with_normalizer(Some(spaces()?)).map_err(broken)?;
            }
        }
        library.add_tokens(added_tokens(&tokens)).map_err(broken)?;
        let spelling = TokenSpelling::Metaspace { byte_tokens: true };
        Ok(TokenizerParts {
            pipeline: Pipeline::ranked(library, merges),
            tokens,
            decoding: Decoding { spelling, strip_first_space },
            leading: self.leading,
            trailing: self.trailing,
            pair: None,
        })
    }

    fn merges(&self) -> Result<RankedMerges, TextError> {
        let mut pieces = HashMap::with_capacity(self.pieces.len());
        let mut bytes = [None; 256];
        for (id, (text, score, kind)) in (0u32..).zip(&self.pieces) {
            if score.is_nan() {
                return Err(broken(format!("the score of token {id} ({text:?}) is not a number")));
            }
            match (*kind, byte_token(text)) {
                (token_type::BYTE, Some(byte)) => bytes[usize::from(byte)] = Some(id),
                // Nobody may write these in a text, so no merge makes one.
                (token_type::CONTROL | token_type::UNKNOWN, _) => {}
                _ => {
                    pieces.insert(text.as_str().into(), Piece { id, score: *score });
                }
            }
        }
        let bytes: Option<Vec<u32>> = bytes.into_iter().collect();
        let unknown = match (bytes.and_then(|bytes| bytes.try_into().ok()), self.unknown) {
            (Some(bytes), _) => Unknown::Bytes(Box::new(bytes)),
            (None, Some(unknown)) => Unknown::Token(unknown),
            (None, None) => return Err(broken("there is neither a token for each byte nor one for the unknown")),
        };
        Ok(RankedMerges::new(pieces, unknown))
    }
}

fn token(text: String, kind: i32) -> Token {
    let special = matches!(kind, token_type::CONTROL | token_type::UNKNOWN);
    Token { text, added: special || kind == token_type::USER_DEFINED, special }
}

fn spaces() -> Result<NormalizerWrapper, TextError> {
    Replace::new(" ", "▁").map(Into::into).map_err(TextError::tokenizer)
}
