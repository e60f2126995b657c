//! What it costs a request to be asked who sends it, whether they may, and to be written down; and how long calls of the control
//! plane take, with a thousand endpoints and ten thousand grants.
//!
//! `cargo bench -p hearth --bench control_plane`. The router is called in this process, without a network and with a model that
//! answers at once, so that nothing else is measured. Servers take turns, call by call.

#![expect(clippy::print_stdout, reason = "it is what a benchmark is for")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use hearth::control::{Hosting, Sources};
use hearth::endpoints::{Endpoint, Task};
use hearth::gate::{Access, Token};
use hearth::models::{Models, Source};
use hearth::providers::external::ExternalSettings;
use hearth::providers::{
    Answer, AnswerEvent, ChatCall, CompletionCall, Delta, EmbeddingCall, Embeddings, Provider, ProviderError,
    RerankCall, Scores,
};
use hearth::secrets::{KeySource, Secrets};
use hearth::serve::{App, Limits, router};
use hearth::store::{ADMINS, GrantRow, PrincipalKind, PrincipalRow, Store, StoreLocation, TokenRow, now};
use hearth::usage::{Ingest, Journal, Retention};
use hearth::wire::options::{FinishReason, Usage};
use hearth_engine::serve::Footprint;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

type Outcome<T> = Result<T, Box<dyn Error>>;

const ENDPOINTS_PATH: &str = "/api/2.0/serving-endpoints";
const ENDPOINTS: usize = 1000;
const PRINCIPALS: usize = 1000;
const GRANTS: usize = 10;
/// Calls of each server that are measured, and those before, which are not.
const CALLS: usize = 20_000;
const WARM: usize = 2000;
/// Calls of the control plane that are measured.
const CONTROL_CALLS: usize = 200;

const LIMITS: Limits = Limits { body: 1 << 20, bodies: 1 << 24, texts: 64, choices: 8, request_timeout: None };

/// A model that answers at once.
struct AtOnce;

impl Provider for AtOnce {
    fn task(&self) -> Option<Task> {
        Some(Task::Chat)
    }

    fn model_name(&self) -> &str {
        "instant"
    }

    fn chat(&self, _call: ChatCall) -> BoxFuture<'_, Result<Answer, ProviderError>> {
        let delta = Delta { text: "Hello".into(), ..Delta::default() };
        let events = [
            Ok(AnswerEvent::Delta { index: 0, delta }),
            Ok(AnswerEvent::Finished { index: 0, reason: FinishReason::Stop, usage: Usage::new(10, 1) }),
        ];
        async { Ok(Answer { choices: 1, events: stream::iter(events).boxed() }) }.boxed()
    }

    fn complete(&self, _call: CompletionCall) -> BoxFuture<'_, Result<Answer, ProviderError>> {
        refused()
    }

    fn embed(&self, _call: EmbeddingCall) -> BoxFuture<'_, Result<Embeddings, ProviderError>> {
        refused()
    }

    fn rerank(&self, _call: RerankCall) -> BoxFuture<'_, Result<Scores, ProviderError>> {
        refused()
    }
}

fn refused<T: Send + 'static>() -> BoxFuture<'static, Result<T, ProviderError>> {
    async { Err(ProviderError::WrongTask("this model only chats".into())) }.boxed()
}

impl Source for AtOnce {
    fn model_name(&self) -> &str {
        "instant"
    }

    fn footprint(&self, _offered: u64) -> Result<Footprint, String> {
        Ok(Footprint { weights: 1, ..Footprint::default() })
    }

    fn load(&self, _granted: Footprint) -> Result<Arc<dyn Provider>, String> {
        Ok(Arc::new(Self))
    }
}

impl Hosting for AtOnce {
    fn find(&self, entity_name: &str) -> Result<(String, Arc<dyn Source>), String> {
        Ok((entity_name.to_owned(), Arc::new(Self)))
    }
}

/// A server without a store, whose callers are whoever comes.
fn open_server() -> Outcome<App> {
    let app = App::new(Access::local(), LIMITS, Models::new(1000, false, None));
    app.endpoints().insert(Endpoint::new("endpoint-500", Arc::new(AtOnce), 0)?)?;
    Ok(app)
}

/// A server with a store, and somebody who may call every hundredth endpoint.
struct Governed {
    app: App,
    ingest: Ingest,
    admin: String,
    caller: String,
}

