//! Anthropic's Messages API.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use axum::http::{HeaderMap, Response, Uri};
use axum::routing::post;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::script::{Asked, CACHED, CREATED, End, PROMPT, Reply, pieces};
use super::wire::{Refusal, Wire, chat, check_key, read, refuse};
use super::{STUB_KEY, State};

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().route("/anthropic/v1/messages", post(messages))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct MessagesBody {
    model: String,
    max_tokens: u32,
    messages: Vec<Message>,
    system: Option<Value>,
    stop_sequences: Option<Vec<String>>,
    stream: Option<bool>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<u32>,
    tools: Option<Vec<Tool>>,
    tool_choice: Option<Value>,
    metadata: Option<Metadata>,
    thinking: Option<Value>,
    output_config: Option<OutputConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    role: String,
    content: Content,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Blocks(Vec<Block>),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[allow(dead_code)]
enum Block {
    Text { text: String },
    Image { source: Value },
    ToolUse { id: String, name: String, input: Map<String, Value> },
    ToolResult { tool_use_id: String, content: Value },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Tool {
    name: String,
    description: Option<String>,
    input_schema: Map<String, Value>,
    strict: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Metadata {
    user_id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputConfig {
    effort: Option<String>,
    format: Option<Value>,
}

impl MessagesBody {
    fn check(&self) -> Result<(), Refusal> {
        if self.temperature.is_some_and(|temperature| !(0.0..=1.0).contains(&temperature)) {
            return refuse("temperature: range: 0..1");
        }
        if self.stop_sequences.iter().flatten().any(|stop| stop.trim().is_empty()) {
            return refuse("stop_sequences: each stop sequence must contain non-whitespace");
        }
        if self.tools.iter().flatten().any(|tool| tool.input_schema.get("type").is_none_or(|kind| kind != "object")) {
            return refuse("tools.input_schema.type: an object is wanted");
        }
        if self.tool_choice.is_some() && self.tools.is_none() {
            return refuse("tool_choice without tools");
        }
        if let Some(config) = &self.output_config {
            let format = config.format.as_ref();
            let open =
                |format: &Value| format["type"] != "json_schema" || format["schema"]["additionalProperties"] != false;
            if format.is_some_and(open) || config.effort.as_deref().is_some_and(|effort| effort == "none") {
                return refuse(
                    "output_config: for 'object' type, 'additionalProperties' must be explicitly set to false",
                );
            }
        }
        Ok(())
    }

    fn asked(self) -> Result<Asked, Refusal> {
        self.check()?;
        let mut asked = Asked { model: self.model, stream: self.stream == Some(true), choices: 1, ..Asked::default() };
        // Results of a turn's calls stand in the next turn, all of them and nothing before them.
        let mut open: Vec<String> = Vec::new();
        for (index, message) in self.messages.into_iter().enumerate() {
            let expected = if index % 2 == 0 { "user" } else { "assistant" };
            if message.role != expected {
                return refuse(format!("messages: roles must alternate, and this is another {}", message.role));
            }
            let blocks = match message.content {
                Content::Text(text) => vec![Block::Text { text }],
                Content::Blocks(blocks) => blocks,
            };
            if expected == "user" {
                user(&mut asked, &mut open, blocks)?;
            } else {
                assistant(&mut open, blocks)?;
            }
        }
        let none = self.tool_choice.as_ref().is_some_and(|choice| choice["type"] == "none");
        if !none {
            asked.tools = self.tools.into_iter().flatten().map(|tool| tool.name).collect();
        }
        asked.must_call = self.tool_choice.is_some_and(|choice| choice["type"] == "any" || choice["type"] == "tool");
        let system = self.system.map(|system| system.to_string()).unwrap_or_default();
        asked.json = self.output_config.is_some_and(|config| config.format.is_some()) || system.contains("JSON object");
        Ok(asked)
    }
}

fn user(asked: &mut Asked, open: &mut Vec<String>, blocks: Vec<Block>) -> Result<(), Refusal> {
    (asked.text, asked.results) = (None, Vec::new());
    for block in blocks {
        match block {
            Block::Text { text } if !text.trim().is_empty() => asked.text = Some(text),
            Block::Text { .. } => return refuse("messages: text content blocks must contain non-whitespace text"),
            Block::Image { source } if source["type"] == "base64" => {
                let (kind, data) = (source["media_type"].as_str(), source["data"].as_str());
                asked.images.push(format!("data:{};base64,{}", kind.unwrap_or_default(), data.unwrap_or_default()));
            }
            Block::Image { source } => asked.images.push(source["url"].as_str().unwrap_or_default().to_owned()),
            Block::ToolResult { tool_use_id, content } => {
                let Some(place) = open.iter().position(|id| *id == tool_use_id) else {
                    return refuse("messages: tool_result without tool_use in the turn before");
                };
                open.remove(place);
                asked.results.push(content.as_str().unwrap_or_default().to_owned());
            }
            Block::ToolUse { .. } => return refuse("messages: only an assistant uses tools"),
        }
    }
    if open.is_empty() { Ok(()) } else { refuse("messages: tool_use without tool_result in the next turn") }
}

fn assistant(open: &mut Vec<String>, blocks: Vec<Block>) -> Result<(), Refusal> {
    for block in blocks {
        match block {
            Block::Text { text } if !text.trim().is_empty() => {}
            Block::ToolUse { id, .. } => open.push(id),
            _ => return refuse("messages: an assistant says something or uses tools"),
        }
    }
    Ok(())
}

async fn messages(Shared(state): Shared<Arc<State>>, uri: Uri, headers: HeaderMap, bytes: Bytes) -> Response<Body> {
    let asked = || -> Result<Asked, Refusal> {
        let (body, _) = read::<MessagesBody>(&state, &uri, &headers, &bytes)?;
        // The provider's own client has come to send a bearer token.
        match headers.contains_key("authorization") {
            true => check_key(&headers, "authorization", &format!("Bearer {STUB_KEY}"))?,
            false => check_key(&headers, "x-api-key", STUB_KEY)?,
        }
        if !headers.contains_key("anthropic-version") {
            return refuse("anthropic-version: header is required");
        }
        body.asked()
    };
    chat::<Anthropic>(&state, &headers, asked()).await
}

struct Anthropic;

fn stop_reason(end: End) -> &'static str {
    match end {
        End::Stop => "end_turn",
        End::Length => "max_tokens",
        End::Calls => "tool_use",
        End::Refusal => "refusal",
    }
}

fn error_type(status: u16) -> &'static str {
    match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => "api_error",
    }
}

fn head(model: &str, content: Value, stop: Value, written: usize) -> Value {
    let usage = json!({
        "input_tokens": PROMPT - CACHED - CREATED, "cache_creation_input_tokens": CREATED,
        "cache_read_input_tokens": CACHED, "output_tokens": written, "service_tier": "standard"
    });
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": content,
        "stop_reason": stop, "stop_sequence": null, "usage": usage
    })
}

