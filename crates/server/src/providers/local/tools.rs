//! Functions and calls of a local decoder: prompts that offer them, grammars that hold answers to them, and answers' texts
//! taken apart into contents and calls.

use std::sync::Arc;

use hearth_engine::serve::{EngineHandle, FinishReason as EngineReason};
use hearth_engine::text::grammar::{AnswerStart, Grammar};
use hearth_engine::text::tool_calls::{CallEvent, CallParser, Function, Offer, Otherwise, ToolFormat, ToolPrompt};
use hearth_engine::text::{ModelText, TextError};
use serde_json::{Value, json};
use uuid::Uuid;

use super::decoder::compiled;
use super::grammar_error;
use crate::providers::call::ChatMessage;
use crate::providers::{AskedGrammar, CallDelta, Delta, ProviderError, ToolUse, Tools};
use crate::wire::options::FinishReason;

/// A conversation as the model's template takes it, in which these functions are offered.
pub(super) fn prompt(
    text: &ModelText,
    messages: &[ChatMessage],
    functions: &[Function],
) -> Result<ToolPrompt, TextError> {
    let tools = text.tools.as_ref().ok_or(TextError::NoTemplate)?;
    Ok(tools.prompt(messages.iter().map(template_message).collect(), functions))
}

/// A message as chat templates read it.
fn template_message(message: &ChatMessage) -> Value {
    let mut value = json!({"role": message.role, "content": message.content});
    if let Some(name) = &message.name {
        value["name"] = json!(name);
    }
    if !message.calls.is_empty() {
        let calls = message.calls.iter().map(|call| {
            json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}})
        });
        value["tool_calls"] = calls.collect();
    }
    if let Some(id) = &message.answers {
        value["tool_call_id"] = json!(id);
    }
    value
}

/// What becomes of an answer that may call functions, and what it is held to. `form` is what it must look like if it does
/// not call any.
///
/// # Errors
/// When a function's schema or the form cannot be honoured.
pub(super) fn prepare(
    engine: &EngineHandle,
    tools: &Tools,
    form: Option<&AskedGrammar>,
) -> Result<(Arc<Grammar>, Calls), ProviderError> {
    let text = engine.text();
    let format = text.tools.as_ref().ok_or_else(|| super::text_error("messages", &TextError::NoTemplate))?.format;
    let (functions, first) = match tools.choice {
        ToolUse::Named(index) => (&tools.functions[index..=index], index),
        ToolUse::Auto | ToolUse::Required => (tools.functions.as_slice(), 0),
    };
    let named = matches!(tools.choice, ToolUse::Named(_));
    // What is wrong with the form is told as of the form, also where no answer will have it.
    compiled(engine, form, AnswerStart::Anew)?;
    let otherwise = match (tools.choice, form) {
        (ToolUse::Auto, None) => Otherwise::Text,
        (ToolUse::Auto, Some(form)) => Otherwise::Form(&form.source),
        (ToolUse::Required | ToolUse::Named(_), _) => Otherwise::Nothing,
    };
    let offer = Offer { functions, otherwise, parallel: tools.parallel && !named };
    let source = format.grammar(offer, &text.tokenizer).map_err(|(index, error)| {
        let field = format!("tools[{}].function.parameters", first + index);
        grammar_error(&field, &error)
    })?;
    let grammar = engine.grammars().compile(&source, AnswerStart::Anew);
    let grammar = grammar.map_err(|error| grammar_error("tools", &error))?;
    let names: Arc<[String]> = functions.iter().map(|function| function.name.clone()).collect();
    // As many as the grammar allows: as the answer's tokens have room for.
    let most = if offer.parallel { usize::MAX } else { 1 };
    let special = |mark: &str| text.tokenizer.id_of(mark).filter(|id| text.tokenizer.is_special(*id));
    let kept = format.marks().into_iter().filter_map(special).collect();
    let parser = format.parser(names, most);
    let parser = match otherwise {
        Otherwise::Form(_) => parser.deciding(format.heads(functions)),
        Otherwise::Nothing | Otherwise::Text => parser,
    };
    Ok((grammar, Calls { parser, format, kept, made: 0, complete: true }))
}

/// Takes one choice's text apart.
#[derive(Clone)]
pub(super) struct Calls {
    parser: CallParser,
    format: &'static ToolFormat,
    /// Special tokens that the parser must see.
    kept: Vec<u32>,
    made: usize,
    /// Every call so far is.
    complete: bool,
}

impl Calls {
    /// Special tokens that are part of the text.
    pub(super) fn kept(&self) -> Vec<u32> {
        self.kept.clone()
    }

    /// A piece of the choice, without what is not known for content or a call yet.
    pub(super) fn push(&mut self, delta: Delta) -> Delta {
        let events = self.parser.push(&delta.text);
        self.delta(events, delta)
    }

    /// What is known at the end of the choice.
    pub(super) fn finish(&mut self) -> Delta {
        let events = self.parser.finish();
        self.delta(events, Delta::default())
    }

    /// Why the choice has ended: with calls only if they can be made.
    pub(super) fn reason(&self, reason: EngineReason) -> FinishReason {
        match reason {
            EngineReason::Length => FinishReason::Length,
            EngineReason::Stop | EngineReason::Complete if self.made > 0 && self.complete => FinishReason::ToolCalls,
            EngineReason::Stop | EngineReason::Complete => FinishReason::Stop,
        }
    }

    fn delta(&mut self, events: Vec<CallEvent>, of: Delta) -> Delta {
        let mut delta = Delta { text: String::new(), calls: Vec::new(), ..of };
        for event in events {
            match event {
                CallEvent::Content(text) => delta.text.push_str(&text),
                CallEvent::Begin { name } => {
                    let begun = Some((self.format.call_id(Uuid::new_v4().as_u128()), name));
                    delta.calls.push(CallDelta { index: self.made, begun, arguments: String::new() });
                    self.made += 1;
                    self.complete = false;
                }
                CallEvent::Arguments(text) => match delta.calls.last_mut() {
                    Some(call) if call.index + 1 == self.made => call.arguments.push_str(&text),
                    _ => delta.calls.push(CallDelta { index: self.made - 1, begun: None, arguments: text }),
                },
                CallEvent::End => self.complete = true,
            }
        }
        delta
    }
}
