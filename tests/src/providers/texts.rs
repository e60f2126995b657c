//! Completions and vectors in OpenAI's dialect.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State as Shared;
use axum::http::{HeaderMap, Response, Uri};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::openai::OpenAi;
use super::wire::{Refusal, Wire, check_key, data, json as answered, read, refuse, text};
use super::{STUB_KEY, State};

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/openai/v1/completions", post(own_completions))
        .route("/openai/v1/embeddings", post(own_embeddings))
        .route("/custom/completions", post(own_completions))
        .route("/custom/embeddings", post(own_embeddings))
}

type Call4 = (Shared<Arc<State>>, Uri, HeaderMap, Bytes);

async fn own_completions((state, uri, headers, bytes): Call4) -> Response<Body> {
    let read = read::<Value>(&state, &uri, &headers, &bytes);
    let checked = read.and_then(|(_, value)| {
        check_key(&headers, "authorization", &format!("Bearer {STUB_KEY}"))?;
        for foreign in ["messages", "suffix", "best_of", "use_raw_prompt", "max_completion_tokens"] {
            if value.get(foreign).is_some() {
                return refuse(format!("Unrecognized request argument supplied: {foreign}"));
            }
        }
        Ok(value)
    });
    match checked {
        Ok(value) => completed(&value),
        Err(Refusal(status, message)) => answered(status, &OpenAi::error(status, &message)),
    }
}

/// Every prompt goes on in the same way, a token a letter.
pub(super) fn completed(value: &Value) -> Response<Body> {
    let prompts: Vec<&str> = match &value["prompt"] {
        Value::String(prompt) => vec![prompt],
        Value::Array(prompts) => prompts.iter().filter_map(Value::as_str).collect(),
        _ => return answered(400, &OpenAi::error(400, "no prompt")),
    };
    let (each, top) = (value["n"].as_u64().unwrap_or(1) as usize, value["logprobs"].as_u64());
    let echo = value["echo"] == true;
    let mut choices = Vec::new();
    for (index, prompt) in prompts.iter().flat_map(|prompt| vec![prompt; each]).enumerate() {
        let said = format!("{}{}!", if echo { prompt } else { "" }, index % each);
        let letters: Vec<String> = said.chars().map(String::from).collect();
        let first = if echo { Value::Null } else { json!(-0.5) };
        let numbers: Vec<Value> =
            (0..letters.len()).map(|at| if at == 0 { first.clone() } else { json!(-0.25 * index as f64) }).collect();
        let tops: Vec<Value> =
            letters.iter().zip(&numbers).map(|(letter, number)| json!({letter: number, "z": -9.0})).collect();
        let logprobs =
            top.map(|_| json!({"tokens": letters, "token_logprobs": numbers, "top_logprobs": tops, "text_offset": []}));
        choices.push(json!({"index": index, "text": said, "finish_reason": "stop", "logprobs": logprobs}));
    }
    let usage = json!({"prompt_tokens": 3, "completion_tokens": 2 * choices.len(), "total_tokens": 0});
    let object = |choices: Value, usage: Value| json!({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": choices, "usage": usage});
    if value["stream"] != true {
        return answered(200, &object(choices.into(), usage));
    }
    let mut events: Vec<String> = Vec::new();
    for mut choice in choices {
        let end = choice["finish_reason"].take();
        events.push(data(&object(json!([choice]), Value::Null)));
        events.push(data(&object(json!([{"index": choice["index"], "text": "", "finish_reason": end}]), Value::Null)));
    }
    events.push(data(&object(json!([]), usage)));
    events.push("data: [DONE]\n\n".to_owned());
    text(200, "text/event-stream", events.concat())
}

async fn own_embeddings((state, uri, headers, bytes): Call4) -> Response<Body> {
    let read = read::<Value>(&state, &uri, &headers, &bytes);
    let checked =
        read.and_then(|(_, value)| check_key(&headers, "authorization", &format!("Bearer {STUB_KEY}")).map(|()| value));
    match checked {
        Ok(value) => embedded(&value),
        Err(Refusal(status, message)) => answered(status, &OpenAi::error(status, &message)),
    }
}

/// The vector of a text is its length and its first byte; the list comes in another order.
pub(super) fn embedded(value: &Value) -> Response<Body> {
    let texts: Vec<&str> = value["input"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut items: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let vector = [text.len() as f32, f32::from(text.as_bytes().first().copied().unwrap_or(0)), -0.5];
            // Some servers answer in base64, whoever asks.
            let embedding = if index % 2 == 0 {
                json!(vector)
            } else {
                json!(STANDARD.encode(vector.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>()))
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    items.reverse();
    let usage = json!({"prompt_tokens": texts.len(), "total_tokens": texts.len()});
    answered(200, &json!({"object": "list", "model": "m", "data": items, "usage": usage}))
}