/// An event with its name, which is its type.
fn event(value: Value) -> String {
    format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap_or_default())
}

impl Wire for Anthropic {
    fn error(status: u16, message: &str) -> Value {
        json!({"type": "error", "error": {"type": error_type(status), "message": message}, "request_id": "req_1"})
    }

    fn stream_error(message: &str) -> String {
        event(json!({"type": "error", "error": {"type": "api_error", "message": message}}))
    }

    fn plain(model: &str, replies: &[Reply]) -> Value {
        let reply = &replies[0];
        let mut content = vec![json!({"type": "thinking", "thinking": "hm", "signature": "s"})];
        if !reply.text.is_empty() {
            content.push(json!({"type": "text", "text": reply.text, "citations": null}));
        }
        content.extend(reply.calls.iter().map(|call| {
            let input: Value = serde_json::from_str(&call.arguments).expect("arguments are JSON");
            json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input})
        }));
        head(model, content.into(), stop_reason(reply.end).into(), reply.tokens())
    }

    fn events(model: &str, replies: &[Reply]) -> Vec<String> {
        let reply = &replies[0];
        let mut events = vec![json!({"type": "message_start", "message": head(model, json!([]), Value::Null, 1)})];
        let mut block = 0;
        let mut put = |start: Value, deltas: Vec<Value>| {
            events.push(json!({"type": "content_block_start", "index": block, "content_block": start}));
            events.push(json!({"type": "ping"}));
            let deltas =
                deltas.into_iter().map(|delta| json!({"type": "content_block_delta", "index": block, "delta": delta}));
            events.extend(deltas);
            events.push(json!({"type": "content_block_stop", "index": block}));
            block += 1;
        };
        let thoughts =
            ["thinking_delta", "signature_delta"].map(|kind| json!({"type": kind, "thinking": "hm", "signature": "s"}));
        put(json!({"type": "thinking", "thinking": "", "signature": ""}), thoughts.to_vec());
        if !reply.text.is_empty() {
            let deltas = reply.pieces().into_iter().map(|piece| json!({"type": "text_delta", "text": piece}));
            put(json!({"type": "text", "text": ""}), deltas.collect());
        }
        for call in &reply.calls {
            // A function without arguments gets no piece of them but an empty one.
            let arguments = if call.arguments == "{}" { Vec::new() } else { pieces(&call.arguments) };
            let deltas = [String::new()].into_iter().chain(arguments);
            let deltas = deltas.map(|piece| json!({"type": "input_json_delta", "partial_json": piece})).collect();
            put(json!({"type": "tool_use", "id": call.id, "name": call.name, "input": {}}), deltas);
        }
        let delta = json!({"stop_reason": stop_reason(reply.end), "stop_sequence": null});
        events.push(json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": reply.tokens()}}));
        events.push(json!({"type": "message_stop"}));
        events.into_iter().map(event).collect()
    }
}
