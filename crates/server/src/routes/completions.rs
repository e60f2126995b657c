//! Text completions.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use indexmap::IndexMap;
use serde_json::Value;

use super::collect::{Collected, CollectedChoice, collect};
use super::extract::JsonBody;
use super::identity::{Identity, Spelling, served_by};
use super::stream::{self, Chunks};
use super::{checks, grammar};
use crate::endpoints::Task;
use crate::error::ApiError;
use crate::gate::{Allowed, Caller, Query};
use crate::policy::Served;
use crate::providers::{Delta, TokenLogprob};
use crate::serve::App;
use crate::wire::JsonObject;
use crate::wire::answer::AnswerObject;
use crate::wire::completions::{CompletionChoice, CompletionLogprobs, CompletionRequest};
use crate::wire::options::{FinishReason, Usage};

/// `POST .../completions`.
pub(super) async fn create(State(app): State<App>, caller: Caller, body: JsonBody) -> Result<Response, ApiError> {
    let (endpoint, fields) = body.open(&app, &caller)?;
    answer(&app, &endpoint, fields, Spelling::Snake).await
}

/// Answers the completion request in `fields`.
pub(super) async fn answer(
    app: &App,
    endpoint: &Allowed<Query>,
    fields: JsonObject,
    spelling: Spelling,
) -> Result<Response, ApiError> {
    endpoint.begin(Task::Completions, &fields).await?;
    let request = CompletionRequest::read(fields)?;
    endpoint.record(&request.bookkeeping);
    let streamed = checks::streaming(&request.output)?;
    let grammar = grammar::checked(request.grammar, &request.sampling)?;
    let mut checked = checks::completion(request.completion, request.sampling, &request.output, app.limits())?;
    (checked.call.generation.grammar, checked.call.generation.given) = (grammar, request.given);
    let generated = checked.call.generation.choices;
    checks::check_choices(checked.call.prompts.len(), generated, app.limits())?;

    let name = endpoint.endpoint().name();
    let Served { answer, by } = endpoint.complete(checked.call, streamed.is_some()).await?;
    let rendering = CompletionRendering {
        identity: Identity::new("cmpl", name, spelling),
        logprobs: checked.logprobs,
        suffix: checked.suffix,
        offsets: vec![0; answer.choices],
    };
    let response = match streamed {
        Some(place) => stream::respond(answer, rendering, place, endpoint.draft().clone()).await?,
        None => {
            let collected = best(collect(answer).await?, generated, checked.returned);
            Json(rendering.plain(collected)).into_response()
        }
    };
    Ok(served_by(&by, response))
}

/// Of every `generated` choices (those of one prompt) the `returned` likeliest, likeliest first.
fn best(mut collected: Collected, generated: usize, returned: usize) -> Collected {
    if generated == returned {
        return collected;
    }
    let mut kept = Vec::new();
    let mut choices = collected.choices.into_iter();
    loop {
        let mut of_prompt: Vec<CollectedChoice> = choices.by_ref().take(generated).collect();
        if of_prompt.is_empty() {
            break;
        }
        of_prompt.sort_by(|a, b| b.mean_logprob().total_cmp(&a.mean_logprob()));
        kept.extend(of_prompt.into_iter().take(returned));
    }
    collected.choices = kept;
    collected
}

/// How completions are written.
struct CompletionRendering {
    identity: Identity,
    logprobs: bool,
    suffix: String,
    /// Characters of each choice's tokens so far.
    offsets: Vec<usize>,
}

impl CompletionRendering {
    fn plain(&self, collected: Collected) -> AnswerObject<'_, CompletionChoice> {
        let choices = collected.choices.into_iter().enumerate();
        let choices = choices.map(|(index, choice)| self.plain_choice(index, choice)).collect();
        self.object(choices, Some(Some(collected.usage)))
    }

    fn plain_choice(&self, index: usize, choice: CollectedChoice) -> CompletionChoice {
        CompletionChoice {
            index,
            text: choice.text + &self.suffix,
            finish_reason: Some(choice.reason),
            finish_reason_camel: self.identity.camel(choice.reason),
            logprobs: self.logprobs.then(|| logprobs(choice.tokens, &mut 0)),
        }
    }

    fn object(
        &self,
        choices: Vec<CompletionChoice>,
        usage: Option<Option<Usage>>,
    ) -> AnswerObject<'_, CompletionChoice> {
        self.identity.wrap("text_completion", choices, usage)
    }
}

impl Chunks for CompletionRendering {
    type Choice = CompletionChoice;

    fn opening(&mut self, _index: usize) -> Option<CompletionChoice> {
        None
    }

    fn delta(&mut self, index: usize, delta: Delta) -> CompletionChoice {
        let offset = &mut self.offsets[index];
        let logprobs = self.logprobs.then(|| logprobs(delta.tokens, offset));
        CompletionChoice { index, text: delta.text, finish_reason: None, finish_reason_camel: None, logprobs }
    }

