//! Users, groups and service principals over SCIM, as Databricks' clients ask for them.

use serde_json::{Value, json};

use super::Answered;
use super::stored::{ADMIN, Stored, call};
use crate::store::{PrincipalKind, PrincipalRow, Store};

const SCIM: &str = "/api/2.0/preview/scim/v2";

async fn scim(stored: &Stored, method: &str, path: &str, body: Value) -> Answered {
    stored.call(method, &format!("{SCIM}/{path}"), body).await
}

async fn created(stored: &Stored, folder: &str, body: Value) -> Value {
    let answer = scim(stored, "POST", folder, body).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.json()
}

fn id(resource: &Value) -> &str {
    resource["id"].as_str().unwrap()
}

async fn user(stored: &Stored, name: &str) -> String {
    id(&created(stored, "Users", json!({"userName": name})).await).to_owned()
}

async fn group(stored: &Stored, name: &str, members: &[&str]) -> String {
    let members: Vec<Value> = members.iter().map(|id| json!({"value": id})).collect();
    id(&created(stored, "Groups", json!({"displayName": name, "members": members})).await).to_owned()
}

/// The ids of the members of a group, as another process on the store sees them.
async fn members(stored: &Stored, group: &str) -> Vec<String> {
    let seen = call(&stored.other().await, ADMIN, "GET", &format!("{SCIM}/Groups/{group}"), Value::Null).await.json();
    let ids = seen["members"].as_array().unwrap().iter().map(|one| one["value"].as_str().unwrap().to_owned());
    ids.collect()
}

#[tokio::test]
async fn what_is_said_of_a_user_is_kept_and_answered() {
    let stored = Stored::new().await;
    let body = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": "ada@example.com", "displayName": "Ada",
        "active": true, "externalId": "x-1", "name": {"givenName": "Ada", "familyName": "Lovelace"},
        "emails": [{"value": "ada@example.org", "primary": true, "type": "work"}],
        "entitlements": [{"value": "workspace-access"}], "roles": [{"value": "r"}]
    });
    let made = created(&stored, "Users", body.clone()).await;
    for (name, value) in body.as_object().unwrap() {
        assert_eq!(made[name], *value, "{name}");
    }
    assert!(id(&made).parse::<i64>().is_ok());
    assert_eq!(made["groups"], json!([{"value": "2", "display": "users", "type": "direct", "$ref": "Groups/2"}]));
    assert_eq!(scim(&stored, "GET", &format!("Users/{}", id(&made)), Value::Null).await.json(), made);
    let other = stored.other().await;
    let seen = call(&other, ADMIN, "GET", &format!("{SCIM}/Users/{}", id(&made)), Value::Null).await;
    assert_eq!(seen.json(), made, "another process on the store");
    // The whole of it can be sent back.
    let again = scim(&stored, "PUT", &format!("Users/{}", id(&made)), made.clone()).await;
    assert_eq!((again.status.as_u16(), again.json()), (200, made));
}

#[tokio::test]
async fn what_is_left_out_of_a_user_has_a_sense() {
    let stored = Stored::new().await;
    let made =
        created(&stored, "Users", json!({"userName": "b@x.org", "name": {"givenName": "B", "familyName": "C"}})).await;
    assert_eq!((&made["displayName"], &made["active"]), (&json!("B C"), &json!(true)));
    assert_eq!(made["emails"], json!([{"value": "b@x.org", "primary": true, "type": "work"}]));
    let path = format!("Users/{}", id(&made));
    scim(&stored, "PATCH", &path, patch(json!({"op": "replace", "path": "active", "value": "false"}))).await;
    let replaced = scim(&stored, "PUT", &path, json!({"userName": "b@x.org", "displayName": "Bee"})).await.json();
    assert_eq!(replaced["active"], false, "who was put out stays out");
    assert_eq!((&replaced["displayName"], replaced.get("name")), (&json!("Bee"), None));
    let robot = created(&stored, "ServicePrincipals", json!({"displayName": "robot"})).await;
    assert_eq!(robot["applicationId"].as_str().unwrap().len(), 36);
    assert_eq!(robot["entitlements"], json!([]));
    let none = scim(&stored, "DELETE", &path, Value::Null).await;
    assert_eq!((none.status.as_u16(), none.body.as_str()), (204, ""));
    assert_eq!(scim(&stored, "GET", &path, Value::Null).await.json()["error_code"], "RESOURCE_DOES_NOT_EXIST");
}

