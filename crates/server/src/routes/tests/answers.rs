//! Chat, completions and embeddings: the shapes of their answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use base64::Engine;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::fake::{Fake, Script};
use super::{app, post, send, serve};
use crate::providers::ProviderError;

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

fn chat(more: Value) -> Value {
    with(json!({"model": "chat-model", "messages": [{"role": "user", "content": "hi"}]}), more)
}

fn with(mut base: Value, more: Value) -> Value {
    base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    base
}

#[tokio::test]
async fn a_chat_answer_has_every_field() {
    let answer = post(&app(), CHAT, chat(json!({"n": 2, "logprobs": true, "top_logprobs": 1}))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("served-model-name"), Some("org-Fake-1-5"));
    let body = answer.json();
    assert!(body["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert!(body["created"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!((&body["object"], &body["model"]), (&json!("chat.completion"), &json!("chat-model")));
    assert_eq!(body["usage"], json!({"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 16}));
    let second = &body["choices"][1];
    assert_eq!(second["message"], json!({"role": "assistant", "content": "Hello 1", "refusal": null}));
    assert_eq!((&second["index"], &second["finish_reason"]), (&json!(1), &json!("length")));
    assert_eq!(second.get("finishReason"), None);
    let top = json!({"token": "top", "logprob": -0.25, "bytes": [116, 111, 112]});
    let first = json!({"token": "Hel", "logprob": -1.5, "bytes": [72, 101, 108], "top_logprobs": [top]});
    assert_eq!(second["logprobs"]["content"][0], first);
    assert_eq!(second["logprobs"]["content"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn the_stream_says_what_the_plain_answer_says() {
    let app = app();
    let plain = post(&app, CHAT, chat(json!({"n": 3}))).await.json();
    let events = post(&app, CHAT, chat(json!({"n": 3, "stream": true}))).await.events();
    for index in 0..3 {
        let choices: Vec<&Value> =
            events.iter().map(|event| &event["choices"][0]).filter(|choice| choice["index"] == index).collect();
        assert_eq!(choices[0]["delta"], json!({"role": "assistant", "content": ""}));
        let text: String =
            choices.iter().map(|choice| choice["delta"]["content"].as_str().unwrap_or_default()).collect();
        assert_eq!(text, plain["choices"][index]["message"]["content"]);
        let (last, before) = choices.split_last().unwrap();
        assert_eq!(last["delta"], json!({}));
        assert_eq!(last["finish_reason"], plain["choices"][index]["finish_reason"]);
        assert!(before.iter().all(|choice| choice["finish_reason"].is_null()));
    }
    let (last, before) = events.split_last().unwrap();
    assert_eq!(last["usage"], plain["usage"]);
    assert!(before.iter().all(|event| event.get("usage").is_none()));
    assert!(events.iter().all(|event| event["id"] == events[0]["id"] && event["object"] == "chat.completion.chunk"));
}

#[tokio::test]
async fn usage_has_its_own_chunk_when_it_is_asked_for() {
    let body = chat(json!({"stream": true, "stream_options": {"include_usage": true}}));
    let events = post(&app(), CHAT, body).await.events();
    let (last, before) = events.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 3);
    assert!(before.iter().all(|event| event["usage"].is_null() && event.get("usage").is_some()));
    assert_eq!(before.last().unwrap()["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn completions_number_their_choices_over_all_prompts() {
    let body = json!({"model": "chat-model", "prompt": ["a", "b"], "n": 2, "echo": true, "suffix": "!", "logprobs": 1});
    let answer = post(&app(), COMPLETIONS, body).await.json();
    let texts: Vec<&str> =
        answer["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["aHello 0!", "aHello 1!", "bHello 2!", "bHello 3!"]);
    assert_eq!((&answer["object"], &answer["choices"][3]["index"]), (&json!("text_completion"), &json!(3)));
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["a", "Hel", "lo", " 0"]));
    assert_eq!(logprobs["token_logprobs"], json!([null, -0.5, -0.5, -0.5]));
    assert_eq!(logprobs["text_offset"], json!([0, 1, 4, 6]));
    assert_eq!(logprobs["top_logprobs"][0], Value::Null);
    assert_eq!(logprobs["top_logprobs"][1], json!({"top": -0.25, "Hel": -0.5}));
}

#[tokio::test]
async fn streamed_completions_are_pieces_of_the_plain_ones() {
    let body = json!({"model": "base", "prompt": "a", "echo": true, "suffix": "!", "logprobs": 0, "stream": true});
    let events = post(&app(), COMPLETIONS, body).await.events();
    let text: String = events.iter().map(|event| event["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(text, "aHello 0!");
    let offsets: Vec<&Value> =
        events.iter().filter_map(|event| event["choices"][0]["logprobs"]["text_offset"].get(0)).collect();
    assert_eq!(offsets, [0, 1, 4, 6]);
    assert_eq!(events.last().unwrap()["usage"]["total_tokens"], 13);
}

#[tokio::test]
async fn the_best_of_several_are_returned_without_what_was_not_asked_for() {
    let body = json!({"model": "base", "prompt": "a", "best_of": 3});
    let answer = post(&app(), COMPLETIONS, body).await.json();
    assert_eq!(answer["choices"].as_array().unwrap().len(), 1);
    assert_eq!(answer["choices"][0]["text"], "Hello 0");
    assert_eq!(answer["choices"][0]["logprobs"], Value::Null);
    assert_eq!(answer["usage"]["completion_tokens"], 9);
}

#[tokio::test]
async fn vectors_come_as_numbers_or_as_base64_of_the_same() {
    let app = app();
    let body = json!({"model": "vectors", "input": ["a", "b"]});
    let floats = post(&app, "/v1/embeddings", body.clone()).await.json();
    assert_eq!(floats["object"], "list");
    assert_eq!(floats["data"][1], json!({"object": "embedding", "index": 1, "embedding": [1.0, -1.5]}));
    assert_eq!(floats["usage"], json!({"prompt_tokens": 7, "total_tokens": 7}));
    let coded = post(&app, "/v1/embeddings", with(body, json!({"encoding_format": "base64"}))).await.json();
    let text = coded["data"][1]["embedding"].as_str().unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    assert_eq!(bytes, [1.0f32.to_le_bytes(), (-1.5f32).to_le_bytes()].concat());
}

#[tokio::test]
async fn a_failure_before_the_first_event_has_a_status_and_later_ones_are_events() {
    let app = app();
    serve(&app, "busy", Fake::with(Script::Refuse(ProviderError::Busy("the queue is full".into()))));
    serve(&app, "broken", Fake::with(Script::Break(ProviderError::Failed("a secret of the log".into()))));
    serve(&app, "vanishing", Fake::with(Script::Vanish));
    let busy = post(&app, CHAT, chat(json!({"model": "busy", "stream": true}))).await;
    assert_eq!((busy.status.as_u16(), busy.header("retry-after")), (429, Some("1")));
    assert_eq!(busy.json()["error"]["code"], "rate_limit_exceeded");
    for model in ["broken", "vanishing"] {
        let plain = post(&app, CHAT, chat(json!({"model": model}))).await;
        assert_eq!(plain.status, 500);
        assert_eq!(plain.json()["error"]["message"], "the model failed to answer");
        let stream = post(&app, "/serving-endpoints/chat/completions", chat(json!({"model": model, "stream": true})));
        let stream = stream.await;
        assert_eq!(stream.status, 200);
        let last = stream.body.trim_end().rsplit("data: ").next().unwrap();
        let last: Value = serde_json::from_str(last).unwrap();
        assert_eq!((&last["error"]["type"], &last["error"]["param"]), (&json!("server_error"), &Value::Null));
        assert!(!stream.body.contains("secret") && !plain.body.contains("secret"));
    }
}

#[tokio::test]
async fn a_caller_who_goes_away_ends_the_work() {
    let app = app();
    for streamed in [true, false] {
        let gone = Arc::new(AtomicBool::new(false));
        let name = format!("hanging-{streamed}");
        serve(&app, &name, Fake::with(Script::Hang(Arc::clone(&gone))));
        let body = Body::from(chat(json!({"model": name, "stream": streamed})).to_string());
        let request = Request::post(CHAT).body(body).unwrap();
        if streamed {
            let mut body = send(&app, request).await.into_body();
            body.frame().await.unwrap().unwrap();
            assert!(!gone.load(Ordering::SeqCst));
            drop(body);
        } else {
            let waited = tokio::time::timeout(Duration::from_millis(50), send(&app, request)).await;
            assert!(waited.is_err(), "the answer never comes");
        }
        assert!(gone.load(Ordering::SeqCst), "streamed: {streamed}");
    }
}
