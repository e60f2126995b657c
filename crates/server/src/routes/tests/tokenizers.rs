//! The paths of tokenizers: where they are, which endpoint is meant, and a provider that has none.

use axum::body::Body;
use axum::http::Request;
use serde_json::json;

use super::fake::Fake;
use super::{app, app_for, ask, get, post, serve, without_endpoints};
use crate::endpoints::Task;
use crate::gate::Access;

#[tokio::test]
async fn a_provider_without_a_tokenizer_says_so_at_the_root_and_below_every_prefix() {
    let app = app();
    for prefix in ["", "/v1", "/serving-endpoints"] {
        for (path, body) in [("tokenize", json!({"prompt": "x"})), ("detokenize", json!({"tokens": [1]}))] {
            let mut body = body;
            body["model"] = json!("vectors");
            let answer = post(&app, &format!("{prefix}/{path}"), body).await;
            assert_eq!(answer.status, 400, "{prefix}/{path}");
            assert!(
                answer.body.contains("the tokenizer of the model org/Fake-1.5 is not known here"),
                "{}",
                answer.body
            );
        }
        let answer = get(&app, &format!("{prefix}/tokenizer_info?model=vectors")).await;
        assert_eq!(answer.status, 400, "{prefix}");
        assert!(answer.body.contains("is not known here"), "{}", answer.body);
    }
}

#[tokio::test]
async fn without_a_name_the_only_model_is_meant() {
    let app = app();
    let listed = "the field `model` is required, since there are several: base, chat-model, ranks, vectors";
    let answer = post(&app, "/tokenize", json!({"prompt": "x"})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["message"]), (400, &json!(listed)));
    let answer = get(&app, "/v1/tokenizer_info").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["message"]), (400, &json!(listed)));
    assert_eq!(get(&app, "/tokenizer_info?model=nobody").await.status, 404);
    assert_eq!(get(&app, "/tokenizer_info?modle=base").await.status, 400, "a slip is not taken for no name");

    let only = without_endpoints(Access::local());
    serve(&only, "base", Fake::new(Task::Completions));
    let answer = post(&only, "/tokenize", json!({"prompt": "x"})).await;
    assert!(answer.body.contains("is not known here"), "it was asked: {}", answer.body);
}

#[tokio::test]
async fn a_tokenizer_is_behind_the_gate_like_its_model() {
    let app = app_for(Access::token("sesame"));
    assert_eq!(get(&app, "/tokenizer_info?model=base").await.status, 401);
    assert_eq!(post(&app, "/tokenize", json!({"model": "base", "prompt": "x"})).await.status, 401);
    assert_eq!(post(&app, "/v1/detokenize", json!({"model": "base", "tokens": []})).await.status, 401);
    let request = Request::get("/tokenizer_info?model=base").header("authorization", "Bearer sesame");
    assert_eq!(ask(&app, request.body(Body::empty()).unwrap()).await.status, 400, "in, and there is no tokenizer");
}
