//! Tokens over the API, and the local door that they close.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use super::stored::{ADMIN, Stored, call};
use super::{Answered, ask};
use crate::gate::Access;
use crate::serve::App;

const SCIM: &str = "/api/2.0/preview/scim/v2";
const MANAGED: &str = "/api/2.0/token-management/tokens";

async fn without_token(app: &App, path: &str) -> Answered {
    ask(app, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn robot(stored: &Stored, token: &str) -> String {
    let body = json!({"displayName": "robot"});
    let made = call(&stored.app, token, "POST", &format!("{SCIM}/ServicePrincipals"), body).await.json();
    made["applicationId"].as_str().unwrap().to_owned()
}

async fn on_behalf(app: &App, token: &str, application_id: &str) -> Answered {
    let body = json!({"application_id": application_id, "comment": "for the robot", "lifetime_seconds": 600});
    call(app, token, "POST", "/api/2.0/token-management/on-behalf-of/tokens", body).await
}

fn value(answer: &Answered) -> String {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["token_value"].as_str().unwrap().to_owned()
}

fn token_id(answer: &Answered) -> String {
    answer.json()["token_info"]["token_id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_is_shown_once_and_kept_as_its_hash() {
    let stored = Stored::new().await;
    let made = stored.call("POST", "/api/2.0/token/create", json!({"comment": "laptop", "lifetime_seconds": 60})).await;
    let token = value(&made);
    let info = &made.json()["token_info"];
    assert_eq!(info["comment"], "laptop");
    assert_eq!(info["expiry_time"].as_i64().unwrap() - info["creation_time"].as_i64().unwrap(), 60_000);
    let listed = stored.call("GET", "/api/2.0/token/list", Value::Null).await;
    assert_eq!(listed.json(), json!({"token_infos": [info]}));
    let all = stored.call("GET", MANAGED, Value::Null).await;
    let one = &all.json()["token_infos"][0];
    assert_eq!(
        (&one["owner_id"], &one["created_by_id"], &one["created_by_username"]),
        (&json!(3), &json!(3), &json!("admin"))
    );
    for answer in [listed, all] {
        assert!(!answer.body.contains(&token), "{}", answer.body);
    }
    let file = std::fs::read(stored.folder.path().join("hearth.db")).unwrap();
    let log = std::fs::read(stored.folder.path().join("hearth.db-wal")).unwrap();
    for bytes in [file, log] {
        assert!(!bytes.windows(token.len()).any(|window| window == token.as_bytes()));
    }
    let forever = stored.call("POST", "/api/2.0/token/create", Value::Null).await;
    assert_eq!(forever.json()["token_info"]["expiry_time"], -1);
}

#[tokio::test]
async fn what_cannot_be_asked_of_a_token_is_refused_by_name() {
    let stored = Stored::new().await;
    let made = token_id(&stored.call("POST", "/api/2.0/token/create", json!({})).await);
    let create = "/api/2.0/token/create";
    let update = format!("/api/2.0/token/{made}");
    for (method, path, body, problem) in [
        ("POST", create, json!({"lifetime_seconds": 0}), "`lifetime_seconds` must be between 1 and 315360000, not 0"),
        ("POST", create, json!({"lifetime_seconds": 315_360_001}), "between 1 and 315360000"),
        ("POST", create, json!({"comment": "x".repeat(256)}), "`comment` must be at most 255 characters, not 256"),
        ("POST", create, json!({"scopes": ["sql"]}), "`scopes` is not supported"),
        ("POST", create, json!({"autoscope_enabled": true}), "`autoscope_enabled` is not supported"),
        ("POST", create, json!({"colour": "red"}), "unknown field `colour`"),
        ("POST", "/api/2.0/token/delete", json!({}), "the field `token_id` is required"),
        (
            "PATCH",
            &update,
            json!({"token": {"scopes": []}, "update_mask": "scopes"}),
            "`update_mask` must be `comment`, not scopes",
        ),
        ("PATCH", &update, json!({"token": {}, "update_mask": "comment"}), "the field `token.comment` is required"),
    ] {
        let refused = stored.call(method, path, body).await;
        let text = refused.json()["message"].as_str().unwrap().to_owned();
        assert!(refused.status == 400 && text.contains(problem), "{path}: {}", refused.body);
    }
    let odd = json!({"scopes": [], "autoscope_enabled": false});
    assert_eq!(stored.call("POST", create, odd).await.status, 200, "nothing is asked for there");
}

#[tokio::test]
async fn tokens_are_described_and_revoked_by_their_owner_and_by_administrators() {
    let stored = Stored::new().await;
    let application = robot(&stored, ADMIN).await;
    let made = on_behalf(&stored.app, ADMIN, &application).await;
    let (robot, id) = (value(&made), token_id(&made));
    let mine = token_id(&stored.call("POST", "/api/2.0/token/create", json!({})).await);
    let app = &stored.app;

    let masked = json!({"token": {"comment": "new", "token_id": id}, "update_mask": "comment"});
    assert_eq!(call(app, &robot, "PATCH", &format!("/api/2.0/token/{id}"), masked.clone()).await.json(), json!({}));
    let listed = call(app, &robot, "GET", "/api/2.0/token/list", Value::Null).await.json();
    assert_eq!(
        (listed["token_infos"].as_array().unwrap().len(), &listed["token_infos"][0]["comment"]),
        (1, &json!("new"))
    );
    // Somebody else's is as missing as one that is not there.
    let text = |answer: Answered, id: &str| (answer.status.as_u16(), answer.body.replace(id, "ID"));
    for (method, path, body) in
        [("PATCH", "/api/2.0/token/ID", masked.clone()), ("POST", "/api/2.0/token/delete", json!({"token_id": "ID"}))]
    {
        let ask = async |id: &str| {
            let body: Value = serde_json::from_str(&body.to_string().replace("ID", id)).unwrap();
            text(call(app, &robot, method, &path.replace("ID", id), body).await, id)
        };
        let (hidden, missing) = (ask(&mine).await, ask("0123").await);
        assert_eq!((hidden.0, &hidden), (404, &missing), "{path}");
    }
    for (method, path) in
        [("GET", MANAGED.to_owned()), ("GET", format!("{MANAGED}/{mine}")), ("DELETE", format!("{MANAGED}/{mine}"))]
    {
        assert_eq!(call(app, &robot, method, &path, Value::Null).await.json()["error_code"], "PERMISSION_DENIED");
    }
    let one = stored.call("GET", &format!("{MANAGED}/{id}"), Value::Null).await.json();
    assert_eq!(
        (&one["token_info"]["comment"], &one["token_info"]["created_by_username"]),
        (&json!("new"), &json!("admin"))
    );
    let described = stored
        .call("PATCH", &format!("{MANAGED}/{id}"), json!({"token": {"comment": "old"}, "update_mask": "comment"}))
        .await;
    assert_eq!(described.json()["comment"], "old");
    for (query, count) in [
        ("created_by_id=3", 2),
        ("created_by_username=admin", 2),
        ("created_by_username=eve", 0),
        ("created_by_id=77", 0),
    ] {
        let listed = stored.call("GET", &format!("{MANAGED}?{query}"), Value::Null).await.json();
        assert_eq!(listed["token_infos"].as_array().unwrap().len(), count, "{query}");
    }
    let other = stored.other().await;
    assert_eq!(call(app, &robot, "POST", "/api/2.0/token/delete", json!({"token_id": id})).await.json(), json!({}));
    other.control().unwrap().catch_up().await.unwrap();
    for app in [app, &other] {
        assert_eq!(call(app, &robot, "GET", "/api/2.0/token/list", Value::Null).await.status, 401);
    }
    assert_eq!(stored.call("DELETE", &format!("{MANAGED}/{mine}"), Value::Null).await.status, 200);
    assert_eq!(stored.call("GET", MANAGED, Value::Null).await.json()["token_infos"], json!([]));
}

#[tokio::test]
async fn the_first_token_is_an_administrators_and_the_last_one_opens_the_door_again() {
    let stored = Stored::with(Access::local()).await;
    let app = &stored.app;
    let me = format!("{SCIM}/Me");
    assert_eq!(without_token(app, &me).await.json()["userName"], "admin");
    let application = robot(&stored, "any").await;
    let refused = on_behalf(app, "any", &application).await;
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("no administrator would have a token"), "{}", refused.body);
    assert_eq!(without_token(app, &me).await.status, 200, "nothing was made");

    let first = call(app, "any", "POST", "/api/2.0/token/create", json!({})).await;
    let admin = value(&first);
    assert_eq!(without_token(app, &me).await.status, 401);
    assert_eq!(call(app, "any", "GET", &me, Value::Null).await.status, 401);
    let robot = value(&on_behalf(app, &admin, &application).await);
    // While others have tokens the last administrator keeps theirs.
    let revoke = json!({"token_id": token_id(&first)});
    let refused = call(app, &admin, "POST", "/api/2.0/token/delete", revoke.clone()).await;
    assert!(refused.status == 400 && refused.body.contains("nobody could administer"), "{}", refused.body);
    let own = call(app, &robot, "GET", "/api/2.0/token/list", Value::Null).await.json();
    let own = json!({"token_id": own["token_infos"][0]["token_id"]});
    assert_eq!(call(app, &robot, "POST", "/api/2.0/token/delete", own).await.status, 200);
    assert_eq!(call(app, &admin, "POST", "/api/2.0/token/delete", revoke).await.status, 200);
    assert_eq!(without_token(app, &me).await.json()["userName"], "admin");
}

/// However the last administrator would lose what makes them one: by their group, their account, or a group of groups.
#[tokio::test]
async fn the_last_administrator_with_a_token_stays_one() {
    let stored = Stored::with(Access::local()).await;
    let app = &stored.app;
    let scim = async |token: &str, method: &str, path: &str, body: Value| {
        call(app, token, method, &format!("{SCIM}/{path}"), body).await
    };
    let boss = scim("any", "POST", "ServicePrincipals", json!({"displayName": "boss"})).await.json();
    let boss_id = boss["id"].as_str().unwrap();
    let chiefs = json!({"displayName": "chiefs", "members": [{"value": boss_id}]});
    let chiefs = scim("any", "POST", "Groups", chiefs).await.json()["id"].as_str().unwrap().to_owned();
    let add = json!({"Operations": [{"op": "add", "path": "members", "value": [{"value": chiefs}]}]});
    assert_eq!(scim("any", "PATCH", "Groups/1", add).await.status, 200);
    let token = value(&on_behalf(app, "any", boss["applicationId"].as_str().unwrap()).await);
    let application = robot(&stored, &token).await;
    value(&on_behalf(app, &token, &application).await);
    let off = json!({"Operations": [{"op": "replace", "path": "active", "value": false}]});
    let leave = |id: &str| json!({"Operations": [{"op": "remove", "path": format!("members[value eq \"{id}\"]")}]});
    let one = format!("ServicePrincipals/{boss_id}");
    for (method, path, body) in [
        ("PATCH", one.as_str(), off.clone()),
        ("DELETE", &one, Value::Null),
        ("DELETE", &format!("Groups/{chiefs}"), Value::Null),
        ("PATCH", &format!("Groups/{chiefs}"), leave(boss_id)),
        ("PATCH", "Groups/1", leave(&chiefs)),
    ] {
        let refused = scim(&token, method, path, body).await;
        assert!(refused.status == 400 && refused.body.contains("nobody could administer"), "{path}: {}", refused.body);
    }
    assert_eq!(scim(&token, "GET", "Me", Value::Null).await.status, 200);
    value(&call(app, &token, "POST", "/api/2.0/token/create", json!({})).await);
    let listed = call(app, &token, "GET", MANAGED, Value::Null).await.json();
    assert_eq!(listed["token_infos"].as_array().unwrap().len(), 3);
    // With the environment's token somebody can always come in.
    let other = stored.other().await;
    assert_eq!(call(&other, ADMIN, "PATCH", &format!("{SCIM}/{one}"), off).await.status, 200);
    assert_eq!(call(&other, &token, "GET", &format!("{SCIM}/Me"), Value::Null).await.status, 401, "not active");
}

#[tokio::test]
async fn a_principal_has_only_so_many_tokens_and_expired_ones_make_room() {
    let stored = Stored::new().await;
    let control = stored.app.control().unwrap();
    let mut change = control.store().change().await.unwrap();
    for number in 0..600 {
        let wanted = crate::control::NewToken::new(format!("{number}"), Some(3600)).unwrap();
        wanted.add(&mut change, "3", "admin").await.unwrap();
    }
    control.commit(change).await.unwrap();
    let full = stored.call("POST", "/api/2.0/token/create", json!({})).await;
    let message = "a principal has at most 600 tokens: revoke one of them first";
    assert_eq!((full.status.as_u16(), full.json()), (400, json!({"error_code": "QUOTA_EXCEEDED", "message": message})));
    let short = stored.call("GET", "/api/2.0/token/list", Value::Null).await.json();
    let id = short["token_infos"][7]["token_id"].as_str().unwrap().to_owned();
    let mut change = control.store().change().await.unwrap();
    let row = change.token(&id).await.unwrap().unwrap();
    change.delete_token(&id).await.unwrap();
    change.add_token(&crate::store::TokenRow { expires: Some(1), ..row }).await.unwrap();
    control.commit(change).await.unwrap();
    value(&stored.call("POST", "/api/2.0/token/create", json!({})).await);
    assert_eq!(stored.call("GET", &format!("{MANAGED}/{id}"), Value::Null).await.status, 404, "it made room");
}
