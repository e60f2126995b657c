//! Secrets over the API: what each permission opens, what is refused by name, and what never shows.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Answered;
use super::stored::{ADMIN, Stored, call};
use crate::control::NewToken;
use crate::gate::{Permission, Token};
use crate::store::{GrantRow, PrincipalKind, PrincipalRow};
use crate::wire::external::SecretReference;

/// A server with a store and two users, of whom the first is in the group `team`.
struct Plane {
    stored: Stored,
    /// Tokens by name.
    tokens: Vec<(&'static str, Token)>,
}

impl Plane {
    async fn start() -> Self {
        let stored = Stored::new().await;
        let control = stored.app.control().unwrap();
        let mut change = control.store().change().await.unwrap();
        let mut tokens = Vec::new();
        for name in ["ann@x.org", "bob@x.org"] {
            let row = PrincipalRow::new(PrincipalKind::User, name, name);
            change.put_principal(&row).await.unwrap();
            let (token, _) =
                NewToken::new(String::new(), None).unwrap().add(&mut change, &row.id, "admin").await.unwrap();
            if name == "ann@x.org" {
                let team = PrincipalRow::new(PrincipalKind::Group, "team", "team");
                change.put_principal(&team).await.unwrap();
                change.set_members(&team.id, &[row.id]).await.unwrap();
            }
            tokens.push((name, token));
        }
        control.commit(change).await.unwrap();
        Self { stored, tokens }
    }

    fn token(&self, who: &str) -> &str {
        self.tokens.iter().find(|(name, _)| *name == who).map_or(ADMIN, |(_, token)| token.text())
    }

    async fn get(&self, who: &str, path: &str) -> Answered {
        call(&self.stored.app, self.token(who), "GET", &format!("/api/2.0/secrets/{path}"), Value::Null).await
    }

    async fn post(&self, who: &str, path: &str, body: Value) -> Answered {
        call(&self.stored.app, self.token(who), "POST", &format!("/api/2.0/secrets/{path}"), body).await
    }

    /// A call that is answered with `{}`.
    async fn done(&self, who: &str, path: &str, body: Value) {
        let answer = self.post(who, path, body).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({})), "{path}");
    }
}

#[tokio::test]
async fn secrets_are_put_listed_read_and_deleted() {
    let plane = Plane::start().await;
    let bytes: Vec<u8> = (0..=255).collect();
    plane.done("ann@x.org", "scopes/create", json!({"scope": "s@1"})).await;
    plane.done("ann@x.org", "put", json!({"scope": "s@1", "key": "text", "string_value": "välue"})).await;
    plane.done("ann@x.org", "put", json!({"scope": "s@1", "key": "b", "bytes_value": STANDARD.encode(&bytes)})).await;
    plane.done("ann@x.org", "put", json!({"scope": "s@1", "key": "empty", "string_value": ""})).await;
    let listed = plane.get("ann@x.org", "list?scope=s%401").await.json();
    let keys: Vec<&Value> = listed["secrets"].as_array().unwrap().iter().map(|one| &one["key"]).collect();
    assert_eq!(keys, ["b", "empty", "text"]);
    assert!(listed["secrets"][0]["last_updated_timestamp"].as_i64().unwrap() > 1_600_000_000_000);
    for (key, value) in [("text", "välue".as_bytes()), ("b", &bytes), ("empty", &[])] {
        let got = plane.get("ann@x.org", &format!("get?scope=s@1&key={key}")).await.json();
        assert_eq!(got, json!({"key": key, "value": STANDARD.encode(value)}));
    }
    plane.done("ann@x.org", "delete", json!({"scope": "s@1", "key": "b"})).await;
    let gone = plane.get("ann@x.org", "get?scope=s@1&key=b").await;
    assert_eq!((gone.status.as_u16(), &gone.json()["error_code"]), (404, &json!("RESOURCE_DOES_NOT_EXIST")));
    plane.done("ann@x.org", "scopes/delete", json!({"scope": "s@1"})).await;
    plane.done("ann@x.org", "scopes/create", json!({"scope": "s@1"})).await;
    assert_eq!(plane.get("ann@x.org", "list?scope=s@1").await.json(), json!({"secrets": []}));
    let again = plane.post("bob@x.org", "scopes/create", json!({"scope": "s@1"})).await;
    assert_eq!((again.status.as_u16(), &again.json()["error_code"]), (400, &json!("RESOURCE_ALREADY_EXISTS")));
}

