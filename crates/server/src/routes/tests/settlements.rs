//! What is reserved of limits and budgets, and what is given back, however a call ends.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use futures::future::join_all;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::fake::{Fake, Script};
use super::limits::{ENDPOINTS, ask, in_one_minute, limit, serve};
use super::send;
use super::stored::{ADMIN, Stored};
use crate::endpoints::{Endpoint, ServedEntity, Task};
use crate::policy::limits::{Budget, Budgets, Owner, Price, Prices};
use crate::providers::ProviderError;
use crate::serve::App;
use crate::store::PrincipalKind;

/// Tokens that are taken for those of [`ask`]'s prompt, and that the model says it has read and written.
const PROMPT: i64 = 10;
const USED: i64 = 13;

/// What is left of the endpoint's limit of tokens, as another call of nothing would see it.
async fn tokens_left(app: &App, endpoint: &str) -> i64 {
    let answer = ask(app, ADMIN, endpoint, json!({"max_tokens": 1_000_000})).await;
    assert_eq!(answer.status, 429, "{}", answer.body);
    answer.header("x-ratelimit-remaining-tokens").unwrap().parse().unwrap()
}

#[tokio::test]
async fn tokens_are_reserved_before_and_given_back_after() {
    in_one_minute().await;
    let stored = Stored::new().await;
    stored.endpoint("talk", "chat").await;
    limit(&stored, "talk", json!([{"tokens": 100, "renewal_period": "minute"}])).await;
    let app = &stored.app;
    for number in 1..=3 {
        let answer = ask(app, ADMIN, "talk", json!({"max_tokens": 60, "stream": number == 2})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let left = 100 - USED * (number - 1) - PROMPT - 60;
        assert_eq!(answer.header("x-ratelimit-remaining-tokens"), Some(&*left.to_string()), "while it runs");
        assert_eq!(tokens_left(app, "talk").await, 100 - USED * number);
    }
    let refused = ask(app, ADMIN, "talk", json!({"max_tokens": 60})).await;
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    let expected = "REQUEST_LIMIT_EXCEEDED: Exceeded the limit of 100 tokens a minute of endpoint `talk`: 39 tokens are used \
                    or reserved, and this call may take 70 tokens; try again in ";
    assert!(message.starts_with(expected), "{message}");
    assert_eq!(ask(app, ADMIN, "talk", json!({"max_tokens": 51})).await.status, 200, "the last of it");
    let never = ask(app, ADMIN, "talk", json!({"max_tokens": 46, "n": 2})).await;
    assert_eq!(never.status, 429);
    let message = never.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        message.ends_with("this call alone may take 102 tokens; ask for less, with a lower `max_tokens`"),
        "{message}"
    );
    // What is refused for what it is has used nothing, and was no call.
    assert_eq!(ask(app, ADMIN, "talk", json!({"max_tokens": 0})).await.status, 400);
    assert_eq!(tokens_left(app, "talk").await, 100 - 4 * USED);
}

#[tokio::test]
async fn many_at_once_reserve_no_more_tokens_than_there_are() {
    in_one_minute().await;
    let stored = Stored::new().await;
    let limits = json!([{"tokens": 205, "renewal_period": "minute"}]);
    serve(&stored.app, "hanging", Fake::with(Script::Hang(Default::default())), limits);
    // Streams that do not end, so that nothing is given back.
    let streams = join_all((0..32).map(|_| {
        let body = json!({"model": "hanging", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 30, "stream": true});
        let request = Request::post("/v1/chat/completions").header("authorization", format!("Bearer {ADMIN}"));
        send(&stored.app, request.body(Body::from(body.to_string())).unwrap())
    }));
    let streams: Vec<_> = streams.await.into_iter().filter(|response| response.status() == 200).collect();
    assert_eq!(streams.len(), 5);
    assert_eq!(tokens_left(&stored.app, "hanging").await, 5);
    // Whoever goes away has used the prompt and the piece that was seen.
    for response in streams {
        let mut body = response.into_body();
        body.frame().await.unwrap().unwrap();
    }
    assert_eq!(tokens_left(&stored.app, "hanging").await, 205 - 5 * (PROMPT + 1));
}

