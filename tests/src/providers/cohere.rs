//! Cohere's API of version 2.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use axum::http::{HeaderMap, Response, Uri};
use axum::routing::post;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::script::{Asked, CACHED, End, PROMPT, Reply, pieces};
use super::wire::{Refusal, Wire, chat, check_key, data, json as answered, read, refuse};
use super::{STUB_KEY, State};

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().route("/cohere/v2/chat", post(own_chat)).route("/cohere/v2/embed", post(embed))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct ChatBody {
    model: String,
    messages: Vec<Message>,
    stream: Option<bool>,
    max_tokens: Option<u32>,
    temperature: Option<f64>,
    p: Option<f64>,
    k: Option<u32>,
    frequency_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    seed: Option<u64>,
    stop_sequences: Option<Vec<String>>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<String>,
    strict_tools: Option<bool>,
    response_format: Option<Format>,
    thinking: Option<Value>,
    safety_mode: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    role: String,
    content: Option<Value>,
    #[allow(dead_code)]
    tool_plan: Option<String>,
    tool_calls: Option<Vec<MadeCall>>,
    tool_call_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct MadeCall {
    id: String,
    r#type: String,
    function: MadeFunction,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct MadeFunction {
    name: String,
    arguments: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Format {
    r#type: String,
    #[allow(dead_code)]
    json_schema: Option<Map<String, Value>>,
}

fn content(content: Option<&Value>, images: &mut Vec<String>) -> Result<String, Refusal> {
    match content {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let mut whole = String::new();
            for part in parts {
                match part["type"].as_str() {
                    Some("text") => whole.push_str(part["text"].as_str().unwrap_or_default()),
                    Some("image_url") => images.push(part["image_url"]["url"].as_str().unwrap_or_default().to_owned()),
                    _ => return refuse(format!("no such content: {part}")),
                }
            }
            Ok(whole)
        }
        _ => refuse("a message has a content"),
    }
}

impl ChatBody {
    fn asked(self) -> Result<Asked, Refusal> {
        let in_range = |number: Option<f64>| number.is_none_or(|number| (0.0..=1.0).contains(&number));
        if ![self.temperature, self.p, self.frequency_penalty, self.presence_penalty].into_iter().all(in_range) {
            return refuse("a number is out of range");
        }
        let mut asked = Asked { model: self.model, stream: self.stream == Some(true), choices: 1, ..Asked::default() };
        for message in &self.messages {
            match (message.role.as_str(), &message.tool_calls) {
                ("system", None) => _ = content(message.content.as_ref(), &mut Vec::new())?,
                ("user", None) => {
                    asked.text = Some(content(message.content.as_ref(), &mut asked.images)?);
                    asked.results.clear();
                }
                ("assistant", Some(calls)) if message.content.is_none() && !calls.is_empty() => {}
                ("assistant", None) if message.content.is_some() && message.tool_plan.is_none() => {}
                ("tool", None) if message.tool_call_id.is_some() => {
                    asked.text = None;
                    asked.results.push(content(message.content.as_ref(), &mut Vec::new())?);
                }
                (role, _) => return refuse(format!("invalid message of role {role}")),
            }
        }
        for tool in self.tools.iter().flatten() {
            let function = tool["function"].as_object().ok_or(Refusal(400, "a tool is a function".to_owned()))?;
            if tool["type"] != "function"
                || function.keys().any(|key| !["name", "description", "parameters"].contains(&&**key))
            {
                return refuse(format!("invalid tool: {tool}"));
            }
        }
        match self.tool_choice.as_deref() {
            None | Some("REQUIRED" | "NONE") => {}
            Some(other) => return refuse(format!("invalid tool_choice: {other}")),
        }
        if self.tool_choice.as_deref() != Some("NONE") {
            let names = self.tools.iter().flatten().filter_map(|tool| tool["function"]["name"].as_str());
            asked.tools = names.map(str::to_owned).collect();
        }
        asked.must_call = self.tool_choice.as_deref() == Some("REQUIRED");
        asked.json = self.response_format.is_some_and(|format| format.r#type == "json_object");
        Ok(asked)
    }
}

async fn own_chat(Shared(state): Shared<Arc<State>>, uri: Uri, headers: HeaderMap, bytes: Bytes) -> Response<Body> {
    let asked = || -> Result<Asked, Refusal> {
        let (body, _) = read::<ChatBody>(&state, &uri, &headers, &bytes)?;
        check_key(&headers, "authorization", &format!("Bearer {STUB_KEY}"))?;
        body.asked()
    };
    chat::<Cohere>(&state, &headers, asked()).await
}

struct Cohere;

fn finish(end: End) -> &'static str {
    match end {
        // It has no word for a refusal.
        End::Stop | End::Refusal => "COMPLETE",
        End::Length => "MAX_TOKENS",
        End::Calls => "TOOL_CALL",
    }
}

fn usage(reply: &Reply) -> Value {
    json!({
        "billed_units": {"input_tokens": 1.0, "output_tokens": reply.tokens() as f64},
        "tokens": {"input_tokens": PROMPT as f64, "output_tokens": reply.tokens() as f64}, "cached_tokens": CACHED as f64
    })
}

impl Wire for Cohere {
    fn error(_status: u16, message: &str) -> Value {
        json!({"id": "1", "message": message})
    }

    fn stream_error(message: &str) -> String {
        data(&json!({"type": "message-end", "id": "1", "delta": {"finish_reason": "ERROR", "error": message}}))
    }

    /// What is said beside calls is the plan of them.
    fn plain(_model: &str, replies: &[Reply]) -> Value {
        let reply = &replies[0];
        let calls = reply.calls.iter().map(|call| {
            json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}})
        });
        let message = if reply.calls.is_empty() {
            json!({"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": reply.text}]})
        } else {
            json!({"role": "assistant", "tool_plan": reply.text, "tool_calls": calls.collect::<Vec<_>>()})
        };
        json!({"id": "1", "finish_reason": finish(reply.end), "message": message, "usage": usage(reply)})
    }

    fn events(_model: &str, replies: &[Reply]) -> Vec<String> {
        let reply = &replies[0];
        let start = json!({"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []});
        let mut events = vec![json!({"type": "message-start", "id": "1", "delta": {"message": start}})];
        let with = |kind: &str, index: usize, message: Value| json!({"type": kind, "index": index, "delta": {"message": message}});
        if reply.calls.is_empty() {
            events.push(with("content-start", 0, json!({"content": {"type": "text", "text": ""}})));
            events.extend(
                reply.pieces().iter().map(|piece| with("content-delta", 0, json!({"content": {"text": piece}}))),
            );
            events.push(json!({"type": "content-end", "index": 0}));
        } else {
            events.extend(reply.pieces().iter().map(|piece| with("tool-plan-delta", 0, json!({"tool_plan": piece}))));
        }
        for (index, call) in reply.calls.iter().enumerate() {
            let function = json!({"name": call.name, "arguments": ""});
            let begun = json!({"tool_calls": {"id": call.id, "type": "function", "function": function}});
            events.push(with("tool-call-start", index, begun));
            for piece in pieces(if call.arguments == "{}" { "" } else { &call.arguments }) {
                events.push(with("tool-call-delta", index, json!({"tool_calls": {"function": {"arguments": piece}}})));
            }
            events.push(json!({"type": "tool-call-end", "index": index}));
        }
        events.push(json!({"type": "message-end", "id": "1", "delta": {"finish_reason": finish(reply.end), "usage": usage(reply)}}));
        let named = |value: &Value| format!("event: {}\n{}", value["type"].as_str().unwrap_or_default(), data(value));
        events.iter().map(named).collect()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct EmbedBody {
    model: String,
    input_type: String,
    texts: Vec<String>,
    embedding_types: Vec<String>,
    truncate: Option<String>,
    output_dimension: Option<usize>,
}

/// The vector of a text is its length and its first byte, and a number for what it is for.
async fn embed(Shared(state): Shared<Arc<State>>, uri: Uri, headers: HeaderMap, bytes: Bytes) -> Response<Body> {
    let read = || -> Result<EmbedBody, Refusal> {
        let (body, _) = read::<EmbedBody>(&state, &uri, &headers, &bytes)?;
        check_key(&headers, "authorization", &format!("Bearer {STUB_KEY}"))?;
        let known = ["search_document", "search_query", "classification", "clustering"];
        if !known.contains(&&*body.input_type) || body.texts.len() > 96 || body.embedding_types != ["float"] {
            return refuse("invalid request: at most 96 texts, an input type, and floats");
        }
        Ok(body)
    };
    let body = match read() {
        Ok(body) => body,
        Err(Refusal(status, message)) => return answered(status, &Cohere::error(status, &message)),
    };
    let purpose = if body.input_type == "search_query" { 1.0 } else { 0.0 };
    let vectors = body.texts.iter().map(|text| {
        let first = text.as_bytes().first().copied().unwrap_or(0);
        [text.len() as f32, f32::from(first), purpose]
    });
    let vectors: Vec<_> = vectors.collect();
    let meta = json!({"api_version": {"version": "2"}, "billed_units": {"input_tokens": body.texts.len() as f64}});
    answered(200, &json!({"id": "1", "embeddings": {"float": vectors}, "texts": body.texts, "meta": meta}))
}
