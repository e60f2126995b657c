//! The same conversation with functions through every provider, whole and streamed, is the same answer.

use serde_json::{Value, json};

use crate::house::{House, PROVIDERS};

fn tools() -> Value {
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}, "unit": {"type": "string"}}});
    json!([
        {"type": "function", "function": {"name": "get_weather", "description": "The weather", "parameters": parameters}},
        {"type": "function", "function": {"name": "now"}},
    ])
}

/// What an answer amounts to, whoever gave it: message, reason and usage.
#[derive(Debug, PartialEq)]
struct Amount {
    content: Value,
    /// Id, name and arguments.
    calls: Vec<(String, String, Value)>,
    reason: Value,
    usage: Value,
}

fn calls(calls: &Value) -> Vec<(String, String, Value)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let call = |call: &Value| {
        let arguments = serde_json::from_str(&text(&call["function"]["arguments"])).unwrap();
        (text(&call["id"]), text(&call["function"]["name"]), arguments)
    };
    calls.as_array().into_iter().flatten().map(call).collect()
}

async fn plain(house: &House, body: &Value) -> (Amount, Value) {
    let answered = house.chat(body).await;
    assert_eq!(answered.status, 200, "{}", answered.body);
    assert_eq!(answered.headers["served-model-name"], "stub");
    let answer = answered.json();
    assert_eq!(answer["model"], body["model"], "the endpoint's name");
    let choice = &answer["choices"][0];
    let message = choice["message"].clone();
    let (content, calls) = (message["content"].clone(), calls(&message["tool_calls"]));
    (Amount { content, calls, reason: choice["finish_reason"].clone(), usage: answer["usage"].clone() }, message)
}

async fn streamed(house: &House, body: &Value) -> Amount {
    let mut body = body.clone();
    body["stream"] = json!(true);
    let answered = house.chat(&body).await;
    assert_eq!(answered.status, 200, "{}", answered.body);
    let (events, done) = answered.events();
    assert!(done, "{}", answered.body);
    let mut message = json!({"content": null, "tool_calls": []});
    let (mut reason, mut usage, mut pieces) = (Value::Null, Value::Null, 0);
    for event in &events {
        let choice = &event["choices"][0];
        if let Some(text) = choice["delta"]["content"].as_str() {
            message["content"] = json!(message["content"].as_str().unwrap_or_default().to_owned() + text);
            pieces += usize::from(!text.is_empty());
        }
        for piece in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let index = piece["index"].as_u64().unwrap() as usize;
            let calls = message["tool_calls"].as_array_mut().unwrap();
            if index == calls.len() {
                assert_eq!(piece["type"], "function", "{piece}");
                calls.push(piece.clone());
            } else {
                assert!(piece.get("id").is_none() && piece["function"].get("name").is_none(), "{piece}");
                let so_far = calls[index]["function"]["arguments"].as_str().unwrap().to_owned();
                calls[index]["function"]["arguments"] =
                    json!(so_far + piece["function"]["arguments"].as_str().unwrap());
            }
        }
        reason = if choice["finish_reason"].is_null() { reason } else { choice["finish_reason"].clone() };
        usage = event.get("usage").cloned().unwrap_or(usage);
    }
    assert!(pieces > 1 || message["content"].as_str().unwrap().len() < 6, "it comes piece by piece: {}", answered.body);
    Amount { content: message["content"].clone(), calls: calls(&message["tool_calls"]), reason, usage }
}

async fn both(house: &House, body: &Value) -> (Amount, Value) {
    let (whole, message) = plain(house, body).await;
    assert_eq!(streamed(house, body).await, whole, "{body}");
    (whole, message)
}

fn usage(written: usize) -> Value {
    json!({
        "prompt_tokens": 20, "completion_tokens": written, "total_tokens": 20 + written,
        "prompt_tokens_details": {"cached_tokens": 5}
    })
}

