//! The use of a hosted model by a request: it is not unloaded before the answer has come to its end.

use std::sync::Arc;

use futures::future::{self, BoxFuture};
use futures::{FutureExt, StreamExt, stream};

use super::HostedModel;
use super::hosted::{Hosted, Running};
use crate::endpoints::Task;
use crate::providers::{
    Answer, AnswerEvent, ChatCall, CompletionCall, EmbeddingCall, Embeddings, Provider, ProviderError, ProviderLoad,
    RerankCall, Scores, TokenizeCall, TokenizedText, TokenizerFacts,
};

/// A model in use.
pub(super) struct Lease {
    hosted: Arc<Hosted>,
    running: Arc<Running>,
}

impl Lease {
    pub(super) fn new(hosted: Arc<Hosted>, running: Arc<Running>) -> Self {
        hosted.touch();
        Self { hosted, running }
    }

    /// Done when the model's answers are to end.
    fn cancelled(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut cancelled = self.running.cancelled.subscribe();
        async move {
            if cancelled.wait_for(|cancelled| *cancelled).await.is_err() {
                // Nobody can cancel any more.
                future::pending::<()>().await;
            }
        }
    }

    fn unloaded(endpoint: &str) -> ProviderError {
        ProviderError::Stopped(format!("the model of endpoint `{endpoint}` was unloaded"))
    }

    /// What `work` comes to, unless the model is unloaded by force.
    async fn run<T>(&self, work: BoxFuture<'_, Result<T, ProviderError>>) -> Result<T, ProviderError> {
        tokio::select! {
            done = work => done,
            () = self.cancelled() => Err(Self::unloaded(self.hosted.endpoint())),
        }
    }

    /// An answer that keeps the model until it is dropped.
    pub(super) fn hold(self, answer: Answer) -> Answer {
        let cancelled = Box::pin(self.cancelled());
        let begun = (answer.events, cancelled, self, answer.choices);
        let events = stream::unfold(Some(begun), |held| async move {
            let (mut events, mut cancelled, lease, unfinished) = held?;
            let event = tokio::select! {
                biased;
                () = &mut cancelled => {
                    // What is complete already ends as it would have ended.
                    let broken_off = || Err(Self::unloaded(lease.hosted.endpoint()));
                    return (unfinished > 0).then(|| (broken_off(), None));
                }
                event = events.next() => event?,
            };
            let finished = usize::from(matches!(event, Ok(AnswerEvent::Finished { .. })));
            Some((event, Some((events, cancelled, lease, unfinished.saturating_sub(finished)))))
        });
        Answer { choices: answer.choices, events: events.boxed() }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.hosted.touch();
    }
}

impl Provider for HostedModel {
    fn task(&self) -> Option<Task> {
        self.0.task()
    }

    fn model_name(&self) -> &str {
        self.0.model_name()
    }

    fn chat(&self, call: ChatCall) -> BoxFuture<'_, Result<Answer, ProviderError>> {
        async move {
            let lease = self.0.lease(call.generation.deadline).await?;
            let answer = lease.run(lease.running.provider.chat(call)).await?;
            Ok(lease.hold(answer))
        }
        .boxed()
    }

    fn complete(&self, call: CompletionCall) -> BoxFuture<'_, Result<Answer, ProviderError>> {
        async move {
            let lease = self.0.lease(call.generation.deadline).await?;
            let answer = lease.run(lease.running.provider.complete(call)).await?;
            Ok(lease.hold(answer))
        }
        .boxed()
    }

    fn embed(&self, call: EmbeddingCall) -> BoxFuture<'_, Result<Embeddings, ProviderError>> {
        async move {
            let lease = self.0.lease(call.deadline).await?;
            lease.run(lease.running.provider.embed(call)).await
        }
        .boxed()
    }

    fn rerank(&self, call: RerankCall) -> BoxFuture<'_, Result<Scores, ProviderError>> {
        async move {
            let lease = self.0.lease(call.deadline).await?;
            lease.run(lease.running.provider.rerank(call)).await
        }
        .boxed()
    }

    fn tokenize(&self, call: TokenizeCall) -> BoxFuture<'_, Result<TokenizedText, ProviderError>> {
        async move {
            let lease = self.0.lease(None).await?;
            lease.run(lease.running.provider.tokenize(call)).await
        }
        .boxed()
    }

    fn detokenize(&self, tokens: Vec<u32>) -> BoxFuture<'_, Result<String, ProviderError>> {
        async move {
            let lease = self.0.lease(None).await?;
            lease.run(lease.running.provider.detokenize(tokens)).await
        }
        .boxed()
    }

    fn tokenizer(&self) -> BoxFuture<'_, Result<TokenizerFacts, ProviderError>> {
        async move {
            let lease = self.0.lease(None).await?;
            lease.run(lease.running.provider.tokenizer()).await
        }
        .boxed()
    }

    /// A model that is not loaded will answer when it is asked.
    fn is_alive(&self) -> bool {
        self.0.provider().is_none_or(|provider| provider.is_alive())
    }

    fn load(&self) -> Option<ProviderLoad> {
        self.load_now()
    }

    fn hosted(&self) -> Option<&HostedModel> {
        Some(self)
    }
}
