//! The tokens of one sequence on their way from the engine's thread to whoever asked.

use std::pin::Pin;
use std::sync::mpsc::Sender;
use std::task::{Context, Poll};

use futures::Stream;
use hearth_sampler::{Sampled, TokenLogprobs};
use tokio::sync::mpsc::UnboundedReceiver;

use super::engine::Command;
use super::patience::Patience;
use crate::error::Error;
use crate::ids::SeqId;

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop string was found.
    Stop,
    /// Its grammar allows nothing more.
    Complete,
    /// It reached `max_tokens` or the end of the context.
    Length,
}

/// What happens to a sequence.
#[derive(Clone, Debug)]
pub enum GenerationEvent {
    /// It runs. Comes first.
    Admitted {
        /// Tokens of its prompt that were found in the cache and are not computed for it.
        cached_tokens: usize,
    },
    /// The log-probabilities of the prompt's tokens, when they were asked for; `None` for the first. Comes before all tokens.
    Prompt(Vec<Option<TokenLogprobs>>),
    /// A token was generated.
    Token(Sampled),
    /// The end. With [`FinishReason::Stop`] an end token was sampled, which is not among the tokens before.
    Finished(FinishReason),
}

/// The events of one sequence. Dropping it before the end cancels the sequence; its blocks are free within one step.
#[derive(Debug)]
pub struct GenerationStream {
    id: SeqId,
    events: UnboundedReceiver<Result<GenerationEvent, Error>>,
    commands: Sender<Command>,
    patience: Patience,
    ended: bool,
}

impl GenerationStream {
    pub(super) fn new(
        id: SeqId,
        events: UnboundedReceiver<Result<GenerationEvent, Error>>,
        commands: Sender<Command>,
        patience: Patience,
    ) -> Self {
        Self { id, events, commands, patience, ended: false }
    }

    fn cancel(&mut self) {
        if !self.ended {
            self.ended = true;
            // When the engine is gone there is nothing left to cancel.
            let _ = self.commands.send(Command::Cancel(self.id));
        }
    }
}

impl Stream for GenerationStream {
    type Item = Result<GenerationEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Poll::Ready(event) = self.events.poll_recv(context) else {
            let late = std::task::ready!(self.patience.poll(context));
            self.cancel();
            return Poll::Ready(Some(Err(late)));
        };
        self.ended = !matches!(&event, Some(Ok(event)) if !matches!(event, GenerationEvent::Finished(_)));
        // The sender is dropped without a last event only when the engine's thread is gone.
        Poll::Ready(Some(event.unwrap_or(Err(Error::Stopped))))
    }
}

impl Drop for GenerationStream {
    fn drop(&mut self) {
        self.cancel();
    }
}
