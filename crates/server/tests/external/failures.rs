//! Providers that refuse, fail, stall and break off: the caller always hears of it, and never sees a key.

use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::{Value, json};

use hearth_tests::{STUB_KEY, STUB_TOKEN};

use crate::house::{House, PROVIDERS, config};

fn ask(endpoint: &str, stream: bool) -> Value {
    json!({"model": endpoint, "stream": stream, "messages": [{"role": "user", "content": "tell me something long"}]})
}

/// The endpoint of a model that fails in this way.
fn faulty(house: &House, provider: &str, fault: &str) -> String {
    let endpoint = format!("{provider}-{fault}");
    let mut config = config(&house.stubs, provider);
    let model = format!("stub--{fault}");
    if let Some(name) = config.pointer_mut("/openai_config/openai_deployment_name") {
        *name = json!(model);
    }
    house.serve_as(&endpoint, "chat", &model, &config);
    endpoint
}

fn impatient() -> House {
    House::with(|settings| {
        settings.idle_timeout = Duration::from_millis(300);
        settings.first_byte_timeout = Duration::from_millis(300);
    })
}

#[tokio::test]
async fn what_fails_before_the_answer_begins_is_told_by_its_status() {
    let house = impatient();
    for provider in PROVIDERS {
        for (fault, status, said, requests) in [
            ("busy", 429, "answered 429: too many requests", 1),
            ("unknown", 404, "answered 404: no such model", 1),
            ("down", 503, "answered 500: out of order", 3),
            ("html", 503, "answered 502", 3),
            ("redirect", 503, "answered 307", 3),
            ("slow", 504, "did not answer within", 1),
            ("error-in-200", 503, "the model is on fire", 3),
        ] {
            let endpoint = faulty(&house, provider, fault);
            for stream in [false, true] {
                let before = house.stubs.requests().len();
                let answered = house.chat(&ask(&endpoint, stream)).await;
                let error = answered.json()["error"].clone();
                let message = error["message"].as_str().unwrap();
                assert_eq!(answered.status, status, "{endpoint} {stream}: {error}");
                assert!(message.contains(said), "{endpoint} {stream}: {message}");
                assert_eq!(house.stubs.requests().len() - before, requests, "{endpoint} {stream}");
                if fault == "busy" {
                    assert_eq!(answered.headers["retry-after"], "30", "more than anybody here waits");
                }
            }
        }
        for fault in ["malformed", "shape", "cut", "stall"] {
            let endpoint = faulty(&house, provider, fault);
            let answered = house.chat(&ask(&endpoint, false)).await;
            let status = if fault == "stall" { 504 } else { 503 };
            assert_eq!(answered.status, status, "{endpoint}: {}", answered.body);
        }
    }
}

#[tokio::test]
async fn both_dialects_have_their_own_form_of_a_providers_error() {
    let house = House::new();
    let endpoint = faulty(&house, "anthropic", "busy");
    let answered = house.post(&format!("/serving-endpoints/{endpoint}/invocations"), &ask(&endpoint, false)).await;
    let message = "anthropic answered 429: too many requests";
    assert_eq!(answered.json(), json!({"error_code": "REQUEST_LIMIT_EXCEEDED", "message": message}));
    assert_eq!((answered.status, &answered.headers["retry-after"]), (429, &"30".parse().unwrap()));
    let answered = house.chat(&ask(&endpoint, false)).await;
    let error = json!({"message": message, "type": "rate_limit_error", "param": null, "code": "upstream_error"});
    assert_eq!(answered.json(), json!({"error": error}));
}

