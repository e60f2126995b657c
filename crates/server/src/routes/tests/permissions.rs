//! Permissions on endpoints over the API.

use serde_json::{Value, json};

use super::stored::{ADMIN, Stored, call};
use crate::control::NewToken;
use crate::gate::Permission;
use crate::store::{GrantRow, PrincipalKind, PrincipalRow};

const BASE: &str = "/api/2.0/permissions/serving-endpoints";

/// A user with a token, and a group that they are in.
async fn ada(stored: &Stored) -> String {
    let control = stored.app.control().unwrap();
    let row = |kind, name: &str| PrincipalRow::new(kind, name, name);
    let (ada, team) = (row(PrincipalKind::User, "ada"), row(PrincipalKind::Group, "team"));
    let mut change = control.store().change().await.unwrap();
    change.put_principal(&ada).await.unwrap();
    change.put_principal(&team).await.unwrap();
    change.add_member(&team.id, &ada.id).await.unwrap();
    let (token, _) = NewToken::new(String::new(), None).unwrap().add(&mut change, &ada.id, "admin").await.unwrap();
    control.commit(change).await.unwrap();
    token.text().to_owned()
}

async fn path(stored: &Stored) -> String {
    format!("{BASE}/{}", stored.endpoint("e", "chat").await["id"].as_str().unwrap())
}

fn direct(level: &str) -> Value {
    json!([{"permission_level": level, "inherited": false}])
}

fn list(entries: &[(&str, &str, &str)]) -> Value {
    let entry = |(kind, name, level): &(&str, &str, &str)| json!({*kind: name, "permission_level": level});
    json!({"access_control_list": entries.iter().map(entry).collect::<Vec<_>>()})
}

