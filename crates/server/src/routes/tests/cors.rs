//! Pages of other sites: closed unless they are named.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::json;

use super::{Answered, app, app_for, ask};
use crate::gate::{Access, Origins};
use crate::serve::App;

const SITE: &str = "https://app.example.org";

async fn call(app: &App, method: Method, origin: &str, token: Option<&str>) -> Answered {
    let request = Request::builder().method(method.clone()).uri("/v1/models").header("origin", origin);
    let request = match method {
        Method::OPTIONS => request
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type,x-stainless-os"),
        _ => request,
    };
    let request = match token {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    };
    ask(app, request.body(Body::empty()).unwrap()).await
}

fn opened(access: Access) -> App {
    app_for(Access { origins: Origins::new(vec![SITE.parse().unwrap()]), ..access })
}

#[tokio::test]
async fn without_origins_no_site_is_let_in() {
    for (app, status) in [(app(), 403), (app_for(Access::token("sesame")), 401)] {
        let answer = call(&app, Method::GET, SITE, None).await;
        assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (status, None));
        let beforehand = call(&app, Method::OPTIONS, SITE, None).await;
        assert_eq!((beforehand.status.as_u16(), beforehand.header("access-control-allow-methods")), (405, None));
    }
}

#[tokio::test]
async fn a_site_that_is_named_asks_beforehand_without_a_token_and_then_needs_one() {
    let app = opened(Access::token("sesame"));
    let beforehand = call(&app, Method::OPTIONS, SITE, None).await;
    assert_eq!((beforehand.status.as_u16(), beforehand.header("access-control-allow-origin")), (200, Some(SITE)));
    let headers = beforehand.header("access-control-allow-headers");
    assert_eq!(headers, Some("authorization,content-type,x-stainless-os"));
    assert!(beforehand.header("access-control-allow-methods").is_some_and(|methods| methods.contains("POST")));
    assert_eq!(beforehand.header("access-control-allow-credentials"), None);
    for (token, status) in [(None, 401), (Some("sesame"), 200)] {
        let answer = call(&app, Method::GET, SITE, token).await;
        assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (status, Some(SITE)));
        assert!(answer.header("access-control-expose-headers").is_some_and(|names| names.contains("x-request-id")));
        assert!(answer.header("vary").is_some_and(|names| names.contains("origin")));
        assert_eq!(answer.json().get("error").is_some(), status == 401, "a page can read why");
    }
    for method in [Method::OPTIONS, Method::GET] {
        let other = call(&app, method, "https://evil.example.org", Some("sesame")).await;
        assert_eq!(other.header("access-control-allow-origin"), None);
    }
}

#[tokio::test]
async fn while_nobody_has_a_token_a_site_that_is_named_is_let_in_and_no_other() {
    let app = opened(Access::local());
    let answer = call(&app, Method::GET, SITE, None).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["object"]), (200, &json!("list")));
    assert_eq!(call(&app, Method::GET, "https://evil.example.org", None).await.status, 403);
}
