//! BERT's WordPiece vocabularies (`tokenizer.ggml.model` is `bert`).
//!
//! These files mark the beginning of a word with `▁` instead of its continuation with `##`; both say the same, and
//! the tokenizer made here has `##` as the model's own `tokenizer.json`.

use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;

use super::{GgufVocabulary, broken};
use crate::text::TextError;
use crate::text::pipeline::{Pipeline, TokenizerParts};
use crate::text::token_table::{Decoding, TokenSpelling};

/// What stands for a missing id: those of the vocabularies that Google published.
const UNKNOWN: u32 = 100;
const CLS: u32 = 101;
const SEPARATOR: u32 = 102;

const CONTINUATION: &str = "##";

impl GgufVocabulary {
    pub(super) fn build_word_piece(mut self) -> Result<TokenizerParts, TextError> {
        self.special.cls = self.special.cls.or(self.special.bos).or(Some(CLS));
        self.special.separator = self.special.separator.or(Some(SEPARATOR));
        self.special.unknown = self.special.unknown.or(Some(UNKNOWN));
        self.check()?;
        for id in 0..self.tokens.len() as u32 {
            if !self.is_added(id) {
                let token = &mut self.tokens[id as usize];
                *token = word_piece(token);
            }
        }
        let unknown = self.special.unknown.map(|id| self.tokens[id as usize].clone());
        let model = WordPiece::builder()
            .vocab((0u32..).zip(&self.tokens).map(|(id, text)| (text.clone(), id)).collect::<Vocab>())
            .unk_token(unknown.unwrap_or_default())
            .continuing_subword_prefix(CONTINUATION.to_owned())
            .build()
            .map_err(broken)?;
        let mut library = tokenizers::Tokenizer::new(model);
        let lowercase = self.lowercase.unwrap_or(true);
        let normalizer = BertNormalizer::new(true, true, self.strip_accents, lowercase);
        library.with_normalizer(Some(normalizer)).map_err(broken)?;
        library.with_pre_tokenizer(Some(BertPreTokenizer));
        let (tokens, added) = self.tokens();
        library.add_tokens(added).map_err(broken)?;
        let spelling = TokenSpelling::Words { prefix: Some(CONTINUATION.to_owned()) };
        Ok(TokenizerParts {
            pipeline: Pipeline::library(library),
            tokens,
            decoding: Decoding { spelling, strip_first_space: true },
            leading: self.special.cls.into_iter().collect(),
            trailing: self.special.separator.into_iter().collect(),
            pair: None,
        })
    }
}

/// `▁the` to `the`, `ing` to `##ing`. Older converters left what stands in brackets (`[unused1]`) alone.
fn word_piece(token: &str) -> String {
    let in_brackets = token.len() > 2 && token.starts_with('[') && token.ends_with(']');
    match token.strip_prefix('▁') {
        Some(word) => word.to_owned(),
        None if in_brackets => token.to_owned(),
        None => format!("{CONTINUATION}{token}"),
    }
}
