//! Chat and completions of a local decoder: prompts to sequences, the sequences' texts to one stream of events.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use hearth_engine::serve::{
    EngineHandle, FinishReason as EngineReason, GenerationRequest, ModelInfo, SubmitError, TextEvent, TextOptions,
    TextStream, TokenText,
};
use hearth_engine::text::grammar::{AnswerStart, Grammar};
use hearth_engine::text::tool_calls::{Function, ToolPrompt};
use hearth_engine::text::{Conversation, Detokenizer, DetokenizerOptions, ModelText, SpecialTokens};
use hearth_sampler::{ParamError, SamplingParams};

use super::tools::Calls;
use super::{blocking, check_text_length, engine_error, grammar_error, request_error, submit_error, text_error, tools};
use crate::providers::call::ChatMessage;
use crate::providers::{
    Answer, AnswerEvent, AskedGrammar, ChatCall, CompletionCall, Delta, Generation, OnOverflow, Prompt, ProviderError,
    TokenLogprob, TopLogprob,
};
use crate::wire::chat::Role;
use crate::wire::options::{FinishReason, Usage};

/// Answers a conversation.
pub(super) async fn chat(engine: &EngineHandle, call: ChatCall) -> Result<Answer, ProviderError> {
    let ChatCall { messages, tools, generation } = call;
    let (preparing, asked) = (engine.clone(), generation.grammar.clone());
    let job = blocking(generation.deadline, move || {
        let (text, context_length) = (preparing.text(), preparing.info().context_length);
        for message in &messages {
            check_text_length(&message.content, &text.tokenizer, context_length, "messages")?;
        }
        for function in tools.iter().flat_map(|tools| &tools.functions) {
            check_text_length(&function.description, &text.tokenizer, context_length, "tools")?;
            check_text_length(&function.parameters.to_string(), &text.tokenizer, context_length, "tools")?;
        }
        let (grammar, calls) = match &tools {
            Some(tools) => {
                let (grammar, calls) = tools::prepare(&preparing, tools, asked.as_ref())?;
                (Some(grammar), Some(calls))
            }
            None => (compiled(&preparing, asked.as_ref(), AnswerStart::Anew)?, None),
        };
        let functions = tools.map(|tools| tools.functions).unwrap_or_default();
        let tokens = conversation_tokens(text, &messages, &functions, "messages")?;
        Ok(Job { tokens, echo: None, field: "messages", continues_text: false, grammar, calls })
    });
    start(engine, vec![job.await?], &generation)
}

/// Continues texts.
pub(super) async fn complete(engine: &EngineHandle, call: CompletionCall) -> Result<Answer, ProviderError> {
    let preparing = engine.clone();
    let CompletionCall { prompts, echo, templated, on_overflow, generation } = call;
    let (max_tokens, asked) = (generation.max_tokens, generation.grammar.clone());
    let jobs = blocking(generation.deadline, move || {
        let begins = if templated { AnswerStart::Anew } else { AnswerStart::Continued };
        let grammar = compiled(&preparing, asked.as_ref(), begins)?;
        let preparation = Preparation { text: preparing.text(), info: preparing.info(), echo, templated, grammar };
        let kept = (on_overflow == OnOverflow::DropBeginning).then(|| preparation.kept_tokens(max_tokens));
        prompts.into_iter().map(|prompt| preparation.job(prompt, kept)).collect::<Result<Vec<_>, _>>()
    });
    start(engine, jobs.await?, &generation)
}

/// A prompt that is ready to run.
struct Job {
    tokens: Vec<u32>,
    /// The text that begins the answer, if the prompt is echoed.
    echo: Option<String>,
    /// Where the prompt came from.
    field: &'static str,
    /// The answer goes on from the prompt's text; in a conversation it begins anew.
    continues_text: bool,
    grammar: Option<Arc<Grammar>>,
    /// The answer may call functions.
    calls: Option<Calls>,
}

/// How the prompts of a completion become tokens.
struct Preparation<'a> {
    text: &'a ModelText,
    info: &'a ModelInfo,
    echo: bool,
    templated: bool,
    grammar: Option<Arc<Grammar>>,
}

