//! What is written down of a request, and who gets to read it.

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::fake::{Fake, Script};
use super::stored::{ADMIN, Stored, call};
use super::{ask, send};
use crate::providers::ProviderError;
use crate::serve::App;
use crate::usage::{Ingest, Journal, Retention};

const USAGE: &str = "/api/2.0/serving/endpoint-usage";

/// A server that writes down who uses what.
pub(super) struct Tracked {
    pub(super) stored: Stored,
    pub(super) ingest: Ingest,
}

impl Tracked {
    pub(super) async fn new() -> Self {
        let stored = Stored::new().await;
        let store = stored.app.control().unwrap().store().clone();
        let ingest =
            Ingest::new(Journal::open(&stored.folder.path().join("usage")).unwrap(), store, Retention::default());
        let app = stored.app.clone().with_usage(ingest.clone());
        Self { stored: Stored { app, ..stored }, ingest }
    }

    fn app(&self) -> &App {
        &self.stored.app
    }

    /// What somebody gets to see, as soon as it is there.
    pub(super) async fn seen(&self, token: &str, query: &str) -> Value {
        self.ingest.drain().await.unwrap();
        let answer = call(self.app(), token, "GET", &format!("{USAGE}{query}"), Value::Null).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["usage"].clone()
    }

    async fn csv(&self, query: &str) -> Vec<String> {
        self.ingest.drain().await.unwrap();
        let answer = call(self.app(), ADMIN, "GET", &format!("{USAGE}{query}"), Value::Null).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-type").unwrap().starts_with("text/csv")),
            (200, true)
        );
        answer.body.lines().map(str::to_owned).collect()
    }

    async fn ask(&self, token: &str, endpoint: &str, more: Value) -> u16 {
        let mut body = json!({"model": endpoint, "messages": [{"role": "user", "content": "héllo"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        call(self.app(), token, "POST", "/v1/chat/completions", body).await.status.as_u16()
    }

    /// A new service principal with that level on the endpoint; gives name and token.
    pub(super) async fn somebody(&self, name: &str, endpoint: &Value, level: &str) -> (String, String) {
        let call = async |method, path: &str, body| {
            let answer = self.stored.call(method, path, body).await;
            assert!(answer.status.is_success(), "{path}: {}", answer.body);
            answer.json()
        };
        let made = call("POST", "/api/2.0/preview/scim/v2/ServicePrincipals", json!({"displayName": name})).await;
        let application = made["applicationId"].as_str().unwrap().to_owned();
        let grants = json!([{"service_principal_name": application, "permission_level": level}]);
        let path = format!("/api/2.0/permissions/serving-endpoints/{}", endpoint["id"].as_str().unwrap());
        call("PATCH", &path, json!({"access_control_list": grants})).await;
        let path = "/api/2.0/token-management/on-behalf-of/tokens";
        let token = call("POST", path, json!({"application_id": application})).await["token_value"].clone();
        (application, token.as_str().unwrap().to_owned())
    }
}

fn texts(rows: &Value, field: &str) -> Vec<String> {
    rows.as_array().unwrap().iter().map(|row| row[field].as_str().unwrap().to_owned()).collect()
}

fn numbers(rows: &Value, field: &str) -> Vec<i64> {
    rows.as_array().unwrap().iter().map(|row| row[field].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn an_entry_has_what_the_request_was() {
    let tracked = Tracked::new().await;
    let endpoint = tracked.stored.endpoint("talk", "chat").await;
    let body = json!({
        "messages": [{"role": "user", "content": "héllo"}], "n": 2, "stream": true, "client_request_id": "nul\u{0}",
        "usage_context": {"team": "x", "size": 3, "list": [1, "a"]}
    });
    for _ in 0..2 {
        let request = Request::post("/serving-endpoints/talk/invocations").header("x-request-id", "mine");
        let request = request.header("authorization", format!("Bearer {ADMIN}"));
        assert_eq!(ask(tracked.app(), request.body(Body::from(body.to_string())).unwrap()).await.status, 200);
    }
    let rows = tracked.seen(ADMIN, "").await;
    let row = &rows[0];
    assert_ne!(row["databricks_request_id"], rows[1]["databricks_request_id"], "though callers' ids are the same");
    assert_eq!(texts(&rows, "request_id"), ["mine", "mine"]);
    let served = &endpoint["config"]["served_entities"][0];
    for (field, value) in [
        ("client_request_id", json!("nul\u{fffd}")),
        ("status_code", json!(200)),
        ("requester", json!("admin")),
        ("requester_id", json!("3")),
        ("endpoint_id", endpoint["id"].clone()),
        ("endpoint_name", json!("talk")),
        ("served_entity_id", served["id"].clone()),
        ("served_entity_name", json!("only")),
        ("input_token_count", json!(10)),
        ("output_token_count", json!(6)),
        ("input_character_count", json!(5)),
        ("output_character_count", json!(14)),
        ("request_streaming", json!(true)),
        ("usage_context", json!({"team": "x", "size": "3", "list": "[1,\"a\"]"})),
    ] {
        assert_eq!(row[field], value, "{field}");
    }
    assert!(row["request_time"].as_i64().unwrap() > 1_700_000_000_000);
}

/// What a guardrail has to do with a request: the tokens are the model's, the end is the caller's.
#[tokio::test]
async fn a_guarded_request_is_written_down_as_it_ends() {
    let tracked = Tracked::new().await;
    tracked.stored.endpoint("guarded", "parrot").await;
    let guardrails = json!({
        "input": {"invalid_keywords": ["secret"]}, "output": {"pii": {"behavior": "MASK"}, "invalid_keywords": ["falcon"]}
    });
    let path = "/api/2.0/serving-endpoints/guarded/ai-gateway";
    assert_eq!(tracked.stored.call("PUT", path, json!({"guardrails": guardrails})).await.status, 200);
    for (content, streamed) in [
        ("ann@example.org", false),
        ("a secret", false),
        ("the falcon", false),
        ("go, falcon", true),
        ("ann@a.org", true),
    ] {
        let message = json!({"messages": [{"role": "user", "content": content}], "stream": streamed});
        tracked.ask(ADMIN, "guarded", message).await;
    }
    let rows = tracked.seen(ADMIN, "").await;
    let mut seen: Vec<_> =
        numbers(&rows, "status_code").into_iter().zip(numbers(&rows, "output_token_count")).collect();
    seen.sort_unstable();
    assert_eq!(seen, [(200, 5), (200, 5), (400, 0), (400, 0), (400, 0)]);
    let written = rows.to_string();
    assert!(!written.contains("ann@") && !written.contains("falcon"), "{written}");
}

/// Whatever a request comes to, it is written down once and before its end is seen.
#[tokio::test]
async fn every_end_of_a_request_is_written_down_once() {
    let tracked = Tracked::new().await;
    let app = tracked.app();
    super::serve(app, "busy", Fake::with(Script::Refuse(ProviderError::Busy("full".into()))));
    super::serve(app, "breaking", Fake::with(Script::Break(ProviderError::Failed("x".into()))));
    super::serve(app, "panicking", Fake::with(Script::Panic));
    super::serve(app, "hanging", Fake::with(Script::Hang(Default::default())));
    super::serve(app, "vectors", Fake::new(crate::endpoints::Task::Embeddings));
    assert_eq!(tracked.ask(ADMIN, "busy", json!({})).await, 429);
    assert_eq!(tracked.ask(ADMIN, "breaking", json!({"colour": 1})).await, 400);
    assert_eq!(tracked.ask(ADMIN, "breaking", json!({})).await, 500);
    assert_eq!(tracked.ask(ADMIN, "breaking", json!({"stream": true})).await, 200, "the error comes as an event");
    assert_eq!(tracked.ask(ADMIN, "panicking", json!({})).await, 500);
    assert_eq!(tracked.ask(ADMIN, "nobody", json!({})).await, 404, "of nothing there is no usage");
    let vectors = json!({"model": "vectors", "input": ["ab", "c"]});
    assert_eq!(tracked.stored.call("POST", "/v1/embeddings", vectors).await.status, 200);
    for stream in [true, false] {
        let body = json!({"model": "hanging", "messages": [{"role": "user", "content": "x"}], "stream": stream});
        let request = Request::post("/v1/chat/completions").header("authorization", format!("Bearer {ADMIN}"));
        let request = request.body(Body::from(body.to_string())).unwrap();
        let going = async {
            let mut body = send(app, request).await.into_body();
            body.frame().await.unwrap().unwrap();
        };
        let waited = tokio::time::timeout(std::time::Duration::from_millis(50), going).await;
        assert_eq!(waited.is_ok(), stream);
    }
    let rows = tracked.seen(ADMIN, "").await;
    let mut ends: Vec<(String, i64)> =
        texts(&rows, "endpoint_name").into_iter().zip(numbers(&rows, "status_code")).collect();
    ends.sort();
    let expected = [
        ("breaking", 400),
        ("breaking", 500),
        ("breaking", 500),
        ("busy", 429),
        ("hanging", 499),
        ("hanging", 499),
        ("panicking", 500),
        ("vectors", 200),
    ];
    assert_eq!(ends, expected.map(|(name, status)| (name.to_owned(), status)));
    let vectors = tracked.seen(ADMIN, "?endpoint_name=vectors").await;
    assert_eq!(
        (numbers(&vectors, "input_token_count"), numbers(&vectors, "input_character_count")),
        (vec![7], vec![3])
    );
}

#[tokio::test]
async fn administrators_see_all_managers_their_endpoints_and_everybody_their_own() {
    let tracked = Tracked::new().await;
    let (first, second) =
        (tracked.stored.endpoint("first", "chat").await, tracked.stored.endpoint("second", "chat").await);
    let (manager, of_manager) = tracked.somebody("manager", &first, "CAN_MANAGE").await;
    let (caller, of_caller) = tracked.somebody("caller", &first, "CAN_QUERY").await;
    let grants = json!([{"service_principal_name": manager, "permission_level": "CAN_QUERY"},
        {"service_principal_name": caller, "permission_level": "CAN_QUERY"}]);
    let path = format!("/api/2.0/permissions/serving-endpoints/{}", second["id"].as_str().unwrap());
    tracked.stored.call("PATCH", &path, json!({"access_control_list": grants})).await;
    for (token, endpoint) in
        [(&of_manager, "first"), (&of_manager, "second"), (&of_caller, "first"), (&of_caller, "second")]
    {
        assert_eq!(tracked.ask(token, endpoint, json!({})).await, 200);
    }
    let seen = async |token: &str, query: &str| {
        let rows = tracked.seen(token, query).await;
        let pairs = texts(&rows, "requester").into_iter().zip(texts(&rows, "endpoint_name"));
        pairs
            .map(|(who, what)| format!("{} {what}", if who == manager { "manager" } else { "caller" }))
            .collect::<Vec<_>>()
    };
    assert_eq!(seen(ADMIN, "").await, ["caller second", "caller first", "manager second", "manager first"]);
    assert_eq!(seen(&of_manager, "").await, ["caller first", "manager second", "manager first"]);
    assert_eq!(seen(&of_caller, "").await, ["caller second", "caller first"]);
    assert_eq!(seen(&of_caller, &format!("?requester={manager}")).await, Vec::<String>::new());
    let sums = tracked.seen(&of_caller, "?group_by=endpoint").await;
    assert_eq!(
        (texts(&sums, "endpoint_name"), numbers(&sums, "request_count")),
        (vec!["first".into(), "second".into()], vec![1, 1])
    );
    let entities = call(tracked.app(), &of_caller, "GET", "/api/2.0/serving/served-entities", Value::Null).await.json();
    assert_eq!(texts(&entities["served_entities"], "endpoint_name"), ["first", "second"]);
}

#[tokio::test]
async fn rows_and_sums_come_in_pages_and_as_csv() {
    let tracked = Tracked::new().await;
    tracked.stored.endpoint("talk", "chat").await;
    for context in [json!({"a": "1,2"}), json!({}), json!({})] {
        assert_eq!(tracked.ask(ADMIN, "talk", json!({"usage_context": context})).await, 200);
    }
    let all = tracked.seen(ADMIN, "").await;
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let path = format!("{USAGE}?max_results=1{token}");
        let page = tracked.stored.call("GET", &path, Value::Null).await.json();
        found.extend(page["usage"].as_array().unwrap().clone());
        let Some(next) = page["next_page_token"].as_str() else { break };
        token = format!("&page_token={next}");
    }
    assert_eq!(Value::from(found), all);

    let lines = tracked.csv("?format=csv").await;
    assert!(lines[0].starts_with("databricks_request_id,request_id,client_request_id,request_time"), "{}", lines[0]);
    assert_eq!(lines.len(), 4);
    assert!(lines[3].ends_with(",false,\"{\"\"a\"\":\"\"1,2\"\"}\""), "{}", lines[3]);
    let sums = tracked.csv("?format=csv&group_by=requester,day&end_time=9999999999999").await;
    assert_eq!(
        sums[0],
        "requester,requester_id,day,request_count,failed_request_count,input_token_count,output_token_count"
    );
    assert!(sums.len() == 2 && sums[1].starts_with("admin,3,20") && sums[1].ends_with(",3,0,30,9"), "{}", sums[1]);
    assert_eq!(tracked.csv("?format=csv&start_time=9999999999999").await.len(), 1, "no row, and still the names");
    for (query, problem) in [
        ("?max_results=1&format=csv", "CSV has no pages"),
        ("?page_token=x", "`page_token` must be the `next_page_token` of the page before, not x"),
        ("?group_by=day&page_token=-1", "`page_token` must be"),
        ("?since=1", "unknown field `since`"),
    ] {
        let refused = tracked.stored.call("GET", &format!("{USAGE}{query}"), Value::Null).await;
        assert!(refused.status == 400 && refused.body.contains(problem), "{query}: {}", refused.body);
    }
}

#[tokio::test]
async fn an_endpoint_has_numbers_of_its_own_whether_its_usage_is_written_down_or_not() {
    let tracked = Tracked::new().await;
    tracked.stored.endpoint("talk", "chat").await;
    let off = json!({"usage_tracking_config": {"enabled": false}});
    assert_eq!(tracked.stored.call("PUT", "/api/2.0/serving-endpoints/talk/ai-gateway", off).await.status, 200);
    assert_eq!(tracked.ask(ADMIN, "talk", json!({})).await, 200);
    assert_eq!(tracked.ask(ADMIN, "talk", json!({"colour": 1})).await, 400);
    assert_eq!(tracked.seen(ADMIN, "").await, json!([]));
    let path = "/api/2.0/serving-endpoints/talk/metrics";
    let metrics = tracked.stored.call("GET", path, Value::Null).await.body;
    // What is refused before anything is asked has no entity.
    let [nobody, labels] = ["", "only"].map(|name| format!("{{endpoint_name=\"talk\",served_model_name=\"{name}\"}}"));
    for line in [
        format!("request_count_total{labels} 1"),
        format!("request_count_total{nobody} 1"),
        format!("request_4xx_count_total{labels} 0"),
        format!("request_4xx_count_total{nobody} 1"),
        format!("request_5xx_count_total{labels} 0"),
        format!("request_latency_ms_count{labels} 1"),
        format!("request_latency_ms_bucket{} 1", labels.replace('}', ",le=\"+Inf\"}")),
        "mem_usage_percentage{endpoint_name=\"talk\"} 10".to_owned(),
        "# TYPE cpu_usage_percentage gauge".to_owned(),
    ] {
        assert!(metrics.lines().any(|one| one == line), "{line} is missing in\n{metrics}");
    }
}
