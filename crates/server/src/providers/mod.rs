//! Where answers come from: the seam between endpoints and the models behind them.
//!
//! Owns the trait, the calls it takes, the events it answers with and the local models. Knows no path, no dialect
//! and no permission: a call that arrives here is allowed.

pub mod answer;
pub mod call;
pub mod external;
pub mod local;
mod upstream;

use futures::future::BoxFuture;

pub use answer::{
    Answer, AnswerEvent, CallDelta, Delta, Embeddings, Scores, TokenLogprob, TokenizedText, TokenizerFacts, TopLogprob,
    VocabularyToken,
};
pub use call::{
    AskedGrammar, ChatCall, CompletionCall, ConversationEnd, Cut, EmbeddingCall, Generation, OnOverflow, Prompt,
    RerankCall, TokenizeCall, TooLong, ToolUse, Tools,
};

pub use upstream::{UpstreamError, UpstreamFailure};

use crate::endpoints::Task;
use crate::error::{ApiError, ErrorKind};
use crate::models::HostedModel;

/// A model that answers, in this process or behind somebody else's API.
///
/// Dropping a returned future, or the events of an answer, cancels the work behind them.
pub trait Provider: Send + Sync {
    /// What the model does best; a chat model also completes texts. `None` where that shows only when it is loaded.
    fn task(&self) -> Option<Task>;

    /// What the model calls itself in the `served-model-name` header and in the list of models.
    fn model_name(&self) -> &str;

    /// Answers a conversation.
    fn chat(&self, call: ChatCall) -> BoxFuture<'_, Result<Answer, ProviderError>>;

    /// Continues texts. Choice `i * n + j` is answer `j` of prompt `i`.
    fn complete(&self, call: CompletionCall) -> BoxFuture<'_, Result<Answer, ProviderError>>;

    /// Turns texts into vectors, in order.
    fn embed(&self, call: EmbeddingCall) -> BoxFuture<'_, Result<Embeddings, ProviderError>>;

    /// Scores documents by how well they answer a query, in order.
    fn rerank(&self, call: RerankCall) -> BoxFuture<'_, Result<Scores, ProviderError>>;

    /// Cuts a text or a conversation into the model's tokens.
    fn tokenize(&self, _call: TokenizeCall) -> BoxFuture<'_, Result<TokenizedText, ProviderError>> {
        let refusal = self.no_tokenizer();
        Box::pin(async { Err(refusal) })
    }

    /// The text of the model's tokens.
    fn detokenize(&self, _tokens: Vec<u32>) -> BoxFuture<'_, Result<String, ProviderError>> {
        let refusal = self.no_tokenizer();
        Box::pin(async { Err(refusal) })
    }

    /// What there is to know of the model's tokenizer.
    fn tokenizer(&self) -> BoxFuture<'_, Result<TokenizerFacts, ProviderError>> {
        let refusal = self.no_tokenizer();
        Box::pin(async { Err(refusal) })
    }

    /// The refusal of a model whose tokenizer is not known here.
    fn no_tokenizer(&self) -> ProviderError {
        ProviderError::WrongTask(format!("the tokenizer of the model {} is not known here", self.model_name()))
    }

    /// Whether the model answers: neither stopped nor stuck.
    fn is_alive(&self) -> bool {
        true
    }

    /// How busy the model is; `None` where nobody can tell.
    fn load(&self) -> Option<ProviderLoad> {
        None
    }

    /// The model that can be loaded and unloaded; `None` where it is not in this process.
    fn hosted(&self) -> Option<&HostedModel> {
        None
    }

    /// Tells whether everything that the model holds has been given back, after the provider itself is dropped.
    fn departure(&self) -> Box<dyn Fn() -> bool + Send + Sync> {
        Box::new(|| true)
    }
}

/// How busy a model is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProviderLoad {
    /// Sequences in the batch.
    pub running: usize,
    /// Sequences in the queue.
    pub waiting: usize,
    /// Blocks of the cache that sequences hold.
    pub blocks_used: usize,
    /// Blocks of the cache that no sequence holds and that are kept for those that begin alike.
    pub blocks_cached: usize,
    /// Blocks of the cache.
    pub blocks_total: usize,
    /// Times a sequence lost its cache to an older one.
    pub preemptions: u64,
    /// Tokens of prompts that were looked up in the cache.
    pub prefix_queried: u64,
    /// Of those, the tokens that were found.
    pub prefix_hit: u64,
}

/// Why a provider has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProviderError {
    /// The caller can do better.
    #[error("{message}")]
    Invalid {
        /// What is wrong.
        message: String,
        /// The field to blame.
        field: Option<String>,
    },
    /// A field of the call is out of range.
    #[error("{message}")]
    OutOfRange {
        /// The bound and the value.
        message: String,
        /// The field to blame.
        field: String,
    },
    /// The prompt is longer than the model's context.
    #[error("{message}")]
    ContextLength {
        /// How long it is, and how long it may be.
        message: String,
        /// The field to blame.
        field: String,
    },
    /// The queue is full.
    #[error("{0}")]
    Busy(String),
    /// The model needs more memory than there is.
    #[error("{0}")]
    TooLarge(String),
    /// The model does not answer any more, or not yet.
    #[error("{0}")]
    Stopped(String),
    /// The call's deadline passed.
    #[error("the request's time is over, {}", if *begun { "before its answer was complete" } else { "before its turn came" })]
    Late {
        /// Whether any of it had been computed.
        begun: bool,
    },
    /// The model does not do this.
    #[error("{0}")]
    WrongTask(String),
    /// The API behind the model did not answer, or with an error.
    #[error("{0}")]
    Upstream(UpstreamError),
    /// A guardrail does not let the call, or its answer, through. The text is the document that tells the caller why.
    #[error("{0}")]
    Guarded(String),
    /// The model failed. The text is for the log, and for the caller no more than that it failed.
    #[error("the model failed: {0}")]
    Failed(String),
}

impl ProviderError {
    /// A call that makes no sense, blamed on `field`.
    pub fn invalid(field: &str, message: impl Into<String>) -> Self {
        Self::Invalid { message: message.into(), field: Some(field.to_owned()) }
    }
}

impl From<ProviderError> for ApiError {
    fn from(error: ProviderError) -> Self {
        let message = error.to_string();
        match error {
            ProviderError::Invalid { field: None, .. } | ProviderError::WrongTask(_) => {
                Self::new(ErrorKind::BadRequest, message)
            }
            ProviderError::Invalid { field: Some(field), .. } => {
                Self::new(ErrorKind::BadRequest, message).with_field(field)
            }
            ProviderError::OutOfRange { field, .. } => Self::new(ErrorKind::OutOfRange, message).with_field(field),
            ProviderError::ContextLength { field, .. } => {
                Self::new(ErrorKind::ContextLength, message).with_field(field)
            }
            ProviderError::Busy(_) => Self::new(ErrorKind::RateLimited, message),
            ProviderError::TooLarge(_) => Self::new(ErrorKind::InsufficientMemory, message),
            ProviderError::Late { begun: true } => Self::new(ErrorKind::Timeout, message),
            ProviderError::Stopped(_) | ProviderError::Late { begun: false } => {
                Self::new(ErrorKind::Unavailable, message)
            }
            ProviderError::Upstream(error) => Self::new(error.kind(), message),
            ProviderError::Guarded(document) => Self::guarded(document),
            ProviderError::Failed(detail) => Self::internal("the model failed to answer", detail),
        }
    }
}
