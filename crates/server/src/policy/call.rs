//! A call as the policies see it, whatever its task.

use std::future::Future;

use futures::future::BoxFuture;
use futures::{StreamExt, stream};

use super::guardrails::Texts;
use super::limits::Demand;
use crate::providers::{
    Answer, AnswerEvent, ChatCall, CompletionCall, EmbeddingCall, Embeddings, Provider, ProviderError, RerankCall,
    Scores,
};
use crate::usage::Characters;

/// A call of one of the tasks.
pub(crate) trait Call: Characters + Demand + Texts + Clone + Send + Sync + 'static {
    /// What it is answered with.
    type Answer: Send;

    /// Asks a model.
    fn ask(self, provider: &dyn Provider) -> BoxFuture<'_, Result<Self::Answer, ProviderError>>;

    /// Waits until it is sure that the caller gets something of the answer: of a `streamed` one the first event, of any other
    /// all of it.
    fn begun(answer: Self::Answer, streamed: bool) -> impl Future<Output = Result<Self::Answer, ProviderError>> + Send;
}

impl Call for ChatCall {
    type Answer = Answer;

    fn ask(self, provider: &dyn Provider) -> BoxFuture<'_, Result<Answer, ProviderError>> {
        provider.chat(self)
    }

    fn begun(answer: Answer, streamed: bool) -> impl Future<Output = Result<Answer, ProviderError>> + Send {
        begun(answer, streamed)
    }
}

impl Call for CompletionCall {
    type Answer = Answer;

    fn ask(self, provider: &dyn Provider) -> BoxFuture<'_, Result<Answer, ProviderError>> {
        provider.complete(self)
    }

    fn begun(answer: Answer, streamed: bool) -> impl Future<Output = Result<Answer, ProviderError>> + Send {
        begun(answer, streamed)
    }
}

impl Call for EmbeddingCall {
    type Answer = Embeddings;

    fn ask(self, provider: &dyn Provider) -> BoxFuture<'_, Result<Embeddings, ProviderError>> {
        provider.embed(self)
    }

    async fn begun(answer: Embeddings, _streamed: bool) -> Result<Embeddings, ProviderError> {
        Ok(answer)
    }
}

impl Call for RerankCall {
    type Answer = Scores;

    fn ask(self, provider: &dyn Provider) -> BoxFuture<'_, Result<Scores, ProviderError>> {
        provider.rerank(self)
    }

    async fn begun(answer: Scores, _streamed: bool) -> Result<Scores, ProviderError> {
        Ok(answer)
    }
}

async fn begun(answer: Answer, streamed: bool) -> Result<Answer, ProviderError> {
    let choices = answer.choices;
    let mut events = answer.events.fuse();
    let mut seen: Vec<AnswerEvent> = Vec::new();
    while let Some(event) = events.next().await {
        seen.push(event?);
        if streamed {
            break;
        }
    }
    let events = stream::iter(seen.into_iter().map(Ok)).chain(events);
    Ok(Answer { choices, events: events.boxed() })
}