#[tokio::test]
async fn however_a_call_ends_it_is_settled_once() {
    in_one_minute().await;
    let stored = Stored::new().await;
    let app = &stored.app;
    let minute = json!([{"tokens": 10_000, "calls": 1000, "renewal_period": "minute"}]);
    for (name, script) in [
        ("busy", Script::Refuse(ProviderError::Busy("full".into()))),
        ("breaking", Script::Break(ProviderError::Failed("x".into()))),
        ("panicking", Script::Panic),
        ("vanishing", Script::Vanish),
        ("hanging", Script::Hang(Default::default())),
    ] {
        serve(app, name, Fake::with(script), minute.clone());
    }
    for (name, stream, status, used) in [
        ("busy", false, 429, 0),
        ("busy", true, 429, 0),
        ("breaking", false, 500, PROMPT + 1),
        ("breaking", true, 200, 2 * (PROMPT + 1)),
        ("panicking", false, 500, 0),
        ("vanishing", false, 500, PROMPT + 1),
        ("vanishing", true, 200, 2 * (PROMPT + 1)),
    ] {
        assert_eq!(ask(app, ADMIN, name, json!({"stream": stream})).await.status.as_u16(), status, "{name}");
        assert_eq!(10_000 - tokens_left(app, name).await, used, "{name}");
    }
    let waiting = tokio::time::timeout(Duration::from_millis(50), ask(app, ADMIN, "hanging", json!({}))).await;
    assert!(waiting.is_err());
    assert_eq!(10_000 - tokens_left(app, "hanging").await, PROMPT + 1);
    let answer = ask(app, ADMIN, "hanging", json!({"max_tokens": 1_000_000})).await;
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), None, "it is the tokens that do not suffice");
}

#[tokio::test]
async fn every_route_to_a_model_counts_once() {
    in_one_minute().await;
    let stored = Stored::new().await;
    let app = &stored.app;
    let minute = json!([{"calls": 100, "tokens": 1_000_000, "renewal_period": "minute"}]);
    for (name, task) in
        [("chat", Task::Chat), ("base", Task::Completions), ("vectors", Task::Embeddings), ("ranks", Task::Rerank)]
    {
        let name = format!("{name}-model");
        serve(app, &name, Fake::new(task), minute.clone());
    }
    let messages = json!([{"role": "user", "content": "hello"}]);
    let documents = json!(["some document", "another"]);
    let bodies = [
        ("chat-model", "chat/completions", json!({"messages": messages})),
        ("base-model", "completions", json!({"prompt": ["one", "two"], "max_tokens": 5})),
        ("vectors-model", "embeddings", json!({"input": ["one", "two"]})),
        ("ranks-model", "rerank", json!({"query": "what", "documents": documents})),
    ];
    for (endpoint, route, body) in bodies {
        let named = |mut body: Value| {
            body["model"] = endpoint.into();
            body
        };
        let mut paths: Vec<(String, Value)> = ["/v1", "/serving-endpoints", "/ai-gateway/mlflow/v1"]
            .map(|plane| (format!("{plane}/{route}"), named(body.clone())))
            .into();
        paths.push((format!("/serving-endpoints/{endpoint}/invocations"), body.clone()));
        if route == "rerank" {
            paths.pop();
            paths.push(("/v2/rerank".to_owned(), named(body.clone())));
        }
        for (number, (path, body)) in paths.into_iter().enumerate() {
            let answer = stored.call("POST", &path, body).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
            let left: usize = answer.header("x-ratelimit-remaining-requests").unwrap().parse().unwrap();
            assert_eq!(left, 99 - number, "{path}");
            assert!(answer.header("x-ratelimit-remaining-tokens").is_some(), "{path}");
        }
    }
}