#[tokio::test]
async fn grants_are_merged_replaced_and_shown_with_what_is_inherited() {
    let stored = Stored::new().await;
    let (path, ada) = (path(&stored).await, ada(&stored).await);
    let inherited = json!({
        "permission_level": "CAN_MANAGE", "inherited": true, "inherited_from_object": ["/serving-endpoints/"]
    });
    let admins = json!({"group_name": "admins", "all_permissions": [inherited]});
    let maker = json!({"user_name": "admin", "display_name": "admin", "all_permissions": direct("CAN_MANAGE")});
    let shown = stored.call("GET", &path, Value::Null).await.json();
    assert_eq!(shown["object_id"], path.replace("/api/2.0/permissions", ""));
    assert_eq!(
        (&shown["object_type"], &shown["access_control_list"]),
        (&json!("serving-endpoint"), &json!([admins, maker]))
    );

    let body = list(&[("user_name", "ada", "CAN_VIEW"), ("group_name", "team", "CAN_QUERY")]);
    let merged = stored.call("PATCH", &path, body).await.json();
    let user = json!({"user_name": "ada", "display_name": "ada", "all_permissions": direct("CAN_VIEW")});
    let team = json!({"group_name": "team", "all_permissions": direct("CAN_QUERY")});
    assert_eq!(merged["access_control_list"], json!([admins, user, maker, team]));
    assert_eq!(stored.call("GET", &path, Value::Null).await.json(), merged);
    let other = stored.other().await;
    assert_eq!(call(&other, ADMIN, "GET", &path, Value::Null).await.json(), merged);
    let say = json!({"model": "e", "messages": [{"role": "user", "content": "x"}]});
    assert_eq!(call(&stored.app, &ada, "POST", "/v1/chat/completions", say.clone()).await.status, 200);

    let replaced = stored
        .call("PUT", &path, list(&[("user_name", "ada", "CAN_VIEW"), ("group_name", "admins", "CAN_VIEW")]))
        .await;
    let own = json!({"group_name": "admins", "all_permissions": [direct("CAN_VIEW")[0], inherited]});
    assert_eq!(replaced.json()["access_control_list"], json!([own, user]));
    assert_eq!(call(&stored.app, &ada, "POST", "/v1/chat/completions", say).await.status, 403);
    for nothing in [json!({}), Value::Null] {
        let emptied = stored.call("PUT", &path, nothing).await.json();
        assert_eq!(emptied["access_control_list"], json!([admins]), "administrators keep theirs");
    }
    let levels = stored.call("GET", &format!("{path}/permissionLevels"), Value::Null).await.json();
    let levels: Vec<&str> = levels["permission_levels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["permission_level"].as_str().unwrap())
        .collect();
    assert_eq!(levels, ["CAN_VIEW", "CAN_QUERY", "CAN_MANAGE"]);
}

#[tokio::test]
async fn whoever_manages_changes_permissions_and_others_do_not_learn_of_the_endpoint() {
    let stored = Stored::new().await;
    let (path, ada) = (path(&stored).await, ada(&stored).await);
    let id = path.rsplit('/').next().unwrap();
    let ask = async |method: &str, path: &str| {
        let body = if method == "GET" { Value::Null } else { json!({}) };
        call(&stored.app, &ada, method, path, body).await
    };
    let routes = [("GET", ""), ("PUT", ""), ("PATCH", ""), ("GET", "/permissionLevels")];
    for (method, rest) in routes {
        let missing = "0123456789abcdef0123456789abcdef";
        let hidden = ask(method, &format!("{path}{rest}")).await;
        let absent = ask(method, &format!("{BASE}/{missing}{rest}")).await;
        assert_eq!((hidden.status.as_u16(), &hidden.json()["error_code"]), (404, &json!("RESOURCE_DOES_NOT_EXIST")));
        assert_eq!((hidden.status, hidden.body.replace(id, missing)), (absent.status, absent.body), "{method} {rest}");
    }
    for (level, expected) in [("CAN_VIEW", [403, 403, 403, 200]), ("CAN_QUERY", [403, 403, 403, 200])] {
        stored.call("PATCH", &path, list(&[("user_name", "ada", level)])).await;
        for ((method, rest), status) in routes.into_iter().zip(expected) {
            let answer = ask(method, &format!("{path}{rest}")).await;
            assert_eq!(answer.status, status, "{level} {method} {rest}: {}", answer.body);
            assert!(status == 200 || answer.json()["error_code"] == "PERMISSION_DENIED");
        }
    }
    stored.call("PATCH", &path, list(&[("user_name", "ada", "CAN_MANAGE")])).await;
    assert_eq!(ask("GET", &path).await.status, 200);
    // Whoever manages may give that away; administrators are still there.
    let given = call(&stored.app, &ada, "PUT", &path, list(&[("group_name", "users", "CAN_VIEW")])).await;
    assert_eq!(given.status, 200, "{}", given.body);
    assert_eq!(ask("GET", &path).await.status, 403);
    assert_eq!(stored.call("GET", &path, Value::Null).await.status, 200);
}

#[tokio::test]
async fn what_cannot_be_granted_is_refused_and_changes_nothing() {
    let stored = Stored::new().await;
    let path = path(&stored).await;
    ada(&stored).await;
    let good = json!({"user_name": "ada", "permission_level": "CAN_QUERY"});
    for (bad, status, problem) in [
        (json!({"user_name": "eve", "permission_level": "CAN_VIEW"}), 404, "there is no user `eve`"),
        (json!({"group_name": "ada", "permission_level": "CAN_VIEW"}), 404, "there is no group `ada`"),
        (
            json!({"service_principal_name": "s", "permission_level": "CAN_VIEW"}),
            404,
            "there is no service principal `s`",
        ),
        (
            json!({"group_name": "team", "permission_level": "CAN_EDIT"}),
            400,
            "`access_control_list[1].permission_level` must be",
        ),
        (json!({"permission_level": "CAN_VIEW"}), 400, "`access_control_list[1]`: exactly one of"),
        (json!({"user_name": "ada", "group_name": "team", "permission_level": "CAN_VIEW"}), 400, "exactly one of"),
        (
            json!({"user_name": "ada", "permission_level": "CAN_VIEW"}),
            400,
            "`access_control_list[1]`: `ada` is named twice",
        ),
        (json!({"user_name": "ada"}), 400, "the field `access_control_list[1].permission_level` is required"),
        (json!({"user": "ada", "permission_level": "CAN_VIEW"}), 400, "unknown field `access_control_list[1].user`"),
    ] {
        for method in ["PUT", "PATCH"] {
            let refused = stored.call(method, &path, json!({"access_control_list": [good, bad]})).await;
            let answer = refused.json();
            let text = answer["message"].as_str().unwrap();
            assert!(refused.status == status && text.contains(problem), "{bad}: {}", refused.body);
            assert!(status == 400 || answer["error_code"] == "RESOURCE_DOES_NOT_EXIST");
        }
    }
    let left = stored.call("GET", &path, Value::Null).await;
    assert!(!left.body.contains("ada"), "{}", left.body);
}

#[tokio::test]
async fn what_the_configuration_file_grants_is_changed_there() {
    let stored = Stored::new().await;
    let path = path(&stored).await;
    ada(&stored).await;
    let control = stored.app.control().unwrap();
    let principal_id = stored.app.gate().directory().named(PrincipalKind::User, "ada").unwrap().id.clone();
    let (endpoint_id, level) = (path.rsplit('/').next().unwrap().to_owned(), Permission::CanQuery.name().to_owned());
    let mut change = control.store().change().await.unwrap();
    change.set_grant(&GrantRow { endpoint_id, principal_id, level, origin: "config".into() }).await.unwrap();
    control.commit(change).await.unwrap();
    let refused = stored.call("PATCH", &path, list(&[("user_name", "ada", "CAN_MANAGE")])).await;
    let text = "the configuration file grants `ada` CAN_QUERY, and is the place to change that";
    assert_eq!((refused.status.as_u16(), &refused.json()["message"]), (400, &json!(text)));
    // What was got can be sent back, and what is left out stays.
    assert_eq!(stored.call("PUT", &path, list(&[("user_name", "ada", "CAN_QUERY")])).await.status, 200);
    let kept = stored.call("PUT", &path, json!({})).await.json();
    assert_eq!(kept["access_control_list"][1]["user_name"], "ada");
}
