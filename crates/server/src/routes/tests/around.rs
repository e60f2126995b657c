//! What stands around handlers: dialects of errors, ids, tokens, limits.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use super::fake::{Fake, Script};
use super::{LIMITS, app, app_for, ask, get, post, serve};
use crate::gate::Access;

const BOTH_DIALECTS: [&str; 2] = ["/v1/chat/completions", "/serving-endpoints/chat/completions"];

#[tokio::test]
async fn errors_have_the_body_of_their_path() {
    let app = app();
    let body = json!({"model": "chat-model", "messages": [{"role": "user", "content": "x"}], "temperture": 1});
    let open = post(&app, BOTH_DIALECTS[0], body.clone()).await;
    let expected = json!({"error": {
        "message": "unknown field `temperture`", "type": "invalid_request_error", "param": "temperture",
        "code": "unknown_parameter"
    }});
    assert_eq!((open.status.as_u16(), open.json()), (400, expected));
    let databricks = post(&app, BOTH_DIALECTS[1], body).await;
    let expected = json!({"error_code": "BAD_REQUEST", "message": "unknown field `temperture`"});
    assert_eq!((databricks.status.as_u16(), databricks.json()), (400, expected));
    assert_eq!(databricks.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn what_does_not_exist_is_json_too() {
    let app = app();
    for (path, status, code) in [
        ("/serving-endpoints/responses", 404, "ENDPOINT_NOT_FOUND"),
        ("/serving-endpoints/nobody/invocations", 404, "ENDPOINT_NOT_FOUND"),
        ("/serving-endpoints/models", 405, "BAD_REQUEST"),
        ("/api/2.0/nothing", 404, "ENDPOINT_NOT_FOUND"),
    ] {
        let answer = post(&app, path, json!({"messages": []})).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error_code"]), (status, &json!(code)), "{path}");
    }
    let answer = get(&app, "/nowhere").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (404, &json!("unknown_url")));
    let answer = get(&app, "/v1/chat/completions").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["code"]), (405, &json!("method_not_allowed")));
    let unknown = post(&app, BOTH_DIALECTS[0], json!({"model": "nobody", "messages": []})).await;
    assert_eq!((unknown.status.as_u16(), &unknown.json()["error"]["code"]), (404, &json!("model_not_found")));
    let unnamed = post(&app, BOTH_DIALECTS[0], json!({"messages": []})).await;
    assert_eq!((unnamed.status.as_u16(), &unnamed.json()["error"]["param"]), (400, &json!("model")));
}

#[tokio::test]
async fn bodies_that_are_too_long_or_no_json_are_told_so() {
    let app = app();
    let long = Request::post(BOTH_DIALECTS[0]).body(Body::from("x".repeat(LIMITS.body + 1))).unwrap();
    let answer = ask(&app, long).await;
    assert_eq!(answer.status, 413);
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("100000 bytes"));
    let broken = Request::post(BOTH_DIALECTS[1]).body(Body::from("{\n \"model\": }")).unwrap();
    let answer = ask(&app, broken).await;
    assert_eq!(answer.status, 400);
    assert!(answer.json()["message"].as_str().unwrap().ends_with("(line 2, column 11)"), "{}", answer.body);
    let text = json!({"model": "chat-model", "messages": [{"role": "user", "content": "y".repeat(90_000)}]});
    assert_eq!(post(&app, BOTH_DIALECTS[0], text).await.status, 200, "long bodies are parsed elsewhere");
}

/// A caller's value may be as long as a body; the error that repeats it may not.
#[tokio::test]
async fn a_long_value_is_not_repeated_whole() {
    let long = "m".repeat(90_000);
    let answer = post(&app(), BOTH_DIALECTS[0], json!({"model": long, "messages": []})).await;
    assert_eq!(answer.status, 404);
    assert!(answer.body.len() < 2_000, "{} bytes", answer.body.len());
}

