//! Chat completions.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::collect::{Collected, CollectedChoice, collect};
use super::extract::JsonBody;
use super::identity::{Identity, Spelling, served_by};
use super::stream::{self, Chunks};
use super::{checks, conversation, grammar, tools};
use crate::endpoints::Task;
use crate::error::ApiError;
use crate::gate::{Allowed, Caller, Query};
use crate::policy::Served;
use crate::providers::{CallDelta, ChatCall, Delta, Generation, TokenLogprob};
use crate::serve::App;
use crate::wire::JsonObject;
use crate::wire::answer::AnswerObject;
use crate::wire::chat::{
    AnswerMessage, ChatChoice, ChatChunkChoice, ChatDelta, ChatLogprobs, ChatRequest, ChatTokenLogprob, ChatTopLogprob,
    Role,
};
use crate::wire::options::{FinishReason, Usage};
use crate::wire::tools::{FunctionDelta, FunctionKind, ToolCallDelta};

/// `POST .../chat/completions`.
pub(super) async fn create(State(app): State<App>, caller: Caller, body: JsonBody) -> Result<Response, ApiError> {
    let (endpoint, fields) = body.open(&app, &caller)?;
    answer(&app, &endpoint, fields, Spelling::Snake).await
}

/// Answers the chat request in `fields`.
pub(super) async fn answer(
    app: &App,
    endpoint: &Allowed<Query>,
    fields: JsonObject,
    spelling: Spelling,
) -> Result<Response, ApiError> {
    endpoint.begin(Task::Chat, &fields).await?;
    let request = ChatRequest::read(fields)?;
    endpoint.record(&request.bookkeeping);
    let streamed = checks::streaming(&request.output)?;
    let grammar = grammar::checked(request.grammar, &request.sampling)?;
    let tools = tools::checked(request.tools, &request.sampling)?;
    let generation = checks::chat_generation(&request.chat, request.sampling, &request.output, app.limits())?;
    let generation = Generation { grammar, given: request.given, ..generation };
    checks::check_choices(1, generation.choices, app.limits())?;
    let logprobs = generation.sampling.logprobs.is_some();
    let may_call = tools.is_some();
    let call = ChatCall { messages: conversation::checked(request.chat.messages)?, tools, generation };

    let name = endpoint.endpoint().name();
    let Served { answer, by } = endpoint.chat(call, streamed.is_some()).await?;
    let rendering = ChatRendering { identity: Identity::new("chatcmpl", name, spelling), logprobs, may_call };
    let response = match streamed {
        Some(place) => stream::respond(answer, rendering, place, endpoint.draft().clone()).await?,
        None => Json(rendering.plain(collect(answer).await?)).into_response(),
    };
    Ok(served_by(&by, response))
}

/// How chat answers are written.
struct ChatRendering {
    identity: Identity,
    logprobs: bool,
    /// Whether there were functions to call.
    may_call: bool,
}

impl ChatRendering {
    fn plain(&self, collected: Collected) -> AnswerObject<'_, ChatChoice> {
        let choices = collected.choices.into_iter().enumerate();
        let choices = choices.map(|(index, choice)| self.plain_choice(index, choice)).collect();
        self.identity.wrap("chat.completion", choices, Some(Some(collected.usage)))
    }

    fn plain_choice(&self, index: usize, choice: CollectedChoice) -> ChatChoice {
        ChatChoice {
            index,
            message: AnswerMessage {
                role: Role::Assistant,
                content: Some(choice.text).filter(|text| !text.is_empty() || choice.calls.is_empty()),
                tool_calls: choice.calls,
                refusal: None,
            },
            finish_reason: choice.reason,
            finish_reason_camel: self.identity.camel(choice.reason),
            logprobs: self.logprobs.then(|| logprobs(choice.tokens)),
        }
    }
}

impl Chunks for ChatRendering {
    type Choice = ChatChunkChoice;

    fn opening(&mut self, index: usize) -> Option<ChatChunkChoice> {
        // Nobody knows yet whether there will be a text.
        let content = Some((!self.may_call).then(String::new));
        let delta = ChatDelta { role: Some(Role::Assistant), content, tool_calls: Vec::new() };
        Some(ChatChunkChoice { index, delta, finish_reason: None, finish_reason_camel: None, logprobs: None })
    }

    fn delta(&mut self, index: usize, delta: Delta) -> ChatChunkChoice {
        let logprobs = self.logprobs.then(|| logprobs(delta.tokens));
        let content = Some(delta.text).filter(|text| !text.is_empty()).map(Some);
        let delta = ChatDelta { role: None, content, tool_calls: delta.calls.into_iter().map(call_delta).collect() };
        ChatChunkChoice { index, delta, finish_reason: None, finish_reason_camel: None, logprobs }
    }

    fn finished(&mut self, index: usize, reason: FinishReason) -> ChatChunkChoice {
        ChatChunkChoice {
            index,
            delta: ChatDelta::default(),
            finish_reason: Some(reason),
            finish_reason_camel: self.identity.camel(reason),
            logprobs: None,
        }
    }

    fn whole(&self, collected: Collected) -> serde_json::Result<Value> {
        serde_json::to_value(self.plain(collected))
    }

    fn chunk(&self, choices: Vec<ChatChunkChoice>, usage: Option<Option<Usage>>) -> serde_json::Result<String> {
        serde_json::to_string(&self.identity.wrap("chat.completion.chunk", choices, usage))
    }
}

fn call_delta(delta: CallDelta) -> ToolCallDelta {
    let CallDelta { index, begun, arguments } = delta;
    let kind = begun.is_some().then_some(FunctionKind::Function);
    let (id, name) = begun.unzip();
    ToolCallDelta { index, id, kind, function: FunctionDelta { name, arguments } }
}

fn logprobs(tokens: Vec<TokenLogprob>) -> ChatLogprobs {
    let content = tokens.into_iter().map(|token| ChatTokenLogprob {
        // Generated tokens all have one; only the first token of a prompt has none.
        chosen: ChatTopLogprob { token: token.text, logprob: token.logprob.unwrap_or(0.0), bytes: token.bytes },
        top_logprobs: token
            .top
            .into_iter()
            .map(|top| ChatTopLogprob { token: top.text, logprob: top.logprob, bytes: top.bytes })
            .collect(),
    });
    ChatLogprobs { content: content.collect(), refusal: None }
}
