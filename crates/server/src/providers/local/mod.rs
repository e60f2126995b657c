//! Models in this process: from calls to token ids and back to events.
//!
//! Tokenizing and templates run on threads for blocking work, since a long prompt would hold up everybody else.

mod decoder;
mod encoder;
mod reranker;
mod tokenizer;
mod tools;

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use hearth_engine::Error;
use hearth_engine::serve::{Health, LoadedModel, RequestError, SubmitError};
use hearth_engine::text::grammar::GrammarError;
use hearth_engine::text::{TextError, Tokenizer};
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::call::ChatMessage;
use super::{
    Answer, ChatCall, CompletionCall, EmbeddingCall, Embeddings, Provider, ProviderError, ProviderLoad, RerankCall,
    Scores, TokenizeCall, TokenizedText, TokenizerFacts,
};
use crate::endpoints::Task;

/// A model of this process as a provider.
pub struct LocalProvider {
    model: LoadedModel,
}

impl LocalProvider {
    /// A running model.
    pub fn new(model: LoadedModel) -> Self {
        Self { model }
    }
}

impl Provider for LocalProvider {
    fn task(&self) -> Option<Task> {
        Some(match &self.model {
            LoadedModel::Decoder(engine) if engine.text().template.is_some() => Task::Chat,
            LoadedModel::Decoder(_) => Task::Completions,
            LoadedModel::Encoder(_) => Task::Embeddings,
            LoadedModel::Reranker(_) => Task::Rerank,
        })
    }

    fn model_name(&self) -> &str {
        &self.model.info().name
    }

    fn chat(&self, call: ChatCall) -> BoxFuture<'_, Result<Answer, ProviderError>> {
        if let Some(field) = ["reasoning_effort", "thinking"].iter().find(|field| asks_to_think(&call, field)) {
            let text =
                format!("`{field}` is not supported: the model {} does not think before it answers", self.model_name());
            return async { Err(ProviderError::invalid(field, text)) }.boxed();
        }
        if let Some(refusal) = images_refusal(&call.messages, self.model_name()) {
            return async { Err(refusal) }.boxed();
        }
        match &self.model {
            LoadedModel::Decoder(engine) => decoder::chat(engine, call).boxed(),
            LoadedModel::Encoder(_) | LoadedModel::Reranker(_) => self.refuse(Task::Chat),
        }
    }

    fn complete(&self, call: CompletionCall) -> BoxFuture<'_, Result<Answer, ProviderError>> {
        match &self.model {
            LoadedModel::Decoder(engine) => decoder::complete(engine, call).boxed(),
            LoadedModel::Encoder(_) | LoadedModel::Reranker(_) => self.refuse(Task::Completions),
        }
    }

    fn embed(&self, call: EmbeddingCall) -> BoxFuture<'_, Result<Embeddings, ProviderError>> {
        if call.input_type.is_some() {
            let text =
                format!("`input_type` is not supported by the model {}: give an `instruction`", self.model_name());
            return async { Err(ProviderError::invalid("input_type", text)) }.boxed();
        }
        match &self.model {
            LoadedModel::Encoder(encoder) => encoder::embed(encoder, call).boxed(),
            LoadedModel::Decoder(_) | LoadedModel::Reranker(_) => self.refuse(Task::Embeddings),
        }
    }

    fn rerank(&self, call: RerankCall) -> BoxFuture<'_, Result<Scores, ProviderError>> {
        match &self.model {
            LoadedModel::Reranker(reranker) => reranker::rerank(reranker, call).boxed(),
            LoadedModel::Decoder(_) | LoadedModel::Encoder(_) => self.refuse(Task::Rerank),
        }
    }

    fn tokenize(&self, call: TokenizeCall) -> BoxFuture<'_, Result<TokenizedText, ProviderError>> {
        if let TokenizeCall::Conversation { messages, .. } = &call
            && let Some(refusal) = images_refusal(messages, self.model_name())
        {
            return async { Err(refusal) }.boxed();
        }
        tokenizer::tokenize(&self.model, call).boxed()
    }

    fn detokenize(&self, tokens: Vec<u32>) -> BoxFuture<'_, Result<String, ProviderError>> {
        tokenizer::detokenize(&self.model, tokens).boxed()
    }

    fn tokenizer(&self) -> BoxFuture<'_, Result<TokenizerFacts, ProviderError>> {
        async { Ok(tokenizer::facts(&self.model)) }.boxed()
    }

    fn departure(&self) -> Box<dyn Fn() -> bool + Send + Sync> {
        let departure = self.model.departure();
        Box::new(move || departure.is_over())
    }

    fn is_alive(&self) -> bool {
        self.model.health() == Health::Alive
    }

    fn load(&self) -> Option<ProviderLoad> {
        let load = self.model.load();
        Some(ProviderLoad {
            running: load.running,
            waiting: load.waiting,
            blocks_used: load.blocks_used,
            blocks_cached: load.blocks_cached,
            blocks_total: load.blocks_total,
            preemptions: load.preemptions,
            prefix_queried: load.prefixes.queried,
            prefix_hit: load.prefixes.hit,
        })
    }
}