#[tokio::test]
async fn a_request_that_may_do_better_is_sent_again() {
    for provider in PROVIDERS {
        let house = House::new();
        for fault in ["busy-once", "down-once", "overloaded-once", "error-in-200-once"] {
            let endpoint = faulty(&house, provider, fault);
            let before = house.stubs.requests().len();
            let (events, done) = house.chat(&ask(&endpoint, true)).await.events();
            let text: String =
                events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
            assert_eq!((text.as_str(), done), ("You said: tell me something long", true), "{endpoint}");
            assert_eq!(house.stubs.requests().len() - before, 2, "{endpoint}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_breaks_ends_with_an_error_and_is_not_sent_again() {
    let house = impatient();
    for provider in PROVIDERS {
        for (fault, said) in [
            ("error-later", "the model is on fire"),
            ("malformed", "answered what nobody understands: no JSON"),
            ("cut", "broke off its answer"),
            ("cut-clean", "the answer ended before it was complete"),
            ("stall", "said nothing for 300ms"),
        ] {
            let endpoint = faulty(&house, provider, fault);
            let before = house.stubs.requests().len();
            let answered = house.chat(&ask(&endpoint, true)).await;
            assert_eq!(answered.status, 200, "{endpoint}: {}", answered.body);
            let (events, done) = answered.events();
            let (last, pieces) = events.split_last().unwrap();
            assert!(!done && last["error"]["message"].as_str().unwrap().contains(said), "{endpoint}: {last}");
            assert!(pieces.iter().any(|piece| piece["choices"][0]["delta"]["content"] == "You s"), "{endpoint}");
            assert!(pieces.iter().all(|piece| piece["choices"][0]["finish_reason"].is_null()), "{endpoint}");
            assert_eq!(house.stubs.requests().len() - before, 1, "{endpoint}");
        }
    }
}

#[tokio::test]
async fn a_key_is_never_repeated_also_where_the_provider_does() {
    let house = House::new();
    for provider in PROVIDERS {
        for (fault, stream) in [("echo", false), ("echo", true), ("echo-later", true)] {
            let endpoint = format!("{provider}-{fault}");
            if !stream || fault != "echo" {
                faulty(&house, provider, fault);
            }
            let answered = house.chat(&ask(&endpoint, stream)).await;
            let body = &answered.body;
            assert!(!body.contains(STUB_KEY), "{endpoint}: {body}");
            assert!(provider != "azuread" || !body.contains(STUB_TOKEN), "{endpoint}: {body}");
            assert!(body.contains("[redacted]") || provider == "custom-key", "{endpoint}: {body}");
        }
        // What is said of a refused key is kept back altogether: it may be a part of it.
        house.secrets.0.lock().unwrap().insert("wrong".to_owned(), "sk-wrong-0123456789".to_owned());
        let wrong = config(&house.stubs, provider).to_string().replace("scope/key", "scope/wrong");
        let endpoint = format!("{provider}-wrong");
        house.serve_as(&endpoint, "chat", "stub", &serde_json::from_str(&wrong).unwrap());
        let answered = house.chat(&ask(&endpoint, false)).await;
        assert!(!answered.body.contains("sk-wrong"), "{}", answered.body);
        let status = if provider == "azuread" { 503 } else { 401 };
        assert_eq!(answered.status, status, "{endpoint}: {}", answered.body);
        assert!(answered.body.contains("refused the credential"), "{}", answered.body);
    }
}

#[tokio::test]
async fn a_new_secret_takes_effect_and_a_missing_one_is_nobodys_business() {
    let house = House::new();
    house.secrets.0.lock().unwrap().insert("key".to_owned(), "sk-old-0123456789".to_owned());
    house.serve("openai", "chat", "stub");
    assert_eq!(house.chat(&ask("openai", false)).await.status, 401);
    house.secrets.0.lock().unwrap().insert("key".to_owned(), STUB_KEY.to_owned());
    assert_eq!(house.chat(&ask("openai", false)).await.status, 200, "a refused key is forgotten at once");
    house.serve("cohere", "chat", "stub");
    house.secrets.0.lock().unwrap().clear();
    let answered = house.chat(&ask("cohere", false)).await;
    assert_eq!(answered.status, 500, "{}", answered.body);
    assert!(!answered.body.contains("scope"), "{}", answered.body);
}

#[tokio::test]
async fn what_cannot_be_reached_is_told_without_its_address() {
    let house = House::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config =
        json!({"provider": "custom", "custom_provider_config": {"custom_provider_url": format!("http://{closed}/v1")}});
    house.serve_as("closed", "chat", "stub", &config);
    let answered = house.chat(&ask("closed", true)).await;
    assert_eq!(
        (answered.status, answered.json()["error"]["message"].clone()),
        (503, json!("custom cannot be reached"))
    );
}

#[tokio::test]
async fn whoever_goes_away_takes_the_providers_answer_along() {
    let house = House::new();
    for provider in PROVIDERS {
        let endpoint = faulty(&house, provider, "stall");
        let mut body = house.send("/v1/chat/completions", &ask(&endpoint, true)).await.into_body();
        assert!(body.frame().await.is_some(), "it has begun");
        assert_eq!(house.stubs.open_answers(), 1, "{provider}");
        drop(body);
        eventually(|| house.stubs.open_answers() == 0).await;
    }
}

#[tokio::test]
async fn connections_are_made_when_they_are_needed_and_used_again() {
    let house = House::new();
    for provider in PROVIDERS {
        house.serve(provider, "chat", "stub");
    }
    assert_eq!(house.stubs.connections(), 0, "nobody has asked yet");
    for stream in [false, true, true, false, true] {
        for provider in PROVIDERS {
            assert_eq!(house.chat(&ask(provider, stream)).await.status, 200);
        }
    }
    // A connection may not be back yet when the next request goes out.
    assert!((1..5).contains(&house.stubs.connections()), "{} for 40 requests", house.stubs.connections());
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not come true");
}
