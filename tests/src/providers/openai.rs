//! OpenAI's API, Azure's form of it, Databricks' invocations, and a server that speaks the dialect with words of its own.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, Response, Uri};
use axum::routing::post;
use axum::{Router, body};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::script::{Asked, CACHED, Call, End, PROMPT, Reply, pieces};
use super::texts::{completed, embedded};
use super::wire::{Refusal, Wire, chat, check_key, data, json as answered, read, refuse};
use super::{STUB_KEY, STUB_TOKEN, State};

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/openai/v1/chat/completions", post(own_chat))
        .route("/azure/openai/deployments/{deployment}/chat/completions", post(azure_chat))
        .route("/entra/{tenant}/oauth2/v2.0/token", post(token))
        .route("/custom/chat/completions", post(custom_chat))
        .route("/databricks/serving-endpoints/{name}/invocations", post(invocations))
}

type Call4 = (Shared<Arc<State>>, Uri, HeaderMap, Bytes);

/// A chat request as OpenAI knows it. What is not in here it calls unrecognised.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct ChatBody {
    model: Option<String>,
    messages: Vec<Message>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    frequency_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    logit_bias: Option<Map<String, Value>>,
    seed: Option<i64>,
    stop: Option<Value>,
    logprobs: Option<bool>,
    top_logprobs: Option<u8>,
    n: Option<usize>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    tools: Option<Vec<Tool>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    response_format: Option<Value>,
    reasoning_effort: Option<String>,
    user: Option<String>,
    metadata: Option<Map<String, Value>>,
    store: Option<bool>,
    service_tier: Option<String>,
    prompt_cache_key: Option<String>,
    safety_identifier: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    role: String,
    content: Value,
    #[allow(dead_code)]
    name: Option<String>,
    tool_calls: Option<Vec<MadeCall>>,
    tool_call_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MadeCall {
    id: String,
    r#type: String,
    function: MadeFunction,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MadeFunction {
    #[allow(dead_code)]
    name: String,
    arguments: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tool {
    r#type: String,
    function: Function,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Function {
    name: String,
    description: Option<String>,
    parameters: Option<Map<String, Value>>,
    strict: Option<bool>,
}

/// The text of a content, and its images.
fn content(content: &Value, images: &mut Vec<String>) -> Result<String, Refusal> {
    match content {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let mut whole = String::new();
            for part in parts {
                match part["type"].as_str() {
                    Some("text") => whole.push_str(part["text"].as_str().unwrap_or_default()),
                    Some("image_url") => images.push(part["image_url"]["url"].as_str().unwrap_or_default().to_owned()),
                    _ => return refuse(format!("no such part: {part}")),
                }
            }
            Ok(whole)
        }
        other => refuse(format!("no content: {other}")),
    }
}

impl ChatBody {
    fn asked(self, model: String) -> Result<Asked, Refusal> {
        let mut asked =
            Asked { model, stream: self.stream == Some(true), choices: self.n.unwrap_or(1), ..Asked::default() };
        let mut open: Vec<String> = Vec::new();
        for message in &self.messages {
            if message.role != "tool" && !open.is_empty() {
                return refuse(format!("calls without results: {open:?}"));
            }
            match message.role.as_str() {
                "system" => _ = content(&message.content, &mut Vec::new())?,
                "user" => {
                    asked.text = Some(content(&message.content, &mut asked.images)?);
                    asked.results.clear();
                }
                "assistant" => {
                    let calls = message.tool_calls.as_deref().unwrap_or_default();
                    if message.content.is_null() == calls.is_empty() && !message.content.is_string() {
                        return refuse("an assistant says something or calls something");
                    }
                    for call in calls {
                        let whole = serde_json::from_str::<Map<String, Value>>(&call.function.arguments);
                        if call.r#type != "function" || whole.is_err() {
                            return refuse("a call is a function's with an object of arguments");
                        }
                        open.push(call.id.clone());
                    }
                }
                "tool" => {
                    let id = message.tool_call_id.as_deref().unwrap_or_default();
                    let Some(place) = open.iter().position(|of| of == id) else { return refuse("a result of no call") };
                    open.remove(place);
                    asked.text = None;
                    asked.results.push(content(&message.content, &mut Vec::new())?);
                }
                role => return refuse(format!("no such role: {role}")),
            }
        }
        if self.stream != Some(true) && self.stream_options.is_some() {
            return refuse("stream_options without stream");
        }
        if self.tool_choice.as_ref().is_none_or(|choice| choice != "none") {
            let tools = self.tools.unwrap_or_default().into_iter();
            asked.tools = tools.filter(|tool| tool.r#type == "function").map(|tool| tool.function.name).collect();
        }
        asked.must_call = self.tool_choice.is_some_and(|choice| choice == "required" || choice.is_object());
        asked.json = self.response_format.is_some_and(|format| format["type"] != "text");
        Ok(asked)
    }
}

async fn own_chat((state, uri, headers, bytes): Call4) -> Response<Body> {
    let asked = || -> Result<Asked, Refusal> {
        let (body, _) = read::<ChatBody>(&state, &uri, &headers, &bytes)?;
        check_key(&headers, "authorization", &format!("Bearer {STUB_KEY}"))?;
        if body.stream == Some(true) && body.stream_options.as_ref().is_none_or(|options| !options.include_usage) {
            return refuse("these stubs want to be asked for usage");
        }
        let model = body.model.clone().unwrap_or_default();
        let thinks = model.starts_with("o3") || model.starts_with("gpt-5");
        if thinks && body.max_tokens.is_some() {
            return refuse("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.");
        }
        body.asked(model)
    };
    chat::<OpenAi>(&state, &headers, asked()).await
}

async fn azure_chat(
    Path(deployment): Path<String>,
    Shared(state): Shared<Arc<State>>,
    uri: Uri,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response<Body> {
    let asked = || -> Result<Asked, Refusal> {
        let (body, _) = read::<ChatBody>(&state, &uri, &headers, &bytes)?;
        match headers.contains_key("api-key") {
            true => check_key(&headers, "api-key", STUB_KEY)?,
            false => check_key(&headers, "authorization", &format!("Bearer {STUB_TOKEN}"))?,
        }
        if uri.query() != Some("api-version=2024-10-21") {
            return Err(Refusal(404, "Resource not found".to_owned()));
        }
        body.asked(deployment)
    };
    chat::<OpenAi>(&state, &headers, asked()).await
}

/// Microsoft Entra's answer to a client with a secret.
async fn token(Path(tenant): Path<String>, body: body::Bytes) -> Response<Body> {
    let form = String::from_utf8_lossy(&body).into_owned();
    let expected = format!(
        "grant_type=client_credentials&scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default&client_id=my%20client&\
         client_secret={STUB_KEY}"
    );
    if tenant != "tenant-1" || form != expected {
        return answered(401, &json!({"error": "invalid_client", "error_description": form}));
    }
    answered(200, &json!({"token_type": "Bearer", "expires_in": 3599, "access_token": STUB_TOKEN}))
}

/// A server with fields that OpenAI has not, and with a key in a header of its own.
async fn custom_chat((state, uri, headers, bytes): Call4) -> Response<Body> {
    let asked = || -> Result<Asked, Refusal> {
        let (_, mut value) = read::<Value>(&state, &uri, &headers, &bytes)?;
        match headers.contains_key("x-key") {
            true => check_key(&headers, "x-key", STUB_KEY)?,
            false => check_key(&headers, "authorization", &format!("Bearer {STUB_KEY}"))?,
        }
        let fields = value.as_object_mut().ok_or(Refusal(400, "no object".to_owned()))?;
        for own in ["top_k", "min_p", "repetition_penalty", "guided_json", "structured_outputs", "thinking"] {
            fields.remove(own);
        }
        let body: ChatBody = serde_json::from_value(value).or_else(|error| refuse(error.to_string()))?;
        let model = body.model.clone().unwrap_or_default();
        body.asked(model)
    };
    chat::<OpenAi>(&state, &headers, asked()).await
}

/// An endpoint of a workspace: the name is in the path, and what is wanted shows in the body.
async fn invocations(
    Path(name): Path<String>,
    Shared(state): Shared<Arc<State>>,
    uri: Uri,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response<Body> {
    let read = read::<Value>(&state, &uri, &headers, &bytes);
    let checked = read.and_then(|(_, value)| {
        check_key(&headers, "authorization", &format!("Bearer {STUB_KEY}"))?;
        match value.get("model").or_else(|| value.get("stream_options")) {
            Some(_) => refuse("the path names the model, and usage comes by itself"),
            None => Ok(value),
        }
    });
    let mut value = match checked {
        Ok(value) => value,
        Err(refusal) => return chat::<Databricks>(&state, &headers, Err(refusal)).await,
    };
    if value.get("input").is_some() {
        return embedded(&value);
    }
    if value.get("prompt").is_some() {
        return completed(&value);
    }
    value.as_object_mut().and_then(|fields| fields.remove("top_k"));
    let body = serde_json::from_value::<ChatBody>(value).or_else(|error| refuse(error.to_string()));
    chat::<Databricks>(&state, &headers, body.and_then(|body| body.asked(name))).await
}

pub(super) struct OpenAi;

fn finish(end: End) -> &'static str {
    match end {
        End::Stop => "stop",
        End::Length => "length",
        End::Calls => "tool_calls",
        End::Refusal => "content_filter",
    }
}

fn usage(replies: &[Reply]) -> Value {
    let written: usize = replies.iter().map(Reply::tokens).sum();
    json!({
        "prompt_tokens": PROMPT, "completion_tokens": written, "total_tokens": PROMPT + written,
        "prompt_tokens_details": {"cached_tokens": CACHED, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0}
    })
}

fn chunk(model: &str, choices: Value, usage: &Value) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model, "system_fingerprint": "f",
        "choices": choices, "usage": usage
    })
}