/// For nobody, each permission, and through each way to one: what the caller may do, from the least to the most.
#[tokio::test]
async fn each_permission_opens_what_it_says() {
    let plane = Plane::start().await;
    let calls = [
        ("READ", "GET", "list?scope=s", json!({})),
        ("READ", "GET", "get?scope=s&key=k", json!({})),
        ("WRITE", "POST", "put", json!({"scope": "s", "key": "k", "string_value": "x"})),
        ("WRITE", "POST", "delete", json!({"scope": "s", "key": "k"})),
        ("MANAGE", "GET", "acls/list?scope=s", json!({})),
        ("MANAGE", "GET", "acls/get?scope=s&principal=admin", json!({})),
        ("MANAGE", "POST", "acls/put", json!({"scope": "s", "principal": "bob@x.org", "permission": "READ"})),
        ("MANAGE", "POST", "acls/delete", json!({"scope": "s", "principal": "bob@x.org"})),
        ("MANAGE", "POST", "scopes/delete", json!({"scope": "s"})),
    ];
    let levels = ["", "READ", "WRITE", "MANAGE"];
    for through in ["ann@x.org", "team", "users"] {
        for (held, level) in levels.iter().enumerate() {
            plane.done("admin", "scopes/create", json!({"scope": "s"})).await;
            plane.done("admin", "put", json!({"scope": "s", "key": "k", "string_value": "x"})).await;
            if held > 0 {
                let acl = json!({"scope": "s", "principal": through, "permission": level});
                plane.done("admin", "acls/put", acl).await;
            }
            let listed = plane.get("ann@x.org", "scopes/list").await.json();
            let scope = json!([{"name": "s", "backend_type": "DATABRICKS"}]);
            assert_eq!(listed["scopes"], if held > 0 { scope } else { json!([]) });
            for (needs, method, path, body) in &calls {
                let answer = match *method {
                    "GET" => plane.get("ann@x.org", path).await,
                    _ => plane.post("ann@x.org", path, body.clone()).await,
                };
                let needed = levels.iter().position(|level| level == needs).unwrap();
                let expected = if held == 0 {
                    404
                } else if held < needed {
                    403
                } else {
                    200
                };
                assert_eq!(answer.status, expected, "{through} {level} {path}: {}", answer.body);
                if expected == 403 {
                    assert_eq!(answer.json()["message"], format!("{needs} on the scope `s` is required"));
                }
            }
            let exists = plane.get("admin", "list?scope=s").await.status == 200;
            assert_eq!(exists, held < 3);
            if exists {
                plane.done("admin", "scopes/delete", json!({"scope": "s"})).await;
            }
        }
    }
}

