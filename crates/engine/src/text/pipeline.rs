//! From a text to the tokens between special ones: the `tokenizers` library's steps, with the merging of our own where
//! the library has another.

use tokenizers::{AddedVocabulary, Model, OffsetType, PreTokenizer};

use super::pair::PairTemplate;
use super::ranked_merges::RankedMerges;
use super::token_table::{Decoding, Token};

/// Everything that a description of a tokenizer, in whatever format, comes down to.
pub(super) struct TokenizerParts {
    pub pipeline: Pipeline,
    pub tokens: Vec<(u32, Token)>,
    pub decoding: Decoding,
    /// What stands in front of and behind a text.
    pub leading: Vec<u32>,
    pub trailing: Vec<u32>,
    /// How two texts become one.
    pub pair: Option<PairTemplate>,
}

/// Cuts text.
#[derive(Debug)]
pub(super) struct Pipeline {
    library: tokenizers::Tokenizer,
    /// Cuts in place of the library's model.
    merges: Option<RankedMerges>,
}

impl Pipeline {
    /// The library's own steps.
    pub fn library(library: tokenizers::Tokenizer) -> Self {
        Self { library, merges: None }
    }

    /// The library's steps but for its model, which only tells the ids of tokens.
    pub fn ranked(library: tokenizers::Tokenizer, merges: RankedMerges) -> Self {
        Self { library, merges: Some(merges) }
    }

    /// The tokens that are recognised in a text before it is cut.
    pub fn added(&self) -> &AddedVocabulary {
        self.library.get_added_vocabulary()
    }

    /// The id of a token written as the vocabulary writes it.
    pub fn id_of(&self, text: &str) -> Option<u32> {
        self.library.token_to_id(text)
    }

    /// The library's own steps before its post-processing, with the added tokens to recognise given.
    pub fn cut(&self, text: &str, added: &AddedVocabulary) -> tokenizers::Result<Vec<u32>> {
        let mut pieces = added.extract_and_normalize(self.library.get_normalizer(), text);
        if let Some(pre_tokenizer) = self.library.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces)?;
        }
        pieces.tokenize(|piece| match &self.merges {
            Some(merges) => Ok(merges.tokenize(piece.get())),
            None => self.library.get_model().tokenize(piece.get()),
        })?;
        Ok(pieces.into_encoding(None, 0, OffsetType::None)?.get_ids().to_vec())
    }
}
