//! Reranking, in the shapes that the clients of Cohere, Jina and text-embeddings-inference know.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::extract::JsonBody;
use super::identity::{Identity, Spelling, served_by};
use crate::config::Limits;
use crate::endpoints::Task;
use crate::error::ApiError;
use crate::gate::{Allowed, Caller, Query};
use crate::policy::Served;
use crate::providers::{RerankCall, TooLong};
use crate::serve::App;
use crate::wire::embeddings::EmbeddingUsage;
use crate::wire::rerank::{
    ApiVersion, Document, RankedDocument, RerankAnswer, RerankFields, RerankMeta, RerankTokens, Side, TextRank,
    TextRankFields,
};
use crate::wire::{FieldError, JsonObject, Request};

/// `POST .../rerank` of every prefix: Cohere's first version, and Jina's.
pub(super) async fn create(State(app): State<App>, caller: Caller, body: JsonBody) -> Result<Response, ApiError> {
    let (endpoint, fields) = body.open(&app, &caller)?;
    answer(&app, &endpoint, fields, "1").await
}

/// `POST /v2/rerank`: Cohere's second version.
pub(super) async fn create_v2(State(app): State<App>, caller: Caller, body: JsonBody) -> Result<Response, ApiError> {
    let (endpoint, fields) = body.open(&app, &caller)?;
    answer(&app, &endpoint, fields, "2").await
}

/// `POST /rerank`: text-embeddings-inference's, which names no model.
pub(super) async fn create_text_ranks(
    State(app): State<App>,
    caller: Caller,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let (endpoint, fields) = body.open_or_only(&app, &caller, Some(Task::Rerank))?;
    endpoint.begin(Task::Rerank, &fields).await?;
    let Request { fields: rerank, bookkeeping } = Request::<TextRankFields>::read(fields)?;
    endpoint.record(&bookkeeping);
    let (raw, shown) = (rerank.raw_scores == Some(true), rerank.return_text == Some(true));
    let call = text_ranks_call(rerank, app.limits())?;
    let texts = if shown { call.documents.clone() } else { Vec::new() };
    let Served { answer: scores, by } = endpoint.rerank(call).await?;
    let ranks = ranking(&scores.logits).into_iter().map(|index| TextRank {
        index,
        score: if raw { scores.logits[index] } else { relevance(scores.logits[index]) },
        text: texts.get(index).cloned(),
    });
    Ok(served_by(&by, Json(ranks.collect::<Vec<_>>()).into_response()))
}

/// Answers the reranking request in `fields`, in the shape of that version of Cohere's API.
pub(super) async fn answer(
    app: &App,
    endpoint: &Allowed<Query>,
    fields: JsonObject,
    version: &'static str,
) -> Result<Response, ApiError> {
    endpoint.begin(Task::Rerank, &fields).await?;
    let Request { fields: rerank, bookkeeping } = Request::<RerankFields>::read(fields)?;
    endpoint.record(&bookkeeping);
    refuse_unhonoured(&rerank)?;
    let results = top_n(rerank.top_n, rerank.documents.len())?;
    let shown = if rerank.return_documents == Some(true) { rerank.documents.clone() } else { Vec::new() };
    let Served { answer: scores, by } = endpoint.rerank(rerank_call(rerank, app.limits())?).await?;
    let ranked = ranking(&scores.logits).into_iter().take(results).map(|index| RankedDocument {
        index,
        relevance_score: relevance(scores.logits[index]),
        document: shown.get(index).map(as_object),
    });
    let name = endpoint.endpoint().name();
    let tokens = scores.prompt_tokens;
    let answer = RerankAnswer {
        id: &Identity::new("rerank", name, Spelling::Snake).id,
        model: name,
        results: ranked.collect(),
        usage: EmbeddingUsage { prompt_tokens: tokens, total_tokens: tokens },
        meta: RerankMeta {
            api_version: ApiVersion { version },
            tokens: RerankTokens { input_tokens: tokens, output_tokens: 0 },
        },
    };
    Ok(served_by(&by, Json(answer).into_response()))
}

/// The indices of the scores, the best first; of equal ones the earlier first.
fn ranking(logits: &[f32]) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..logits.len()).collect();
    indices.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    indices
}