#[tokio::test]
async fn a_conversation_with_functions_is_the_same_through_every_provider() {
    let house = House::new();
    for provider in PROVIDERS {
        house.serve(provider, "chat", "stub");
        let mut messages = vec![
            json!({"role": "system", "content": "Be brief."}),
            json!({"role": "user", "content": "The weather in Paris and in Rome, and the time?"}),
        ];
        let body = |messages: &[Value], more: Value| {
            let mut body = json!({"model": provider, "messages": messages, "tools": tools()});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body
        };
        let (asked, message) = both(&house, &body(&messages, json!({}))).await;
        let call = |id: &str, name: &str, arguments: Value| (id.to_owned(), name.to_owned(), arguments);
        let expected = Amount {
            content: json!("Let me see. "),
            calls: vec![
                call("call_1", "get_weather", json!({"city": "Paris", "unit": "celsius"})),
                call("call_2", "get_weather", json!({"city": "Rome", "unit": "celsius"})),
                call("call_3", "now", json!({})),
            ],
            reason: json!("tool_calls"),
            usage: usage(15),
        };
        assert_eq!(asked, expected, "{provider}");

        messages.push(message);
        for (id, result) in [("call_1", "21"), ("call_2", "25"), ("call_3", "noon")] {
            messages.push(json!({"role": "tool", "tool_call_id": id, "content": result}));
        }
        let (told, message) = both(&house, &body(&messages, json!({"tool_choice": "auto"}))).await;
        let said = |text: &str| Amount {
            content: json!(text),
            calls: Vec::new(),
            reason: json!("stop"),
            usage: usage(text.len()),
        };
        assert_eq!(told, said("It is 21 and 25 and noon."), "{provider}");

        messages.extend([message, json!({"role": "user", "content": "In Paris, thanks"})]);
        let (last, _) = both(&house, &body(&messages, json!({"tool_choice": "none"}))).await;
        assert_eq!(last, said("You said: In Paris, thanks"), "{provider}");
    }
}

#[tokio::test]
async fn why_an_answer_ends_is_told_in_one_language() {
    let house = House::new();
    for provider in PROVIDERS {
        house.serve(provider, "chat", "stub");
        let ask = |text: &str| json!({"model": provider, "messages": [{"role": "user", "content": text}]});
        let refusal = if provider == "cohere" { "stop" } else { "content_filter" };
        for (text, content, reason) in
            [("refuse", "I would", refusal), ("long", "a long answ", "length"), ("nothing", "", "stop")]
        {
            let (amount, _) = both(&house, &ask(text)).await;
            assert_eq!((amount.content, amount.reason), (json!(content), json!(reason)), "{provider}: {text}");
        }
    }
}

#[tokio::test]
async fn several_answers_are_asked_for_at_once_or_one_by_one() {
    let house = House::new();
    for provider in PROVIDERS {
        house.serve(provider, "chat", "stub");
        let before = house.stubs.requests().len();
        let body = json!({"model": provider, "n": 3, "messages": [{"role": "user", "content": "hi"}]});
        let answer = house.chat(&body).await.json();
        let choices: Vec<_> = answer["choices"].as_array().unwrap().iter().map(|choice| &choice["index"]).collect();
        assert_eq!(choices, [0, 1, 2], "{provider}: {answer}");
        assert_eq!(answer["choices"][2]["message"]["content"], "You said: hi");
        let single = ["anthropic", "cohere"].contains(&provider);
        let requests = if single { 3 } else { 1 };
        assert_eq!(house.stubs.requests().len() - before, requests);
        // A prompt that is sent three times is read three times.
        let prompt_tokens = 20 * requests;
        assert_eq!(answer["usage"]["prompt_tokens"], prompt_tokens, "{provider}: {answer}");
        assert_eq!(answer["usage"]["completion_tokens"], 3 * 12, "{provider}: {answer}");
        let mut body = body;
        body["stream"] = json!(true);
        let (events, done) = house.chat(&body).await.events();
        let mut texts = vec![String::new(); 3];
        for choice in events.iter().map(|event| &event["choices"][0]) {
            texts[choice["index"].as_u64().unwrap() as usize] +=
                choice["delta"]["content"].as_str().unwrap_or_default();
        }
        assert_eq!((texts, done), (vec!["You said: hi".to_owned(); 3], true), "{provider}");
    }
}
