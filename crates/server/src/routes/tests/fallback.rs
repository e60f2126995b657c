//! Another entity where one fails.

use std::sync::Arc;

use serde_json::{Value, json};

use super::fake::{Fake, Script};
use super::stored::ADMIN;
use super::usage::Tracked;
use super::{Answered, post, without_endpoints};
use crate::endpoints::{Endpoint, ServedEntity};
use crate::gate::Access;
use crate::policy::Policies;
use crate::providers::{ProviderError, UpstreamError, UpstreamFailure};
use crate::serve::App;

/// A server with one endpoint, `talk`, whose entities are `a`, `b` and so on, with these shares and scripts.
fn talk(falls_back: bool, scripts: &[(u32, Script)]) -> App {
    let app = without_endpoints(Access::local());
    let entities = scripts.iter().zip(["a", "b", "c"]).map(|((share, script), name)| {
        let provider = Arc::new(Fake::with(script.clone()));
        (ServedEntity::new(name.to_owned(), name.repeat(32), provider), *share)
    });
    let endpoint = Endpoint::of_parts("1".repeat(32), "talk".to_owned(), 1, entities.collect());
    app.endpoints().insert(endpoint.with_policies(Policies { falls_back, ..Policies::default() })).unwrap();
    app
}

async fn ask(app: &App, stream: bool) -> Answered {
    let messages = json!([{"role": "user", "content": "hi"}]);
    post(app, "/v1/chat/completions", json!({"model": "talk", "messages": messages, "stream": stream})).await
}

fn upstream(failure: UpstreamFailure) -> Script {
    Script::Refuse(ProviderError::Upstream(UpstreamError::new(failure, "no")))
}

/// Who has answered, and who has failed before.
fn served(answered: &Answered) -> (Option<&str>, Option<&str>) {
    (answered.header("served-model-name"), answered.header("hearth-passed-over"))
}