    fn finished(&mut self, index: usize, reason: FinishReason) -> CompletionChoice {
        CompletionChoice {
            index,
            text: self.suffix.clone(),
            finish_reason: Some(reason),
            finish_reason_camel: self.identity.camel(reason),
            logprobs: None,
        }
    }

    fn whole(&self, collected: Collected) -> serde_json::Result<Value> {
        serde_json::to_value(self.plain(collected))
    }

    fn chunk(&self, choices: Vec<CompletionChoice>, usage: Option<Option<Usage>>) -> serde_json::Result<String> {
        serde_json::to_string(&self.object(choices, usage))
    }
}

/// The tokens as parallel lists; `offset` moves on by their characters.
fn logprobs(tokens: Vec<TokenLogprob>, offset: &mut usize) -> CompletionLogprobs {
    let mut lists = CompletionLogprobs::default();
    for token in tokens {
        let spelled = spelled(&token.text, &token.bytes);
        lists.text_offset.push(*offset);
        // Bytes that begin a character: a token may end in the middle of one.
        *offset += token.bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
        lists.top_logprobs.push(token.logprob.map(|own| {
            let mut top: IndexMap<String, f32> =
                token.top.iter().map(|top| (self::spelled(&top.text, &top.bytes), top.logprob)).collect();
            // The token itself is always among its alternatives, likely or not.
            top.entry(spelled.clone()).or_insert(own);
            top
        }));
        lists.token_logprobs.push(token.logprob);
        lists.tokens.push(spelled);
    }
    lists
}

/// The text of a token, or its bytes where it holds part of a character, so that no two tokens are spelled alike.
fn spelled(text: &str, bytes: &[u8]) -> String {
    if std::str::from_utf8(bytes).is_ok() {
        return text.to_owned();
    }
    bytes.iter().fold("bytes:".to_owned(), |spelled, byte| spelled + &format!("\\x{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::TopLogprob;

    fn token(bytes: &[u8], logprob: Option<f32>) -> TokenLogprob {
        let text = String::from_utf8_lossy(bytes).into_owned();
        TokenLogprob { text, bytes: bytes.to_vec(), logprob, top: Vec::new() }
    }

    #[test]
    fn offsets_count_characters_also_where_tokens_cut_them() {
        let euro = "€".as_bytes();
        let tokens = vec![
            token(b"ab", None),
            token(&euro[..1], Some(-1.0)),
            token(&euro[1..], Some(-2.0)),
            token(b"c", Some(-3.0)),
        ];
        let mut offset = 0;
        let lists = logprobs(tokens, &mut offset);
        assert_eq!(lists.text_offset, [0, 2, 3, 3]);
        assert_eq!(offset, 4);
        assert_eq!(lists.tokens, ["ab", "bytes:\\xe2", "bytes:\\x82\\xac", "c"]);
        assert_eq!(lists.token_logprobs, [None, Some(-1.0), Some(-2.0), Some(-3.0)]);
        assert!(lists.top_logprobs[0].is_none());
        assert_eq!(lists.top_logprobs[3].as_ref().unwrap()["c"], -3.0);
    }

    #[test]
    fn a_token_and_the_same_token_among_its_alternatives_have_one_number() {
        let top = TopLogprob { text: "x".into(), bytes: b"x".to_vec(), logprob: -0.1 };
        let lists = logprobs(vec![TokenLogprob { top: vec![top], ..token(b"x", Some(-0.1)) }], &mut 0);
        let printed = serde_json::to_string(&lists).unwrap();
        assert!(printed.contains(r#""token_logprobs":[-0.1],"top_logprobs":[{"x":-0.1}]"#), "{printed}");
    }

    fn choice(text: &str, logprobs: &[f32]) -> CollectedChoice {
        let mut tokens = vec![token(b"p", Some(-100.0))];
        tokens.extend(logprobs.iter().map(|logprob| token(b"x", Some(*logprob))));
        CollectedChoice { text: text.into(), tokens, echoed: 1, calls: Vec::new(), reason: FinishReason::Stop }
    }

    #[test]
    fn the_best_of_each_prompt_are_those_with_the_best_mean_of_what_was_generated() {
        let choices = vec![
            choice("a", &[-2.0, -2.0]),
            choice("b", &[-1.0, -1.0, -1.0, -1.0, -1.0]),
            choice("c", &[-3.0]),
            choice("d", &[-1.0]),
            choice("e", &[-0.5]),
            choice("f", &[-0.75]),
        ];
        let kept = best(Collected { choices, usage: Usage::new(1, 14) }, 3, 2);
        let texts: Vec<&str> = kept.choices.iter().map(|choice| choice.text.as_str()).collect();
        assert_eq!(texts, ["b", "a", "e", "f"]);
        assert_eq!(kept.usage.completion_tokens, 14, "all that was generated is counted");
    }
}
