//! A provider that answers by a script.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};

use crate::endpoints::Task;
use crate::providers::{
    Answer, AnswerEvent, ChatCall, CompletionCall, Delta, EmbeddingCall, Embeddings, Prompt, Provider, ProviderError,
    RerankCall, Scores, TokenLogprob, TopLogprob,
};
use crate::wire::options::{FinishReason, Usage};

/// What the script says.
#[derive(Clone)]
pub(super) enum Script {
    /// Every choice `i` says "Hel", "lo" and its index.
    Greet,
    /// No answer at all.
    Refuse(ProviderError),
    /// A first piece, then this error.
    Break(ProviderError),
    /// A first piece and then nothing, for ever. The flag is set when somebody stops waiting.
    Hang(Arc<AtomicBool>),
    /// The answer ends without its last event.
    Vanish,
    /// The provider panics.
    Panic,
}

pub(super) struct Fake {
    task: Task,
    script: Script,
}

impl Fake {
    pub(super) fn new(task: Task) -> Self {
        Self { task, script: Script::Greet }
    }

    pub(super) fn with(script: Script) -> Self {
        Self { task: Task::Chat, script }
    }

    fn answer(&self, choices: usize, prompts: &[Option<String>]) -> Result<Answer, ProviderError> {
        let first = || stream::iter([Ok(delta(0, "Hel"))]);
        let events: BoxStream<'static, _> = match &self.script {
            Script::Greet => stream::iter(greeting(choices, prompts).into_iter().map(Ok)).boxed(),
            Script::Refuse(error) => return Err(error.clone()),
            Script::Break(error) => first().chain(stream::iter([Err(error.clone())])).boxed(),
            Script::Hang(gone) => {
                let guard = SetOnDrop(Arc::clone(gone));
                let never = stream::once(async move {
                    let _guard = guard;
                    futures::future::pending().await
                });
                first().chain(never).boxed()
            }
            Script::Vanish => first().boxed(),
            Script::Panic => panic!("the script says so"),
        };
        Ok(Answer { choices, events })
    }
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn delta(index: usize, text: &str) -> AnswerEvent {
    AnswerEvent::Delta {
        index,
        delta: Delta { text: text.into(), tokens: vec![token(text, -0.5 - index as f32)], ..Delta::default() },
    }
}

fn token(text: &str, logprob: f32) -> TokenLogprob {
    let top = vec![TopLogprob { text: "top".into(), bytes: b"top".to_vec(), logprob: -0.25 }];
    TokenLogprob { text: text.into(), bytes: text.as_bytes().to_vec(), logprob: Some(logprob), top }
}

/// All choices in turn, piece by piece, as an engine with a batch makes them.
fn greeting(choices: usize, prompts: &[Option<String>]) -> Vec<AnswerEvent> {
    let mut events = Vec::new();
    for index in 0..choices {
        if let Some(Some(text)) = prompts.get(index * prompts.len() / choices) {
            let first = TokenLogprob { logprob: None, top: Vec::new(), ..token(text, 0.0) };
            events.push(AnswerEvent::Echo {
                index,
                delta: Delta { text: text.clone(), tokens: vec![first], ..Delta::default() },
            });
        }
    }
    events.extend((0..choices).map(|index| delta(index, "Hel")));
    events.extend((0..choices).map(|index| delta(index, "lo")));
    events.extend((0..choices).map(|index| delta(index, &format!(" {index}"))));
    events.extend((0..choices).map(|index| {
        let reason = if index % 2 == 0 { FinishReason::Stop } else { FinishReason::Length };
        AnswerEvent::Finished { index, reason, usage: Usage::new(10, 3 * (index + 1)) }
    }));
    events
}

impl Provider for Fake {
    fn task(&self) -> Option<Task> {
        Some(self.task)
    }

    fn model_name(&self) -> &str {
        "org/Fake-1.5"
    }

    fn chat(&self, call: ChatCall) -> BoxFuture<'_, Result<Answer, ProviderError>> {
        async move { self.answer(call.generation.choices, &[]) }.boxed()
    }

    fn complete(&self, call: CompletionCall) -> BoxFuture<'_, Result<Answer, ProviderError>> {
        async move {
            let echo = |prompt: &Prompt| match prompt {
                Prompt::Text(text) if call.echo => Some(text.clone()),
                _ => None,
            };
            let prompts: Vec<_> = call.prompts.iter().map(echo).collect();
            self.answer(call.generation.choices * prompts.len(), &prompts)
        }
        .boxed()
    }

    fn embed(&self, call: EmbeddingCall) -> BoxFuture<'_, Result<Embeddings, ProviderError>> {
        let vectors = (0..call.inputs.len()).map(|index| vec![index as f32, -1.5]).collect();
        async move { Ok(Embeddings { vectors, prompt_tokens: 7 }) }.boxed()
    }

    /// The longer a document, the better.
    fn rerank(&self, call: RerankCall) -> BoxFuture<'_, Result<Scores, ProviderError>> {
        let logits = call.documents.iter().map(|document| document.len() as f32 - 2.0).collect();
        async move { Ok(Scores { logits, prompt_tokens: 9 }) }.boxed()
    }
}
