//! Text to token ids.
//!
//! Owns the choice between a `tokenizer.json` and a vocabulary inside a GGUF file, and what stands around a text
//! (beginning- and end-of-sequence tokens). Does not know conversations; byte-pair encoding itself is the
//! `tokenizers` crate's.

use std::path::Path;
use std::sync::Arc;

use tokenizers::AddedVocabulary;

use super::pipeline::{Pipeline, TokenizerParts};
use super::token_table::{Decoding, Token, TokenTable};
use super::{GgufVocabulary, PairTemplate, TextError};

/// Longest text one call encodes, in bytes: several times the longest context, and a bound on the memory of the
/// regular expressions that cut the text, which grows with the longest word.
pub const MAX_TEXT_BYTES: usize = 16 << 20;

/// Whether the tokens a model expects around every text are put there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialTokens {
    /// Put them around the text, as the tokenizer's description says.
    Add,
    /// The text alone.
    Omit,
}

/// A model's tokenizer. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pipeline: Pipeline,
    /// The added tokens with the special ones switched off, for text nobody may steer the model with.
    plain: AddedVocabulary,
    table: TokenTable,
    longest_token: usize,
    strips_first_space: bool,
    /// What [`SpecialTokens::Add`] puts in front and behind.
    leading: Vec<u32>,
    trailing: Vec<u32>,
    pair: Option<PairTemplate>,
}

