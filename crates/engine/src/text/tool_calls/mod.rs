//! Function calls as models write them: the formats there are, a parser of answers for each, the prompt that asks for
//! them, and the grammar that holds an answer to them.
//!
//! Owns everything in which models differ about tools. Knows no request and no wire format.

mod generic;
mod grammar;
mod hermes;
mod json;
mod llama;
mod mistral;
mod mistral_args;
mod named;
mod object;
mod parser;
mod prompt;
mod python;
mod written;

use std::sync::Arc;

use serde_json::{Value, json};

pub use grammar::{Offer, Otherwise};
pub use parser::{CallEvent, CallParser};
pub use prompt::{ToolPrompt, ToolUse};

use self::parser::Syntax;

/// The formats. The first that recognises a chat template is its model's; the last recognises all.
pub static TOOL_FORMATS: &[ToolFormat] =
    &[mistral_args::FORMAT, mistral::FORMAT, hermes::FORMAT, llama::FORMAT, generic::FORMAT];

/// One way to write calls.
#[derive(Debug)]
pub struct ToolFormat {
    /// Its name on a model's card.
    pub name: &'static str,
    /// Whether a chat template, by its text, asks its model for calls of this kind.
    recognises: fn(&str) -> bool,
    syntax: Syntax,
    layout: Layout,
    /// How the ids of calls must look in a prompt, if not any will do.
    short_ids: bool,
}

/// How calls are written where the grammar or the prompt writes them.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// In front of the first call, behind the opener if there is one.
    opening: &'static str,
    /// Whether the opener stands in front of every call, or of all of them.
    opener: OpenerPlace,
    /// Between two calls.
    between: &'static str,
    /// Behind the last call.
    closing: &'static str,
}

/// How one call is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// A JSON object.
    Object {
        /// The key of the arguments.
        arguments: &'static str,
    },
    /// The name, a mark and the arguments.
    Named {
        /// What stands in front of the call's id, if it has one, behind the name.
        id: &'static str,
        /// What stands in front of the arguments.
        arguments: &'static str,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OpenerPlace {
    Nowhere,
    Once,
    EachCall,
}

impl ToolFormat {
    /// The format of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        TOOL_FORMATS.iter().find(|format| format.name == name)
    }

    /// The format that a chat template asks for.
    fn of(template: &str) -> &'static Self {
        TOOL_FORMATS.iter().find(|format| (format.recognises)(template)).unwrap_or(&generic::FORMAT)
    }

    /// A parser of one answer that may call these functions, so many times.
    #[must_use]
    pub fn parser(&self, functions: Arc<[String]>, most_calls: usize) -> CallParser {
        CallParser::new(self.syntax, functions, most_calls)
    }

    /// Texts of this format's own that a vocabulary may have as special tokens; the parser must see them.
    #[must_use]
    pub fn marks(&self) -> Vec<&'static str> {
        let within = match self.syntax.shape {
            Shape::Named { id, arguments } => vec![id, arguments],
            Shape::Object { .. } => Vec::new(),
        };
        [self.syntax.opener].into_iter().chain(self.syntax.closer).chain(within).collect()
    }

    /// Makes an id for a call out of 128 random bits.
    #[must_use]
    pub fn call_id(&self, random: u128) -> String {
        match self.short_ids {
            true => short_id(random),
            false => format!("call_{random:032x}"),
        }
    }
}

/// Nine letters and digits.
fn short_id(random: u128) -> String {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let digits = (0..9).scan(random, |rest, _| {
        let digit = (*rest % 62) as usize;
        *rest /= 62;
        Some(char::from(LETTERS[digit]))
    });
    digits.collect()
}

/// A function that a model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// What it does; empty if nothing is said.
    pub description: String,
    /// A JSON schema of its arguments, which are an object.
    pub parameters: Value,
    /// Whether the schema is to be honoured to the letter, or refused.
    pub strict: bool,
}

impl Function {
    /// As chat templates read it.
    fn described(&self) -> Value {
        let Self { name, description, parameters, .. } = self;
        let function = json!({"name": name, "description": description, "parameters": parameters});
        json!({"type": "function", "function": function})
    }
}

#[cfg(test)]
mod tests;
