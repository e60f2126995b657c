//! How much may be asked for, whoever asks by whatever route, and what they are told who ask for more.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use futures::future::join_all;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::fake::{Fake, Script};
use super::stored::{ADMIN, Stored, call};
use super::{Answered, send};
use crate::endpoints::{Endpoint, Task};
use crate::policy::Policies;
use crate::policy::limits::{Budget, Budgets, Owner, Price, Prices, rules};
use crate::providers::ProviderError;
use crate::serve::App;
use crate::store::{PrincipalKind, now};
use crate::wire::serving::RateLimit;

const ENDPOINTS: &str = "/api/2.0/serving-endpoints";

/// Tokens that are taken for those of [`ask`]'s prompt, and that the model says it has read and written.
const PROMPT: i64 = 10;
const USED: i64 = 13;

/// Waits for the next minute where this one is over soon.
async fn in_one_minute() {
    let left = 60_000 - now().rem_euclid(60_000);
    if left < 10_000 {
        tokio::time::sleep(Duration::from_millis(u64::try_from(left).unwrap() + 10)).await;
    }
}

async fn ask(app: &App, token: &str, endpoint: &str, more: Value) -> Answered {
    let mut body = json!({"model": endpoint, "messages": [{"role": "user", "content": "hello"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    call(app, token, "POST", "/v1/chat/completions", body).await
}

async fn limit(stored: &Stored, endpoint: &str, limits: Value) {
    let put = stored.call("PUT", &format!("{ENDPOINTS}/{endpoint}/ai-gateway"), json!({"rate_limits": limits})).await;
    assert_eq!((put.status.as_u16(), put.json()["rate_limits"].clone()), (200, limits));
}

/// An endpoint that is made without the control plane.
fn serve(app: &App, name: &str, provider: Fake, limits: Value) {
    let limits: Vec<RateLimit> = serde_json::from_value(limits).unwrap();
    let endpoint = Endpoint::new(name, Arc::new(provider), 1).unwrap();
    let policies = Policies::limited(rules("limits", &limits).unwrap());
    app.endpoints().insert(endpoint.with_policies(policies)).unwrap();
}

/// A new user in those groups, who may call the endpoint; gives the id and a token.
async fn user(stored: &Stored, name: &str, endpoint: &Value) -> (String, String) {
    let made = stored.call("POST", "/api/2.0/preview/scim/v2/Users", json!({"userName": name})).await.json();
    let grants = json!([{"user_name": name, "permission_level": "CAN_QUERY"}]);
    let path = format!("/api/2.0/permissions/serving-endpoints/{}", endpoint["id"].as_str().unwrap());
    let granted = stored.call("PATCH", &path, json!({"access_control_list": grants})).await;
    assert_eq!(granted.status, 200, "{}", granted.body);
    let id = made["id"].as_str().unwrap().to_owned();
    let control = stored.app.control().unwrap();
    let token = crate::gate::Token::random();
    let row = crate::store::TokenRow {
        id: name.to_owned(),
        principal_id: id.clone(),
        hash: token.hash().to_hex(),
        comment: String::new(),
        origin: "api".to_owned(),
        created: 0,
        created_by: "admin".to_owned(),
        expires: None,
    };
    let mut change = control.store().change().await.unwrap();
    change.add_token(&row).await.unwrap();
    control.commit(change).await.unwrap();
    (id, token.text().to_owned())
}

#[tokio::test]
async fn of_many_at_once_as_many_are_admitted_as_are_allowed() {
    in_one_minute().await;
    let stored = Stored::new().await;
    stored.endpoint("talk", "chat").await;
    limit(&stored, "talk", json!([{"calls": 5, "renewal_period": "minute"}])).await;
    let answers = join_all((0..32).map(|_| ask(&stored.app, ADMIN, "talk", json!({})))).await;
    let (admitted, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((admitted.len(), refused.len()), (5, 27));
    let mut left: Vec<_> =
        admitted.iter().map(|answer| answer.header("x-ratelimit-remaining-requests").unwrap()).collect();
    left.sort_unstable();
    assert_eq!(left, ["0", "1", "2", "3", "4"]);
    for answer in &refused {
        assert_eq!(answer.status, 429);
        let wait: u32 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait));
        assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("5"));
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("0"));
        assert_eq!(answer.header("x-ratelimit-limit-tokens"), None);
        let error = answer.json()["error"].clone();
        assert_eq!((&error["type"], &error["code"]), (&json!("rate_limit_error"), &json!("rate_limit_exceeded")));
        let message = error["message"].as_str().unwrap();
        let begins =
            "REQUEST_LIMIT_EXCEEDED: Exceeded the limit of 5 calls a minute of endpoint `talk`: 5 calls are used";
        assert!(message.starts_with(begins), "{message}");
    }
    let body = json!({"messages": [{"role": "user", "content": "hello"}]});
    let answer = stored.call("POST", "/serving-endpoints/talk/invocations", body).await;
    assert_eq!((answer.status.as_u16(), answer.json()["error_code"].clone()), (429, json!("REQUEST_LIMIT_EXCEEDED")));
    // Another limit is held against what was counted before, at once.
    limit(&stored, "talk", json!([{"calls": 7, "renewal_period": "minute", "key": "endpoint"}])).await;
    let answers = join_all((0..8).map(|_| ask(&stored.app, ADMIN, "talk", json!({})))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 2);
    limit(&stored, "talk", json!([])).await;
    assert_eq!(ask(&stored.app, ADMIN, "talk", json!({})).await.status, 200);
}

#[tokio::test]
async fn limits_are_shown_as_they_were_set_by_either_call() {
    let stored = Stored::new().await;
    stored.endpoint("talk", "chat").await;
    let limits = json!([
        {"calls": 0, "renewal_period": "minute", "key": "user_group", "principal": "nobody yet"},
        {"calls": 3, "tokens": 50, "renewal_period": "minute", "key": "service_principal", "principal": "x"},
        {"tokens": 9, "renewal_period": "minute"},
    ]);
    let put = stored.call("PUT", &format!("{ENDPOINTS}/talk/rate-limits"), json!({"rate_limits": limits})).await;
    assert_eq!((put.status.as_u16(), put.json()), (200, json!({"rate_limits": limits})));
    assert_eq!(stored.settled("talk").await["ai_gateway"]["rate_limits"], limits);
    let body = json!({"name": "other", "rate_limits": [limits[2]]});
    let made = stored.call("POST", ENDPOINTS, body).await;
    assert_eq!(made.json()["ai_gateway"]["rate_limits"], json!([limits[2]]), "{}", made.body);
    let limits = json!([{"calls": 3, "renewal_period": "minute", "key": "user"}]);
    serve(&stored.app, "of-the-file", Fake::new(Task::Chat), limits.clone());
    assert_eq!(stored.settled("of-the-file").await["ai_gateway"]["rate_limits"], limits);
}

#[tokio::test]
async fn limits_that_cannot_be_are_refused_by_name() {
    let stored = Stored::new().await;
    stored.endpoint("talk", "chat").await;
    let minute = |more: Value| {
        let mut limit = json!({"renewal_period": "minute"});
        limit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!([limit])
    };
    let many: Vec<Value> = (0..101).map(|number| json!({"principal": number.to_string()})).collect();
    for (limits, words) in [
        (minute(json!({})), "`ai_gateway.rate_limits[0].calls` is required"),
        (minute(json!({"calls": -1})), "`ai_gateway.rate_limits[0].calls` must be a number between 0, which"),
        (minute(json!({"tokens": 1_000_000_000_001_i64})), "rate_limits[0].tokens` must be a number between 0"),
        (
            json!([{"renewal_period": "hour", "calls": 1}]),
            "rate_limits[0].renewal_period` must be `minute`, not `hour`",
        ),
        (minute(json!({"calls": 1, "key": "team"})), "`ai_gateway.rate_limits[0].key` must be"),
        (minute(json!({"calls": 1, "principal": "x"})), "`ai_gateway.rate_limits[0].principal`: not with the key"),
        (minute(json!({"calls": 1, "key": "user_group"})), "`ai_gateway.rate_limits[0].principal` is required"),
        (minute(json!({"calls": 1, "key": "service_principal"})), "`ai_gateway.rate_limits[0].principal` is required"),
        (minute(json!({"calls": 1, "key": "user", "principal": "a\0"})), "rate_limits[0].principal` must be a name"),
        (
            json!([
                {"calls": 1, "renewal_period": "minute", "key": "user", "principal": "Ann@x.org"},
                {"tokens": 1, "renewal_period": "minute", "key": "user", "principal": "ann@x.org"},
            ]),
            "`ai_gateway.rate_limits[1]`: a limit of the same `key` and `principal`",
        ),
        (
            Value::Array(
                many.iter()
                    .map(|one| {
                        json!({"calls": 1, "renewal_period": "minute", "key": "user",
                "principal": one["principal"]})
                    })
                    .collect(),
            ),
            "`ai_gateway.rate_limits` must be at most 100 limits, not 101",
        ),
    ] {
        for (path, body) in
            [("ai-gateway", json!({"rate_limits": limits})), ("rate-limits", json!({"rate_limits": limits}))]
        {
            let answer = stored.call("PUT", &format!("{ENDPOINTS}/talk/{path}"), body).await;
            assert_eq!(answer.status, 400, "{limits}: {}", answer.body);
            let message = answer.json()["message"].as_str().unwrap().to_owned();
            assert!(message.contains(words), "{message}");
        }
    }
    assert!(stored.settled("talk").await["ai_gateway"].is_null());
}

#[tokio::test]
async fn the_most_specific_limit_holds_and_a_groups_is_for_its_members_together() {
    in_one_minute().await;
    let stored = Stored::new().await;
    let endpoint = stored.endpoint("talk", "chat").await;
    let minute = |calls: i64, key: &str, principal: Option<&str>| {
        let mut limit = json!({"calls": calls, "renewal_period": "minute", "key": key});
        if let Some(principal) = principal {
            limit["principal"] = principal.into();
        }
        limit
    };
    limit(
        &stored,
        "talk",
        json!([
            minute(2, "user", None),
            minute(4, "user", Some("ann@x.org")),
            minute(3, "user_group", Some("team")),
            minute(1, "user_group", Some("small team")),
        ]),
    )
    .await;
    let mut people = Vec::new();
    for name in ["Ann@x.org", "bob@x.org", "eve@x.org", "joe@x.org"] {
        people.push(user(&stored, name, &endpoint).await);
    }
    let members =
        |people: &[&(String, String)]| -> Vec<Value> { people.iter().map(|(id, _)| json!({"value": id})).collect() };
    // Of how many calls of this one how many are admitted.
    let admitted = async |(_, token): &(String, String)| {
        let mut admitted = 0;
        while ask(&stored.app, token, "talk", json!({})).await.status == 200 {
            admitted += 1;
        }
        admitted
    };
    let [ann, bob, eve, joe] = &people[..] else { panic!("four") };
    assert_eq!(admitted(joe).await, 2, "the default, for each alone");
    // Ann is named, so that her groups do not matter; the others are in one that comes later than the limit.
    let group = |name: &str, members: Vec<Value>| json!({"displayName": name, "members": members});
    let path = "/api/2.0/preview/scim/v2/Groups";
    let team = stored.call("POST", path, group("team", members(&[ann, bob, eve]))).await.json();
    assert_eq!(admitted(ann).await, 4);
    assert_eq!(ask(&stored.app, &bob.1, "talk", json!({})).await.status, 200);
    assert_eq!(admitted(eve).await, 2, "what is left of three");
    assert_eq!(admitted(bob).await, 0);
    let refused = ask(&stored.app, &bob.1, "talk", json!({})).await.json();
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains("endpoint `talk` for the group `team` together"), "{message}");
    // In a group within the group.
    let inner = stored.call("POST", path, group("small team", members(&[joe]))).await.json();
    assert_eq!(admitted(joe).await, 1, "of the group, whatever it was by itself");
    let patch = json!({"Operations": [{"op": "add", "path": "members", "value": [{"value": inner["id"]}]}]});
    let path = format!("{path}/{}", team["id"].as_str().unwrap());
    assert_eq!(stored.call("PATCH", &path, patch).await.status, 200);
    assert_eq!(admitted(joe).await, 0);
    // Whoever is in no group any more is as everybody else, with what they have called.
    let patch = json!({"Operations": [{"op": "remove", "path": format!("members[value eq \"{}\"]", bob.0)}]});
    assert_eq!(stored.call("PATCH", &path, patch).await.status, 200);
    assert_eq!(admitted(bob).await, 2);
}

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
