//! How much may be asked for, whoever asks by whatever route, and what they are told who ask for more.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use super::Answered;
use super::fake::Fake;
use super::stored::{ADMIN, Stored, call};
use crate::endpoints::{Endpoint, Task};
use crate::serve::App;
use crate::store::now;
use crate::wire::serving::AiGateway;

pub(super) const ENDPOINTS: &str = "/api/2.0/serving-endpoints";

/// Waits for the next minute where this one is over soon.
pub(super) async fn in_one_minute() {
    let left = 60_000 - now().rem_euclid(60_000);
    if left < 10_000 {
        tokio::time::sleep(Duration::from_millis(u64::try_from(left).unwrap() + 10)).await;
    }
}

pub(super) async fn ask(app: &App, token: &str, endpoint: &str, more: Value) -> Answered {
    let mut body = json!({"model": endpoint, "messages": [{"role": "user", "content": "hello"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    call(app, token, "POST", "/v1/chat/completions", body).await
}

pub(super) async fn limit(stored: &Stored, endpoint: &str, limits: Value) {
    let put = stored.call("PUT", &format!("{ENDPOINTS}/{endpoint}/ai-gateway"), json!({"rate_limits": limits})).await;
    assert_eq!((put.status.as_u16(), put.json()["rate_limits"].clone()), (200, limits));
}

/// An endpoint that is made without the control plane.
pub(super) fn serve(app: &App, name: &str, provider: Fake, limits: Value) {
    let gateway: AiGateway = serde_json::from_value(json!({"rate_limits": limits})).unwrap();
    let endpoint = Endpoint::new(name, Arc::new(provider), 1).unwrap();
    app.endpoints().insert(endpoint.with_policies(app.policies(&gateway))).unwrap();
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
