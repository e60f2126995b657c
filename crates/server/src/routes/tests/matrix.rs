//! Every route of the table, called as everybody: who is let in is what the route says it takes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::routes;
use super::super::table::{Needs, Route};
use super::stored::{ADMIN, Stored, call};
use super::{Answered, ask};
use crate::gate::{Permission, Token};
use crate::store::{ADMINS, GrantRow, PrincipalKind, PrincipalRow, TokenRow, USERS, now};

/// Somebody, and what they may do with the endpoint `target`.
struct Somebody {
    name: String,
    /// What they send; `None`: nothing.
    token: Option<String>,
    known: bool,
    admin: bool,
    level: Option<Permission>,
}

/// How a level comes to somebody.
#[derive(Clone, Copy, PartialEq)]
enum Through {
    Own,
    Group,
    /// A group that is a member of another one.
    Groups,
}

/// Everybody: each kind of principal with each level, by each way; and those who are not let in at all.
async fn everybody(stored: &Stored) -> Vec<Somebody> {
    let stranger = |name: &str, token: Option<&str>| Somebody {
        name: name.to_owned(),
        token: token.map(str::to_owned),
        known: false,
        admin: false,
        level: None,
    };
    let mut all = vec![stranger("nobody", None), stranger("a guesser", Some("guess"))];
    let levels: Vec<Option<Permission>> = [None].into_iter().chain(Permission::ALL.map(Some)).collect();
    for kind in [PrincipalKind::User, PrincipalKind::ServicePrincipal] {
        for level in &levels {
            let ways =
                if level.is_none() { &[Through::Own][..] } else { &[Through::Own, Through::Group, Through::Groups] };
            for through in ways {
                all.push(somebody(stored, kind, *level, *through).await);
            }
        }
    }
    all.push(administrator(stored).await);
    let expired = TokenTerms { expires: Some(now() - 1), active: true };
    all.push(Somebody { known: false, ..with_token(stored, "expired", expired).await });
    let retired = TokenTerms { expires: None, active: false };
    all.push(Somebody { known: false, ..with_token(stored, "not active", retired).await });
    all
}

struct TokenTerms {
    expires: Option<i64>,
    active: bool,
}

/// A user who manages the endpoint, were the token good.
async fn with_token(stored: &Stored, name: &str, terms: TokenTerms) -> Somebody {
    let user = PrincipalRow { active: terms.active, ..PrincipalRow::new(PrincipalKind::User, name, name) };
    let token = add(stored, &user, &[], terms.expires).await;
    grant(stored, &user.id, Permission::CanManage).await;
    Somebody { name: name.to_owned(), token: Some(token), known: true, admin: false, level: None }
}

async fn administrator(stored: &Stored) -> Somebody {
    let user = PrincipalRow::new(PrincipalKind::User, "administrator", "administrator");
    let token = add(stored, &user, &[ADMINS], None).await;
    let level = Some(Permission::CanManage);
    Somebody { name: "administrator".into(), token: Some(token), known: true, admin: true, level }
}

async fn somebody(stored: &Stored, kind: PrincipalKind, level: Option<Permission>, through: Through) -> Somebody {
    let way = ["own", "group", "groups"][through as usize];
    let name = format!("{}-{}-{way}", kind.name(), level.map_or("none", Permission::name));
    let row = PrincipalRow::new(kind, &name, &name);
    let mut holder = row.id.clone();
    let mut groups = Vec::new();
    if through != Through::Own {
        groups.push(group(stored, &format!("g-{name}"), &[]).await);
        holder = groups[0].clone();
    }
    if through == Through::Groups {
        holder = group(stored, &format!("gg-{name}"), &[holder]).await;
    }
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let token = add(stored, &row, &groups, None).await;
    if let Some(level) = level {
        grant(stored, &holder, level).await;
    }
    Somebody { name, token: Some(token), known: true, admin: false, level }
}

async fn group(stored: &Stored, name: &str, members: &[String]) -> String {
    let row = PrincipalRow::new(PrincipalKind::Group, name, name);
    let control = stored.app.control().unwrap();
    let mut change = control.store().change().await.unwrap();
    change.put_principal(&row).await.unwrap();
    change.set_members(&row.id, members).await.unwrap();
    control.commit(change).await.unwrap();
    row.id
}

/// Adds a principal as another member of those groups, with a token.
async fn add(stored: &Stored, row: &PrincipalRow, groups: &[&str], expires: Option<i64>) -> String {
    let control = stored.app.control().unwrap();
    let mut change = control.store().change().await.unwrap();
    change.put_principal(row).await.unwrap();
    for group in groups {
        let mut members: Vec<String> =
            stored.app.gate().directory().members(group).iter().map(|id| id.to_string()).collect();
        members.push(row.id.clone());
        change.set_members(group, &members).await.unwrap();
    }
    let token = Token::random();
    let (id, hash) = (format!("t-{}", row.id), token.hash().to_hex());
    let token_row = TokenRow {
        id,
        principal_id: row.id.clone(),
        hash,
        comment: String::new(),
        origin: "api".into(),
        created: now(),
        created_by: "admin".into(),
        expires,
    };
    change.add_token(&token_row).await.unwrap();
    control.commit(change).await.unwrap();
    token.text().to_owned()
}

async fn grant(stored: &Stored, principal: &str, level: Permission) {
    let id = stored.settled("target").await["id"].as_str().unwrap().to_owned();
    let control = stored.app.control().unwrap();
    let mut change = control.store().change().await.unwrap();
    let (principal_id, level) = (principal.to_owned(), level.name().to_owned());
    let row = GrantRow { endpoint_id: id, principal_id, level, origin: "api".into() };
    change.set_grant(&row).await.unwrap();
    control.commit(change).await.unwrap();
}