/// The pieces of one choice's answer.
fn deltas(index: usize, reply: &Reply) -> Vec<Value> {
    let choice = |delta: Value| json!([{"index": index, "delta": delta, "finish_reason": null, "logprobs": null}]);
    let mut deltas = vec![choice(json!({"role": "assistant", "content": "", "refusal": null}))];
    deltas.extend(reply.pieces().into_iter().map(|piece| choice(json!({"content": piece}))));
    for (number, Call { id, name, arguments }) in reply.calls.iter().enumerate() {
        let function = json!({"name": name, "arguments": ""});
        deltas.push(choice(
            json!({"tool_calls": [{"index": number, "id": id, "type": "function", "function": function}]}),
        ));
        for piece in pieces(arguments) {
            deltas.push(choice(json!({"tool_calls": [{"index": number, "function": {"arguments": piece}}]})));
        }
    }
    deltas.push(json!([{"index": index, "delta": {}, "finish_reason": finish(reply.end), "logprobs": null}]));
    deltas
}

impl Wire for OpenAi {
    fn error(status: u16, message: &str) -> Value {
        json!({"error": {"message": message, "type": "some_error", "param": null, "code": status}})
    }

    fn stream_error(message: &str) -> String {
        data(&json!({"error": {"message": message, "type": "server_error", "param": null, "code": null}}))
    }