#[tokio::test]
async fn a_call_that_falls_back_counts_once_with_what_has_answered() {
    in_one_minute().await;
    let stored = Stored::new().await;
    let app = &stored.app;
    let entity = |name: &str, script| {
        ServedEntity::new(name.to_owned(), name.to_owned(), std::sync::Arc::new(Fake::with(script)))
    };
    let failing = Script::Break(ProviderError::Failed("x".into()));
    let entities = vec![(entity("first", failing), 100), (entity("second", Script::Greet), 0)];
    let limits = json!([{"calls": 10, "tokens": 500, "renewal_period": "minute"}]);
    let gateway = json!({"fallback_config": {"enabled": true}, "rate_limits": limits});
    let policies = app.policies(&serde_json::from_value(gateway).unwrap());
    let endpoint = Endpoint::of_parts("id".to_owned(), "talk".to_owned(), 0, entities);
    app.endpoints().insert(endpoint.with_policies(policies)).unwrap();
    for number in 1..=2 {
        let answer = ask(app, ADMIN, "talk", json!({"max_tokens": 5})).await;
        assert_eq!((answer.status.as_u16(), answer.header("served-model-name")), (200, Some("second")));
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some(&*(10 - number).to_string()));
        assert_eq!(500 - tokens_left(app, "talk").await, USED * number);
    }
}

fn declare(app: &App, budgets: Vec<Budget>) {
    let price = |name: &str, price| (name.to_owned(), price);
    // A millionth of the currency for a token that is read, and two for one that is written.
    let price = price("org/Fake-1.5", Price { input: 1_000_000, output: 2_000_000 });
    app.gate().counters().declare(Budgets { all: budgets, prices: Prices::new([price]) });
}

#[tokio::test]
async fn budgets_hold_for_what_they_name_and_are_counted_in_money_too() {
    let stored = Stored::new().await;
    let app = &stored.app;
    serve(app, "talk", Fake::new(Task::Chat), json!([]));
    serve(app, "other", Fake::new(Task::Chat), json!([]));
    let owner = Owner::Endpoint("talk".to_owned());
    let admin = Owner::Principal(PrincipalKind::User, "ADMIN".to_owned());
    let admins = Owner::Principal(PrincipalKind::Group, "admins".to_owned());
    declare(
        app,
        vec![
            // A call of 10 and 5 tokens may cost 20 millionths, and costs 16.
            Budget::new(owner.clone(), "month", None, Some(0.000_052)).unwrap(),
            Budget::new(admin, "day", Some(5 * USED + 20), None).unwrap(),
            Budget::new(admins, "day", None, Some(1.0)).unwrap(),
        ],
    );
    let small = json!({"max_tokens": 5});
    for _ in 0..3 {
        let answer = ask(app, ADMIN, "talk", small.clone()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.header("x-ratelimit-remaining-tokens"), None, "budgets are not rates");
    }
    let refused = ask(app, ADMIN, "talk", small.clone()).await;
    assert_eq!(refused.status, 429);
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    let expected = "REQUEST_LIMIT_EXCEEDED: Exceeded the budget of 0.000052 (in the currency of the prices) a month of \
                    endpoint `talk`: 0.000048 are used or reserved, and this call may take 0.00002; the next month begins";
    assert!(message.starts_with(expected), "{message}");
    let wait: u32 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "clients sleep for as long as they are told");
    for _ in 0..3 {
        assert_eq!(ask(app, ADMIN, "other", small.clone()).await.status, 200);
    }
    let refused = ask(app, ADMIN, "other", small.clone()).await;
    assert_eq!(refused.status, 429);
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("a day of user `ADMIN`: 78 tokens are used"), "{message}");
}

#[tokio::test]
async fn what_has_no_price_is_refused_where_money_is_counted() {
    let stored = Stored::new().await;
    let app = &stored.app;
    let talk = Owner::Endpoint("talk".to_owned());
    let admin = Owner::Principal(PrincipalKind::User, "admin".to_owned());
    declare(
        app,
        vec![Budget::new(talk, "day", None, Some(1.0)).unwrap(), Budget::new(admin, "day", None, Some(1.0)).unwrap()],
    );
    let config = json!({"served_entities": [{"name": "a", "entity_name": "chat"}]});
    let made = stored.call("POST", ENDPOINTS, json!({"name": "talk", "config": config})).await;
    assert_eq!(made.status, 400, "{}", made.body);
    let message = made.json()["message"].as_str().unwrap().to_owned();
    let expected =
        "`config.served_entities[0]`: the model `chat` has no price, and endpoint `talk` has a budget in money";
    assert_eq!(message, expected);
    stored.endpoint("other", "chat").await;
    let answer = ask(app, ADMIN, "other", json!({})).await;
    assert_eq!(answer.status, 400);
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(message, "the model `chat` has no price, and there is a budget in money of user `admin`");
}