impl Preparation<'_> {
    fn job(&self, prompt: Prompt, kept: Option<usize>) -> Result<Job, ProviderError> {
        let (tokens, text) = self.tokens(prompt)?;
        let whole = tokens.len();
        // Only what would be refused is cut: a prompt that leaves no room for a single token.
        let tokens = match kept {
            Some(kept) if whole >= self.info.context_length => self.end_of(&tokens, kept),
            _ => tokens,
        };
        let text = text.filter(|_| tokens.len() == whole);
        let echo = self.echo.then(|| text.unwrap_or_else(|| decoded(self.text, &tokens)));
        let (continues_text, grammar) = (!self.templated, self.grammar.clone());
        Ok(Job { tokens, echo, field: "prompt", continues_text, grammar, calls: None })
    }

    /// The tokens of a prompt, and its text where it was one.
    fn tokens(&self, prompt: Prompt) -> Result<(Vec<u32>, Option<String>), ProviderError> {
        match prompt {
            Prompt::Tokens(_) if self.templated => {
                let text = "token ids cannot be put into the chat template: leave out `use_raw_prompt`: false";
                Err(ProviderError::invalid("use_raw_prompt", text))
            }
            Prompt::Tokens(tokens) => Ok((tokens, None)),
            Prompt::Text(text) if self.templated => {
                let message = ChatMessage::text(Role::User, text);
                let tokens = conversation_tokens(self.text, std::slice::from_ref(&message), &[], "prompt")?;
                Ok((tokens, Some(message.content)))
            }
            Prompt::Text(text) => {
                check_text_length(&text, &self.text.tokenizer, self.info.context_length, "prompt")?;
                let tokens = self.text.tokenizer.encode(&text, SpecialTokens::Add);
                // What is put behind a text ends it, and this one is to go on.
                let mut tokens = tokens.map_err(|error| text_error("prompt", &error))?;
                if tokens.ends_with(self.text.tokenizer.trailing_tokens()) {
                    tokens.truncate(tokens.len() - self.text.tokenizer.trailing_tokens().len());
                }
                Ok((tokens, Some(text)))
            }
        }
    }

    /// How many tokens of a prompt that is too long leave room for `max_tokens`; at least half the context.
    fn kept_tokens(&self, max_tokens: usize) -> usize {
        self.info.context_length.saturating_sub(max_tokens.max(1)).max(self.info.context_length / 2)
    }

    /// The last tokens, `kept` in all, behind those that begin every text.
    fn end_of(&self, tokens: &[u32], kept: usize) -> Vec<u32> {
        let leading = self.text.tokenizer.leading_tokens();
        let leading = if tokens.starts_with(leading) && leading.len() < kept { leading } else { &[] };
        let end = &tokens[tokens.len().saturating_sub(kept - leading.len())..];
        [leading, end].concat()
    }
}

/// The grammar that is asked for, over the model's vocabulary.
pub(super) fn compiled(
    engine: &EngineHandle,
    asked: Option<&AskedGrammar>,
    start: AnswerStart,
) -> Result<Option<Arc<Grammar>>, ProviderError> {
    let Some(AskedGrammar { field, source }) = asked else { return Ok(None) };
    let compiled = engine.grammars().compile(source, start);
    compiled.map(Some).map_err(|error| grammar_error(field, &error))
}

fn conversation_tokens(
    text: &ModelText,
    messages: &[ChatMessage],
    functions: &[Function],
    field: &str,
) -> Result<Vec<u32>, ProviderError> {
    let tokens = tools::prompt(text, messages, functions).and_then(|ToolPrompt { messages, tools }| {
        let (messages, tools) = (messages.as_slice(), tools.as_deref());
        let conversation = Conversation { messages, tools, add_generation_prompt: true, ..Conversation::default() };
        text.prompt_tokens(&conversation)
    });
    tokens.map_err(|error| text_error(field, &error))
}

fn decoded(text: &ModelText, tokens: &[u32]) -> String {
    let mut detokenizer = Detokenizer::new(&text.tokenizer, DetokenizerOptions::default());
    let mut decoded: String = tokens.iter().map(|token| detokenizer.push(*token)).collect();
    decoded.push_str(&detokenizer.finish());
    decoded
}