#[tokio::test]
async fn whoever_makes_a_scope_manages_it_or_everybody_does() {
    let plane = Plane::start().await;
    plane.done("ann@x.org", "scopes/create", json!({"scope": "mine"})).await;
    let users = json!({"scope": "ours", "initial_manage_principal": "users", "scope_backend_type": "DATABRICKS"});
    plane.done("ann@x.org", "scopes/create", users).await;
    let acls = plane.get("ann@x.org", "acls/list?scope=mine").await.json();
    assert_eq!(acls, json!({"items": [{"principal": "ann@x.org", "permission": "MANAGE"}]}));
    let acls = plane.get("bob@x.org", "acls/list?scope=ours").await.json();
    assert_eq!(acls, json!({"items": [{"principal": "users", "permission": "MANAGE"}]}));
    for (who, scopes) in [("ann@x.org", 2), ("bob@x.org", 1), ("admin", 2)] {
        let listed = plane.get(who, "scopes/list").await.json();
        assert_eq!(listed["scopes"].as_array().unwrap().len(), scopes, "{who}");
    }
    // Missing and hidden are the same words.
    let hidden = plane.get("bob@x.org", "list?scope=mine").await.json();
    let missing = plane.get("bob@x.org", "list?scope=none").await.json();
    assert_eq!(hidden.to_string().replace("mine", "none"), missing.to_string());
    let acl = json!({"scope": "mine", "principal": "team", "permission": "READ"});
    plane.done("ann@x.org", "acls/put", acl.clone()).await;
    let got = plane.get("ann@x.org", "acls/get?scope=mine&principal=team").await.json();
    assert_eq!(got, json!({"principal": "team", "permission": "READ"}));
    plane.done("ann@x.org", "acls/delete", json!({"scope": "mine", "principal": "team"})).await;
    for answer in [
        plane.get("ann@x.org", "acls/get?scope=mine&principal=team").await,
        plane.post("ann@x.org", "acls/delete", json!({"scope": "mine", "principal": "team"})).await,
        plane.get("ann@x.org", "acls/get?scope=mine&principal=nobody").await,
    ] {
        assert_eq!((answer.status.as_u16(), &answer.json()["error_code"]), (404, &json!("RESOURCE_DOES_NOT_EXIST")));
    }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn what_cannot_be_is_refused_by_name_and_without_the_value() {
    let plane = Plane::start().await;
    plane.done("admin", "scopes/create", json!({"scope": "s"})).await;
    let name = "n".repeat(129);
    let put = |key: &str, more: Value| {
        let mut body = json!({"scope": "s", "key": key});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let text = json!({"string_value": "hunter2"});
    for (path, body, named) in [
        ("put", put("", text.clone()), "`key` must be 1 to 128 letters"),
        ("put", put("a b", text.clone()), "not `a b`"),
        ("put", put("a@b", text.clone()), "not `a@b`"),
        ("put", put(&name, text.clone()), "`key` must be 1 to 128"),
        ("put", put("k", json!({})), "`string_value`: it or `bytes_value` is required"),
        (
            "put",
            put("k", json!({"string_value": "hunter2", "bytes_value": "aHVudGVyMg=="})),
            "`bytes_value`: another form",
        ),
        ("put", put("k", json!({"bytes_value": "hunter2!"})), "`bytes_value`: it must be base64"),
        ("put", put("k", json!({"string_value": 2_000_002})), "`string_value`: expected a string"),
        ("put", put("k", json!({"string_value": {"hunter2": 1}})), "`string_value`: expected a string"),
        ("put", json!({"scope": "s", "string_value": "hunter2"}), "the field `key` is required"),
        ("put", put("k", json!({"string_valeu": "hunter2"})), "unknown field `string_valeu`"),
        ("scopes/create", json!({"scope": "a/b"}), "`scope` must be 1 to 128 letters"),
        ("scopes/create", json!({"scope": ".endpoints"}), "not begin with `.`"),
        ("scopes/create", json!({"scope": name}), "`scope` must be"),
        ("scopes/create", json!({"scope": "t", "initial_manage_principal": "team"}), "must be `users`"),
        (
            "scopes/create",
            json!({"scope": "t", "scope_backend_type": "AZURE_KEYVAULT"}),
            "of AZURE_KEYVAULT is not supported",
        ),
        ("scopes/create", json!({"scope": "t", "scope_backend_type": "VAULT"}), "not `VAULT`"),
        (
            "scopes/create",
            json!({"scope": "t", "backend_azure_keyvault": {"dns_name": "x"}}),
            "`backend_azure_keyvault`",
        ),
        ("acls/put", json!({"scope": "s", "principal": "team", "permission": "EDIT"}), "not `EDIT`"),
    ] {
        let answer = plane.post("admin", path, body).await;
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert_eq!(answer.status, 400, "{message}");
        assert!(message.contains(named), "{named}: {message}");
        assert!(!answer.body.contains("hunter2") && !answer.body.contains("2000002") && !answer.body.contains("aHVud"));
    }
    let nobody =
        plane.post("admin", "acls/put", json!({"scope": "s", "principal": "nobody", "permission": "READ"})).await;
    assert_eq!(
        (nobody.status.as_u16(), nobody.json()["message"].as_str()),
        (404, Some("there is no principal `nobody`"))
    );
    for (path, named) in [
        ("list", "the field `scope` is required"),
        ("list?scope=s&scope=t", "given twice"),
        ("list?scope=s&size=1", "unknown field `size`"),
        ("scopes/list?scope=s", "unknown field `scope`"),
        ("get?scope=s", "the field `key` is required"),
    ] {
        let answer = plane.get("admin", path).await;
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.body.contains(named), "{path}: {}", answer.body);
    }
    assert_eq!(plane.get("admin", "list?scope=s").await.json(), json!({"secrets": []}));
}

/// What the server keeps for itself stands in the same tables, and no call gets at it.
#[tokio::test]
async fn the_servers_own_scope_is_nobodys() {
    let plane = Plane::start().await;
    let control = plane.stored.app.control().unwrap();
    let mut change = control.store().change().await.unwrap();
    let reference = SecretReference::new(".endpoints", "e.1").unwrap();
    control.secrets().keep(&mut change, &reference, &"sk-own".into()).await.unwrap();
    control.commit(change).await.unwrap();
    assert_eq!(plane.get("admin", "scopes/list").await.json(), json!({"scopes": []}));
    for path in ["list?scope=.endpoints", "get?scope=.endpoints&key=e.1", "acls/list?scope=.endpoints"] {
        assert_eq!(plane.get("admin", path).await.status, 404, "{path}");
    }
    for (path, body) in [
        ("put", json!({"scope": ".endpoints", "key": "e.1", "string_value": "x"})),
        ("delete", json!({"scope": ".endpoints", "key": "e.1"})),
        ("scopes/delete", json!({"scope": ".endpoints"})),
        ("acls/put", json!({"scope": ".endpoints", "principal": "admin", "permission": "READ"})),
    ] {
        assert_eq!(plane.post("admin", path, body).await.status, 404, "{path}");
    }
    plane.done("admin", "scopes/create", json!({"scope": "s"})).await;
    plane.done("admin", "put", json!({"scope": "s", "key": "k", "string_value": "x"})).await;
    let directory = || plane.stored.app.gate().directory();
    let id = directory().named(PrincipalKind::User, "ann@x.org").unwrap().id.clone();
    let (ann, admin) =
        (directory().recognised(&id).unwrap(), directory().recognised(crate::store::BUILT_IN_ADMIN).unwrap());
    let refers = async |who, scope, key| {
        let reference = SecretReference::new(scope, key).unwrap();
        control.check_reference(who, &reference).await.is_ok()
    };
    assert!(refers(&admin, "s", "k").await && !refers(&admin, "s", "other").await);
    assert!(!refers(&admin, ".endpoints", "e.1").await && !refers(&ann, "s", "k").await);
}

/// An endpoint reads its credential in its maker's place: whoever may not read a secret may not name it, and what was given as
/// it is stands under a name that nobody can use.
#[tokio::test]
async fn an_endpoint_refers_to_what_its_maker_may_read() {
    let plane = Plane::start().await;
    let app = &plane.stored.app;
    plane.done("admin", "scopes/create", json!({"scope": "theirs"})).await;
    plane.done("admin", "put", json!({"scope": "theirs", "key": "k", "string_value": "sk-theirs"})).await;
    plane.done("ann@x.org", "scopes/create", json!({"scope": "mine"})).await;
    plane.done("ann@x.org", "put", json!({"scope": "mine", "key": "k", "string_value": "sk-mine"})).await;
    let config = |field: &str, key: &str| {
        let model =
            json!({"provider": "openai", "name": "gpt-4o", "task": "llm/v1/chat", "openai_config": {field: key}});
        json!({"served_entities": [{"name": "only", "external_model": model}]})
    };
    let literal = config("openai_api_key_plaintext", "sk-literal");
    let made = plane.stored.call("POST", "/api/2.0/serving-endpoints", json!({"name": "far", "config": literal})).await;
    assert!(made.status == 200 && !made.body.contains("sk-literal"), "{}", made.body);
    let view = plane.stored.settled("far").await;
    let id = view["id"].as_str().unwrap();
    let control = app.control().unwrap();
    let entity = view["config"]["served_entities"][0]["id"].as_str().unwrap();
    let kept = async |key: &str| control.secrets().open(".endpoints", key).await.unwrap().map(|value| value.to_vec());
    let key = format!("{id}.{entity}");
    assert_eq!(kept(&key).await.unwrap(), b"sk-literal");

    let ann = app.gate().directory().named(PrincipalKind::User, "ann@x.org").unwrap().id.clone();
    let (endpoint_id, level) = (id.to_owned(), Permission::CanManage.name().to_owned());
    let mut change = control.store().change().await.unwrap();
    change.set_grant(&GrantRow { endpoint_id, principal_id: ann, level, origin: "api".into() }).await.unwrap();
    control.commit(change).await.unwrap();
    let own = format!("{{{{secrets/.endpoints/{key}}}}}");
    for (reference, status) in [
        ("{{secrets/theirs/k}}", 404),
        ("{{secrets/mine/none}}", 404),
        ("{{secrets/none/k}}", 404),
        // Another address would get the credential that somebody else has given.
        (&own, 404),
        ("{{secrets/mine/k}}", 200),
    ] {
        let mut wanted = config("openai_api_key", reference);
        if reference == own {
            wanted["served_entities"][0]["external_model"]["openai_config"]["openai_api_base"] =
                "http://127.0.0.1:1".into();
        }
        let path = "/api/2.0/serving-endpoints/far/config";
        let answer = call(app, plane.token("ann@x.org"), "PUT", path, wanted).await;
        assert_eq!(answer.status, status, "{reference}: {}", answer.body);
        plane.stored.settled("far").await;
    }
    let again = plane
        .stored
        .call("PUT", "/api/2.0/serving-endpoints/far/config", config("openai_api_key_plaintext", "sk-2"))
        .await;
    assert_eq!(again.status, 200, "{}", again.body);
    let view = plane.stored.settled("far").await;
    assert_eq!(kept(&key).await, None, "what is served no more is forgotten");
    let key = format!("{id}.{}", view["config"]["served_entities"][0]["id"].as_str().unwrap());
    assert_eq!(kept(&key).await.unwrap(), b"sk-2");
    let gone = plane.stored.call("DELETE", "/api/2.0/serving-endpoints/far", Value::Null).await;
    assert_eq!(gone.status, 200, "{}", gone.body);
    assert_eq!(kept(&key).await, None);
}
