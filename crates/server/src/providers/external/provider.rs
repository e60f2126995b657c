//! A model of another provider as a [`Provider`].

use std::sync::Arc;
use std::time::Instant;

use futures::future::{BoxFuture, try_join_all};
use futures::{FutureExt, StreamExt, stream};

use super::answer::{Question, ask, ask_each};
use super::dialect::echoed;
use super::protocol::{AnswerReader, Outgoing, Protocol};
use super::upstream::Upstream;
use crate::endpoints::Task;
use crate::providers::{
    Answer, AnswerEvent, ChatCall, CompletionCall, Delta, EmbeddingCall, Embeddings, Generation, Provider,
    ProviderError, RerankCall, Scores,
};

/// A model of another provider.
pub(super) struct ExternalProvider(pub(super) Arc<Upstream>);

impl Provider for ExternalProvider {
    fn task(&self) -> Option<Task> {
        Some(self.0.model.task())
    }

    fn model_name(&self) -> &str {
        self.0.model.name()
    }

    fn chat(&self, call: ChatCall) -> BoxFuture<'_, Result<Answer, ProviderError>> {
        let answer = async move {
            self.check_task(Task::Chat)?;
            let outgoing = self.0.protocol().chat(&call, self.0.target())?;
            self.generate(outgoing, &call.generation, 1, |protocol, choices| protocol.chat_reader(choices)).await
        };
        answer.boxed()
    }

    fn complete(&self, call: CompletionCall) -> BoxFuture<'_, Result<Answer, ProviderError>> {
        let answer = async move {
            self.check_task(Task::Completions)?;
            let outgoing = self.0.protocol().complete(&call, self.0.target())?;
            let prompts = call.prompts.len();
            let answer = self
                .generate(outgoing, &call.generation, prompts, |protocol, choices| protocol.completion_reader(choices))
                .await?;
            Ok(with_echo(answer, &call))
        };
        answer.boxed()
    }

    fn embed(&self, call: EmbeddingCall) -> BoxFuture<'_, Result<Embeddings, ProviderError>> {
        let embeddings = async move {
            self.check_task(Task::Embeddings)?;
            let requests = self.0.protocol().embed(&call, self.0.target())?;
            let deadline = call.deadline;
            let read = |body: &[u8]| self.0.protocol().embeddings(body);
            let answers = requests.iter().map(|outgoing| self.0.document(outgoing, deadline, read));
            let answers = within(deadline, try_join_all(answers)).await?;
            let prompt_tokens = answers.iter().map(|answer| answer.prompt_tokens).sum();
            let vectors: Vec<Vec<f32>> = answers.into_iter().flat_map(|answer| answer.vectors).collect();
            if vectors.len() != call.inputs.len() {
                let text = format!(
                    "{} answered {} vectors for {} texts",
                    self.0.model.provider(),
                    vectors.len(),
                    call.inputs.len()
                );
                return Err(ProviderError::Failed(text));
            }
            Ok(Embeddings { vectors, prompt_tokens })
        };
        embeddings.boxed()
    }

    fn rerank(&self, _call: RerankCall) -> BoxFuture<'_, Result<Scores, ProviderError>> {
        async { Err(self.0.target().wrong_task("rank documents here")) }.boxed()
    }
}

impl ExternalProvider {
    /// What a model is for was said when it was configured.
    fn check_task(&self, wanted: Task) -> Result<(), ProviderError> {
        let task = self.0.model.task();
        if task == wanted {
            return Ok(());
        }
        Err(ProviderError::WrongTask(format!(
            "the model {} is configured for {task}, not for {wanted}",
            self.model_name()
        )))
    }

    /// The answers to a request with so many prompts.
    async fn generate(
        &self,
        outgoing: Outgoing,
        generation: &Generation,
        prompts: usize,
        reader: fn(&dyn Protocol, usize) -> Box<dyn AnswerReader>,
    ) -> Result<Answer, ProviderError> {
        let upstream = &self.0;
        let (deadline, each) = (generation.deadline, generation.choices);
        let choices = if upstream.protocol().gives_choices() { each * prompts } else { 1 };
        let protocol = Arc::clone(&upstream.model.protocol);
        let reader = Box::new(move || reader(&*protocol, choices));
        let question = Question { outgoing, reader, choices, deadline };
        within(deadline, async {
            match upstream.protocol().gives_choices() || each == 1 {
                true => ask(upstream, &question).await,
                false => ask_each(upstream, &question, each).await,
            }
        })
        .await
    }
}

/// The answer with its prompts before its choices, where the API does not repeat them.
fn with_echo(answer: Answer, call: &CompletionCall) -> Answer {
    let each = call.generation.choices;
    let delta = |text: &str| Delta { text: text.to_owned(), ..Delta::default() };
    let echoes = echoed(call).into_iter().enumerate().flat_map(|(prompt, text)| {
        (0..each).map(move |choice| Ok(AnswerEvent::Echo { index: prompt * each + choice, delta: delta(text) }))
    });
    let echoes: Vec<_> = echoes.collect();
    Answer { events: stream::iter(echoes).chain(answer.events).boxed(), ..answer }
}

/// Waits until `deadline` at most.
async fn within<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, ProviderError>>,
) -> Result<T, ProviderError> {
    match deadline {
        None => work.await,
        Some(deadline) => {
            let late = |_| Err(ProviderError::Late { begun: true });
            tokio::time::timeout_at(deadline.into(), work).await.unwrap_or_else(late)
        }
    }
}
