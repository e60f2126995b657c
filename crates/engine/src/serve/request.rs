//! A checked request. The engine takes no other.

use std::sync::Arc;
use std::time::Instant;

use hearth_sampler::SamplingParams;
use thiserror::Error;

use super::ModelInfo;
use crate::text::grammar::Grammar;

/// Why a request cannot be run by this model.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// There is nothing to continue or to embed.
    #[error("the prompt must have at least 1 token, not 0")]
    Empty,
    /// A token the vocabulary does not have.
    #[error("token {token} at index {index} is not in the vocabulary of {vocab_size} tokens")]
    UnknownToken {
        /// Where it stands.
        index: usize,
        /// The token.
        token: u32,
        /// Tokens there are.
        vocab_size: usize,
    },
    /// Too long for the model.
    #[error("this model's maximum context length is {context_length} tokens, but the prompt has {prompt_tokens}")]
    ContextLength {
        /// Tokens given.
        prompt_tokens: usize,
        /// Tokens allowed.
        context_length: usize,
    },
    /// Nothing was asked for.
    #[error("max_tokens must be at least 1, not 0, unless log-probabilities of the prompt are asked for")]
    NothingToDo,
    /// One text of several is at fault.
    #[error("input {index}: {reason}")]
    Text {
        /// Which one, from 0.
        index: usize,
        /// What is wrong with it.
        reason: Box<RequestError>,
    },
}

impl RequestError {
    /// Whether the text was too long, here or in one of several texts.
    #[must_use]
    pub fn is_context_length(&self) -> bool {
        match self {
            Self::ContextLength { .. } => true,
            Self::Text { reason, .. } => reason.is_context_length(),
            _ => false,
        }
    }
}

/// A request that fits its model: the prompt's tokens exist and leave room, and there is something to do.
#[derive(Clone, Debug)]
pub struct GenerationRequest {
    pub(super) prompt: Vec<u32>,
    pub(super) params: SamplingParams,
    pub(super) max_tokens: usize,
    pub(super) prompt_logprobs: Option<u8>,
    pub(super) deadline: Option<Instant>,
    pub(super) grammar: Option<Arc<Grammar>>,
}

impl GenerationRequest {
    /// Checks a request against its model. `prompt_logprobs` asks for the log-probability of each token of the prompt,
    /// with that many alternatives; only then may `max_tokens` be 0.
    ///
    /// A `max_tokens` that reaches past the context is cut to it; the answer then ends with [`FinishReason::Length`].
    ///
    /// # Errors
    /// Which rule it breaks.
    ///
    /// [`FinishReason::Length`]: super::FinishReason::Length
    pub fn check(
        prompt: Vec<u32>,
        params: SamplingParams,
        max_tokens: usize,
        prompt_logprobs: Option<u8>,
        info: &ModelInfo,
    ) -> Result<Self, RequestError> {
        check_tokens(&prompt, info)?;
        if max_tokens == 0 && prompt_logprobs.is_none() {
            return Err(RequestError::NothingToDo);
        }
        let room = info.context_length - prompt.len();
        if room == 0 && max_tokens > 0 {
            let (prompt_tokens, context_length) = (prompt.len(), info.context_length);
            return Err(RequestError::ContextLength { prompt_tokens, context_length });
        }
        Ok(Self { prompt, params, max_tokens: max_tokens.min(room), prompt_logprobs, deadline: None, grammar: None })
    }

    /// The answer is one of this grammar's texts, unless `max_tokens` cuts it. The grammar must be of the same model. It has
    /// the last word on where the answer ends, before `ignore_eos` and `min_tokens`.
    #[must_use]
    pub fn with_grammar(self, grammar: Option<Arc<Grammar>>) -> Self {
        Self { grammar, ..self }
    }

    /// The same request, which fails with [`Error::Deadline`] where it is not complete then.
    ///
    /// [`Error::Deadline`]: crate::Error::Deadline
    #[must_use]
    pub fn until(self, deadline: Option<Instant>) -> Self {
        Self { deadline, ..self }
    }
}

/// Checks that there are tokens, that the model knows them, and that they fit its context.
pub(super) fn check_tokens(tokens: &[u32], info: &ModelInfo) -> Result<(), RequestError> {
    let ModelInfo { vocab_size, context_length, .. } = *info;
    if tokens.is_empty() {
        return Err(RequestError::Empty);
    }
    if tokens.len() > context_length {
        return Err(RequestError::ContextLength { prompt_tokens: tokens.len(), context_length });
    }
    match tokens.iter().position(|token| *token as usize >= vocab_size) {
        Some(index) => Err(RequestError::UnknownToken { index, token: tokens[index], vocab_size }),
        None => Ok(()),
    }
}
