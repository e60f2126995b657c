//! What can go wrong between text and tokens.

use thiserror::Error;

/// A failure of the tokenizer, the chat template or the vocabulary they come from.
#[derive(Debug, Error)]
pub enum TextError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file asked for.
        path: String,
        /// What the system answered.
        source: std::io::Error,
    },
    /// The tokenizer's description is broken or asks for something this tokenizer does not do.
    #[error("tokenizer: {message}")]
    Tokenizer {
        /// What is wrong with it.
        message: String,
    },
    /// The metadata of a GGUF file lacks something of its vocabulary, or has it in another type.
    #[error(transparent)]
    Metadata(#[from] crate::weights::WeightsError),
    /// The vocabulary inside a GGUF file is broken.
    #[error("embedded vocabulary: {message}")]
    Vocabulary {
        /// What is wrong with it.
        message: String,
    },
    /// The vocabulary inside a GGUF file names a kind that is not supported.
    #[error("embedded vocabulary: {field} = {value:?} is not supported; supported are {supported}")]
    UnsupportedVocabulary {
        /// The metadata key, such as `tokenizer.ggml.pre`.
        field: &'static str,
        /// Its value.
        value: String,
        /// The values that would have worked.
        supported: &'static str,
    },
    /// The text is longer than one call encodes.
    #[error("text is {bytes} bytes long, at most {limit} can be encoded at once")]
    TextTooLong {
        /// Length of the text.
        bytes: usize,
        /// The bound, [`super::MAX_TEXT_BYTES`].
        limit: usize,
    },
    /// The chat template has a syntax error, refused the conversation (`raise_exception`) or ran out of its bounds.
    #[error("chat template: {message}")]
    Template {
        /// The template's own message where it raised one, else what failed and on which line.
        message: String,
    },
    /// The model has no chat template.
    #[error("the model has no chat template, so it cannot answer a conversation; ask it for a completion instead")]
    NoTemplate,
}

impl TextError {
    /// Wraps an error of the tokenizer library.
    pub(super) fn tokenizer(error: impl std::fmt::Display) -> Self {
        Self::Tokenizer { message: error.to_string() }
    }
}
