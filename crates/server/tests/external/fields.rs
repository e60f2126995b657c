//! What a provider gets of a request: what was sent in its own words, nothing that was not, and nothing that it must not see.

use serde_json::{Value, json};

use crate::house::{House, PROVIDERS, config};

fn user(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

/// The body that the provider gets for a chat request with those fields.
async fn sent(house: &House, provider: &str, more: &Value) -> Value {
    let mut body = json!({"model": provider, "messages": user("hi")});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answered = house.chat(&body).await;
    assert_eq!(answered.status, 200, "{provider}: {}", answered.body);
    house.stubs.bodies().pop().unwrap()
}

fn serving() -> House {
    let house = House::new();
    for provider in PROVIDERS {
        house.serve(provider, "chat", "stub");
    }
    house
}

#[tokio::test]
async fn a_provider_gets_no_default_of_ours() {
    let house = serving();
    let openai = json!({"model": "stub", "messages": user("hi")});
    let bare = json!({"messages": user("hi")});
    let blocks = json!([{"role": "user", "content": [{"type": "text", "text": "hi"}]}]);
    let anthropic = json!({"model": "stub", "max_tokens": 256, "messages": blocks});
    for (provider, expected) in [
        ("openai", &openai),
        ("azure", &openai),
        ("azuread", &openai),
        ("custom", &openai),
        ("cohere", &openai),
        ("databricks", &bare),
        ("anthropic", &anthropic),
    ] {
        // Bookkeeping stays here, and so does what asks for nothing.
        let more = json!({"client_request_id": "1", "usage_context": {"team": "x"}, "n": 1, "stream": false});
        assert_eq!(&sent(&house, provider, &more).await, expected, "{provider}");
    }
}

#[tokio::test]
async fn what_was_sent_arrives_in_the_providers_own_words() {
    let house = serving();
    let common = json!({
        "max_completion_tokens": 7, "temperature": 0.5, "top_p": 0.9, "stop": ["END", " "], "user": "u", "tools": [
            {"type": "function", "function": {"name": "f", "strict": true, "parameters": {"properties": {"a": {}}}}},
            {"type": "function", "function": {"name": "g"}}
        ], "tool_choice": {"type": "function", "function": {"name": "g"}}
    });
    for provider in ["openai", "azure"] {
        let mut expected = json!({"model": "stub", "messages": user("hi"), "seed": -1, "reasoning_effort": "low"});
        expected.as_object_mut().unwrap().extend(common.as_object().unwrap().clone());
        let mut more = common.clone();
        (more["seed"], more["reasoning_effort"]) = (json!(-1), json!("low"));
        assert_eq!(sent(&house, provider, &more).await, expected, "{provider}");
    }
    let mut more = common.clone();
    (more["top_k"], more["parallel_tool_calls"]) = (json!(3), json!(false));
    (more["thinking"], more["reasoning_effort"]) = (json!({"type": "adaptive"}), json!("high"));
    let nothing = json!({"type": "object", "properties": {}});
    let closed = json!({"properties": {"a": {}}, "type": "object"});
    let expected = json!({
        "model": "stub", "max_tokens": 7, "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "temperature": 0.5, "top_p": 0.9, "top_k": 3, "stop_sequences": ["END"], "metadata": {"user_id": "u"},
        "tools": [{"name": "f", "strict": true, "input_schema": closed}, {"name": "g", "input_schema": nothing}],
        "tool_choice": {"type": "tool", "name": "g", "disable_parallel_tool_use": true},
        "thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}
    });
    assert_eq!(sent(&house, "anthropic", &more).await, expected);
    let mut more = common.clone();
    (more["top_k"], more["seed"], more["frequency_penalty"]) = (json!(3), json!(5), json!(1));
    let expected = json!({
        "model": "stub", "max_tokens": 7, "messages": user("hi"), "temperature": 0.5, "p": 0.9, "k": 3, "seed": 5,
        "frequency_penalty": 1, "stop_sequences": ["END"], "tool_choice": "REQUIRED",
        "tools": [{"type": "function", "function": {"name": "g", "parameters": nothing}}]
    });
    assert_eq!(sent(&house, "cohere", &more).await, expected);
    let own = json!({"top_k": 3, "min_p": 0.1, "guided_json": {"type": "object"}, "max_tokens": 9});
    let got = sent(&house, "custom", &own).await;
    for (name, value) in own.as_object().unwrap() {
        assert_eq!(&got[name], value, "a server of one's own may know it");
    }
}

#[tokio::test]
async fn models_that_think_want_the_newer_limit() {
    let house = House::new();
    let openai = config(&house.stubs, "openai");
    for (endpoint, model, field) in [
        ("a", "gpt-5-mini", "max_completion_tokens"),
        ("b", "o3-mini", "max_completion_tokens"),
        ("c", "omni", "max_tokens"),
    ] {
        house.serve_as(endpoint, "chat", model, &openai);
        let body = json!({"model": endpoint, "messages": user("hi"), "max_tokens": 4});
        assert_eq!(house.chat(&body).await.status, 200);
        assert_eq!(house.stubs.bodies().pop().unwrap()[field], 4, "{model}");
    }
}

#[tokio::test]
async fn the_form_of_the_answer_is_asked_for_in_the_providers_own_words() {
    let house = serving();
    let schema = json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "object"}}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": true}});
    let object = json!({"type": "json_object"});
    for provider in ["openai", "databricks", "custom"] {
        for format in [&format, &object] {
            assert_eq!(&sent(&house, provider, &json!({"response_format": format})).await["response_format"], format);
        }
    }
    let got = sent(&house, "cohere", &json!({"response_format": format})).await;
    assert_eq!(got["response_format"], json!({"type": "json_object", "json_schema": schema}));
    let got = sent(&house, "anthropic", &json!({"response_format": format})).await;
    let closed = json!({
        "type": "object", "additionalProperties": false,
        "properties": {"a": {"type": "array", "items": {"type": "object", "additionalProperties": false}}}
    });
    assert_eq!(got["output_config"], json!({"format": {"type": "json_schema", "schema": closed}}));
    let got = sent(&house, "anthropic", &json!({"response_format": object})).await;
    assert!(got["system"].as_str().unwrap().contains("JSON object") && got.get("output_config").is_none(), "{got}");
    for provider in PROVIDERS {
        let body = json!({"model": provider, "messages": user("hi"), "response_format": object});
        assert_eq!(house.chat(&body).await.json()["choices"][0]["message"]["content"], "{\"answer\": 42}");
    }
}