    fn plain(model: &str, replies: &[Reply]) -> Value {
        let choices = replies.iter().enumerate().map(|(index, reply)| {
            let calls = reply.calls.iter().map(|call| {
                json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}})
            });
            let calls: Vec<Value> = calls.collect();
            let calls = if calls.is_empty() { Value::Null } else { calls.into() };
            let message =
                json!({"role": "assistant", "content": reply.text, "refusal": null, "tool_calls": calls, "annotations": []});
            json!({"index": index, "message": message, "finish_reason": finish(reply.end), "logprobs": null})
        });
        json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model, "usage": usage(replies),
            "choices": choices.collect::<Vec<_>>()
        })
    }

    fn events(model: &str, replies: &[Reply]) -> Vec<String> {
        let pieces = replies.iter().enumerate().flat_map(|(index, reply)| deltas(index, reply));
        let mut events: Vec<String> = pieces.map(|choices| data(&chunk(model, choices, &Value::Null))).collect();
        events.push(data(&chunk(model, json!([]), &usage(replies))));
        events.push("data: [DONE]\n\n".to_owned());
        events
    }
}

struct Databricks;

impl Wire for Databricks {
    fn error(_status: u16, message: &str) -> Value {
        json!({"error_code": "SOME_ERROR", "message": message})
    }

    fn stream_error(message: &str) -> String {
        data(&json!({"error": {"message": message, "type": "server_error", "code": "internal_error"}}))
    }

    fn plain(model: &str, replies: &[Reply]) -> Value {
        OpenAi::plain(model, replies)
    }

    /// Usage stands in every piece.
    fn events(model: &str, replies: &[Reply]) -> Vec<String> {
        let pieces = replies.iter().enumerate().flat_map(|(index, reply)| deltas(index, reply));
        let mut events: Vec<String> = pieces.map(|choices| data(&chunk(model, choices, &usage(replies)))).collect();
        events.push("data: [DONE]\n\n".to_owned());
        events
    }
}
