//! The texts of a call.

use std::time::Instant;

use serde_json::Value;

use super::json::{each_text, each_text_of};
use crate::providers::{ChatCall, CompletionCall, EmbeddingCall, Generation, Prompt, RerankCall};
use crate::wire::chat::Role;

/// A call as guardrails see it.
pub(crate) trait Texts {
    /// Shows every text that is said to the model to `each`, which may change it: of messages, prompts, documents, calls and
    /// what functions do. Names of functions and ids are no texts, and images are not looked into.
    fn each(&mut self, each: &mut dyn FnMut(&mut String));

    /// Shows whatever else the model, or another provider, is to read to `each`: schemas, and the fields as they were sent.
    fn each_other(&mut self, each: &mut dyn FnMut(&mut String));

    /// What is said, and by whom, in order.
    fn said(&self) -> Vec<(Role, String)>;

    /// The texts that have to be about something that may be asked for.
    fn asked(&self) -> Vec<&str>;

    /// The field that has token ids in the place of texts.
    fn tokens(&self) -> Option<&'static str>;

    /// How the answer is generated, where it is.
    fn generation(&self) -> Option<&Generation>;

    /// When the answer has to be complete.
    fn deadline(&self) -> Option<Instant>;
}

impl Texts for ChatCall {
    fn each(&mut self, each: &mut dyn FnMut(&mut String)) {
        for message in &mut self.messages {
            each(&mut message.content);
            message.parts.iter_mut().filter_map(|part| part.text_mut()).for_each(&mut *each);
            message.name.iter_mut().for_each(&mut *each);
            message.calls.iter_mut().for_each(|call| each_text_of(&mut call.arguments, each));
        }
        for function in self.tools.iter_mut().flat_map(|tools| &mut tools.functions) {
            each(&mut function.description);
        }
    }

    fn each_other(&mut self, each: &mut dyn FnMut(&mut String)) {
        for function in self.tools.iter_mut().flat_map(|tools| &mut tools.functions) {
            each_text(&mut function.parameters, each);
        }
        given(&mut self.generation, each);
    }

    fn said(&self) -> Vec<(Role, String)> {
        let text = |message: &crate::providers::call::ChatMessage| {
            let arguments = message.calls.iter().map(|call| Value::Object(call.arguments.clone()).to_string());
            let texts = std::iter::once(message.content.clone()).filter(|text| !text.is_empty());
            (message.role, texts.chain(arguments).collect::<Vec<_>>().join("\n"))
        };
        self.messages.iter().map(text).collect()
    }

    fn asked(&self) -> Vec<&str> {
        let asked = self.messages.iter().rev().find(|message| message.role == Role::User);
        asked.map(|message| message.content.as_str()).into_iter().collect()
    }

    fn tokens(&self) -> Option<&'static str> {
        None
    }

    fn generation(&self) -> Option<&Generation> {
        Some(&self.generation)
    }

    fn deadline(&self) -> Option<Instant> {
        self.generation.deadline
    }
}

impl Texts for CompletionCall {
    fn each(&mut self, each: &mut dyn FnMut(&mut String)) {
        self.prompts.iter_mut().for_each(|prompt| of_prompt(prompt, each));
    }

    fn each_other(&mut self, each: &mut dyn FnMut(&mut String)) {
        given(&mut self.generation, each);
    }

    fn said(&self) -> Vec<(Role, String)> {
        self.asked().into_iter().map(said_by_user).collect()
    }

    fn asked(&self) -> Vec<&str> {
        self.prompts.iter().filter_map(text).collect()
    }

    fn tokens(&self) -> Option<&'static str> {
        has_tokens(&self.prompts).then_some("prompt")
    }

    fn generation(&self) -> Option<&Generation> {
        Some(&self.generation)
    }

    fn deadline(&self) -> Option<Instant> {
        self.generation.deadline
    }
}

impl Texts for EmbeddingCall {
    fn each(&mut self, each: &mut dyn FnMut(&mut String)) {
        self.instruction.iter_mut().for_each(&mut *each);
        self.inputs.iter_mut().for_each(|input| of_prompt(input, each));
    }

    fn each_other(&mut self, _each: &mut dyn FnMut(&mut String)) {}

    fn said(&self) -> Vec<(Role, String)> {
        self.instruction.as_deref().into_iter().chain(self.asked()).map(said_by_user).collect()
    }

    fn asked(&self) -> Vec<&str> {
        self.inputs.iter().filter_map(text).collect()
    }

    fn tokens(&self) -> Option<&'static str> {
        has_tokens(&self.inputs).then_some("input")
    }

    fn generation(&self) -> Option<&Generation> {
        None
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

impl Texts for RerankCall {
    fn each(&mut self, each: &mut dyn FnMut(&mut String)) {
        each(&mut self.query);
        self.documents.iter_mut().for_each(each);
    }

    fn each_other(&mut self, _each: &mut dyn FnMut(&mut String)) {}

    fn said(&self) -> Vec<(Role, String)> {
        let texts = std::iter::once(self.query.as_str()).chain(self.documents.iter().map(String::as_str));
        texts.map(said_by_user).collect()
    }

    fn asked(&self) -> Vec<&str> {
        vec![&self.query]
    }

    fn tokens(&self) -> Option<&'static str> {
        None
    }

    fn generation(&self) -> Option<&Generation> {
        None
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

/// The fields as they were sent: another provider's model gets them.
fn given(generation: &mut Generation, each: &mut dyn FnMut(&mut String)) {
    for value in generation.given.values_mut().filter(|value| !value.is_number()) {
        each_text(value, each);
    }
}

fn of_prompt(prompt: &mut Prompt, each: &mut dyn FnMut(&mut String)) {
    if let Prompt::Text(text) = prompt {
        each(text);
    }
}

fn text(prompt: &Prompt) -> Option<&str> {
    match prompt {
        Prompt::Text(text) => Some(text),
        Prompt::Tokens(_) => None,
    }
}

fn has_tokens(prompts: &[Prompt]) -> bool {
    prompts.iter().any(|prompt| matches!(prompt, Prompt::Tokens(_)))
}

fn said_by_user(text: &str) -> (Role, String) {
    (Role::User, text.to_owned())
}