#[tokio::test]
async fn what_a_provider_does_not_have_is_refused_by_name_and_not_sent() {
    let house = serving();
    for (provider, more, field) in [
        ("openai", json!({"top_k": 1}), "top_k"),
        ("openai", json!({"thinking": {"type": "enabled"}}), "thinking"),
        ("openai", json!({"guided_regex": "a"}), "guided_regex"),
        ("anthropic", json!({"seed": 1}), "seed"),
        ("anthropic", json!({"temperature": 1.5}), "temperature"),
        ("anthropic", json!({"presence_penalty": 0.5}), "presence_penalty"),
        ("anthropic", json!({"logprobs": true}), "logprobs"),
        ("anthropic", json!({"messages": user(" ")}), "messages[0].content"),
        ("cohere", json!({"temperature": 2}), "temperature"),
        ("cohere", json!({"frequency_penalty": -0.5}), "frequency_penalty"),
        ("cohere", json!({"parallel_tool_calls": false}), "parallel_tool_calls"),
        ("cohere", json!({"reasoning_effort": "low"}), "reasoning_effort"),
    ] {
        let mut body = json!({"model": provider, "messages": user("hi")});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answered = house.chat(&body).await;
        let error = answered.json()["error"].clone();
        assert_eq!((answered.status, &error["param"]), (400, &json!(field)), "{provider} {more}: {error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(&format!("`{field}`")) && message.contains(provider), "{message}");
    }
    assert!(house.stubs.requests().is_empty(), "nobody was asked");
}

#[tokio::test]
async fn keys_and_versions_stand_in_their_headers() {
    let house = serving();
    for (provider, path, headers) in [
        ("openai", "/openai/v1/chat/completions", &["authorization", "openai-organization"][..]),
        ("azure", "/azure/openai/deployments/stub/chat/completions?api-version=2024-10-21", &["api-key"]),
        ("azuread", "/azure/openai/deployments/stub/chat/completions?api-version=2024-10-21", &["authorization"]),
        ("anthropic", "/anthropic/v1/messages", &["x-api-key", "anthropic-version"]),
        ("cohere", "/cohere/v2/chat", &["authorization"]),
        ("databricks", "/databricks/serving-endpoints/stub/invocations", &["authorization"]),
        ("custom", "/custom/chat/completions", &["authorization"]),
        ("custom-key", "/custom/chat/completions", &["x-key"]),
    ] {
        sent(&house, provider, &json!({})).await;
        let request = house.stubs.requests().pop().unwrap();
        assert_eq!(request.path, path);
        let known = ["authorization", "openai-organization", "api-key", "x-api-key", "x-key", "anthropic-version"];
        let given: Vec<_> = known.into_iter().filter(|name| request.headers.contains_key(*name)).collect();
        assert_eq!(given, headers, "{provider}");
        assert!(request.headers["user-agent"].to_str().unwrap().starts_with("hearth/"));
    }
    let anthropic = house.stubs.requests().into_iter().find(|request| request.path.starts_with("/anthropic")).unwrap();
    assert_eq!(anthropic.headers["anthropic-version"], "2023-06-01");
}

#[tokio::test]
async fn images_are_shown_to_every_provider() {
    let house = serving();
    for provider in PROVIDERS {
        let image = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
        let text = json!({"type": "text", "text": "What is this?"});
        let parts = json!([image("data:image/png;base64,AA=="), text, image("https://x.example/a.png")]);
        let body = json!({"model": provider, "messages": [{"role": "user", "content": parts}]});
        let answered = house.chat(&body).await;
        assert_eq!(answered.status, 200, "{provider}: {}", answered.body);
        let said = &answered.json()["choices"][0]["message"]["content"];
        assert_eq!(said, "I see data:image/png;base64,AA==, https://x.example/a.png.", "{provider}");
    }
    let body = json!({"model": "anthropic", "messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png,raw"}}
    ]}]});
    assert_eq!(house.chat(&body).await.json()["error"]["param"], "messages[0].content");
}
