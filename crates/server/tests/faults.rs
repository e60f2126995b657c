//! Failing, hanging and full models behind the real router: what callers are told, what the log says, and that the server goes
//! on.

use std::io::Write;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use hearth::endpoints::Endpoint;
use hearth::models::Models;
use hearth::providers::local::LocalProvider;
use hearth::serve::{App, ServeSettings, router};
use hearth_engine::serve::{LoadOptions, LoadedModel, load};
use hearth_tests::{Fault, Faults, checkpoint, options, wait_until_idle};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

/// A server with one model that fails on command.
struct Server {
    app: App,
    model: LoadedModel,
    faults: Faults,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| self.body.clone())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Server {
    fn start(tiny: &str, request_timeout: Duration, options: LoadOptions) -> Result<Self> {
        let state = Some("nowhere".into());
        let config = ServeSettings { request_timeout, state, ..ServeSettings::default() }.check()?;
        let (app, faults) = (App::new(config.access, config.limits, Models::new(0, false, None)), Faults::default());
        let options = LoadOptions { decorate: Some(faults.decorator()), label: Some("talker".to_owned()), ..options };
        let model = load(&checkpoint(tiny), &options)?;
        app.endpoints().insert(Endpoint::new("talker", Arc::new(LocalProvider::new(model.clone())), 0)?)?;
        Ok(Self { app, model, faults })
    }

    async fn send(&self, request: Request<Body>) -> Result<Answer> {
        let (head, body) = router(self.app.clone()).oneshot(request).await?.into_parts();
        let body = String::from_utf8(body.collect().await?.to_bytes().into())?;
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send(Request::post(path).body(Body::from(body.to_string()))?).await
    }

    async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Request::get(path).body(Body::empty())?).await
    }

    async fn complete(&self, max_tokens: usize, more: Value) -> Result<Answer> {
        self.post("/v1/completions", &asked(max_tokens, more)).await
    }

    async fn wait_for(&self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<()> {
        let begun = Instant::now();
        while !holds(self) {
            if begun.elapsed() > Duration::from_secs(20) {
                bail!("waited in vain for {what}");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// After whatever happened: nothing is held, and an answer comes.
    async fn check_it_goes_on(&self) -> Result<()> {
        wait_until_idle(|| self.model.load()).await?;
        self.faults.slow_down(Duration::ZERO);
        let answer = self.complete(3, json!({})).await?;
        assert_eq!((answer.status, &answer.json()?["usage"]["completion_tokens"]), (200, &json!(3)));
        assert_eq!(self.get("/health/ready").await?.status, 200);
        Ok(())
    }
}

fn asked(max_tokens: usize, more: Value) -> Value {
    let mut body = json!({"model": "talker", "prompt": "rain", "max_tokens": max_tokens, "ignore_eos": true});
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    body
}

const LONG: Duration = Duration::from_secs(600);

/// What is logged, by all tests of this program.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The caller gets the request's id and not the cause; the log has both in one line.
#[tokio::test]
async fn a_failure_is_a_500_whose_id_is_in_the_log_beside_the_cause() -> Result<()> {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let server = Server::start("llama-linear-f32", LONG, options())?;
    for (number, path) in ["/v1/completions", "/serving-endpoints/completions"].into_iter().enumerate() {
        server.faults.set(Fault::StepPanic);
        let id = format!("request-{number}");
        let request = Request::post(path).header("x-request-id", &id);
        let answer = server.send(request.body(Body::from(asked(5, json!({})).to_string()))?).await?;
        assert_eq!((answer.status, answer.header("x-request-id")), (500, Some(id.as_str())));
        assert!(!answer.body.contains("as commanded"), "{}", answer.body);
        let log = log.text();
        let together = |line: &str| line.contains(&id) && line.contains("a panic as commanded");
        assert!(log.lines().any(together), "{log}");
    }
    server.faults.set(Fault::StepError);
    let answer = server.complete(5, json!({})).await?;
    assert!(answer.status == 500 && answer.header("x-request-id").is_some(), "an id is made where none is sent");
    server.check_it_goes_on().await
}

#[tokio::test]
async fn a_failure_within_a_stream_is_an_event() -> Result<()> {
    let server = Server::start("llama-linear-f32", LONG, options())?;
    server.faults.slow_down(Duration::from_millis(5));
    let streaming = server.complete(400, json!({"stream": true}));
    let failing = async {
        server.wait_for("tokens", |server| server.faults.steps() > 20).await?;
        server.faults.set(Fault::StepPanic);
        anyhow::Ok(())
    };
    let (answer, failing) = tokio::join!(streaming, failing);
    failing?;
    let answer = answer?;
    assert_eq!(answer.status, 200);
    let last = answer.body.lines().filter_map(|line| line.strip_prefix("data: ")).next_back().context("an event")?;
    assert_eq!(serde_json::from_str::<Value>(last)?["error"]["type"], "server_error", "{last}");
    server.check_it_goes_on().await
}

/// 504 for an answer that was begun, 503 and when to try again for one whose turn never came, an event within a stream.
#[tokio::test]
async fn a_deadline_ends_what_runs_and_what_waits() -> Result<()> {
    let options = LoadOptions { max_sequences: 1, ..options() };
    let server = Server::start("llama-linear-f32", Duration::from_millis(500), options)?;
    // The first does not end before the time of both is over, so that the second's turn never comes.
    let (release, hang) = channel();
    server.faults.set(Fault::Hang(hang));
    let late = |stream: bool| server.complete(450, json!({"stream": stream}));
    let waiting = async {
        server.wait_for("the first", |server| server.faults.steps() == 1).await?;
        server.post("/serving-endpoints/completions", &asked(450, json!({}))).await
    };
    let (running, waiting) = tokio::join!(late(false), waiting);
    let (running, waiting) = (running?, waiting?);
    release.send(())?;
    server.faults.slow_down(Duration::from_millis(10));
    assert_eq!((running.status, &running.json()?["error"]["type"]), (504, &json!("timeout_error")));
    assert_eq!((waiting.status, waiting.header("retry-after")), (503, Some("2")), "{}", waiting.body);
    assert_eq!(waiting.json()?["error_code"], "TEMPORARILY_UNAVAILABLE");
    let streamed = late(true).await?;
    assert_eq!(streamed.status, 200);
    assert!(streamed.body.contains("timeout_error"), "{}", streamed.body);
    let numbers = server.get("/metrics").await?.body;
    for name in ["queue_seconds", "inter_token_seconds", "step_seconds", "step_tokens", "request_seconds"] {
        assert!(numbers.contains(&format!("hearth_{name}_bucket{{model=\"talker\"")), "{name}: {numbers}");
    }
    assert!(numbers.contains("hearth_requests_finished_total{model=\"talker\",reason=\"deadline\"}"), "{numbers}");
    server.check_it_goes_on().await
}

/// Choices are taken all or none, and what does not fit into the queue is refused at once.
#[tokio::test]
async fn a_full_queue_refuses_at_once() -> Result<()> {
    let options = LoadOptions { max_sequences: 1, queue: 2, ..options() };
    let server = Server::start("llama-linear-f32", LONG, options)?;
    let (release, hang) = channel();
    server.faults.set(Fault::Hang(hang));
    let running = server.complete(3, json!({}));
    let refused = async {
        server.wait_for("the step", |server| !server.faults.is_armed()).await?;
        let three = server.complete(3, json!({"n": 3, "temperature": 1.0})).await?;
        assert_eq!((three.status, three.header("retry-after")), (429, Some("1")), "{}", three.body);
        let four = server.complete(3, json!({"n": 4, "temperature": 1.0})).await?;
        assert_eq!((four.status, &four.json()?["error"]["param"]), (400, &json!("n")), "it never fits");
        drop(release);
        anyhow::Ok(())
    };
    let (running, refused) = tokio::join!(running, refused);
    refused?;
    assert_eq!(running?.status, 200);
    server.check_it_goes_on().await
}

#[tokio::test]
async fn a_step_that_does_not_end_drops_readiness() -> Result<()> {
    let options = LoadOptions { step_timeout: Some(Duration::from_millis(50)), ..options() };
    let server = Server::start("llama-linear-f32", LONG, options)?;
    server.check_it_goes_on().await?;
    let (release, hang) = channel();
    server.faults.set(Fault::Hang(hang));
    let running = server.complete(3, json!({}));
    let refused = async {
        server.wait_for("the stall", |server| !server.app.endpoints().unready().is_empty()).await?;
        let ready = server.get("/health/ready").await?;
        assert_eq!((ready.status, &ready.json()?["endpoints"]), (503, &json!(["talker"])));
        assert_eq!(server.get("/health/live").await?.status, 200);
        let new = server.complete(3, json!({})).await?;
        assert_eq!((new.status, new.header("retry-after")), (503, Some("2")), "{}", new.body);
        drop(release);
        anyhow::Ok(())
    };
    let (running, refused) = tokio::join!(running, refused);
    refused?;
    assert_eq!(running?.status, 200, "what was in hand is answered after all");
    server.check_it_goes_on().await
}

#[tokio::test]
async fn an_encoder_fails_and_goes_on() -> Result<()> {
    let server = Server::start("bert-mean", LONG, options())?;
    let body = json!({"model": "talker", "input": ["rain", "hills"]});
    for fault in [Fault::StepPanic, Fault::NotANumber] {
        server.faults.set(fault);
        let answer = server.post("/v1/embeddings", &body).await?;
        assert_eq!((answer.status, &answer.json()?["error"]["code"]), (500, &json!("internal_error")));
        assert_eq!(server.post("/v1/embeddings", &body).await?.status, 200);
    }
    wait_until_idle(|| server.model.load()).await
}
