//! What a provider answers with: a stream of events over all choices, vectors or scores.

use futures::stream::BoxStream;

use super::ProviderError;
use crate::wire::options::{FinishReason, Usage};

/// An answer that is being made. Dropping `events` cancels the rest of it.
pub struct Answer {
    /// Number of choices; each finishes exactly once.
    pub choices: usize,
    /// Events of all choices, interleaved as they come. The last one is a choice's end, or an error.
    pub events: BoxStream<'static, Result<AnswerEvent, ProviderError>>,
}

/// Something happened to one choice.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerEvent {
    /// It begins with its prompt. At most once, before everything else of the choice.
    Echo {
        /// Which choice.
        index: usize,
        /// The prompt.
        delta: Delta,
    },
    /// There is more of it.
    Delta {
        /// Which choice.
        index: usize,
        /// What is new.
        delta: Delta,
    },
    /// It is complete.
    Finished {
        /// Which choice.
        index: usize,
        /// Why it ended.
        reason: FinishReason,
        /// Tokens of the whole answer so far: with the last choice's end, of the whole answer.
        usage: Usage,
    },
}

/// A piece of a choice.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delta {
    /// More text; may be empty while a character or a stop text is undecided.
    pub text: String,
    /// The tokens of the piece, if log probabilities were asked for.
    pub tokens: Vec<TokenLogprob>,
    /// More of the choice's calls, at most one piece of each.
    pub calls: Vec<CallDelta>,
}

impl Delta {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.tokens.is_empty() && self.calls.is_empty()
    }
}

/// More of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallDelta {
    /// Which call of the choice, from 0.
    pub index: usize,
    /// Its id and its function's name, in the first piece.
    pub begun: Option<(String, String)>,
    /// More of the arguments: JSON.
    pub arguments: String,
}

/// A token, its log probability and its alternatives.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// Text of the token on its own.
    pub text: String,
    /// Its bytes: a token may hold part of a character.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability; `None` for the first token of a prompt.
    pub logprob: Option<f32>,
    /// The most likely tokens at this place, best first.
    pub top: Vec<TopLogprob>,
}

/// One alternative.
#[derive(Debug, Clone, PartialEq)]
pub struct TopLogprob {
    /// Text of the token on its own.
    pub text: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// One vector a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// In the order of the texts.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts.
    pub prompt_tokens: usize,
}

/// One score a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// In the order of the documents: logits, where 0 is neither relevant nor irrelevant.
    pub logits: Vec<f32>,
    /// Tokens of all pairs of the query and a document.
    pub prompt_tokens: usize,
}

/// A text or a conversation in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizedText {
    /// In order.
    pub tokens: Vec<VocabularyToken>,
    /// Most tokens of a text that the model takes.
    pub context_length: usize,
}

/// A token as the vocabulary knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VocabularyToken {
    /// Its id.
    pub id: u32,
    /// As the vocabulary writes it, such as `▁the`.
    pub spelling: String,
}

/// What there is to know of a tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizerFacts {
    /// The reference implementation's class, where the model names one.
    pub class: Option<String>,
    /// `bos_token` and its like, with their texts.
    pub special: Vec<(&'static str, Option<String>)>,
    /// The chat template.
    pub template: Option<String>,
    /// Most tokens of a text that the model takes.
    pub context_length: usize,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
}