impl LocalProvider {
    fn refuse<T: Send + 'static>(&self, task: Task) -> BoxFuture<'_, Result<T, ProviderError>> {
        let text = format!("the model {} does not do {task}", self.model_name());
        async { Err(ProviderError::WrongTask(text)) }.boxed()
    }
}

/// The refusal of a conversation with images by a model that only reads.
fn images_refusal(messages: &[ChatMessage], model: &str) -> Option<ProviderError> {
    let index = messages.iter().position(|message| !message.parts.is_empty())?;
    let part = messages[index].parts.iter().position(|part| part.text().is_none())?;
    let field = format!("messages[{index}].content[{part}].type");
    let text = format!("`{field}` \"image_url\" is not supported: the model {model} reads texts only");
    Some(ProviderError::invalid(&field, text))
}

/// Whether a field asks for thoughts, and not for none.
fn asks_to_think(call: &ChatCall, field: &str) -> bool {
    let given = call.generation.given.get(field);
    given.is_some_and(|value| *value != "none" && value["type"] != "disabled")
}

/// Runs `work` where it may take its time, and waits for it until `deadline`.
async fn blocking<T: Send + 'static>(
    deadline: Option<Instant>,
    work: impl FnOnce() -> Result<T, ProviderError> + Send + 'static,
) -> Result<T, ProviderError> {
    // As many at a time as there are cores: each may hold a long text and many tokens.
    static PLACES: LazyLock<Arc<Semaphore>> =
        LazyLock::new(|| Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))));
    let done = async {
        let place = Arc::clone(&PLACES).acquire_owned().await;
        // Whoever waits may go away: the work goes on to its end, and so holds the place itself.
        let placed = move || {
            let _place = place;
            work()
        };
        let done = tokio::task::spawn_blocking(placed).instrument(tracing::info_span!("prepare the prompt")).await;
        done.unwrap_or_else(|error| Err(ProviderError::Failed(format!("preparing the prompt: {error}"))))
    };
    match deadline {
        None => done.await,
        Some(deadline) => {
            let late = |_| Err(ProviderError::Late { begun: false });
            tokio::time::timeout_at(deadline.into(), done).await.unwrap_or_else(late)
        }
    }
}

/// A failure between text and tokens; `field` is where the text came from.
fn text_error(field: &str, error: &TextError) -> ProviderError {
    match error {
        TextError::Template { .. } | TextError::NoTemplate | TextError::TextTooLong { .. } => {
            ProviderError::invalid(field, error.to_string())
        }
        _ => ProviderError::Failed(error.to_string()),
    }
}

/// A grammar that is not honoured; `field` is what asked for it.
fn grammar_error(field: &str, error: &GrammarError) -> ProviderError {
    match error {
        GrammarError::Vocabulary(_) => ProviderError::Failed(error.to_string()),
        _ => ProviderError::invalid(field, format!("`{field}` cannot be honoured: {error}")),
    }
}

fn context_length(field: &str, message: String) -> ProviderError {
    ProviderError::ContextLength { message, field: field.to_owned() }
}

/// Refuses a text that is longer than `context_length` of the vocabulary's longest tokens: cutting it into tokens would
/// take long, and only to find that it is too long.
fn check_text_length(
    text: &str,
    tokenizer: &Tokenizer,
    context_length: usize,
    field: &str,
) -> Result<(), ProviderError> {
    let most = context_length.saturating_mul(tokenizer.longest_token());
    if text.len() <= most {
        return Ok(());
    }
    let message = format!(
        "this model's maximum context length is {context_length} tokens, which no text of more than {most} bytes fits, \
         but this one has {}",
        text.len()
    );
    Err(self::context_length(field, message))
}

/// A request that its model cannot run; `field` is where its tokens came from.
fn request_error(field: &str, error: &RequestError) -> ProviderError {
    match error {
        _ if error.is_context_length() => context_length(field, error.to_string()),
        RequestError::NothingToDo => ProviderError::invalid("max_tokens", error.to_string()),
        _ => ProviderError::invalid(field, error.to_string()),
    }
}

/// A call that its model does not take now.
fn submit_error(error: &SubmitError) -> ProviderError {
    match error {
        SubmitError::QueueFull { .. } | SubmitError::TokensFull { .. } => ProviderError::Busy(error.to_string()),
        SubmitError::Stalled { .. } | SubmitError::Stopped => ProviderError::Stopped(error.to_string()),
    }
}

fn engine_error(error: &Error) -> ProviderError {
    match error {
        Error::Stopped => ProviderError::Stopped("the model has stopped".into()),
        Error::Deadline { begun } => ProviderError::Late { begun: *begun },
        // It came with the request.
        Error::Grammar(_) => ProviderError::Invalid { message: error.to_string(), field: None },
        _ => ProviderError::Failed(error.to_string()),
    }
}