#[tokio::test]
async fn a_path_that_is_no_text_is_refused_in_its_dialect() {
    let app = app();
    let answer = get(&app, "/v1/models/%ff").await;
    assert_eq!(answer.status, 400);
    assert!(answer.json()["error"]["message"].is_string(), "{}", answer.body);
    let answer = post(&app, "/serving-endpoints/%ff/invocations", json!({"input": "x"})).await;
    assert_eq!((answer.status.as_u16(), answer.json()["error_code"].clone()), (400, json!("BAD_REQUEST")));
}

#[tokio::test]
async fn any_content_type_will_do() {
    let body = json!({"model": "chat-model", "messages": [{"role": "user", "content": "x"}]}).to_string();
    let request = Request::post(BOTH_DIALECTS[0]).header("content-type", "text/plain").body(Body::from(body)).unwrap();
    assert_eq!(ask(&app(), request).await.status, 200);
}

#[tokio::test]
async fn every_answer_has_a_request_id() {
    let app = app();
    let given = Request::get("/nowhere").header("x-request-id", "mine").body(Body::empty()).unwrap();
    assert_eq!(ask(&app, given).await.header("x-request-id"), Some("mine"));
    let made = get(&app, "/health/live").await;
    assert!(made.header("x-request-id").is_some_and(|id| id.len() == 36));
}

#[tokio::test]
async fn a_panic_is_one_failed_request() {
    let app = app();
    serve(&app, "panicking", Fake::with(Script::Panic));
    let body = json!({"model": "panicking", "messages": [{"role": "user", "content": "x"}]});
    let answer = post(&app, BOTH_DIALECTS[1], body).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error_code"]), (500, &json!("INTERNAL_ERROR")));
    assert!(answer.header("x-request-id").is_some());
    assert!(!answer.body.contains("script"));
}

#[tokio::test]
async fn without_the_token_only_life_signs_answer() {
    let app = app_for(Access::token("sesame"));
    for (path, status) in [
        ("/v1/models", 401),
        ("/v1/models/chat-model", 401),
        ("/serving-endpoints/models", 401),
        ("/metrics", 401),
        ("/health/live", 200),
        ("/health/ready", 200),
        ("/.well-known/databricks-config", 200),
    ] {
        assert_eq!(get(&app, path).await.status.as_u16(), status, "{path}");
    }
    let body = json!({"model": "chat-model", "messages": [{"role": "user", "content": "x"}]});
    let open = post(&app, BOTH_DIALECTS[0], body.clone()).await;
    assert_eq!((open.status.as_u16(), &open.json()["error"]["code"]), (401, &json!("invalid_api_key")));
    let databricks = post(&app, BOTH_DIALECTS[1], body.clone()).await;
    assert_eq!((databricks.status.as_u16(), &databricks.json()["error_code"]), (401, &json!("UNAUTHENTICATED")));
    for (token, status) in [("sesame", 200), ("sesam", 401)] {
        let request = Request::post(BOTH_DIALECTS[0]).header("authorization", format!("Bearer {token}"));
        assert_eq!(ask(&app, request.body(Body::from(body.to_string())).unwrap()).await.status.as_u16(), status);
    }
}

#[tokio::test]
async fn a_server_is_ready_when_every_announced_model_answers() {
    let app = app();
    app.endpoints().announce("slow").unwrap();
    let ready = get(&app, "/health/ready").await;
    assert_eq!((ready.status.as_u16(), &ready.json()["endpoints"]), (503, &json!(["slow"])));
    let body = json!({"model": "slow", "messages": [{"role": "user", "content": "x"}]});
    let early = post(&app, BOTH_DIALECTS[1], body.clone()).await;
    let code: &Value = &early.json()["error_code"];
    assert_eq!((early.status.as_u16(), code), (503, &json!("TEMPORARILY_UNAVAILABLE")));
    assert_eq!(early.header("retry-after"), Some("2"));
    serve(&app, "slow", Fake::with(Script::Greet));
    assert_eq!(get(&app, "/health/ready").await.status, 200);
    assert_eq!(post(&app, BOTH_DIALECTS[1], body).await.status, 200);
}
