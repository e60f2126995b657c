//! The real router over a real reranker (a tiny one): the reference's scores, what is cut and what is refused.

use std::path::Path;

use anyhow::{Context, Result};
use hearth_tests::{ServerProcess, golden};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Golden {
    pairs: Vec<Pair>,
}

#[derive(Deserialize)]
struct Pair {
    query: String,
    document: String,
    score: f64,
}

fn server(models: &[(&str, &str)]) -> Result<ServerProcess> {
    ServerProcess::serving(Path::new(env!("CARGO_BIN_EXE_hearth")), models)
}

/// The pairs of the golden that begin with one query, as documents with their logits.
fn documents(name: &str, query: &str) -> Result<Vec<(String, f64)>> {
    let pairs = golden::<Golden>(name)?.pairs.into_iter().filter(|pair| pair.query == query);
    Ok(pairs.map(|pair| (pair.document, pair.score)).collect())
}

const QUERY: &str = "What is the capital of France?";

#[test]
fn scores_are_the_references() -> Result<()> {
    for name in ["bert-reranker", "xlm-roberta-reranker"] {
        let server = server(&[("ranks", name)])?;
        let mut expected: Vec<(usize, (String, f64))> = documents(name, QUERY)?.into_iter().enumerate().collect();
        let texts: Vec<&str> = expected.iter().map(|(_, (text, _))| text.as_str()).collect();
        let (status, raw) =
            server.ask("/rerank", &json!({"query": QUERY, "texts": texts, "raw_scores": true, "return_text": true}))?;
        assert_eq!(status, 200, "{raw}");
        let asked = json!({"model": "ranks", "query": QUERY, "documents": texts});
        let (status, ranked) = server.ask("/v2/rerank", &asked)?;
        assert_eq!(status, 200, "{ranked}");
        expected.sort_by(|(_, (_, a)), (_, (_, b))| b.total_cmp(a));
        assert!(expected.len() >= 4);
        for (place, (index, (text, logit))) in expected.iter().enumerate() {
            assert_eq!((&raw[place]["index"], &raw[place]["text"]), (&json!(index), &json!(text)), "{name}");
            assert!((raw[place]["score"].as_f64().context("score")? - logit).abs() < 1e-4, "{name}: {raw}");
            let result = &ranked["results"][place];
            assert_eq!(result["index"], *index, "{name}");
            let relevance = 1.0 / (1.0 + (-logit).exp());
            let found = result["relevance_score"].as_f64().context("relevance_score")?;
            assert!((found - relevance).abs() < 1e-4, "{name}: {ranked}");
        }
    }
    Ok(())
}

/// The context is 64 tokens: the query's 7, three around them, and 54 of the document.
#[test]
fn a_document_is_cut_at_its_end_or_its_beginning_or_refused() -> Result<()> {
    let server = server(&[("ranks", "bert-reranker")])?;
    let score = |text: &str, more: Value| -> Result<f64> {
        let mut body = json!({"query": QUERY, "texts": [text], "raw_scores": true});
        body.as_object_mut().context("object")?.extend(more.as_object().context("object")?.clone());
        let (status, ranks) = server.ask("/rerank", &body)?;
        assert_eq!(status, 200, "{ranks}");
        ranks[0]["score"].as_f64().context("score")
    };
    let (fox, dog) = ("fox ".repeat(30), "dog ".repeat(30));
    let end_cut = score(&format!("{fox}{dog}"), json!({"truncate": true}))?;
    assert_eq!(end_cut, score(&format!("{fox}{}", "dog ".repeat(24)), json!({}))?);
    let beginning_cut = score(&format!("{fox}{dog}"), json!({"truncate": true, "truncation_direction": "Left"}))?;
    assert_eq!(beginning_cut, score(&format!("{}{dog}", "fox ".repeat(24)), json!({}))?);
    assert_ne!(end_cut, beginning_cut);

    let too_long = json!({"query": QUERY, "texts": ["fox", format!("{fox}{dog}")]});
    let (status, answer) = server.ask("/rerank", &too_long)?;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("texts[1]")), "{answer}");
    let message = answer["error"]["message"].as_str().context("message")?;
    assert!(message.contains("64 tokens") && message.contains("have 70"), "{message}");

    let (status, answer) =
        server.ask("/v1/rerank", &json!({"model": "ranks", "query": fox.repeat(3), "documents": ["dog"]}))?;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("query")), "{answer}");
    assert_eq!(answer["error"]["code"], "context_length_exceeded");

    let cut = json!({"model": "ranks", "query": QUERY, "documents": ["fox dog dog"], "max_tokens_per_doc": 1});
    let short = json!({"model": "ranks", "query": QUERY, "documents": ["fox"]});
    assert_eq!(server.ask("/v1/rerank", &cut)?.1["results"], server.ask("/v1/rerank", &short)?.1["results"]);
    Ok(())
}

#[test]
fn a_reranker_ranks_and_nothing_else() -> Result<()> {
    let server = server(&[("ranks", "bert-reranker"), ("vectors", "bert-mean")])?;
    for (path, body) in [
        ("/v1/chat/completions", json!({"model": "ranks", "messages": [{"role": "user", "content": "x"}]})),
        ("/v1/completions", json!({"model": "ranks", "prompt": "x"})),
        ("/v1/embeddings", json!({"model": "ranks", "input": "x"})),
        ("/v1/rerank", json!({"model": "vectors", "query": "x", "documents": ["y"]})),
    ] {
        let (status, answer) = server.ask(path, &body)?;
        assert_eq!(status, 400, "{path}: {answer}");
        assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("serves")), "{answer}");
    }
    // The embedding model beside it is no reranker, so the one that ranks needs no name.
    let (status, ranks) = server.ask("/rerank", &json!({"query": "x", "texts": ["y"]}))?;
    assert_eq!((status, ranks.as_array().map(Vec::len)), (200, Some(1)));
    Ok(())
}
