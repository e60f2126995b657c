//! The plain answer: a stream of events, collected.

use futures::StreamExt;

use crate::providers::{Answer, AnswerEvent, CallDelta, Delta, ProviderError, TokenLogprob};
use crate::wire::options::{FinishReason, Usage};
use crate::wire::tools::{CalledFunction, FunctionKind, ToolCall};

/// A whole answer.
pub(super) struct Collected {
    /// By index.
    pub(super) choices: Vec<CollectedChoice>,
    /// Tokens of all of it.
    pub(super) usage: Usage,
}

/// One whole choice.
pub(super) struct CollectedChoice {
    /// The text, beginning with the prompt if that is echoed.
    pub(super) text: String,
    /// The tokens of the text, if log probabilities were asked for.
    pub(super) tokens: Vec<TokenLogprob>,
    /// Functions to call.
    pub(super) calls: Vec<ToolCall>,
    /// How many of the tokens are the prompt's.
    pub(super) echoed: usize,
    /// Why it ended.
    pub(super) reason: FinishReason,
}

impl CollectedChoice {
    /// Mean log probability of the generated tokens; nothing generated counts as certain.
    pub(super) fn mean_logprob(&self) -> f64 {
        let generated = &self.tokens[self.echoed..];
        let sum: f64 = generated.iter().filter_map(|token| token.logprob).map(f64::from).sum();
        sum / (generated.len().max(1) as f64)
    }
}

/// Waits for the end of `answer`. Dropping the future cancels the rest of it.
pub(super) async fn collect(mut answer: Answer) -> Result<Collected, ProviderError> {
    let mut collecting = Collecting::new(answer.choices);
    while let Some(event) = answer.events.next().await {
        collecting.add(event?)?;
    }
    collecting.finish().ok_or_else(ended_early)
}

/// An answer that is being collected.
pub(super) struct Collecting {
    choices: Vec<Draft>,
    usage: Usage,
}

impl Collecting {
    /// Nothing yet, of so many choices.
    pub(super) fn new(choices: usize) -> Self {
        Self { choices: std::iter::repeat_with(Draft::default).take(choices).collect(), usage: Usage::default() }
    }

    /// Adds what has come.
    ///
    /// # Errors
    /// Where the event is of a choice that nobody asked for.
    pub(super) fn add(&mut self, event: AnswerEvent) -> Result<(), ProviderError> {
        match event {
            AnswerEvent::Echo { index, delta } => {
                let draft = choice(&mut self.choices, index)?;
                draft.echoed = delta.tokens.len();
                draft.append(delta)
            }
            AnswerEvent::Delta { index, delta } => choice(&mut self.choices, index)?.append(delta),
            AnswerEvent::Finished { index, reason, usage } => {
                choice(&mut self.choices, index)?.reason = Some(reason);
                self.usage = usage;
                Ok(())
            }
        }
    }

    /// Which choices have come to their end.
    pub(super) fn finished(&self) -> Vec<bool> {
        self.choices.iter().map(|draft| draft.reason.is_some()).collect()
    }

    /// The whole answer; `None` where a choice has not come to its end.
    pub(super) fn finish(self) -> Option<Collected> {
        let choices = self.choices.into_iter().map(|draft| draft.reason.map(|reason| draft.ended(reason)));
        Some(Collected { choices: choices.collect::<Option<_>>()?, usage: self.usage })
    }

    /// As much as there is, as if it were whole.
    pub(super) fn so_far(self) -> Collected {
        let ended = |draft: Draft| {
            let reason = draft.reason.unwrap_or(FinishReason::Stop);
            draft.ended(reason)
        };
        Collected { choices: self.choices.into_iter().map(ended).collect(), usage: self.usage }
    }
}

/// The error of an answer that ends before all of its choices have.
pub(super) fn ended_early() -> ProviderError {
    ProviderError::Failed("the answer ended before all of its choices were finished".into())
}

/// The error of an event for a choice that nobody asked for.
pub(super) fn no_such_choice(index: usize) -> ProviderError {
    ProviderError::Failed(format!("there is no choice {index}"))
}

fn choice(drafts: &mut [Draft], index: usize) -> Result<&mut Draft, ProviderError> {
    drafts.get_mut(index).ok_or_else(|| no_such_choice(index))
}

/// A choice that is being collected.
#[derive(Default)]
struct Draft {
    text: String,
    tokens: Vec<TokenLogprob>,
    calls: Vec<ToolCall>,
    echoed: usize,
    reason: Option<FinishReason>,
}

impl Draft {
    fn append(&mut self, delta: Delta) -> Result<(), ProviderError> {
        self.text.push_str(&delta.text);
        self.tokens.extend(delta.tokens);
        for CallDelta { index, begun, arguments } in delta.calls {
            if let Some((id, name)) = begun {
                let function = CalledFunction { name, arguments: String::new() };
                self.calls.push(ToolCall { id, kind: FunctionKind::Function, function });
            }
            let call = self.calls.get_mut(index);
            let call = call.ok_or_else(|| ProviderError::Failed(format!("there is no call {index}")))?;
            call.function.arguments.push_str(&arguments);
        }
        Ok(())
    }

    fn ended(self, reason: FinishReason) -> CollectedChoice {
        let Self { text, tokens, calls, echoed, .. } = self;
        CollectedChoice { text, tokens, calls, echoed, reason }
    }
}
