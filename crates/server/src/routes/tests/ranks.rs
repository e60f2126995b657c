//! Reranking: the shapes of Cohere, Jina and text-embeddings-inference.

use serde_json::{Value, json};

use super::fake::Fake;
use super::{app, post, serve};
use crate::endpoints::Task;

fn indices(results: &Value) -> Vec<u64> {
    results.as_array().unwrap().iter().map(|result| result["index"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn an_answer_has_what_the_clients_of_cohere_and_jina_read() {
    let app = app();
    let body = json!({"model": "ranks", "query": "q", "documents": ["ab", {"text": "abcd", "id": 7}, "abc"]});
    for (path, version) in [("/v1/rerank", "1"), ("/v2/rerank", "2"), ("/serving-endpoints/rerank", "1")] {
        let answer = post(&app, path, body.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.header("served-model-name")), (200, Some("org-Fake-1-5")));
        let answer = answer.json();
        assert!(answer["id"].as_str().unwrap().starts_with("rerank-"));
        assert_eq!(answer["model"], "ranks");
        assert_eq!(indices(&answer["results"]), [1, 2, 0], "the best first");
        assert_eq!(answer["results"][2], json!({"index": 0, "relevance_score": 0.5}));
        assert_eq!(answer["usage"], json!({"prompt_tokens": 9, "total_tokens": 9}));
        let meta = json!({"api_version": {"version": version}, "tokens": {"input_tokens": 9, "output_tokens": 0}});
        assert_eq!(answer["meta"], meta, "{path}");
    }
}

#[tokio::test]
async fn the_best_are_returned_with_their_documents_if_those_are_asked_for() {
    let documents = json!(["ab", {"text": "abcd", "id": 7}, "abc"]);
    let body = json!({"query": "q", "documents": documents, "top_n": 2, "return_documents": true});
    let answer = post(&app(), "/serving-endpoints/ranks/invocations", body).await.json();
    assert_eq!(indices(&answer["results"]), [1, 2]);
    assert_eq!(answer["results"][0]["document"], json!({"text": "abcd", "id": 7}));
    assert_eq!(answer["results"][1]["document"], json!({"text": "abc"}));
}

#[tokio::test]
async fn the_only_reranker_needs_no_name() {
    let app = app();
    let body = json!({"query": "q", "texts": ["ab", "abcd"], "return_text": true});
    let ranks = post(&app, "/rerank", body.clone()).await.json();
    assert_eq!(indices(&ranks), [1, 0]);
    assert_eq!(ranks[1], json!({"index": 0, "score": 0.5, "text": "ab"}));
    let raw = post(&app, "/rerank", json!({"query": "q", "texts": ["ab", "abcd"], "raw_scores": true})).await.json();
    assert_eq!(raw, json!([{"index": 1, "score": 2.0}, {"index": 0, "score": 0.0}]));

    serve(&app, "others", Fake::new(Task::Rerank));
    let answer = post(&app, "/rerank", body.clone()).await;
    let error = &answer.json()["error"];
    let message = "the field `model` is required, since there are several: others, ranks";
    assert_eq!((answer.status.as_u16(), &error["param"], &error["message"]), (400, &json!("model"), &json!(message)));
    let named = json!({"query": "q", "texts": ["ab"], "model": "others"});
    assert_eq!(post(&app, "/rerank", named).await.status, 200);

    app.endpoints().announce("slow").unwrap();
    assert_eq!(post(&app, "/rerank", body).await.status, 503, "the one that is loading may be meant");
}

#[tokio::test]
async fn without_a_reranker_there_is_nothing_to_choose() {
    let app = super::without_endpoints(crate::gate::Access::local());
    serve(&app, "vectors", Fake::new(Task::Embeddings));
    let answer = post(&app, "/rerank", json!({"query": "q", "texts": ["ab"]})).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"]["message"], "`model` is not given, and no endpoint serves rerank");
}

#[tokio::test]
async fn more_documents_than_allowed_are_refused_by_name() {
    let body = json!({"model": "ranks", "query": "q", "documents": ["a", "b", "c", "d", "e"]});
    let error = &post(&app(), "/v2/rerank", body).await.json()["error"];
    assert_eq!(error["message"], "`documents` must be at most 4 texts, not 5");
    let body = json!({"query": "q", "documents": ["a"]});
    let error = &post(&app(), "/v1/rerank", body).await.json()["error"];
    assert_eq!((&error["param"], &error["message"]), (&json!("model"), &json!("the field `model` is required")));
}