/// Fills the path in, so that it names `target` where it names an endpoint.
fn path(route: &Route, id: &str) -> String {
    let by_id = route.path.starts_with("/api/2.0/permissions/");
    let path = route.path.replace("{name}", "target").replace("{model}", "only");
    let path = if by_id || !route.path.ends_with("/models/{id}") { path } else { path.replace("{id}", "target") };
    let path = path.replace("{id}", if by_id { id } else { "17" });
    // Whatever else is named does not exist.
    let path =
        path.split('/').map(|part| if part.starts_with('{') { "17" } else { part }).collect::<Vec<_>>().join("/");
    if path.ends_with("/tokenizer_info") { path + "?model=target" } else { path }
}

/// What a caller is told, as far as it tells who may.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Outcome {
    Unknown,
    Forbidden,
    Hidden,
    /// Let in, whatever came of it.
    In,
}

fn outcome(answer: &Answered) -> Outcome {
    match answer.status.as_u16() {
        401 => Outcome::Unknown,
        403 => Outcome::Forbidden,
        404 if answer.body.contains("given endpoint does not exist") => Outcome::Hidden,
        _ => Outcome::In,
    }
}

fn expected(needs: Needs, who: &Somebody) -> Outcome {
    match needs {
        Needs::Nothing => Outcome::In,
        _ if !who.known => Outcome::Unknown,
        Needs::Caller => Outcome::In,
        Needs::Admin if who.admin => Outcome::In,
        Needs::Admin => Outcome::Forbidden,
        Needs::Level(wanted) => match who.level {
            None => Outcome::Hidden,
            Some(level) if level < wanted => Outcome::Forbidden,
            Some(_) => Outcome::In,
        },
        // No scope of secrets is there, so whoever asks learns that alone.
        Needs::Scope => Outcome::In,
    }
}

async fn ask_as(stored: &Stored, who: &Somebody, route: &Route, path: &str) -> Answered {
    let body = if route.method == "GET" { Value::Null } else { json!({"model": "target"}) };
    match &who.token {
        Some(token) => call(&stored.app, token, route.method, path, body).await,
        None => {
            let request = axum::http::Request::builder().method(route.method).uri(path);
            ask(&stored.app, request.body(axum::body::Body::from(body.to_string())).unwrap()).await
        }
    }
}

fn removes(route: &Route) -> bool {
    route.method == "DELETE" && route.path == "/api/2.0/serving-endpoints/{name}"
}

#[tokio::test]
async fn every_route_lets_in_whom_it_says_and_nobody_else() {
    let stored = Stored::new().await;
    stored.endpoint("target", "chat").await;
    let everybody = everybody(&stored).await;
    let mut faults = BTreeMap::new();
    let id = stored.settled("target").await["id"].as_str().unwrap().to_owned();
    let mut all = routes();
    // The last that is let in removes the endpoint.
    all.sort_by_key(removes);
    for route in all {
        for who in &everybody {
            if removes(&route) && who.level == Some(Permission::CanManage) && !who.admin {
                continue;
            }
            let answer = ask_as(&stored, who, &route, &path(&route, &id)).await;
            let (found, wanted) = (outcome(&answer), expected(route.needs, who));
            if found != wanted {
                let fault = format!("{found:?}, not {wanted:?}: {} {}", answer.status, answer.body);
                faults.insert(format!("{} {} as {}", route.method, route.path, who.name), fault);
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// What is hidden is refused in the words for what is not there.
#[tokio::test]
async fn hidden_and_missing_endpoints_are_told_alike() {
    let stored = Stored::new().await;
    stored.endpoint("target", "chat").await;
    let who = somebody(&stored, PrincipalKind::User, None, Through::Own).await;
    let token = who.token.unwrap();
    for (method, path, body) in [
        ("POST", "/v1/chat/completions", json!({"model": "NAME", "messages": [{"role": "user", "content": "x"}]})),
        ("POST", "/serving-endpoints/NAME/invocations", json!({"prompt": "x"})),
        ("GET", "/v1/models/NAME", Value::Null),
        ("GET", "/api/2.0/serving-endpoints/NAME", Value::Null),
        ("DELETE", "/api/2.0/serving-endpoints/NAME", Value::Null),
        ("POST", "/admin/models/NAME/unload", json!({})),
    ] {
        let told = async |name: &str| {
            let body = serde_json::from_str(&body.to_string().replace("NAME", name)).unwrap();
            let answer = call(&stored.app, &token, method, &path.replace("NAME", name), body).await;
            (answer.status, answer.body.replace(name, "NAME"))
        };
        assert_eq!(told("target").await, told("nothing").await, "{method} {path}");
    }
    for list in ["/v1/models", "/api/2.0/serving-endpoints", "/admin/models", "/metrics"] {
        let listed = call(&stored.app, &token, "GET", list, Value::Null).await;
        assert!(listed.status == 200 && !listed.body.contains("target"), "{list}: {}", listed.body);
    }
    // What everybody is granted, this one is too.
    grant(&stored, USERS, Permission::CanView).await;
    let listed = call(&stored.app, &token, "GET", "/v1/models", Value::Null).await;
    assert!(listed.body.contains("target"), "{}", listed.body);
    assert_eq!(call(&stored.app, ADMIN, "GET", "/v1/models", Value::Null).await.status, 200);
}
