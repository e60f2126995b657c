//! The grammar of an answer that may call functions: what constrained decoding holds the model to.
//!
//! Owns how a format's calls are told in the Lark notation of the `llguidance` crate. Compiles nothing.

mod free;
mod pythonic;

use super::super::Tokenizer;
use super::super::grammar::{GrammarError, GrammarSource, MAX_GRAMMAR_BYTES};
use super::{Function, OpenerPlace, Shape, ToolFormat};

/// White space of JSON, as little or as much as the model likes.
const SPACE: &str = r"[ \t\n\r]{0,20}";
/// Behind the mark of an id.
const ID: &str = "/[a-zA-Z0-9]{1,64}/";

/// What an answer may call, and what else it may be.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// The functions, at least one.
    pub functions: &'a [Function],
    /// What it may be besides calls.
    pub otherwise: Otherwise<'a>,
    /// There may be more than one call.
    pub parallel: bool,
}

/// What an answer that may call functions may be besides calls.
#[derive(Clone, Copy, Debug)]
pub enum Otherwise<'a> {
    /// Nothing: it is calls.
    Nothing,
    /// Any text, before calls too; what has begun as a call goes on as one.
    Text,
    /// What this grammar says, or calls and nothing else.
    Form(&'a GrammarSource),
}

impl ToolFormat {
    /// The grammar of answers in this format. The tokenizer says which marks are tokens of their own.
    ///
    /// # Errors
    /// Which function, by its place among them, has a schema that cannot be honoured, and why.
    pub fn grammar(&self, offer: Offer<'_>, tokenizer: &Tokenizer) -> Result<GrammarSource, (usize, GrammarError)> {
        let mut rules = Rules { format: self, tokenizer, text: String::new(), room: 0 };
        for (index, function) in offer.functions.iter().enumerate() {
            let schema = GrammarSource::embedded(&function.parameters, function.strict);
            let schema = schema.map_err(|error| (index, error))?;
            rules.rule(&format!("args_{index}"), &format!("%json {schema}"));
        }
        if let Otherwise::Text = offer.otherwise {
            // What is told a second time must not be what makes a grammar too long.
            let left = (MAX_GRAMMAR_BYTES / 2).saturating_sub(rules.text.len());
            rules.room = left / 2 / offer.functions.len().max(1);
            let trigger = match self.layout.opener {
                OpenerPlace::Nowhere => Some(rules.unannounced(offer)),
                OpenerPlace::Once | OpenerPlace::EachCall => rules.announced(offer),
            };
            return Ok(GrammarSource::Free { grammar: rules.text, trigger });
        }
        rules.required(offer);
        let calls = GrammarSource::Lark(rules.text);
        Ok(match offer.otherwise {
            Otherwise::Form(form) => {
                let heads = self.heads(offer.functions);
                GrammarSource::Either { first: Box::new(calls), heads, second: Box::new(form.clone()) }
            }
            Otherwise::Nothing | Otherwise::Text => calls,
        })
    }

    /// What an answer begins with that is calls, where it may be something else: whoever begins so goes on so.
    pub fn heads(&self, functions: &[Function]) -> Vec<String> {
        match self.layout.opener {
            OpenerPlace::Once | OpenerPlace::EachCall => vec![self.syntax.opener.to_owned()],
            OpenerPlace::Nowhere => functions.iter().flat_map(|function| self.beginnings(&function.name)).collect(),
        }
    }

    /// One call up to its arguments, in each way that it may be written.
    fn beginnings(&self, name: &str) -> Vec<String> {
        let Shape::Object { arguments } = self.syntax.shape else { return Vec::new() };
        let of = |kind: &str| format!(r#"{{{kind}"name": "{name}", "{arguments}": "#);
        match self.syntax.bare {
            // As models write it whose prompt shows the functions so.
            true => vec![of(""), of(r#""type": "function", "#)],
            false => vec![of("")],
        }
    }
}

/// The rules of one grammar.
struct Rules<'a> {
    format: &'a ToolFormat,
    tokenizer: &'a Tokenizer,
    text: String,
    /// For one function's arguments as in Python, in bytes.
    room: usize,
}

impl Rules<'_> {
    fn rule(&mut self, name: &str, body: &str) {
        self.text.extend([name, ": ", body, "\n"]);
    }

    /// `name` is one of several rules, one a function.
    fn any(&mut self, name: &str, each: &str, offer: Offer<'_>) {
        let each: Vec<String> = (0..offer.functions.len()).map(|index| format!("{each}_{index}")).collect();
        self.rule(name, &each.join(" | "));
    }

    /// An opener or closer: its token if it is a special one, which no text is, and else its text.
    fn mark(&self, text: &str) -> String {
        match self.special(text) {
            Some(id) => format!("<[{id}]>"),
            None => quoted(text),
        }
    }

    fn special(&self, text: &str) -> Option<u32> {
        self.tokenizer.id_of(text).filter(|id| self.tokenizer.is_special(*id))
    }

    /// Nothing but calls, written as the prompt shows them.
    fn required(&mut self, offer: Offer<'_>) {
        let (layout, syntax) = (self.format.layout, self.format.syntax);
        let opener = format!("{} ", self.mark(syntax.opener));
        let closer = syntax.closer.map(|closer| format!(" {}", self.mark(closer))).unwrap_or_default();
        let (opening, closing) = (quoted_or_none(layout.opening), quoted_or_none(layout.closing));
        for (index, function) in offer.functions.iter().enumerate() {
            let written = self.written_call(index, function);
            let call = match layout.opener {
                OpenerPlace::EachCall => format!("{opener} {opening} {written} {closing} {closer}"),
                OpenerPlace::Once | OpenerPlace::Nowhere => written,
            };
            self.rule(&format!("call_{index}"), &call);
        }
        self.any("call", "call", offer);
        let more = match offer.parallel {
            true => format!("({} call)*", quoted_or_none(layout.between)),
            false => String::new(),
        };
        let start = match layout.opener {
            // Whether a space stands behind the opener is the vocabulary's to say.
            OpenerPlace::Once => format!(r#"{opener} " "? {opening} call {more} {closing}"#),
            OpenerPlace::EachCall | OpenerPlace::Nowhere => format!("call {more}"),
        };
        self.rule("start", &start);
    }

    /// One call as the prompt shows it.
    fn written_call(&self, index: usize, function: &Function) -> String {
        match self.format.syntax.shape {
            Shape::Object { .. } => {
                let heads: Vec<String> =
                    self.format.beginnings(&function.name).iter().map(|head| quoted(head)).collect();
                format!(r#"({}) args_{index} "}}""#, heads.join(" | "))
            }
            Shape::Named { .. } => self.named_call(index, function),
        }
    }

    /// A name, an id if the model writes one, and arguments.
    fn named_call(&self, index: usize, function: &Function) -> String {
        let Shape::Named { id, arguments } = self.format.syntax.shape else { return String::new() };
        let (name, id, arguments) = (quoted(&function.name), self.mark(id), self.mark(arguments));
        format!("{name} ({id} {ID})? {arguments} args_{index}")
    }
}

/// A text as an expression.
fn escaped(text: &str) -> String {
    let special = |c: char| r"\.+*?()|[]{}^$/".contains(c);
    text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

/// A text as the Lark notation quotes it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The same; nothing for an empty one.
fn quoted_or_none(text: &str) -> String {
    if text.is_empty() { String::new() } else { quoted(text) }
}
