//! One answer at the terminal: from messages to text on stdout as it comes.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use anyhow::{Context, Result};
use futures::StreamExt;
use hearth_engine::serve::{EngineHandle, GenerationRequest, TextEvent, TextOptions, TextStream};
use hearth_engine::text::grammar::{AnswerStart, Grammar, GrammarSource};
use hearth_engine::text::{Conversation, ModelText, SpecialTokens, TextError};
use hearth_sampler::SamplingRequest;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::terminal;

/// Answers conversations with one model and one set of sampling fields.
pub(super) struct Answerer {
    engine: EngineHandle,
    sampling: SamplingRequest,
    max_tokens: usize,
    grammar: Option<Arc<Grammar>>,
    runtime: Runtime,
}

impl Answerer {
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn new(engine: EngineHandle, sampling: SamplingRequest, max_tokens: usize) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { engine, sampling, max_tokens, grammar: None, runtime })
    }

    /// Holds every answer to that.
    ///
    /// # Errors
    /// When it cannot be compiled.
    pub(super) fn hold_to(&mut self, source: &GrammarSource) -> Result<()> {
        let begins = if continues_text(self.engine.text()) { AnswerStart::Continued } else { AnswerStart::Anew };
        self.grammar = Some(self.engine.grammars().compile(source, begins)?);
        Ok(())
    }

    /// Streams the answer to stdout, ended by a line feed, and returns it. Ctrl-C ends it early.
    ///
    /// # Errors
    /// When a field is out of range, the conversation does not fit, or the engine fails.
    pub(super) fn answer(&mut self, messages: &[Value]) -> Result<String> {
        let text = Arc::clone(self.engine.text());
        let prompt = prompt_tokens(&text, messages)?;
        let info = self.engine.info();
        // Without a seed each answer draws its own.
        let params = self.sampling.clone().check(info.vocab_size, RandomState::new().hash_one(0))?;
        let stops = params.stop().to_vec();
        let request = GenerationRequest::check(prompt, params, self.max_tokens, None, info)?;
        let generation = self.engine.submit(request.with_grammar(self.grammar.clone()))?;
        let continues_text = continues_text(&text);
        let options = TextOptions { stops: &stops, continues_text, ..TextOptions::default() };
        let mut stream = TextStream::new(generation, text, options);
        self.runtime.block_on(async {
            let mut answer = String::new();
            // One for the whole answer, so that no signal falls between two.
            let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
            loop {
                let event = tokio::select! {
                    event = stream.next() => event,
                    interrupted = &mut interrupted => {
                        interrupted.context("cannot wait for Ctrl-C")?;
                        None
                    }
                };
                match event.transpose()? {
                    Some(TextEvent::Delta(delta)) => {
                        terminal::answer(&delta.text)?;
                        answer.push_str(&delta.text);
                    }
                    Some(TextEvent::Prompt(_)) => {}
                    Some(TextEvent::Finished { .. }) | None => {
                        terminal::answer("\n")?;
                        return Ok(answer);
                    }
                }
            }
        })
    }
}

/// Whether an answer goes on from the prompt's text.
fn continues_text(text: &ModelText) -> bool {
    text.template.is_none()
}

/// The conversation through the model's template. A model without one continues the messages' text as it stands.
fn prompt_tokens(text: &ModelText, messages: &[Value]) -> Result<Vec<u32>, TextError> {
    if text.template.is_some() {
        return text.prompt_tokens(&Conversation { messages, add_generation_prompt: true, ..Conversation::default() });
    }
    let contents = messages.iter().filter_map(|message| message.get("content")?.as_str());
    text.tokenizer.encode(&contents.collect::<Vec<_>>().join("\n"), SpecialTokens::Add)
}
