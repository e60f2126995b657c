//! The routes that manage models: who may, and what they answer of models that are nothing but a script.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use hearth_engine::serve::Footprint;
use serde_json::{Value, json};

use super::fake::Fake;
use super::{app, app_for, ask, get, post};
use crate::endpoints::{Endpoint, Task};
use crate::gate::Access;
use crate::models::{Residence, Source};
use crate::providers::Provider;
use crate::serve::App;

/// A fake of so many bytes; without any it cannot be started.
struct Bytes(u64);

impl Source for Bytes {
    fn model_name(&self) -> &str {
        "org/Fake-1.5"
    }

    fn footprint(&self, _offered: u64) -> Result<Footprint, String> {
        Ok(Footprint { weights: self.0, ..Footprint::default() })
    }

    fn load(&self, _granted: Footprint) -> Result<Arc<dyn Provider>, String> {
        match self.0 {
            0 => Err("the file /secret is broken".into()),
            _ => Ok(Arc::new(Fake::new(Task::Chat))),
        }
    }
}

fn host(app: &App, name: &str, bytes: u64) {
    let hosted = app.models().host(name, Arc::new(Bytes(bytes)), Residence::OnDemand);
    app.endpoints().insert(Endpoint::new(name, Arc::new(hosted), 1_700_000_000).unwrap()).unwrap();
}

#[tokio::test]
async fn models_are_listed_loaded_and_unloaded() {
    let app = app();
    host(&app, "guest", 600);
    let listed = get(&app, "/admin/models").await.json();
    let unloaded = json!({
        "name": "guest", "model": "org/Fake-1.5", "state": "unloaded", "reason": null, "on_demand": true, "memory": 0,
        "loads": 0, "load_seconds": null, "idle_seconds": null, "requests": 0, "running": null, "waiting": null
    });
    // The others are not loaded by this server.
    let expected = json!({"object": "list", "data": [unloaded], "memory_reserved": 0, "memory_total": 1000});
    assert_eq!(listed, expected);
    assert_eq!(get(&app, "/v1/models/guest").await.status, 200, "listed in any state");

    let loaded = post(&app, "/admin/models/guest/load", json!({})).await.json();
    assert_eq!((&loaded["state"], &loaded["memory"], &loaded["loads"]), (&json!("ready"), &json!(600), &json!(1)));
    assert_eq!(get(&app, "/admin/models").await.json()["memory_reserved"], 600);
    let messages = json!([{"role": "user", "content": "x"}]);
    let answer = post(&app, "/v1/chat/completions", json!({"model": "guest", "messages": messages})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);

    let without_body = Request::post("/admin/models/guest/unload").body(Body::empty()).unwrap();
    let unloaded = ask(&app, without_body).await.json();
    assert_eq!((&unloaded["state"], &unloaded["memory"]), (&json!("unloaded"), &json!(0)));
    let again = post(&app, "/admin/models/guest/unload", json!({"force": false})).await;
    assert_eq!(again.status, 200, "nothing is left to do");
}

#[tokio::test]
async fn what_cannot_be_loaded_is_told_by_kind_and_in_full_to_those_who_manage() {
    let app = app();
    host(&app, "huge", 1001);
    host(&app, "broken", 0);
    let refused = post(&app, "/admin/models/huge/load", json!({})).await;
    assert_eq!((refused.status.as_u16(), &refused.json()["error"]["code"]), (507, &json!("insufficient_memory")));
    let refused = post(&app, "/admin/models/broken/load", json!({})).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, Some("2")));
    assert!(!refused.body.contains("secret"), "{}", refused.body);
    let listed = get(&app, "/admin/models").await.json();
    assert_eq!((&listed["data"][0]["name"], &listed["data"][0]["state"]), (&json!("broken"), &json!("failed")));
    assert_eq!(listed["data"][0]["reason"], "the file /secret is broken");
}

#[tokio::test]
async fn bodies_names_and_models_of_others_are_refused_by_name() {
    let app = app();
    host(&app, "guest", 1);
    for (path, body, status, param) in [
        ("guest/load", json!({"force": true}), 400, json!("force")),
        ("guest/unload", json!({"force": 1}), 400, json!("force")),
        ("guest/unload", json!({"forse": true}), 400, json!("forse")),
        ("nobody/unload", json!({}), 404, json!("model")),
        ("vectors/load", json!({}), 400, Value::Null),
    ] {
        let answer = post(&app, &format!("/admin/models/{path}"), body).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]["param"]), (status, &param), "{path}");
    }
}

#[tokio::test]
async fn only_who_has_the_token_manages() {
    let app = app_for(Access::token("right"));
    host(&app, "guest", 1);
    let calls =
        [("GET", "/admin/models"), ("POST", "/admin/models/guest/load"), ("POST", "/admin/models/guest/unload")];
    for (token, status) in [(None, 401), (Some("wrong"), 401), (Some("right"), 200)] {
        for (method, path) in calls {
            let request = Request::builder().method(method).uri(path);
            let request = match token {
                Some(token) => request.header("authorization", format!("Bearer {token}")),
                None => request,
            };
            assert_eq!(ask(&app, request.body(Body::empty()).unwrap()).await.status, status, "{token:?} {path}");
        }
    }
}