fn patch(operation: Value) -> Value {
    json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [operation]})
}

#[tokio::test]
async fn lists_go_page_by_page_to_an_empty_one() {
    let stored = Stored::new().await;
    for number in 0..7 {
        user(&stored, &format!("user{number}@x.org")).await;
    }
    let mut names = Vec::new();
    let mut start = 1;
    loop {
        let page = scim(&stored, "GET", &format!("Users?startIndex={start}&count=3"), Value::Null).await.json();
        let resources = page["Resources"].as_array().unwrap();
        assert_eq!((&page["totalResults"], &page["startIndex"]), (&json!(8), &json!(start)));
        assert_eq!(page["itemsPerPage"], resources.len());
        if resources.is_empty() {
            break;
        }
        names.extend(resources.iter().map(|one| one["userName"].clone()));
        start += resources.len();
    }
    let expected: Vec<Value> =
        ["admin".into()].into_iter().chain((0..7).map(|n| format!("user{n}@x.org").into())).collect();
    assert_eq!(names.len(), 8);
    assert!(expected.iter().all(|name| names.contains(name)), "{names:?}");
    let all =
        scim(&stored, "GET", "Users?startIndex=1&count=10000&sortBy=userName&sortOrder=descending", Value::Null).await;
    let first = &all.json()["Resources"][0]["userName"];
    assert_eq!(
        (first, scim(&stored, "GET", "Users?count=0", Value::Null).await.json()["Resources"].clone()),
        (&json!("user6@x.org"), json!([]))
    );
}

#[tokio::test]
async fn filters_and_attributes_say_what_is_answered() {
    let stored = Stored::new().await;
    let ada = user(&stored, "ada@example.com").await;
    user(&stored, "bob@example.org").await;
    let team = group(&stored, "team", &[&ada]).await;
    for (path, found) in [
        ("Users?filter=userName+eq+%22ADA%40example.com%22", 1),
        ("Users?filter=userName+eq+ada%40example.com", 1),
        ("Users?filter=userName+co+%22example%22", 2),
        ("Users?filter=userName+sw+%22ada%22+or+emails+ew+%22.org%22", 2),
        ("Users?filter=not+(userName+co+%22example%22)", 1),
        ("Users?filter=name.givenName+pr", 0),
        ("Groups?filter=displayName+eq+%22team%22", 1),
        (&format!("Groups?filter=members+eq+%22{ada}%22"), 1),
        (&format!("Users?filter=groups.value+eq+%22{team}%22"), 1),
        ("Users?filter=groups.display+eq+%22users%22", 3),
    ] {
        let listed = scim(&stored, "GET", path, Value::Null).await;
        assert_eq!(listed.json()["totalResults"], found, "{path}: {}", listed.body);
    }
    let path = format!("Users/{ada}?attributes=userName,emails.value");
    let some = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "id": ada, "userName": "ada@example.com",
        "emails": [{"value": "ada@example.com"}]
    });
    assert_eq!(scim(&stored, "GET", &path, Value::Null).await.json(), some);
    let listed = scim(&stored, "GET", "Groups?excludedAttributes=members,meta", Value::Null).await.json();
    assert!(listed["Resources"].as_array().unwrap().iter().all(|one| one.get("members").is_none()), "{listed}");
    for (path, problem) in [
        ("Users?filter=shoeSize+eq+4", "`filter`: there is no attribute `shoeSize`"),
        ("Users?filter=userName+gt+%22a%22", "not `gt`"),
        ("Groups?filter=userName+pr", "there is no attribute `userName`"),
        ("Users?sortBy=shoeSize", "`sortBy`"),
        ("Users?sortOrder=up", "`sortOrder` must be `ascending` or `descending`, not up"),
        ("Users?startIndex=one", "`startIndex` must be a whole number, not one"),
        ("Users?attributes=shoeSize", "`attributes`: no user"),
        ("Users?colour=red", "unknown field `colour`"),
        ("Users?count=1&count=2", "`count`: given twice"),
    ] {
        let refused = scim(&stored, "GET", path, Value::Null).await;
        let text = refused.json()["message"].as_str().unwrap().to_owned();
        assert!(refused.status == 400 && text.contains(problem), "{path}: {}", refused.body);
    }
}

