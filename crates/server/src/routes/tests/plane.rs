//! Which path answers what.

use serde_json::json;

use super::{app, get, post};

#[tokio::test]
async fn every_prefix_serves_the_data_plane() {
    let app = app();
    for prefix in ["/v1", "/serving-endpoints", "/ai-gateway/mlflow/v1", "/ai-gateway/openai/v1"] {
        for (path, body) in [
            ("chat/completions", json!({"model": "chat-model", "messages": [{"role": "user", "content": "x"}]})),
            ("completions", json!({"model": "base", "prompt": "x"})),
            ("embeddings", json!({"model": "vectors", "input": "x"})),
            ("rerank", json!({"model": "ranks", "query": "x", "documents": ["y"]})),
        ] {
            assert_eq!(post(&app, &format!("{prefix}/{path}"), body.clone()).await.status, 200, "{prefix}/{path}");
            assert_eq!(post(&app, &format!("{prefix}/{path}/"), body).await.status, 200, "{prefix}/{path}/");
        }
        let models = get(&app, &format!("{prefix}/models")).await.json();
        let model = json!({"id": "base", "object": "model", "created": 1_700_000_000, "owned_by": "hearth"});
        assert_eq!(models["data"][0], model);
        assert_eq!(models["data"].as_array().unwrap().len(), 4);
        assert_eq!(get(&app, &format!("{prefix}/models/base")).await.json(), model);
        assert_eq!(get(&app, &format!("{prefix}/models/nobody")).await.status, 404);
    }
}

#[tokio::test]
async fn invocations_do_what_the_body_asks_for() {
    let app = app();
    let messages = json!({"messages": [{"role": "user", "content": "x"}], "model": "ignored"});
    let chat = post(&app, "/serving-endpoints/chat-model/invocations", messages.clone()).await.json();
    assert_eq!((&chat["object"], &chat["model"]), (&json!("chat.completion"), &json!("chat-model")));
    assert_eq!(chat["choices"][0]["finish_reason"], "stop");
    assert_eq!(chat["choices"][0]["finishReason"], "stop");
    let text = post(&app, "/serving-endpoints/chat-model/invocations", json!({"prompt": "x"})).await.json();
    assert_eq!((&text["object"], &text["choices"][0]["finishReason"]), (&json!("text_completion"), &json!("stop")));
    let vectors = post(&app, "/serving-endpoints/vectors/invocations/", json!({"input": "x"})).await.json();
    assert_eq!(vectors["object"], "list");
    let streamed = json!({"messages": messages["messages"], "stream": true});
    let events = post(&app, "/serving-endpoints/chat-model/invocations", streamed).await.events();
    assert_eq!(events.last().unwrap()["choices"][0]["finishReason"], "stop");
    assert!(events[0]["choices"][0].get("finishReason").is_none());
}

#[tokio::test]
async fn the_wrong_task_is_refused() {
    let app = app();
    for (name, body) in [
        ("chat-model", json!({"input": "x"})),
        ("base", json!({"messages": [{"role": "user", "content": "x"}]})),
        ("vectors", json!({"prompt": "x"})),
        ("vectors", json!({"query": "x", "documents": ["y"]})),
        ("ranks", json!({"messages": [{"role": "user", "content": "x"}]})),
        ("ranks", json!({"input": "x"})),
    ] {
        let answer = post(&app, &format!("/serving-endpoints/{name}/invocations"), body).await;
        assert_eq!(answer.status, 400, "{name}");
        assert!(answer.json()["message"].as_str().unwrap().contains("serves"), "{}", answer.body);
    }
    let nothing = post(&app, "/serving-endpoints/vectors/invocations", json!({})).await;
    assert_eq!(nothing.json()["message"], "the field `input` is required");
}

#[tokio::test]
async fn a_request_cannot_ask_for_more_choices_than_allowed() {
    let body = json!({"model": "base", "prompt": vec!["x"; 9], "n": 4});
    let answer = post(&app(), "/v1/completions", body).await.json();
    let message = "`n` must be so many that prompts times choices are at most 32, not 9 x 4";
    assert_eq!((&answer["error"]["message"], &answer["error"]["param"]), (&json!(message), &json!("n")));
}

#[tokio::test]
async fn what_was_done_is_counted() {
    let app = app();
    let body = json!({"model": "vectors", "input": "x"});
    post(&app, "/v1/embeddings", body).await;
    get(&app, "/no/such/path").await;
    let metrics = get(&app, "/metrics").await;
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain"));
    for line in [
        "hearth_prompt_tokens_total{model=\"vectors\"}",
        "hearth_http_requests_total{route=\"/v1/embeddings\",method=\"POST\",status=\"200\"}",
        "hearth_http_requests_total{route=\"unknown\",method=\"any\",status=\"404\"}",
    ] {
        assert!(metrics.body.contains(line), "{line} is missing in\n{}", metrics.body);
    }
    assert!(!metrics.body.contains("/no/such/path"));
}

#[tokio::test]
async fn databricks_clients_find_an_empty_config() {
    assert_eq!(get(&app(), "/.well-known/databricks-config").await.json(), json!({}));
}