#[tokio::test]
async fn what_another_entity_may_mend_is_asked_of_the_next_one() {
    for (script, status) in [
        (upstream(UpstreamFailure::Refused(429)), 429),
        (upstream(UpstreamFailure::Failed), 503),
        (upstream(UpstreamFailure::Unreachable), 503),
        (upstream(UpstreamFailure::TimedOut), 504),
        (Script::Refuse(ProviderError::Busy("full".into())), 429),
        (Script::Refuse(ProviderError::Stopped("gone".into())), 503),
        (Script::Refuse(ProviderError::Failed("broken".into())), 500),
    ] {
        let app = talk(true, &[(100, script.clone()), (0, Script::Greet)]);
        for stream in [false, true] {
            let answered = ask(&app, stream).await;
            let passed = format!("a={status}");
            assert_eq!((answered.status.as_u16(), served(&answered)), (200, (Some("b"), Some(passed.as_str()))));
            let text = if stream {
                answered.events()[1]["choices"][0]["delta"].clone()
            } else {
                answered.json()["choices"][0]["message"].clone()
            };
            assert!(text["content"].as_str().unwrap().starts_with("Hel"), "{text}");
        }
        let alone = talk(false, &[(100, script), (0, Script::Greet)]);
        let answered = ask(&alone, false).await;
        assert_eq!((answered.status.as_u16(), served(&answered)), (status, (None, None)), "without fallback");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_call_is_told_by_the_first_entity() {
    for script in [
        Script::Refuse(ProviderError::invalid("messages", "not like this")),
        upstream(UpstreamFailure::Refused(401)),
        upstream(UpstreamFailure::Refused(404)),
    ] {
        let app = talk(true, &[(100, script), (0, Script::Greet)]);
        for stream in [false, true] {
            let answered = ask(&app, stream).await;
            assert!(answered.status.is_client_error(), "{}", answered.body);
            assert_eq!(served(&answered), (None, None));
        }
    }
}

#[tokio::test]
async fn entities_are_asked_as_they_are_listed_from_the_one_whose_turn_it_is() {
    let down = upstream(UpstreamFailure::Failed);
    let busy = Script::Refuse(ProviderError::Busy("full".into()));
    let app = talk(true, &[(0, Script::Greet), (100, down.clone()), (0, busy.clone())]);
    assert_eq!(served(&ask(&app, false).await), (Some("a"), Some("b=503, c=429")));
    let app = talk(true, &[(0, down.clone()), (100, down), (0, busy)]);
    let answered = ask(&app, false).await;
    assert_eq!((answered.status.as_u16(), served(&answered)), (503, (None, None)), "the last one's error");
}

#[tokio::test]
async fn an_answer_that_breaks_is_begun_anew_only_while_the_caller_has_nothing_of_it() {
    let broken = || Script::Break(ProviderError::Failed("broken".into()));
    let app = talk(true, &[(100, broken()), (0, Script::Greet)]);
    let plain = ask(&app, false).await;
    assert_eq!((plain.status.as_u16(), served(&plain)), (200, (Some("b"), Some("a=500"))));
    assert_eq!(plain.json()["choices"][0]["message"]["content"], "Hello 0");
    let streamed = ask(&app, true).await;
    assert_eq!((streamed.status.as_u16(), served(&streamed)), (200, (Some("a"), None)));
    let last = streamed.body.trim_end().rsplit("data: ").next().unwrap();
    assert_eq!(serde_json::from_str::<Value>(last).unwrap()["error"]["message"], "the model failed to answer");
}

#[tokio::test]
async fn an_entity_that_keeps_failing_is_left_alone_for_a_while() {
    let down = || upstream(UpstreamFailure::Failed);
    let app = talk(true, &[(100, down()), (0, Script::Greet)]);
    for _ in 0..5 {
        assert_eq!(served(&ask(&app, false).await), (Some("b"), Some("a=503")));
    }
    for _ in 0..3 {
        assert_eq!(served(&ask(&app, false).await), (Some("b"), None), "nobody asks it");
    }
    let app = talk(true, &[(100, down()), (0, down())]);
    for _ in 0..10 {
        assert_eq!(ask(&app, false).await.status, 503, "those that rest are better than none");
    }
    let app = talk(false, &[(100, down())]);
    for _ in 0..10 {
        assert_eq!(ask(&app, false).await.status, 503, "without fallback nothing rests");
    }
}

#[tokio::test]
async fn the_control_plane_turns_fallback_on_and_usage_tells_of_it() {
    let tracked = Tracked::new().await;
    let stored = &tracked.stored;
    // Nothing listens there.
    let custom = json!({"custom_provider_url": "http://127.0.0.1:1", "bearer_token_auth": {"token_plaintext": "k"}});
    let external =
        json!({"provider": "custom", "name": "far", "task": "llm/v1/chat", "custom_provider_config": custom});
    let entities = json!([
        {"name": "far", "external_model": external}, {"name": "near", "entity_name": "chat"}
    ]);
    let routes = json!([
        {"served_entity_name": "far", "traffic_percentage": 100}, {"served_entity_name": "near", "traffic_percentage": 0}
    ]);
    let config = json!({"served_entities": entities, "traffic_config": {"routes": routes}});
    let gateway = json!({"fallback_config": {"enabled": true}});
    let body = json!({"name": "talk", "config": config, "ai_gateway": gateway});
    let made = stored.call("POST", "/api/2.0/serving-endpoints", body).await;
    assert_eq!(made.status, 200, "{}", made.body);
    assert_eq!(stored.settled("talk").await["ai_gateway"], gateway);
    let body = json!({"messages": [{"role": "user", "content": "hi"}]});
    let answered = stored.call("POST", "/serving-endpoints/talk/invocations", body.clone()).await;
    assert_eq!((answered.status.as_u16(), served(&answered)), (200, (Some("near"), Some("far=503"))));
    let usage = tracked.seen(ADMIN, "").await;
    assert_eq!((&usage[0]["served_entity_name"], &usage[0]["passed_over"]), (&json!("near"), &json!("far=503")));
    let off = json!({"fallback_config": {"enabled": false}});
    assert_eq!(stored.call("PUT", "/api/2.0/serving-endpoints/talk/ai-gateway", off).await.status, 200);
    assert_eq!(stored.call("POST", "/serving-endpoints/talk/invocations", body).await.status, 503);
}