#[tokio::test]
async fn groups_change_by_patches_and_hold_other_groups_but_never_themselves() {
    let stored = Stored::new().await;
    let (ada, bob) = (user(&stored, "ada").await, user(&stored, "bob").await);
    let inner = group(&stored, "inner", &[&ada]).await;
    let outer = group(&stored, "outer", &[&inner]).await;
    let add = patch(json!({"op": "add", "value": {"members": [{"value": bob}]}}));
    let patched = scim(&stored, "PATCH", &format!("Groups/{inner}"), add.clone()).await.json();
    assert_eq!(patched["members"].as_array().unwrap().len(), 2);
    assert_eq!(members(&stored, &inner).await.len(), 2);
    let shown = json!({"value": inner, "display": "inner", "type": "direct", "$ref": format!("Groups/{inner}")});
    let bob_now = scim(&stored, "GET", &format!("Users/{bob}"), Value::Null).await.json();
    assert_eq!(bob_now["groups"][0], shown);
    let remove = patch(json!({"op": "remove", "path": format!("members[value eq \"{bob}\"]")}));
    scim(&stored, "PATCH", &format!("Groups/{inner}"), remove).await;
    assert_eq!(members(&stored, &inner).await, std::slice::from_ref(&ada));
    let rename = patch(json!({"op": "replace", "path": "displayName", "value": "core"}));
    assert_eq!(scim(&stored, "PATCH", &format!("Groups/{inner}"), rename).await.json()["displayName"], "core");
    let emptied = scim(&stored, "PUT", &format!("Groups/{inner}"), json!({"displayName": "core"})).await.json();
    assert_eq!(emptied["members"], json!([]));

    for (group, member) in [(&inner, &outer), (&inner, &inner)] {
        let circle = patch(json!({"op": "add", "path": "members", "value": [{"value": member}]}));
        let refused = scim(&stored, "PATCH", &format!("Groups/{group}"), circle).await;
        assert!(refused.status == 400 && refused.body.contains("it would be in itself"), "{}", refused.body);
    }
    for member in ["1", "2"] {
        let built_in = patch(json!({"op": "add", "path": "members", "value": [{"value": member}]}));
        let refused = scim(&stored, "PATCH", &format!("Groups/{outer}"), built_in).await;
        assert!(refused.status == 400 && refused.body.contains("are in no other group"), "{}", refused.body);
    }
    let stranger = patch(json!({"op": "add", "path": "members", "value": [{"value": "12345"}]}));
    let missing = scim(&stored, "PATCH", &format!("Groups/{outer}"), stranger).await;
    let expected = json!({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "there is no principal `12345`"});
    assert_eq!((missing.status.as_u16(), missing.json()), (404, expected));
}

#[tokio::test]
async fn users_are_made_in_groups_and_changed_through_them() {
    let stored = Stored::new().await;
    let team = group(&stored, "team", &[]).await;
    let ada = created(&stored, "Users", json!({"userName": "ada", "groups": [{"value": team}]})).await;
    assert_eq!(members(&stored, &team).await, [id(&ada)]);
    let path = format!("Users/{}", id(&ada));
    let out = scim(&stored, "PATCH", &path, patch(json!({"op": "remove", "path": "groups"}))).await;
    assert!(out.status == 400 && out.body.contains("through the `members` of the group"), "{}", out.body);
    let nowhere = scim(&stored, "POST", "Users", json!({"userName": "bob", "groups": [{"value": "77"}]})).await;
    assert_eq!((nowhere.status.as_u16(), nowhere.json()["message"].clone()), (404, json!("there is no group `77`")));
    assert_eq!(scim(&stored, "GET", "Users?filter=userName+eq+bob", Value::Null).await.json()["totalResults"], 0);
}

