//! Models for guardrails: they repeat what they were told, judge, or tell two topics apart.

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};

use crate::endpoints::Task;
use crate::providers::{
    Answer, AnswerEvent, CallDelta, ChatCall, CompletionCall, Delta, EmbeddingCall, Embeddings, Prompt, Provider,
    ProviderError, RerankCall, Scores,
};
use crate::wire::options::{FinishReason, Usage};

/// A model of that name.
pub(super) fn model(name: &str) -> Option<Scripted> {
    match name {
        "parrot" => Some(Scripted::Parrot),
        "mirror" => Some(Scripted::Mirror),
        "judge" => Some(Scripted::Judge),
        "topics" => Some(Scripted::Topics),
        "ranks" => Some(Scripted::Ranks),
        _ => None,
    }
}

pub(super) enum Scripted {
    /// Says what the last message says, three characters at a time; with tools it calls one with that.
    Parrot,
    /// Says all that is in the call.
    Mirror,
    /// Holds bombs unsafe, and has nothing to say to riddles.
    Judge,
    /// Knows texts about bills from others.
    Topics,
    /// Ranks nothing in which there is no mask.
    Ranks,
}

fn pieces(text: &str) -> Vec<String> {
    text.chars().collect::<Vec<_>>().chunks(3).map(|piece| piece.iter().collect()).collect()
}

fn said(texts: &[String]) -> Answer {
    let of_choice = |(index, text): (usize, &String)| {
        let delta = |text| Ok(AnswerEvent::Delta { index, delta: Delta { text, ..Delta::default() } });
        pieces(text).into_iter().map(delta).chain([finished(index, FinishReason::Stop)]).collect::<Vec<_>>()
    };
    let events: Vec<_> = texts.iter().enumerate().flat_map(of_choice).collect();
    Answer { choices: texts.len(), events: stream::iter(events).boxed() }
}

fn finished(index: usize, reason: FinishReason) -> Result<AnswerEvent, ProviderError> {
    Ok(AnswerEvent::Finished { index, reason, usage: Usage::new(11, 5 * (index + 1)) })
}

fn called(arguments: &str) -> Answer {
    let call = |begun, arguments: String| {
        let calls = vec![CallDelta { index: 0, begun, arguments }];
        Ok(AnswerEvent::Delta { index: 0, delta: Delta { calls, ..Delta::default() } })
    };
    let begun = call(Some(("call_1".to_owned(), "send".to_owned())), String::new());
    let rest = pieces(arguments).into_iter().map(|piece| call(None, piece));
    let events: Vec<_> = [begun].into_iter().chain(rest).chain([finished(0, FinishReason::ToolCalls)]).collect();
    Answer { choices: 1, events: stream::iter(events).boxed() }
}

impl Provider for Scripted {
    fn task(&self) -> Option<Task> {
        Some(match self {
            Self::Topics => Task::Embeddings,
            Self::Ranks => Task::Rerank,
            Self::Parrot | Self::Mirror | Self::Judge => Task::Chat,
        })
    }

    fn model_name(&self) -> &str {
        "scripted"
    }

    fn chat(&self, call: ChatCall) -> BoxFuture<'_, Result<Answer, ProviderError>> {
        let last = call.messages.last().map(|message| message.content.clone()).unwrap_or_default();
        let answer = match self {
            Self::Parrot if call.tools.is_some() => called(&serde_json::json!({"to": last}).to_string()),
            Self::Parrot => said(&vec![last; call.generation.choices]),
            Self::Judge if last.contains("riddle") => said(&["I do not know.".to_owned()]),
            Self::Judge if last.contains("bomb") => said(&["\n\nunsafe\nS9".to_owned()]),
            Self::Judge => said(&["\n\nsafe".to_owned()]),
            Self::Mirror | Self::Topics | Self::Ranks => said(&[format!("{call:?}")]),
        };
        async move { Ok(answer) }.boxed()
    }

    fn complete(&self, call: CompletionCall) -> BoxFuture<'_, Result<Answer, ProviderError>> {
        async move { Ok(said(&[format!("{call:?}")])) }.boxed()
    }

    fn embed(&self, call: EmbeddingCall) -> BoxFuture<'_, Result<Embeddings, ProviderError>> {
        let vector = |input: &Prompt| {
            let is_bill = matches!(input, Prompt::Text(text) if text.contains("bill"));
            let is_masked = format!("{call:?}").contains("<EMAIL_ADDRESS>");
            vec![f32::from(u8::from(is_bill)), f32::from(u8::from(!is_bill)), f32::from(u8::from(is_masked))]
        };
        let vectors = call.inputs.iter().map(vector).collect();
        async move { Ok(Embeddings { vectors, prompt_tokens: 7 }) }.boxed()
    }

    fn rerank(&self, call: RerankCall) -> BoxFuture<'_, Result<Scores, ProviderError>> {
        let logit = if format!("{call:?}").contains("<EMAIL_ADDRESS>") { 0.0 } else { -9.0 };
        let logits = vec![logit; call.documents.len()];
        async move { Ok(Scores { logits, prompt_tokens: 9 }) }.boxed()
    }
}