impl Governed {
    async fn new(folder: &Path) -> Outcome<Self> {
        let store = Store::open(&StoreLocation::File(folder.join("hearth.db"))).await?;
        let ingest = Ingest::new(Journal::open(&folder.join("usage"))?, store.clone(), Retention::default());
        let models = Models::new(1000, false, None);
        let secrets = Secrets::new(store, KeySource { given: None, file: folder.join("secrets.key") });
        let sources = Sources { models, hosting: Arc::new(AtOnce), external: ExternalSettings::default() };
        let app = App::with_store(Access::local(), LIMITS, secrets, sources).await?;
        let (admin, caller) = people(&app).await?;
        let governed = Self { app, ingest, admin, caller };
        governed.endpoints().await?;
        Ok(governed)
    }

    async fn endpoints(&self) -> Outcome<()> {
        let router = router(self.app.clone());
        for number in 0..ENDPOINTS {
            let entities = json!([{"name": "only", "entity_name": "instant", "scale_to_zero_enabled": false}]);
            let body = json!({"name": format!("endpoint-{number}"), "config": {"served_entities": entities}});
            let call = Call { method: "POST", path: ENDPOINTS_PATH.into(), body, token: &self.admin };
            call.answer(&router).await?;
        }
        let list = || Call { method: "GET", path: ENDPOINTS_PATH.into(), body: Value::Null, token: &self.admin };
        while String::from_utf8(list().answer(&router).await?)?.contains("IN_PROGRESS") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let control = self.app.control()?;
        let mut principals: Vec<String> = control.store().principals().await?.into_iter().map(|row| row.id).collect();
        principals.sort();
        let caller = self.principal_of(&self.caller).await?;
        let mut change = control.store().change().await?;
        for (number, endpoint) in control.store().endpoints().await?.iter().enumerate() {
            let grant = |principal_id: &String| GrantRow {
                endpoint_id: endpoint.id.clone(),
                principal_id: principal_id.clone(),
                level: "CAN_QUERY".to_owned(),
                origin: "api".to_owned(),
            };
            let mut grants: Vec<GrantRow> = (0..GRANTS - 1)
                .map(|grant| &principals[(number * 7 + grant * 101) % principals.len()])
                .map(grant)
                .collect();
            if number % 100 == 0 || endpoint.name == "endpoint-500" {
                grants.push(grant(&caller));
            }
            change.set_grants(&endpoint.id, &grants, &[]).await?;
        }
        Ok(control.commit(change).await?)
    }

    async fn principal_of(&self, token: &str) -> Outcome<String> {
        let call = Call { method: "GET", path: "/api/2.0/preview/scim/v2/Me".into(), body: Value::Null, token };
        let me: Value = serde_json::from_slice(&call.answer(&router(self.app.clone())).await?)?;
        Ok(me["id"].as_str().ok_or("an id")?.to_owned())
    }
}

/// A thousand users with a token each; gives an administrator's and another one's.
async fn people(app: &App) -> Outcome<(String, String)> {
    let control = app.control()?;
    let mut change = control.store().change().await?;
    let mut tokens = Vec::new();
    for number in 0..PRINCIPALS {
        let name = format!("user-{number}@example.com");
        let user = PrincipalRow::new(PrincipalKind::User, &name, &name);
        change.put_principal(&user).await?;
        let token = Token::random();
        let row = TokenRow {
            id: format!("token-{number}"),
            principal_id: user.id.clone(),
            hash: token.hash().to_hex(),
            comment: String::new(),
            origin: "api".into(),
            created: now(),
            created_by: name,
            expires: None,
        };
        change.add_token(&row).await?;
        if number == 0 {
            change.add_member(ADMINS, &user.id).await?;
        }
        tokens.push(token.text().to_owned());
    }
    control.commit(change).await?;
    Ok((tokens.swap_remove(0), tokens.swap_remove(PRINCIPALS / 2)))
}

/// A call that is made again and again.
struct Call<'a> {
    method: &'static str,
    path: String,
    body: Value,
    token: &'a str,
}

impl Call<'_> {
    async fn answer(&self, router: &Router) -> Outcome<Vec<u8>> {
        let body = if self.body.is_null() { Body::empty() } else { Body::from(self.body.to_string()) };
        let request = Request::builder().method(self.method).uri(&self.path);
        let request = request.header("authorization", format!("Bearer {}", self.token)).body(body)?;
        let (head, body) = router.clone().oneshot(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        if head.status != StatusCode::OK {
            return Err(
                format!("{} {}: {} {}", self.method, self.path, head.status, String::from_utf8_lossy(&body)).into()
            );
        }
        Ok(body.to_vec())
    }

    async fn timed(&self, router: &Router) -> Outcome<Duration> {
        let begun = Instant::now();
        self.answer(router).await?;
        Ok(begun.elapsed())
    }
}

fn of_hundred(times: &mut [Duration], hundredths: usize) -> f64 {
    times.sort_unstable();
    times[times.len() * hundredths / 100].as_secs_f64() * 1e6
}

