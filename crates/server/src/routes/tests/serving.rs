//! The control plane of endpoints.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::send;
use super::stored::{ADMIN, Stored, call, settled, was_let_go};

const ENDPOINTS: &str = "/api/2.0/serving-endpoints";

fn messages() -> Value {
    json!({"messages": [{"role": "user", "content": "x"}]})
}

#[tokio::test]
async fn an_endpoint_is_made_answers_is_changed_and_goes() {
    let stored = Stored::new().await;
    let made = stored.endpoint("one", "system.ai.chat").await;
    assert_eq!(made["state"], json!({"ready": "READY", "config_update": "NOT_UPDATING"}));
    assert_eq!((&made["task"], &made["permission_level"]), (&json!("llm/v1/chat"), &json!("CAN_MANAGE")));
    assert_eq!(made["config"]["traffic_config"]["routes"][0]["traffic_percentage"], 100);
    assert_eq!(made["config"]["served_models"][0]["model_name"], "system.ai.chat");
    assert_eq!(made["id"].as_str().unwrap().len(), 32);
    let answer = stored.call("POST", "/serving-endpoints/one/invocations", messages()).await;
    assert_eq!((answer.status.as_u16(), answer.header("served-model-name")), (200, Some("only")));

    let entities = json!([{"name": "a", "entity_name": "vectors", "workload_size": "Small"}]);
    let changed = stored.call("PUT", &format!("{ENDPOINTS}/one/config"), json!({"served_entities": entities})).await;
    assert_eq!((changed.status.as_u16(), &changed.json()["name"]), (200, &json!("one")));
    let changed = stored.settled("one").await;
    assert_eq!((&changed["config"]["config_version"], &changed["task"]), (&json!(2), &json!("llm/v1/embeddings")));
    assert_eq!(changed["config"]["served_entities"][0]["workload_size"], "Small");
    let refused = stored.call("POST", "/serving-endpoints/one/invocations", messages()).await;
    assert_eq!(refused.status, 400, "it embeds now");

    let listed = stored.call("GET", &format!("{ENDPOINTS}/"), Value::Null).await.json();
    assert_eq!(listed["endpoints"].as_array().unwrap().len(), 1);
    let gone = stored.call("DELETE", &format!("{ENDPOINTS}/one"), Value::Null).await;
    assert_eq!((gone.status.as_u16(), gone.json()), (200, json!({})));
    let missing = stored.call("GET", &format!("{ENDPOINTS}/one"), Value::Null).await;
    assert_eq!((missing.status.as_u16(), &missing.json()["error_code"]), (404, &json!("RESOURCE_DOES_NOT_EXIST")));
    let missing = stored.call("POST", "/serving-endpoints/one/invocations", messages()).await;
    assert_eq!((missing.status.as_u16(), &missing.json()["error_code"]), (404, &json!("ENDPOINT_NOT_FOUND")));
    assert_eq!(stored.call("GET", ENDPOINTS, Value::Null).await.json(), json!({"endpoints": []}));
}