/// Queues every choice of every prompt, or none: what was queued before a failure is cancelled as it is dropped.
fn start(engine: &EngineHandle, jobs: Vec<Job>, generation: &Generation) -> Result<Answer, ProviderError> {
    let prompt_tokens = jobs.iter().map(|job| job.tokens.len()).sum();
    let total = jobs.len() * generation.choices;
    let mut choices = Vec::with_capacity(total);
    for job in &jobs {
        // A seed of its own for each prompt, unless one was given: equal prompts should not have equal answers.
        let drawn = RandomState::new().hash_one(choices.len());
        let sampling = generation.sampling.clone();
        let params = sampling.check(engine.info().vocab_size, drawn).map_err(|error| param_error(&error))?;
        for choice in 0..generation.choices {
            // At most some hundred, so the number fits.
            let params = params.for_choice(choice as u32);
            let index = choices.len();
            choices.push(start_choice(engine, job, (index, total), params, generation)?);
        }
    }
    let events = with_usage(stream::select_all(choices), prompt_tokens, generation.choices);
    Ok(Answer { choices: total, events: events.boxed() })
}

type Choice = BoxStream<'static, Result<ChoiceEvent, ProviderError>>;

/// An event before the usage of the whole answer is known.
enum ChoiceEvent {
    Text(AnswerEvent),
    Finished { index: usize, reason: FinishReason, completion_tokens: usize, cached_tokens: usize },
}

/// Adds up what was used. A prompt is counted once, however many `choices` it has: what these found of each other was
/// computed for it, so only what all of them found counts as cached.
fn with_usage(
    events: impl Stream<Item = Result<ChoiceEvent, ProviderError>>,
    prompt_tokens: usize,
    choices: usize,
) -> impl Stream<Item = Result<AnswerEvent, ProviderError>> {
    let (mut written, mut cached) = (0, BTreeMap::new());
    events.map(move |event| {
        Ok(match event? {
            ChoiceEvent::Text(event) => event,
            ChoiceEvent::Finished { index, reason, completion_tokens, cached_tokens } => {
                written += completion_tokens;
                let least = cached.entry(index / choices).or_insert(cached_tokens);
                *least = cached_tokens.min(*least);
                let usage = Usage::new(prompt_tokens, written).with_cached(cached.values().sum());
                AnswerEvent::Finished { index, reason, usage }
            }
        })
    })
}

/// Queues one choice. `(index, total)`: which of how many of the answer. `params` are its own.
fn start_choice(
    engine: &EngineHandle,
    job: &Job,
    (index, total): (usize, usize),
    params: SamplingParams,
    generation: &Generation,
) -> Result<Choice, ProviderError> {
    let max_tokens = generation.max_tokens;
    let prompt_logprobs = if job.echo.is_some() { params.logprobs() } else { None };
    let echo = job.echo.clone();
    if max_tokens == 0 && prompt_logprobs.is_none() {
        engine.check(&job.tokens).map_err(|error| request_error(job.field, &error))?;
        return Ok(stream::iter(only_echo(index, echo)).boxed());
    }
    let stops = params.stop().to_vec();
    let request = GenerationRequest::check(job.tokens.clone(), params, max_tokens, prompt_logprobs, engine.info())
        .map_err(|error| request_error(job.field, &error))?
        .with_grammar(job.grammar.clone())
        .until(generation.deadline);
    let generation = engine.submit(request).map_err(|error| choices_error(&error, total))?;
    let shown = if prompt_logprobs.is_some() { job.tokens.clone() } else { Vec::new() };
    let text = Arc::clone(engine.text());
    let leading =
        if shown.starts_with(text.tokenizer.leading_tokens()) { text.tokenizer.leading_tokens().len() } else { 0 };
    let kept = job.calls.as_ref().map(Calls::kept).unwrap_or_default();
    let options = TextOptions { stops: &stops, prompt: shown, continues_text: job.continues_text, kept };
    let events = TextStream::new(generation, text, options);
    // With log probabilities the engine tells when the prompt's tokens are there; without, the text can come at once.
    let (at_once, with_tokens) = if prompt_logprobs.is_some() { (None, echo) } else { (echo, None) };
    let mut writer = ChoiceWriter { index, echo: with_tokens, leading, calls: job.calls.clone() };
    let first = stream::iter(at_once.map(|text| Ok(echo_event(index, text, Vec::new()))));
    let written = events.flat_map(move |event| {
        stream::iter(match event {
            Ok(event) => writer.write(event).into_iter().map(Ok).collect(),
            Err(error) => vec![Err(engine_error(&error))],
        })
    });
    Ok(first.chain(written).boxed())
}

