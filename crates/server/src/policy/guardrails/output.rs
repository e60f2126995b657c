//! An answer on its way to the caller: with masks, or cut off where it may not go on. Plain and streamed answers are the same
//! events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use futures::stream::{self, BoxStream};
use futures::{StreamExt, future};
use hearth_engine::text::grammar::GrammarSource;

use super::json::JsonMasker;
use super::masker::{Masker, Stop, plain};
use super::refusal::{Refusal, Which};
use super::texts::Texts;
use super::{Guardrails, Side};
use crate::providers::call::ChatMessage;
use crate::providers::{Answer, AnswerEvent, CallDelta, Delta, Generation, ProviderError};
use crate::wire::chat::Role;

type Events = BoxStream<'static, Result<AnswerEvent, ProviderError>>;

/// What is done with the answer of one call.
pub(crate) struct Watch {
    guardrails: Arc<Guardrails>,
    /// Whether the answer is JSON.
    is_json: bool,
    /// What the answer is to, for the judge.
    asked: String,
    deadline: Option<Instant>,
}

impl Watch {
    /// Over the answer to `call`; `None` where nobody looks at it.
    ///
    /// # Errors
    /// 400 where it is to tell the tokens that masks would hide.
    pub(super) fn of(guardrails: &Arc<Guardrails>, call: &impl Texts) -> Result<Option<Self>, ProviderError> {
        let side = &guardrails.output;
        let Some(generation) = call.generation().filter(|_| !side.is_idle()) else { return Ok(None) };
        if !side.scanner.is_idle() && shows_tokens(generation) {
            let text =
                "not on an endpoint whose guardrails look for texts in its answers: tokens would show what they hide";
            return Err(ProviderError::invalid("logprobs", format!("`logprobs`: {text}")));
        }
        let grammar = generation.grammar.as_ref().map(|grammar| &grammar.source);
        let is_json = matches!(grammar, Some(GrammarSource::JsonObject | GrammarSource::JsonSchema { .. }))
            && generation.given.get("echo").is_none_or(|echo| *echo == false);
        let asked = if side.safety { call.asked().join("\n\n") } else { String::new() };
        Ok(Some(Self { guardrails: Arc::clone(guardrails), is_json, asked, deadline: generation.deadline }))
    }

    /// The answer as the caller gets it. The model is let go where that ends early.
    pub(crate) fn over(self, answer: Answer) -> Answer {
        let count = answer.choices;
        let mut choices = Vec::new();
        choices.resize_with(count, || Choice::new(self.is_json));
        let watched = Watched { guardrails: Arc::clone(&self.guardrails), choices, events: answer.events };
        let events = stream::unfold(Some(watched), |watched| async move {
            let mut watched = watched?;
            match watched.events.next().await?.and_then(|event| watched.see(event)) {
                Ok(events) => Some((events.into_iter().map(Ok).collect::<Vec<_>>(), Some(watched))),
                Err(error) => Some((vec![Err(error)], None)),
            }
        });
        let events = events.flat_map(stream::iter).boxed();
        let events = if self.guardrails.output.is_judged() { self.judged(events, count) } else { events };
        Answer { choices: count, events }
    }

    /// The same events, none of them before all are there and were judged.
    fn judged(self, events: Events, choices: usize) -> Events {
        let judged = async move {
            match self.judge(events, choices).await {
                Ok(events) => events.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            }
        };
        stream::once(judged).flat_map(stream::iter).boxed()
    }

    async fn judge(self, mut events: Events, choices: usize) -> Result<Vec<AnswerEvent>, ProviderError> {
        let (mut seen, mut texts, mut unfinished) = (Vec::new(), vec![String::new(); choices], choices);
        while unfinished > 0 {
            let event = events.next().await.unwrap_or_else(|| Err(ended_early()))?;
            match &event {
                AnswerEvent::Echo { index, delta } | AnswerEvent::Delta { index, delta } => {
                    if let Some(text) = texts.get_mut(*index) {
                        text.push_str(&delta.text);
                        delta.calls.iter().for_each(|call| text.push_str(&call.arguments));
                    }
                }
                AnswerEvent::Finished { .. } => unfinished -= 1,
            }
            seen.push(event);
        }
        drop(events);
        let said = |text: &String| {
            let asked = ChatMessage::text(Role::User, self.asked.clone());
            vec![asked, ChatMessage::text(Role::Assistant, text.clone())]
        };
        let side = &self.guardrails.output;
        let judged = texts.iter().filter(|text| !text.trim().is_empty()).map(|text| async {
            let refusal = side.judged(vec![text.as_str()], said(text), self.deadline).await?;
            refusal.map_or(Ok(()), |refusal| Err(refusal.error(Which::Output)))
        });
        future::try_join_all(judged).await?;
        Ok(seen)
    }
}