#[tokio::test]
async fn calls_are_split_as_the_routes_say() {
    let stored = Stored::new().await;
    let config = json!({
        "served_models": [{"name": "a", "model_name": "chat", "model_version": "1"},
            {"name": "b", "model_name": "chat", "model_version": "2", "scale_to_zero_enabled": true}],
        "traffic_config": {"routes": [{"served_model_name": "a", "traffic_percentage": 30},
            {"served_entity_name": "b", "traffic_percentage": 70}]},
    });
    let made = stored.call("POST", ENDPOINTS, json!({"name": "both", "config": config})).await;
    assert_eq!(made.status, 200, "{}", made.body);
    stored.settled("both").await;
    let mut counts = (0, 0);
    for _ in 0..100 {
        let answer = stored.call("POST", "/serving-endpoints/both/invocations", messages()).await;
        match answer.header("served-model-name") {
            Some("a") => counts.0 += 1,
            Some("b") => counts.1 += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(counts, (30, 70));
}

/// An answer that has begun goes on though its model is replaced, and its endpoint removed.
#[tokio::test]
async fn a_change_drops_no_running_request() {
    let stored = Stored::new().await;
    stored.endpoint("long", "hanging").await;
    let body = json!({"messages": [{"role": "user", "content": "x"}], "stream": true});
    let request =
        Request::post("/serving-endpoints/long/invocations").header("authorization", format!("Bearer {ADMIN}"));
    let mut streamed = send(&stored.app, request.body(Body::from(body.to_string())).unwrap()).await.into_body();
    assert!(streamed.frame().await.is_some(), "it has begun");
    let entities = json!({"served_entities": [{"name": "next", "entity_name": "chat"}]});
    stored.call("PUT", &format!("{ENDPOINTS}/long/config"), entities).await;
    assert_eq!(stored.settled("long").await["config"]["served_entities"][0]["name"], "next");
    let answer = stored.call("POST", "/serving-endpoints/long/invocations", messages()).await;
    assert_eq!(answer.header("served-model-name"), Some("next"), "new calls go to the new model");
    stored.call("DELETE", &format!("{ENDPOINTS}/long"), Value::Null).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!was_let_go(&stored), "the old answer goes on");
    assert_eq!(stored.app.models().memory().0, 100, "so its model is still there");
    drop(streamed);
    for _ in 0..1000 {
        if stored.app.models().memory().0 == 0 {
            return assert!(was_let_go(&stored));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the models are not unloaded: {:?}", stored.app.models().memory());
}

#[tokio::test]
async fn what_does_not_come_up_is_told_and_what_answered_goes_on() {
    let stored = Stored::new().await;
    for (name, model, reason) in [("bad", "broken", "the file is broken"), ("big", "huge", "does not fit")] {
        let failed = stored.endpoint(name, model).await;
        assert_eq!(failed["state"], json!({"ready": "NOT_READY", "config_update": "UPDATE_FAILED"}));
        let state = &failed["pending_config"]["served_entities"][0]["state"];
        assert_eq!(state["deployment"], "DEPLOYMENT_FAILED");
        assert!(state["deployment_state_message"].as_str().unwrap().contains(reason), "{state}");
        let refused = stored.call("POST", &format!("/serving-endpoints/{name}/invocations"), messages()).await;
        assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, Some("2")));
    }
    // It can be mended.
    let entities = json!({"served_entities": [{"name": "a", "entity_name": "chat"}]});
    stored.call("PUT", &format!("{ENDPOINTS}/bad/config"), entities).await;
    assert_eq!(stored.settled("bad").await["state"]["ready"], "READY");
    // And broken again: then the old one goes on.
    let entities = json!({"served_entities": [{"name": "a", "entity_name": "broken"}]});
    stored.call("PUT", &format!("{ENDPOINTS}/bad/config"), entities).await;
    let failed = stored.settled("bad").await;
    assert_eq!(failed["state"], json!({"ready": "READY", "config_update": "UPDATE_FAILED"}));
    assert_eq!(failed["config"]["served_entities"][0]["entity_name"], "chat");
    let answer = stored.call("POST", "/serving-endpoints/bad/invocations", messages()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn two_endpoints_of_one_model_hold_it_once() {
    let stored = Stored::new().await;
    stored.endpoint("one", "chat").await;
    stored.endpoint("two", "system.ai.chat").await;
    assert_eq!(stored.app.models().memory().0, 100);
    stored.call("DELETE", &format!("{ENDPOINTS}/one"), Value::Null).await;
    let answer = stored.call("POST", "/serving-endpoints/two/invocations", messages()).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn everything_is_there_after_a_restart_and_other_processes_follow() {
    let stored = Stored::new().await;
    stored.endpoint("kept", "chat").await;
    let tags = json!({"add_tags": [{"key": "team", "value": "x"}, {"key": "bare"}]});
    stored.call("PATCH", &format!("{ENDPOINTS}/kept/tags"), tags).await;
    let other = stored.other().await;
    let ready = async || call(&other, ADMIN, "GET", "/health/ready", Value::Null).await;
    assert_eq!(ready().await.json(), json!({"status": "not ready", "endpoints": ["kept"]}));
    let view = settled(&other, "kept").await;
    assert_eq!(ready().await.status, 200);
    assert_eq!(view["tags"], json!([{"key": "bare"}, {"key": "team", "value": "x"}]));
    assert_eq!(view["id"], stored.settled("kept").await["id"]);
    let answer = call(&other, ADMIN, "POST", "/serving-endpoints/kept/invocations", messages()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    // What one changes, the other sees.
    call(&other, ADMIN, "DELETE", &format!("{ENDPOINTS}/kept"), Value::Null).await;
    stored.app.control().unwrap().catch_up().await.unwrap();
    assert_eq!(stored.call("GET", &format!("{ENDPOINTS}/kept"), Value::Null).await.status, 404);
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let stored = Stored::new().await;
    stored.endpoint("there", "chat").await;
    let entity = json!({"name": "a", "entity_name": "chat"});
    let with = |config: Value| json!({"name": "new", "config": config});
    let route = |name: &str, share: i64| json!({"served_entity_name": name, "traffic_percentage": share});
    let routes = |routes: Value| {
        with(
            json!({"served_entities": [entity, {"name": "b", "entity_name": "chat"}], "traffic_config": {"routes": routes}}),
        )
    };
    for (body, status, words) in [
        (json!({"config": {}}), 400, "`name` is required"),
        (json!({"name": "a b"}), 400, "not `a b`"),
        (json!({"name": "models"}), 400, "`models` is reserved"),
        (json!({"name": "there"}), 400, "the endpoint `there` exists already"),
        (json!({"name": "x", "colour": 1}), 400, "unknown field `colour`"),
        (json!({"name": "x", "route_optimized": true}), 400, "`route_optimized`: true is not supported"),
        (json!({"name": "x", "email_notifications": {"on_update_failure": ["a@x.org"]}}), 400, "`email_notifications`"),
        (
            json!({"name": "x", "ai_gateway": {"guardrails": {"input": {"safety": true}}}}),
            400,
            "`ai_gateway.guardrails.input.safety`",
        ),
        (json!({"name": "x", "tags": [{"key": ""}]}), 400, "`tags[0].key`"),
        (with(json!({})), 400, "`config.served_entities` is required"),
        (with(json!({"served_entities": []})), 400, "1 to 10 entities, not 0"),
        (with(json!({"served_entities": [{}]})), 400, "`config.served_entities[0].entity_name` is required"),
        (with(json!({"served_entities": [{"entity_name": "nothing"}]})), 404, "unknown model \"nothing\""),
        (
            with(json!({"served_entities": [{"entity_name": "chat", "workload_colour": 1}]})),
            400,
            "unknown field `config.served_entities[0].workload_colour`",
        ),
        (with(json!({"served_entities": [{"entity_name": "chat", "name": "a.b"}]})), 400, "[0].name` must be"),
        (with(json!({"served_entities": [entity, entity]})), 400, "another entity is named `a` too"),
        (routes(json!([])), 400, "`config.traffic_config.routes` is required"),
        (routes(json!([route("a", 50), route("b", 49)])), 400, "sum up to 100, not 99"),
        (routes(json!([route("a", 101)])), 400, "between 0 and 100, not 101"),
        (routes(json!([route("c", 100)])), 400, "not `c`"),
        (routes(json!([route("a", 50), route("a", 50)])), 400, "each once, not `a`"),
        (
            with(
                json!({"served_entities": [{"external_model": {"provider": "openai", "name": "m", "task": "llm/v1/chat"}}]}),
            ),
            400,
            "`config.served_entities[0].external_model.openai_config` is required",
        ),
    ] {
        let answer = stored.call("POST", ENDPOINTS, body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.body);
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(words), "{body}: {message}");
    }
    assert_eq!(stored.call("GET", ENDPOINTS, Value::Null).await.json()["endpoints"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn one_change_of_what_is_served_at_a_time() {
    let stored = Stored::new().await;
    stored.endpoint("one", "chat").await;
    let entities = json!({"served_entities": [{"name": "b", "entity_name": "vectors"}]});
    let path = format!("{ENDPOINTS}/one/config");
    let (first, second) =
        tokio::join!(stored.call("PUT", &path, entities.clone()), stored.call("PUT", &path, entities));
    let mut answers = [first, second];
    answers.sort_by_key(|answer| answer.status);
    // Both may come through where the first has come up before the second is looked at.
    assert_eq!(answers[0].status, 200, "{}", answers[0].body);
    if answers[1].status != 200 {
        let refused = (answers[1].status.as_u16(), answers[1].json()["error_code"].clone());
        assert_eq!(refused, (409, json!("RESOURCE_CONFLICT")));
    }
}

#[tokio::test]
async fn policies_and_older_calls() {
    let stored = Stored::new().await;
    stored.endpoint("one", "chat").await;
    let gateway = json!({"usage_tracking_config": {"enabled": false}, "fallback_config": {"enabled": false}});
    let put = stored.call("PUT", &format!("{ENDPOINTS}/one/ai-gateway"), gateway.clone()).await;
    assert_eq!((put.status.as_u16(), put.json()), (200, gateway));
    let put = stored.call("PUT", &format!("{ENDPOINTS}/one/rate-limits"), json!({"rate_limits": []})).await;
    assert_eq!((put.status.as_u16(), put.json()), (200, json!({"rate_limits": []})));
    let view = stored.settled("one").await;
    assert_eq!(view["ai_gateway"]["usage_tracking_config"]["enabled"], false, "the others stay");
    let logs = stored.call("GET", &format!("{ENDPOINTS}/one/served-models/only/build-logs"), Value::Null).await;
    assert_eq!(logs.json(), json!({"logs": "DEPLOYMENT_READY"}));
    let mail = json!({"email_notifications": {"on_update_failure": [], "on_update_success": []}});
    assert_eq!(stored.call("PATCH", &format!("{ENDPOINTS}/one/notifications"), mail).await.status, 200);
}