fn only_echo(index: usize, echo: Option<String>) -> Vec<Result<ChoiceEvent, ProviderError>> {
    let echo = echo.map(|text| Ok(echo_event(index, text, Vec::new())));
    let end = ChoiceEvent::Finished { index, reason: FinishReason::Length, completion_tokens: 0, cached_tokens: 0 };
    echo.into_iter().chain([Ok(end)]).collect()
}

fn echo_event(index: usize, text: String, tokens: Vec<TokenLogprob>) -> ChoiceEvent {
    ChoiceEvent::Text(AnswerEvent::Echo { index, delta: Delta { text, tokens, ..Delta::default() } })
}

/// Names the events of one choice.
struct ChoiceWriter {
    index: usize,
    /// The prompt's text, until its tokens come.
    echo: Option<String>,
    /// Tokens at the prompt's beginning that are no part of its text.
    leading: usize,
    /// Where the text may hold calls.
    calls: Option<Calls>,
}

impl ChoiceWriter {
    fn write(&mut self, event: TextEvent) -> Vec<ChoiceEvent> {
        let index = self.index;
        match event {
            TextEvent::Prompt(tokens) => {
                let mut tokens: Vec<TokenLogprob> = tokens.into_iter().map(token_logprob).collect();
                for token in tokens.iter_mut().take(self.leading) {
                    token.bytes.clear();
                }
                vec![echo_event(index, self.echo.take().unwrap_or_default(), tokens)]
            }
            TextEvent::Delta(delta) => {
                let tokens = delta.tokens.into_iter().map(token_logprob).collect();
                let delta = Delta { text: delta.text, tokens, ..Delta::default() };
                let delta = match &mut self.calls {
                    Some(calls) => calls.push(delta),
                    None => delta,
                };
                vec![ChoiceEvent::Text(AnswerEvent::Delta { index, delta })]
            }
            TextEvent::Finished { reason, completion_tokens, cached_tokens } => {
                let rest = self.calls.as_mut().map(Calls::finish).filter(|delta| !delta.is_empty());
                let reason = match (&self.calls, reason) {
                    (Some(calls), reason) => calls.reason(reason),
                    (None, EngineReason::Stop | EngineReason::Complete) => FinishReason::Stop,
                    (None, EngineReason::Length) => FinishReason::Length,
                };
                let rest = rest.map(|delta| ChoiceEvent::Text(AnswerEvent::Delta { index, delta }));
                let end = ChoiceEvent::Finished { index, reason, completion_tokens, cached_tokens };
                rest.into_iter().chain([end]).collect()
            }
        }
    }
}

fn token_logprob(token: TokenText) -> TokenLogprob {
    let top = token.top.into_iter();
    let top = top.map(|top| TopLogprob { text: top.text, bytes: top.bytes, logprob: top.logprob }).collect();
    TokenLogprob { text: token.text, bytes: token.bytes, logprob: token.logprob, top }
}

fn param_error(error: &ParamError) -> ProviderError {
    ProviderError::OutOfRange { message: error.to_string(), field: error.field().to_owned() }
}

/// A call of `wanted` choices in all that its model does not take now, or never will.
fn choices_error(error: &SubmitError, wanted: usize) -> ProviderError {
    match error {
        SubmitError::QueueFull { limit } if wanted > *limit => {
            let text = format!("prompts times choices must be at most {limit} for this model, not {wanted}");
            ProviderError::OutOfRange { message: text, field: "n".into() }
        }
        _ => submit_error(error),
    }
}
