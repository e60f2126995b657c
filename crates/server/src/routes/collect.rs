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
    let mut drafts: Vec<Draft> = Vec::new();
    drafts.resize_with(answer.choices, Draft::default);
    let mut total = Usage::default();
    while let Some(event) = answer.events.next().await {
        match event? {
            AnswerEvent::Echo { index, delta } => {
                let draft = choice(&mut drafts, index)?;
                draft.echoed = delta.tokens.len();
                draft.append(delta)?;
            }
            AnswerEvent::Delta { index, delta } => choice(&mut drafts, index)?.append(delta)?,
            AnswerEvent::Finished { index, reason, usage } => {
                choice(&mut drafts, index)?.reason = Some(reason);
                total = usage;
            }
        }
    }
    let choices = drafts.into_iter().map(Draft::finish).collect::<Option<_>>().ok_or_else(ended_early)?;
    Ok(Collected { choices, usage: total })
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

    fn finish(self) -> Option<CollectedChoice> {
        let Self { text, tokens, calls, echoed, reason } = self;
        reason.map(|reason| CollectedChoice { text, tokens, calls, echoed, reason })
    }
}