impl Tokenizer {
    /// Reads a Hugging Face `tokenizer.json`.
    ///
    /// # Errors
    /// [`TextError::Read`] or [`TextError::Tokenizer`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TextError> {
        let path = path.as_ref();
        let bytes =
            std::fs::read(path).map_err(|source| TextError::Read { path: path.display().to_string(), source })?;
        Self::from_bytes(&bytes)
    }

    /// Reads the content of a Hugging Face `tokenizer.json`. Its truncation and padding are ignored: no text is
    /// shortened behind the caller's back.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] when it is malformed or its decoder is of an unknown kind.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TextError> {
        let mut pipeline = tokenizers::Tokenizer::from_bytes(bytes).map_err(TextError::tokenizer)?;
        pipeline.with_padding(None).with_truncation(None).map_err(TextError::tokenizer)?;
        let decoder = pipeline.get_decoder().map(serde_json::to_value).transpose().map_err(TextError::tokenizer)?;
        let decoding = Decoding::from_decoder(decoder.as_ref())?;
        let added = pipeline.get_added_vocabulary().get_added_tokens_decoder().clone();
        let tokens = pipeline.get_vocab(true).into_iter().map(|(text, id)| {
            let marked = added.get(&id);
            (id, Token { text, added: marked.is_some(), special: marked.is_some_and(|token| token.special) })
        });
        let tokens = tokens.collect();
        let (leading, trailing) = surrounding_tokens(&pipeline)?;
        let pair = PairTemplate::of(&pipeline);
        let pipeline = Pipeline::library(pipeline);
        Self::assemble(TokenizerParts { pipeline, tokens, decoding, leading, trailing, pair })
    }

    /// Builds the tokenizer described by a GGUF file's metadata.
    ///
    /// # Errors
    /// [`TextError::UnsupportedVocabulary`] for a kind of vocabulary not supported, [`TextError::Vocabulary`] for a
    /// broken one.
    pub fn from_vocabulary(vocabulary: GgufVocabulary) -> Result<Self, TextError> {
        Self::assemble(vocabulary.build()?)
    }

    pub(super) fn assemble(parts: TokenizerParts) -> Result<Self, TextError> {
        let mut plain = parts.pipeline.added().clone();
        plain.set_encode_special_tokens(true);
        let table = TokenTable::new(parts.tokens, &parts.decoding.spelling)?;
        let lengths = (0..table.len() as u32).filter_map(|id| table.bytes(id)).map(<[u8]>::len);
        let longest_token = lengths.max().unwrap_or_default().max(1);
        let TokenizerParts { pipeline, decoding, leading, trailing, pair, .. } = parts;
        let strips_first_space = decoding.strip_first_space;
        let shared = Shared { pipeline, plain, table, longest_token, strips_first_space, leading, trailing, pair };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Token ids of a text. Special tokens written in the text (`<|im_start|>`) become those tokens, which rendered
    /// chat templates rely on.
    ///
    /// # Errors
    /// [`TextError::TextTooLong`] over [`MAX_TEXT_BYTES`]; [`TextError::Tokenizer`] when the vocabulary cannot spell
    /// the text.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, TextError> {
        self.shared.encode(text, special, self.shared.pipeline.added())
    }

    /// Like [`Tokenizer::encode`], but special tokens written in the text stay text: for words of a user that must
    /// not end a turn or begin another. Added tokens that are not special are still recognised.
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode`].
    pub fn encode_plain(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, TextError> {
        self.shared.encode(text, special, &self.shared.plain)
    }

    /// What [`SpecialTokens::Add`] puts in front of a text: the beginning-of-sequence token where the model has one.
    #[must_use]
    pub fn leading_tokens(&self) -> &[u32] {
        &self.shared.leading
    }

    /// What [`SpecialTokens::Add`] puts behind a text, such as BERT's `[SEP]`.
    #[must_use]
    pub fn trailing_tokens(&self) -> &[u32] {
        &self.shared.trailing
    }

    /// How two texts become one. `None` where the tokenizer does not say.
    #[must_use]
    pub fn pair_template(&self) -> Option<&PairTemplate> {
        self.shared.pair.as_ref()
    }

    /// The bytes a token adds to a text; not always whole characters. A special token's are its text. `None` for an
    /// id outside the vocabulary.
    #[must_use]
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.shared.table.bytes(id)
    }

    /// The token as the vocabulary writes it (`Ġthe`, `▁the`, `##ing`).
    #[must_use]
    pub fn token_text(&self, id: u32) -> Option<&str> {
        self.shared.table.text(id)
    }

    /// Whether the token steers the model and is no part of a text.
    #[must_use]
    pub fn is_special(&self, id: u32) -> bool {
        self.shared.table.is_special(id)
    }

    /// The id of a token written as the vocabulary writes it.
    #[must_use]
    pub fn id_of(&self, text: &str) -> Option<u32> {
        self.shared.pipeline.id_of(text)
    }

    /// Bytes of the longest token, at least 1.
    #[must_use]
    pub fn longest_token(&self) -> usize {
        self.shared.longest_token
    }

    /// One more than the highest token id.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.shared.table.len()
    }

    /// Whether a decoded text loses the space its first token begins with.
    #[must_use]
    pub fn strips_first_space(&self) -> bool {
        self.shared.strips_first_space
    }
}

impl Shared {
    fn encode(&self, text: &str, special: SpecialTokens, added: &AddedVocabulary) -> Result<Vec<u32>, TextError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(TextError::TextTooLong { bytes: text.len(), limit: MAX_TEXT_BYTES });
        }
        let ids = self.pipeline.cut(text, added).map_err(TextError::tokenizer)?;
        Ok(match special {
            SpecialTokens::Omit => ids,
            SpecialTokens::Add => [&self.leading, &*ids, &self.trailing].concat(),
        })
    }
}

/// What the post-processor puts in front of and behind a single text.
fn surrounding_tokens(pipeline: &tokenizers::Tokenizer) -> Result<(Vec<u32>, Vec<u32>), TextError> {
    let ids = |text: &str, special| pipeline.encode_fast(text, special).map(|encoding| encoding.get_ids().to_vec());
    let bare = ids("a", false).map_err(TextError::tokenizer)?;
    let whole = ids("a", true).map_err(TextError::tokenizer)?;
    let start = whole.windows(bare.len().max(1)).position(|window| window == bare);
    let Some(start) = start else {
        let message =
            format!("the post-processor turns {bare:?} into {whole:?}, which is not the same text surrounded");
        return Err(TextError::Tokenizer { message });
    };
    Ok((whole[..start].to_vec(), whole[start + bare.len()..].to_vec()))
}
