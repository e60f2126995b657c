//! Inference tables: what is kept of a request, and in which forms it is given out.

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use serde_json::{Value, json};

use super::send;
use super::stored::{ADMIN, Stored};
use super::usage::Tracked;
use crate::store::now;

/// A server with the endpoint `talk` of that model, which keeps an inference table.
async fn keeping(model: &str, more: Value) -> Tracked {
    let tracked = Tracked::new().await;
    tracked.stored.endpoint("talk", model).await;
    let mut gateway = json!({"inference_table_config": {"enabled": true}});
    gateway.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    set(&tracked.stored, gateway, 200).await;
    tracked
}

async fn set(stored: &Stored, gateway: Value, status: u16) -> Value {
    let answer = stored.call("PUT", "/api/2.0/serving-endpoints/talk/ai-gateway", gateway).await;
    assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
    answer.json()
}

fn body(more: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "h\u{e9}llo"}], "client_request_id": "mine"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn invoke(tracked: &Tracked, more: Value) -> (u16, String) {
    let answer = tracked.stored.call("POST", "/serving-endpoints/talk/invocations", body(more)).await;
    (answer.status.as_u16(), answer.body)
}

async fn table(tracked: &Tracked, query: &str) -> Value {
    tracked.ingest.drain().await.unwrap();
    let path = format!("/api/2.0/serving-endpoints/talk/inference-table{query}");
    let answer = tracked.stored.call("GET", &path, Value::Null).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn parsed(row: &Value, field: &str) -> Value {
    serde_json::from_str(row[field].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn a_row_has_the_body_of_the_request_and_that_of_the_answer() {
    let tracked = keeping("chat", json!({})).await;
    let (_, plain) = invoke(&tracked, json!({})).await;
    let (_, streamed) = invoke(&tracked, json!({"stream": true, "n": 2})).await;
    let (status, refused) = invoke(&tracked, json!({"colour": "red"})).await;
    assert_eq!(status, 400);
    let table = table(&tracked, "").await;
    let rows = table["payloads"].as_array().unwrap();
    let usage = tracked.seen(ADMIN, "").await;
    assert_eq!((rows.len(), usage.as_array().unwrap().len()), (3, 3));
    for (row, used) in rows.iter().zip(usage.as_array().unwrap().iter().rev()) {
        for field in ["databricks_request_id", "request_time", "served_entity_id", "requester", "client_request_id"] {
            assert_eq!(row[field], used[field], "{field}");
        }
        let day = jiff::Timestamp::from_millisecond(row["request_time"].as_i64().unwrap()).unwrap();
        assert_eq!(row["request_date"], day.strftime("%Y-%m-%d").to_string());
        assert_eq!((&row["sampling_fraction"], &row["logging_error_codes"]), (&json!(1.0), &json!([])));
    }
    assert_eq!(parsed(&rows[0], "request"), body(json!({})));
    assert_eq!(rows[0]["response"], plain);

    // The pieces of the stream, joined, are the plain answer.
    assert_eq!(parsed(&rows[1], "request"), body(json!({"stream": true, "n": 2})));
    let joined = parsed(&rows[1], "response");
    assert_eq!(joined["object"], "chat.completion");
    let texts = |answer: &Value| [0, 1].map(|index| answer["choices"][index]["message"]["content"].clone());
    assert_eq!(texts(&joined), ["Hello 0", "Hello 1"]);
    assert_eq!(joined["usage"], json!({"prompt_tokens": 10, "completion_tokens": 6, "total_tokens": 16}));
    assert!(streamed.contains(joined["id"].as_str().unwrap()), "as the caller got it");
    assert_eq!(joined["choices"][1]["finish_reason"], "length");

    assert_eq!((rows[2]["status_code"].as_i64(), rows[2]["response"].as_str()), (Some(400), Some(refused.as_str())));
}

#[tokio::test]
async fn of_an_answer_that_nobody_waits_for_the_beginning_is_kept() {
    let tracked = keeping("hanging", json!({})).await;
    let request =
        Request::post("/serving-endpoints/talk/invocations").header("authorization", format!("Bearer {ADMIN}"));
    let request = request.body(Body::from(body(json!({"stream": true})).to_string())).unwrap();
    let mut streaming = send(&tracked.stored.app, request).await.into_body();
    for _ in 0..2 {
        streaming.frame().await.unwrap().unwrap();
    }
    drop(streaming);
    let row = table(&tracked, "").await["payloads"][0].clone();
    let (answer, choice) = (parsed(&row, "response"), parsed(&row, "response")["choices"][0].clone());
    assert_eq!((row["status_code"].as_i64(), &choice["message"]["content"]), (Some(499), &json!("Hel")));
    assert_eq!((&choice["finish_reason"], answer.get("error")), (&Value::Null, None));
}

#[tokio::test]
async fn what_is_not_asked_for_is_not_kept() {
    let tracked = keeping("chat", json!({"usage_tracking_config": {"enabled": false}})).await;
    invoke(&tracked, json!({})).await;
    assert_eq!(table(&tracked, "").await["payloads"].as_array().unwrap().len(), 1);
    assert_eq!(tracked.seen(ADMIN, "").await, json!([]), "the usage is not tracked");
    set(&tracked.stored, json!({"inference_table_config": {"enabled": true, "sampling_fraction": 1e-9}}), 200).await;
    invoke(&tracked, json!({})).await;
    set(&tracked.stored, json!({"inference_table_config": {"enabled": false}}), 200).await;
    invoke(&tracked, json!({})).await;
    assert_eq!(table(&tracked, "").await["payloads"].as_array().unwrap().len(), 1);
    assert_eq!(tracked.seen(ADMIN, "").await.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let tracked = keeping("chat", json!({})).await;
    let named = |catalog: &str| json!({"inference_table_config": {"enabled": true, "catalog_name": catalog}});
    let refused = set(&tracked.stored, named("other"), 400).await;
    let problem = "`ai_gateway.inference_table_config.catalog_name`: it cannot change while the table is enabled: disable it first";
    assert_eq!(refused["message"], problem);
    set(&tracked.stored, json!({"inference_table_config": {"enabled": false, "catalog_name": "main"}}), 200).await;
    set(&tracked.stored, named("other"), 200).await;
    for fraction in [0.0, -1.0, 1.5] {
        let table = json!({"inference_table_config": {"enabled": true, "catalog_name": "other", "sampling_fraction": fraction}});
        let refused = set(&tracked.stored, table, 400).await;
        assert!(refused["message"].as_str().unwrap().contains("must be above 0 and at most 1, not"), "{refused}");
    }
    for (query, problem) in [
        ("?format=xml", "`format` must be `json`, `csv` or `parquet`, not xml"),
        ("?max_results=101", "`max_results` must be a whole number from 1 to 100, not 101"),
        ("?format=csv&max_results=5", "`max_results`: only JSON has pages: all rows come"),
        ("?page_token=x", "`page_token` must be the `next_page_token` of the page before, not x"),
        ("?since=1", "unknown field `since`"),
    ] {
        let path = format!("/api/2.0/serving-endpoints/talk/inference-table{query}");
        let refused = tracked.stored.call("GET", &path, Value::Null).await;
        assert_eq!((refused.status.as_u16(), refused.json()["message"].as_str()), (400, Some(problem)));
    }
}

#[tokio::test]
async fn all_forms_have_the_same_rows() {
    let tracked = keeping("chat", json!({})).await;
    let first = now();
    for number in 0..45 {
        invoke(&tracked, json!({"user": format!("u{number}")})).await;
    }
    let (mut ids, mut token) = (Vec::new(), String::new());
    loop {
        let page = table(&tracked, &format!("?max_results=20{token}")).await;
        ids.extend(page["payloads"].as_array().unwrap().iter().map(|row| row["databricks_request_id"].clone()));
        let Some(next) = page["next_page_token"].as_str() else { break };
        token = format!("&page_token={next}");
    }
    assert_eq!(ids.len(), 45);
    let get = async |query: &str| {
        let path = format!("/api/2.0/serving-endpoints/talk/inference-table{query}");
        let request = Request::get(path).header("authorization", format!("Bearer {ADMIN}"));
        let (head, body) = send(&tracked.stored.app, request.body(Body::empty()).unwrap()).await.into_parts();
        assert_eq!(head.status, 200);
        body.collect().await.unwrap().to_bytes()
    };
    let csv = get("?format=csv").await;
    let mut csv = csv::Reader::from_reader(csv.as_ref());
    assert_eq!(csv.headers().unwrap().len(), 12);
    let rows: Vec<csv::StringRecord> = csv.records().collect::<Result<_, _>>().unwrap();
    assert_eq!(rows.iter().map(|row| json!(row[0])).collect::<Vec<_>>(), ids);
    assert_eq!(serde_json::from_str::<Value>(&rows[7][7]).unwrap(), body(json!({"user": "u7"})));

    let file = SerializedFileReader::new(get("?format=parquet").await).unwrap();
    let rows: Vec<_> = file.get_row_iter(None).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(rows.iter().map(|row| json!(row.get_string(0).unwrap())).collect::<Vec<_>>(), ids);
    let (day, moment) = (rows[0].get_column_iter().nth(1).unwrap().1, rows[0].get_timestamp_millis(3).unwrap());
    assert!(moment >= first && day.to_string() == PayloadDay(moment).to_string(), "{day} {moment}");
    assert_eq!((rows[7].get_int(4).unwrap(), rows[7].get_double(5).unwrap()), (200, 1.0));
    assert_eq!(serde_json::from_str::<Value>(rows[7].get_string(7).unwrap()).unwrap(), body(json!({"user": "u7"})));
    assert_eq!(rows[7].get_list(9).unwrap().len(), 0);

    let later = get(&format!("?format=parquet&start_time={}", now() + 1000)).await;
    let file = SerializedFileReader::new(later).unwrap();
    assert_eq!(file.get_row_iter(None).unwrap().count(), 0, "no row, and still a file");
}

/// The day of a moment as the reader of Parquet files writes it.
struct PayloadDay(i64);

impl std::fmt::Display for PayloadDay {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let day = jiff::Timestamp::from_millisecond(self.0).unwrap();
        formatter.write_str(&day.strftime("%Y-%m-%d").to_string())
    }
}

#[tokio::test]
async fn what_guardrails_mask_or_refuse_is_not_kept() {
    for behavior in ["MASK", "BLOCK"] {
        let tracked = keeping("chat", json!({"guardrails": {"input": {"pii": {"behavior": behavior}}}})).await;
        let message = json!([{"role": "user", "content": "write to ann@example.org, card \"4111 1111 1111 1111\""}]);
        let (status, _) = invoke(&tracked, json!({"messages": message, "user": "bob@example.org"})).await;
        assert_eq!(status, if behavior == "MASK" { 200 } else { 400 });
        // What cannot be read is kept as it came, and so with masks too.
        invoke(&tracked, json!({"messages": message, "colour": "x@example.org"})).await;
        let table = table(&tracked, "").await;
        let masked = "write to <EMAIL_ADDRESS>, card \"<CREDIT_CARD>\"";
        for row in table["payloads"].as_array().unwrap() {
            assert_eq!(parsed(row, "request")["messages"][0]["content"], masked);
            assert!(!row.to_string().contains("@example.org") && !row.to_string().contains("4111"), "{row}");
        }
    }
}