/// The logistic function of a logit.
fn relevance(logit: f32) -> f32 {
    (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32
}

fn as_object(document: &Document) -> JsonObject {
    match document {
        Document::Text(text) => JsonObject::from_iter([("text".to_owned(), text.clone().into())]),
        Document::Object(object) => object.clone(),
    }
}

fn rerank_call(fields: RerankFields, limits: Limits) -> Result<RerankCall, FieldError> {
    let documents = fields.documents.into_iter().enumerate();
    let documents = documents.map(|(index, document)| document_text(index, document)).collect::<Result<_, _>>()?;
    if fields.max_tokens_per_doc == Some(0) {
        return Err(FieldError::value("max_tokens_per_doc", "at least 1", 0));
    }
    checked(
        RerankCall {
            query: fields.query,
            documents,
            field: "documents",
            document_tokens: fields.max_tokens_per_doc,
            // As the services of this shape do, whatever `max_tokens_per_doc` says.
            too_long: TooLong::DropEnd,
            deadline: limits.deadline(),
        },
        limits,
    )
}

fn text_ranks_call(fields: TextRankFields, limits: Limits) -> Result<RerankCall, FieldError> {
    let too_long = match (fields.truncate, fields.truncation_direction) {
        (Some(true), Some(Side::Left)) => TooLong::DropBeginning,
        (Some(true), Some(Side::Right) | None) => TooLong::DropEnd,
        // Without `truncate` the side asks for nothing: clients send their defaults.
        (Some(false) | None, _) => TooLong::Refuse,
    };
    let (query, documents) = (fields.query, fields.texts);
    let deadline = limits.deadline();
    checked(RerankCall { query, documents, field: "texts", document_tokens: None, too_long, deadline }, limits)
}

fn checked(call: RerankCall, limits: Limits) -> Result<RerankCall, FieldError> {
    if call.query.is_empty() {
        return Err(FieldError::value("query", "a text that is not empty", "\"\""));
    }
    match call.documents.len() {
        0 => Err(FieldError::value(call.field, "a list that is not empty", "[]")),
        given if given > limits.texts => {
            Err(FieldError::value(call.field, format!("at most {} texts", limits.texts), given))
        }
        _ => Ok(call),
    }
}

/// How many results are returned.
fn top_n(wanted: Option<usize>, documents: usize) -> Result<usize, FieldError> {
    match wanted {
        Some(0) => Err(FieldError::value("top_n", "at least 1", 0)),
        wanted => Ok(wanted.unwrap_or(documents)),
    }
}

fn document_text(index: usize, document: Document) -> Result<String, FieldError> {
    let field = || format!("documents[{index}].text");
    match document {
        Document::Text(text) => Ok(text),
        Document::Object(mut object) => match object.remove("text") {
            Some(serde_json::Value::String(text)) => Ok(text),
            None => Err(FieldError::Missing { field: field() }),
            Some(other) => Err(FieldError::Type { field: field(), problem: format!("expected a string, got {other}") }),
        },
    }
}

/// Refuses what would change the ranking and is not done here.
fn refuse_unhonoured(fields: &RerankFields) -> Result<(), FieldError> {
    if fields.max_chunks_per_doc.is_some_and(|chunks| chunks != 1) {
        return Err(FieldError::unsupported_value("max_chunks_per_doc", " other than 1"));
    }
    if fields.rank_fields.as_ref().is_some_and(|fields| *fields != ["text"]) {
        return Err(FieldError::unsupported_value("rank_fields", " other than [\"text\"]"));
    }
    if fields.relevant_spans.is_some() {
        return Err(FieldError::unsupported("relevant_spans"));
    }
    match fields.priority {
        None | Some(0) => Ok(()),
        Some(_) => Err(FieldError::unsupported_value("priority", " other than 0")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::wire::parse_object;

    const LIMITS: Limits = Limits { body: 1 << 20, bodies: 1 << 20, texts: 3, choices: 1, request_timeout: None };

    fn call(more: Value) -> Result<RerankCall, FieldError> {
        let mut body = json!({"query": "q", "documents": ["a", "b"]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let fields = Request::<RerankFields>::read(parse_object(body.to_string().as_bytes()).unwrap())?.fields;
        refuse_unhonoured(&fields)?;
        top_n(fields.top_n, fields.documents.len())?;
        rerank_call(fields, LIMITS)
    }

    #[test]
    fn documents_are_texts_or_objects_with_one() {
        let found = call(json!({"documents": ["a", {"text": "b", "id": 7}], "max_tokens_per_doc": 5})).unwrap();
        assert_eq!((found.documents, found.document_tokens), (vec!["a".to_owned(), "b".to_owned()], Some(5)));
        for (documents, field) in [
            (json!([]), "documents"),
            (json!(["a", "b", "c", "d"]), "documents"),
            (json!(["a", {"image": "x"}]), "documents[1].text"),
            (json!(["a", {"text": 5}]), "documents[1].text"),
            (json!(["a", 5]), "documents[1]"),
            (json!("a"), "documents"),
        ] {
            let error = call(json!({"documents": documents})).unwrap_err();
            assert_eq!(error.field(), Some(field), "{documents}: {error}");
        }
    }

    #[test]
    fn what_would_change_the_ranking_is_refused_by_name() {
        let nothing = json!({"rank_fields": ["text"], "max_chunks_per_doc": 1, "priority": 0, "top_n": 9, "user": "u"});
        assert!(call(nothing).is_ok());
        for (field, value) in [
            ("max_chunks_per_doc", json!(10)),
            ("rank_fields", json!(["title", "text"])),
            ("relevant_spans", json!({"max_spans": 1})),
            ("priority", json!(3)),
            ("top_n", json!(0)),
            ("max_tokens_per_doc", json!(0)),
            ("query", json!("")),
            ("return_embeddings", json!(true)),
        ] {
            let error = call(json!({field: value})).unwrap_err();
            assert_eq!(error.field(), Some(field), "{error}");
        }
    }

    #[test]
    fn the_best_come_first_and_of_equals_the_earlier() {
        assert_eq!(ranking(&[-1.0, 2.0, -1.0, 30.0, 40.0]), [4, 3, 1, 0, 2], "also where the scores are all but 1");
        assert_eq!(relevance(0.0), 0.5);
        assert!((relevance(2.0) - 0.880_797).abs() < 1e-6 && (relevance(-2.0) - 0.119_203).abs() < 1e-6);
        assert_eq!((relevance(-200.0), relevance(200.0)), (0.0, 1.0));
    }

    #[test]
    fn a_text_is_cut_only_when_that_is_asked_for() {
        for (more, expected) in [
            (json!({}), TooLong::Refuse),
            (json!({"truncate": false, "truncation_direction": "Right"}), TooLong::Refuse),
            (json!({"truncate": true}), TooLong::DropEnd),
            (json!({"truncate": true, "truncation_direction": "right"}), TooLong::DropEnd),
            (json!({"truncate": true, "truncation_direction": "Left"}), TooLong::DropBeginning),
        ] {
            let mut body = json!({"query": "q", "texts": ["a"]});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let fields = Request::read(parse_object(body.to_string().as_bytes()).unwrap()).unwrap().fields;
            assert_eq!(text_ranks_call(fields, LIMITS).unwrap().too_long, expected, "{more}");
        }
    }
}
