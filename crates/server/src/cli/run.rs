//! `hearth run`: one answer, or a chat at the terminal.

use std::fs;
use std::io::{IsTerminal, Read, stdin};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hearth_engine::serve::EngineHandle;
use hearth_engine::text::grammar::GrammarSource;
use hearth_sampler::SamplingRequest;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::{Value, json};

use super::answer::Answerer;
use super::load::{LoadArguments, load_decoder};
use super::terminal::{answer, say};

/// Arguments of `hearth run`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Catalogue name, folder, `.gguf` file, or hub id
    model: String,
    /// What to answer [default: stdin when it is piped, else a chat]
    prompt: Option<String>,
    /// The system message
    #[arg(long)]
    system: Option<String>,
    /// Answer with JSON that the schema in this file allows
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    load: LoadArguments,
}

/// The sampling fields of the API, with its defaults.
#[derive(clap::Args)]
pub(super) struct SamplingArguments {
    /// Most tokens of an answer
    #[arg(long, default_value_t = 256)]
    max_tokens: usize,
    /// Randomness, 0 to 2; 0 always takes the likeliest token
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    /// Keep the likeliest tokens up to this share of probability
    #[arg(long, default_value_t = 1.0)]
    top_p: f64,
    /// Keep this many of the likeliest tokens
    #[arg(long)]
    top_k: Option<u32>,
    /// Drop tokens less likely than this share of the likeliest
    #[arg(long, default_value_t = 0.0)]
    min_p: f64,
    /// Lower a token's logit by this for each time it stands in the answer, -2 to 2
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true)]
    frequency_penalty: f64,
    /// Lower a token's logit by this once it stands in the answer, -2 to 2
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true)]
    presence_penalty: f64,
    /// Divide the logits of tokens that stand in prompt or answer
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f64,
    /// The same seed gives the same answer
    #[arg(long)]
    seed: Option<u64>,
    /// End the answer before this text; may be repeated
    #[arg(long)]
    stop: Vec<String>,
}

impl SamplingArguments {
    fn request(&self) -> SamplingRequest {
        SamplingRequest {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            stop: self.stop.clone(),
            ..SamplingRequest::default()
        }
    }
}

/// Answers the prompt, or chats.
pub(super) fn main(arguments: &Arguments) -> Result<()> {
    let engine = load_decoder(&arguments.model, &arguments.load.options())?;
    let mut answerer = Answerer::new(engine.clone(), arguments.sampling.request(), arguments.sampling.max_tokens)?;
    if let Some(file) = &arguments.json_schema {
        let name = file.display();
        answerer.hold_to(&schema(file)?).with_context(|| format!("{name} cannot be honoured"))?;
    }
    let mut messages: Vec<Value> = Vec::new();
    if let Some(system) = &arguments.system {
        messages.push(json!({"role": "system", "content": system}));
    }
    let prompt = match &arguments.prompt {
        Some(prompt) => Some(prompt.clone()),
        None if stdin().is_terminal() => None,
        None => {
            let mut piped = String::new();
            stdin().read_to_string(&mut piped).context("cannot read the prompt from stdin")?;
            // The line feed that ends a line is no part of the question, and models answer differently with it.
            Some(piped.trim_end_matches(['\n', '\r']).to_owned())
        }
    };
    match prompt {
        Some(prompt) if prompt.is_empty() => bail!("the prompt must have at least 1 character, not 0"),
        Some(prompt) => {
            messages.push(json!({"role": "user", "content": prompt}));
            answerer.answer(&messages)?;
            Ok(())
        }
        None => chat(&engine, &mut answerer, messages),
    }
}

fn schema(file: &Path) -> Result<GrammarSource> {
    let name = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let schema = serde_json::from_str(&text).with_context(|| format!("{name} is no JSON"))?;
    Ok(GrammarSource::JsonSchema { schema, strict: true })
}

/// Reads lines and answers them until the input ends. Ctrl-C stops an answer, not the program.
fn chat(engine: &EngineHandle, answerer: &mut Answerer, mut messages: Vec<Value>) -> Result<()> {
    say(format_args!(
        "Chatting with {}. /clear forgets the conversation (and makes room for a new one), Ctrl-C stops an answer, Ctrl-D ends.",
        engine.info().name
    ));
    let system = messages.len();
    let mut editor = DefaultEditor::new().context("cannot read from the terminal")?;
    loop {
        let line = match editor.readline(">>> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error).context("cannot read from the terminal"),
        };
        match line.trim() {
            "" => continue,
            "/clear" => {
                messages.truncate(system);
                say(format_args!("The conversation is forgotten."));
            }
            "/bye" | "/exit" | "/quit" => return Ok(()),
            text => {
                // A history that is too long for a terminal's memory is no reason to end the chat.
                let _ = editor.add_history_entry(&line);
                messages.push(json!({"role": "user", "content": text}));
                match answerer.answer(&messages) {
                    Ok(text) => messages.push(json!({"role": "assistant", "content": text})),
                    Err(error) => {
                        messages.pop();
                        answer("\n")?;
                        say(format_args!("error: {error:#}"));
                    }
                }
            }
        }
    }
}
