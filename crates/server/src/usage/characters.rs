//! How many characters of text a call holds.

use crate::providers::{ChatCall, CompletionCall, EmbeddingCall, Prompt, RerankCall};

/// A call that holds texts.
pub(crate) trait Characters {
    /// Characters of its texts; `None` where some of it is tokens.
    fn characters(&self) -> Option<usize>;
}

fn of_prompts(prompts: &[Prompt]) -> Option<usize> {
    let of = |prompt: &Prompt| match prompt {
        Prompt::Text(text) => Some(text.chars().count()),
        Prompt::Tokens(_) => None,
    };
    prompts.iter().map(of).sum()
}

impl Characters for ChatCall {
    fn characters(&self) -> Option<usize> {
        Some(self.messages.iter().map(|message| message.content.chars().count()).sum())
    }
}

impl Characters for CompletionCall {
    fn characters(&self) -> Option<usize> {
        of_prompts(&self.prompts)
    }
}

impl Characters for EmbeddingCall {
    fn characters(&self) -> Option<usize> {
        of_prompts(&self.inputs)
    }
}

impl Characters for RerankCall {
    fn characters(&self) -> Option<usize> {
        let documents = self.documents.iter().map(|document| document.chars().count());
        Some(self.query.chars().count() + documents.sum::<usize>())
    }
}
