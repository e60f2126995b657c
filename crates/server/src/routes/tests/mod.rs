//! The whole router against a provider that follows a script.

mod admin;
mod answers;
mod around;
mod cors;
mod fake;
mod fallback;
mod guardrails;
mod limits;
mod matrix;
mod payloads;
mod people;
mod permissions;
mod plane;
mod ranks;
mod scripted;
mod secrets;
mod serving;
mod settlements;
mod stored;
mod tokenizers;
mod tokens;
mod usage;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use self::fake::Fake;
use crate::endpoints::{Endpoint, Task};
use crate::gate::Access;
use crate::models::Models;
use crate::serve::{App, Limits, router};

const LIMITS: Limits = Limits { body: 100_000, bodies: 100_000, texts: 4, choices: 32, request_timeout: None };

/// A server for the local admin with endpoints `chat-model`, `base`, `vectors` and `ranks`.
fn app() -> App {
    app_for(Access::local())
}

fn without_endpoints(access: Access) -> App {
    App::new(access, LIMITS, Models::new(1000, false, None))
}

fn app_for(access: Access) -> App {
    let app = without_endpoints(access);
    for (name, task) in [
        ("chat-model", Task::Chat),
        ("base", Task::Completions),
        ("vectors", Task::Embeddings),
        ("ranks", Task::Rerank),
    ] {
        serve(&app, name, Fake::new(task));
    }
    app
}

fn serve(app: &App, name: &str, provider: Fake) {
    app.endpoints().insert(Endpoint::new(name, std::sync::Arc::new(provider), 1_700_000_000).unwrap()).unwrap();
}

/// A whole answer.
struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The documents of a stream, which must be nothing but `data:` events and end with `[DONE]`.
    fn events(&self) -> Vec<Value> {
        assert_eq!(self.headers["content-type"], "text/event-stream", "{}", self.body);
        let events: Vec<&str> = self.body.strip_suffix("\n\n").unwrap().split("\n\n").collect();
        let documents: Vec<&str> = events.iter().map(|event| event.strip_prefix("data: ").unwrap()).collect();
        let (done, documents) = documents.split_last().unwrap();
        assert_eq!(*done, "[DONE]");
        documents.iter().map(|document| serde_json::from_str(document).unwrap()).collect()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

async fn send(app: &App, request: Request<Body>) -> Response {
    router(app.clone()).oneshot(request).await.unwrap()
}

async fn ask(app: &App, request: Request<Body>) -> Answered {
    let (head, body) = send(app, request).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answered { status: head.status, headers: head.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

async fn get(app: &App, path: &str) -> Answered {
    ask(app, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn post(app: &App, path: &str, body: Value) -> Answered {
    ask(app, Request::post(path).body(Body::from(body.to_string())).unwrap()).await
}