fn ended_early() -> ProviderError {
    ProviderError::Failed("the answer ended before all of its choices were finished".into())
}

/// Whether the caller is to see single tokens. That they are computed to find the best of several answers is another thing.
fn shows_tokens(generation: &Generation) -> bool {
    generation.given.get("logprobs").is_some_and(|logprobs| *logprobs != false)
}

/// An answer that is looked at while it is made.
struct Watched {
    guardrails: Arc<Guardrails>,
    choices: Vec<Choice>,
    events: Events,
}

/// What is held back of one choice.
struct Choice {
    text: Content,
    /// The arguments of its calls.
    calls: BTreeMap<usize, JsonMasker>,
}

enum Content {
    Text(Masker),
    Json(JsonMasker),
}

impl Choice {
    fn new(is_json: bool) -> Self {
        let text = if is_json { Content::Json(JsonMasker::default()) } else { Content::Text(Masker::default()) };
        Self { text, calls: BTreeMap::new() }
    }

    fn push(&mut self, side: &Side, delta: Delta) -> Result<Delta, Stop> {
        let Delta { text, tokens, calls } = delta;
        let text = self.text.push(side, &text, false)?;
        let call = |CallDelta { index, begun, arguments }| {
            let masker = self.calls.entry(index).or_default();
            Ok(CallDelta { index, begun, arguments: masker.push(side, &arguments, false)? })
        };
        let calls = calls.into_iter().map(call).collect::<Result<Vec<_>, Stop>>()?;
        // A piece of a call that is held back as a whole says nothing.
        let calls = calls.into_iter().filter(|call| call.begun.is_some() || !call.arguments.is_empty()).collect();
        Ok(Delta { text, tokens, calls })
    }

    fn finish(&mut self, side: &Side) -> Result<Delta, Stop> {
        let text = self.text.push(side, "", true)?;
        let mut calls = Vec::new();
        for (index, masker) in &mut self.calls {
            let arguments = masker.push(side, "", true)?;
            if !arguments.is_empty() {
                calls.push(CallDelta { index: *index, begun: None, arguments });
            }
        }
        Ok(Delta { text, tokens: Vec::new(), calls })
    }
}

impl Content {
    fn push(&mut self, side: &Side, more: &str, ended: bool) -> Result<String, Stop> {
        match self {
            Self::Text(masker) => masker.push(side, more, ended, plain),
            Self::Json(masker) => masker.push(side, more, ended),
        }
    }
}

impl Watched {
    /// What can be shown after an event.
    fn see(&mut self, event: AnswerEvent) -> Result<Vec<AnswerEvent>, ProviderError> {
        let side = &self.guardrails.output;
        let (AnswerEvent::Echo { index, .. } | AnswerEvent::Delta { index, .. } | AnswerEvent::Finished { index, .. }) =
            event;
        // What nobody has asked for is refused behind this.
        let Some(choice) = self.choices.get_mut(index) else { return Ok(vec![event]) };
        let seen = match event {
            AnswerEvent::Echo { index, delta } => {
                choice.push(side, delta).map(|delta| vec![AnswerEvent::Echo { index, delta }])
            }
            AnswerEvent::Delta { index, delta } => {
                choice.push(side, delta).map(|delta| vec![AnswerEvent::Delta { index, delta }])
            }
            AnswerEvent::Finished { .. } => choice.finish(side).map(|delta| {
                let rest = (!delta.is_empty()).then_some(AnswerEvent::Delta { index, delta });
                rest.into_iter().chain([event]).collect()
            }),
        };
        seen.map_err(|stop| match stop {
            Stop::Keyword => Refusal::keyword().error(Which::Output),
            Stop::Personal(_) => Refusal { personal: true, ..Refusal::default() }.error(Which::Output),
        })
    }
}