/// The calls' times on each of the servers, which take turns.
async fn data_plane(servers: &[(&str, Router, &str)]) -> Outcome<()> {
    println!("| call | server | median, µs | 90 of 100 | more than the first |\n|---|---|---|---|---|");
    for streamed in [false, true] {
        let messages = json!([{"role": "user", "content": "How do I bake bread?"}]);
        let body = json!({"model": "endpoint-500", "messages": messages, "stream": streamed, "max_tokens": 1});
        let mut times = vec![Vec::new(); servers.len()];
        for number in 0..WARM + CALLS {
            for ((_, router, token), times) in servers.iter().zip(&mut times) {
                let (path, body) = ("/v1/chat/completions".to_owned(), body.clone());
                let time = Call { method: "POST", path, body, token }.timed(router).await?;
                if number >= WARM {
                    times.push(time);
                }
            }
        }
        let first = of_hundred(&mut times[0], 50);
        for ((name, ..), mut times) in servers.iter().zip(times) {
            let (median, ninety) = (of_hundred(&mut times, 50), of_hundred(&mut times, 90));
            let call = if streamed { "streamed" } else { "plain" };
            println!("| {call} | {name} | {median:.1} | {ninety:.1} | {:.1} |", median - first);
        }
    }
    Ok(())
}

async fn control_plane(governed: &Governed) -> Outcome<()> {
    let router = router(governed.app.clone());
    let (admin, caller) = (governed.admin.as_str(), governed.caller.as_str());
    let id = governed.app.control()?.store().endpoints().await?;
    let id = id.into_iter().find(|row| row.name == "endpoint-500").ok_or("the endpoint is gone")?.id;
    let permissions = format!("/api/2.0/permissions/serving-endpoints/{id}");
    let grant = json!({"access_control_list": [{"user_name": "user-7@example.com", "permission_level": "CAN_VIEW"}]});
    let of_one = |rest: &str| format!("{ENDPOINTS_PATH}/endpoint-500{rest}");
    let usage = "/api/2.0/serving/endpoint-usage";
    println!("\n| call | by | median, ms | 90 of 100 |\n|---|---|---|---|");
    for (method, path, body, token) in [
        ("GET", ENDPOINTS_PATH.to_owned(), Value::Null, admin),
        ("GET", ENDPOINTS_PATH.to_owned(), Value::Null, caller),
        ("GET", of_one(""), Value::Null, caller),
        ("GET", of_one("/metrics"), Value::Null, caller),
        ("PATCH", of_one("/tags"), json!({"add_tags": [{"key": "team", "value": "x"}]}), admin),
        ("PUT", of_one("/ai-gateway"), json!({"usage_tracking_config": {"enabled": true}}), admin),
        ("GET", permissions.clone(), Value::Null, admin),
        ("PATCH", permissions, grant, admin),
        ("GET", "/api/2.0/preview/scim/v2/Me".to_owned(), Value::Null, caller),
        ("GET", "/api/2.0/preview/scim/v2/Users?count=100".to_owned(), Value::Null, admin),
        ("GET", "/api/2.0/token-management/tokens".to_owned(), Value::Null, admin),
        ("GET", "/v1/models".to_owned(), Value::Null, caller),
        ("GET", format!("{usage}?max_results=100"), Value::Null, caller),
        ("GET", format!("{usage}?max_results=100"), Value::Null, admin),
        ("GET", format!("{usage}?group_by=endpoint"), Value::Null, admin),
    ] {
        let call = Call { method, path: path.clone(), body, token };
        let mut times = Vec::new();
        for _ in 0..CONTROL_CALLS {
            times.push(call.timed(&router).await?);
        }
        let by = if token == admin { "an administrator" } else { "a user" };
        let shown = path.replace(&id, "ID");
        let (median, ninety) = (of_hundred(&mut times, 50), of_hundred(&mut times, 90));
        println!("| {method} {shown} | {by} | {:.2} | {:.2} |", median / 1000.0, ninety / 1000.0);
    }
    Ok(())
}

async fn measure() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let governed = Governed::new(folder.path()).await?;
    println!("{ENDPOINTS} endpoints, {PRINCIPALS} principals with a token each, {} grants\n", ENDPOINTS * GRANTS);
    let tracked = governed.app.clone().with_usage(governed.ingest.clone());
    let moving = tokio::spawn({
        let ingest = governed.ingest.clone();
        async move { ingest.run().await }
    });
    let servers = [
        ("open, no store", router(open_server()?), "any"),
        ("token and permission", router(governed.app.clone()), governed.caller.as_str()),
        ("token, permission and usage", router(tracked.clone()), governed.caller.as_str()),
    ];
    data_plane(&servers).await?;
    moving.abort();
    governed.ingest.drain().await?;
    control_plane(&governed).await
}

fn main() -> Outcome<()> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(measure())
}