#[tokio::test]
async fn what_is_built_in_or_declared_elsewhere_stays_as_it_is() {
    let stored = Stored::new().await;
    let declared = PrincipalRow { origin: "config".into(), ..PrincipalRow::new(PrincipalKind::Group, "file", "file") };
    let control = stored.app.control().unwrap();
    let mut change = control.store().change().await.unwrap();
    change.put_principal(&declared).await.unwrap();
    control.commit(change).await.unwrap();
    let file = format!("Groups/{}", declared.id);
    let everybody = json!({"op": "add", "path": "members", "value": [{"value": "3"}]});
    let operation = |operation: Value| patch(operation);
    for (method, path, body, problem) in [
        ("DELETE", "Groups/1", Value::Null, "the group `admins` is built in and cannot be removed"),
        ("DELETE", "Groups/2", Value::Null, "the group `users` is built in and cannot be removed"),
        ("DELETE", "Users/3", Value::Null, "the user `admin` is built in and cannot be removed"),
        ("DELETE", &file, Value::Null, "the group `file` is declared in the configuration file, and is changed there"),
        ("PATCH", &file, operation(everybody.clone()), "is declared in the configuration file"),
        ("PATCH", "Groups/2", operation(everybody), "everybody is in the group `users`"),
        ("PUT", "Groups/1", json!({"displayName": "root", "members": [{"value": "3"}]}), "keeps its name"),
        ("PUT", "Groups/1", json!({"displayName": "admins"}), "stays in the group `admins`"),
        ("PUT", "Users/3", json!({"userName": "root"}), "keeps its name"),
        ("PUT", "Users/3", json!({"active": false}), "stays active"),
    ] {
        let refused = scim(&stored, method, path, body).await;
        let text = refused.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(refused.status == 400 && text.contains(problem), "{method} {path}: {}", refused.body);
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let stored = Stored::new().await;
    let ada = user(&stored, "ada").await;
    group(&stored, "team", &[]).await;
    let long = "x".repeat(256);
    for (method, path, body, problem) in [
        ("POST", "Users", json!({"userName": "ada"}), "ada"),
        ("POST", "Groups", json!({"displayName": "team"}), "team"),
        ("POST", "Users", json!({"displayName": "Ada"}), "the field `userName` is required"),
        ("POST", "Groups", json!({}), "the field `displayName` is required"),
        ("POST", "Users", json!({"userName": ""}), "`userName` must be a text that is not empty"),
        ("POST", "Users", json!({"userName": "a\nb"}), "`userName` must be a text without control characters"),
        ("POST", "Users", json!({"userName": long}), "`userName` must be at most 255 characters, not 256"),
        ("POST", "Users", json!({"userName": "b", "id": "7"}), "`id`: the server chooses it"),
        ("POST", "Users", json!({"userName": "b", "nickName": "c"}), "unknown field `nickName`"),
        ("POST", "Users", json!({"userName": "b", "members": []}), "unknown field `members`"),
        ("POST", "Groups", json!({"displayName": "b", "active": true}), "unknown field `active`"),
        ("POST", "ServicePrincipals", json!({"applicationId": "7"}), "`applicationId` must be a UUID"),
        ("POST", "Users", json!({"userName": "b", "schemas": ["urn:x"]}), "`schemas` must be"),
        ("POST", "Users", json!({"userName": "b", "active": "yes"}), "expected true or false"),
        (
            "POST",
            "Users",
            json!({"userName": "b", "emails": [{"type": "work"}]}),
            "the field `emails[0].value` is required",
        ),
        (
            "POST",
            "Users",
            json!({"userName": "b", "roles": vec![json!({"value": "r"}); 101]}),
            "at most 100 values, not 101",
        ),
        ("PUT", &format!("Users/{ada}"), json!({"userName": "eve"}), "the name of a user stays"),
        ("PUT", &format!("Users/{ada}"), json!({"id": "7", "userName": "ada"}), "stays so, not `7`"),
        ("PATCH", &format!("Users/{ada}"), json!({"Operations": [], "schemas": ["urn:x"]}), "`schemas` must be"),
        ("PATCH", &format!("Users/{ada}"), json!({}), "the field `Operations` is required"),
    ] {
        let refused = scim(&stored, method, path, body).await;
        let answer = refused.json();
        let text = answer["message"].as_str().unwrap();
        assert!(refused.status == 400 && text.contains(problem), "{method} {path} {problem}: {}", refused.body);
        assert_eq!(answer["error_code"] == "RESOURCE_ALREADY_EXISTS", problem == "ada" || problem == "team");
    }
    let renamed = scim(&stored, "PUT", "Groups/1", json!({"displayName": "team", "members": [{"value": "3"}]})).await;
    assert_eq!(renamed.status, 400);
    let two = group(&stored, "two", &[]).await;
    let taken = scim(&stored, "PUT", &format!("Groups/{two}"), json!({"displayName": "team"})).await;
    assert_eq!(taken.json()["error_code"], "RESOURCE_ALREADY_EXISTS", "{}", taken.body);
    for folder in ["Users", "Groups", "ServicePrincipals"] {
        for method in ["GET", "PUT", "PATCH", "DELETE"] {
            let body = if method == "PATCH" { patch(json!({"op": "add", "value": {}})) } else { json!({}) };
            let missing = scim(&stored, method, &format!("{folder}/99"), body).await;
            assert_eq!(missing.json()["error_code"], "RESOURCE_DOES_NOT_EXIST", "{method} {folder}");
        }
    }
}

#[tokio::test]
async fn whoever_is_known_learns_who_they_are() {
    let stored = Stored::new().await;
    let me = scim(&stored, "GET", "Me", Value::Null).await;
    assert_eq!((me.status.as_u16(), me.header("x-databricks-org-id")), (200, Some("1")));
    let groups: Vec<Value> = me.json()["groups"].as_array().unwrap().iter().map(|one| one["display"].clone()).collect();
    assert_eq!((&me.json()["userName"], groups), (&json!("admin"), vec![json!("admins"), json!("users")]));
    let short = scim(&stored, "GET", "Me?attributes=userName", Value::Null).await.json();
    assert_eq!(short.as_object().unwrap().len(), 3);
}

/// Nothing that is somebody's is left when they go, here and in every process on the store.
#[tokio::test]
async fn whoever_goes_takes_tokens_memberships_and_grants_along() {
    let stored = Stored::new().await;
    let endpoint = stored.endpoint("e", "chat").await["id"].as_str().unwrap().to_owned();
    let robot = created(&stored, "ServicePrincipals", json!({"displayName": "robot"})).await;
    let team = group(&stored, "team", &[id(&robot)]).await;
    let application = &robot["applicationId"];
    let on_behalf = "/api/2.0/token-management/on-behalf-of/tokens";
    let token = stored.call("POST", on_behalf, json!({"application_id": application})).await.json();
    let token = token["token_value"].as_str().unwrap().to_owned();
    let path = format!("/api/2.0/permissions/serving-endpoints/{endpoint}");
    let list = json!([
        {"service_principal_name": application, "permission_level": "CAN_QUERY"},
        {"group_name": "team", "permission_level": "CAN_VIEW"}
    ]);
    assert_eq!(stored.call("PATCH", &path, json!({"access_control_list": list})).await.status, 200);
    let other = stored.other().await;
    assert_eq!(call(&other, &token, "GET", &format!("{SCIM}/Me"), Value::Null).await.json()["id"], robot["id"]);
    assert_eq!(scim(&stored, "DELETE", &format!("ServicePrincipals/{}", id(&robot)), Value::Null).await.status, 204);
    assert_eq!(scim(&stored, "DELETE", &format!("Groups/{team}"), Value::Null).await.status, 204);
    other.control().unwrap().catch_up().await.unwrap();
    for app in [&stored.app, &other] {
        assert_eq!(call(app, &token, "GET", &format!("{SCIM}/Me"), Value::Null).await.status, 401);
        let left = call(app, ADMIN, "GET", &path, Value::Null).await.json();
        assert_eq!(left["access_control_list"].as_array().unwrap().len(), 2, "admins and who made it: {left}");
        let tokens = call(app, ADMIN, "GET", "/api/2.0/token-management/tokens", Value::Null).await.json();
        assert_eq!(tokens["token_infos"], json!([]));
    }
    let store = Store::temporary(stored.folder.path()).await;
    assert!(store.tokens().await.unwrap().is_empty());
    assert!(store.grants(Some(&endpoint)).await.unwrap().iter().all(|grant| grant.principal_id == "3"));
    assert_eq!(store.members(None).await.unwrap(), [("1".to_owned(), "3".to_owned())]);
}
