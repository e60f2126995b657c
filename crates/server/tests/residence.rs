//! Models that are unloaded while they answer, behind the real router: slowed down, so that their answers are still running
//! when something happens to them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::body::Body;
use axum::http::Request;
use hearth::endpoints::Endpoint;
use hearth::models::{HostedModel, ModelState, Models, Residence, Source};
use hearth::providers::Provider;
use hearth::providers::local::LocalProvider;
use hearth::serve::{App, ServeSettings, router};
use hearth_engine::serve::{Footprint, LoadOptions, Needs, load};
use hearth_tests::{Faults, checkpoint, options};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

const PATIENCE: Duration = Duration::from_secs(120);
const TINY: &str = "llama-linear-f32";

/// A tiny model whose steps can be slowed down.
struct Slow {
    options: LoadOptions,
}

impl Source for Slow {
    fn model_name(&self) -> &str {
        TINY
    }

    fn footprint(&self, _offered: u64) -> Result<Footprint, String> {
        let needs = Needs::of_files(TINY, &checkpoint(TINY).path).map_err(|error| error.to_string())?;
        Ok(needs.footprint(&self.options))
    }

    fn load(&self, granted: Footprint) -> Result<Arc<dyn Provider>, String> {
        let options = LoadOptions { memory: Some(granted.total()), ..self.options.clone() };
        let loaded = load(&checkpoint(TINY), &options).map_err(|error| error.to_string())?;
        Ok(Arc::new(LocalProvider::new(loaded)))
    }
}

/// A server whose memory holds one of its two models.
struct Server {
    app: App,
    faults: Faults,
    first: HostedModel,
    second: HostedModel,
}

impl Server {
    fn start() -> Result<Self> {
        let config = ServeSettings { state: Some("nowhere".into()), ..ServeSettings::default() }.check()?;
        let faults = Faults::default();
        let source = Arc::new(Slow { options: LoadOptions { decorate: Some(faults.decorator()), ..options() } });
        let needed = source.footprint(0).map_err(anyhow::Error::msg)?.total();
        let app = App::new(config.access, config.limits, Models::new(needed + needed / 2, false, None));
        let host = |name: &str| -> Result<HostedModel> {
            let hosted = app.models().host(name, Arc::clone(&source) as Arc<dyn Source>, Residence::OnDemand);
            app.endpoints().insert(Endpoint::new(name, Arc::new(hosted.clone()), 0)?)?;
            Ok(hosted)
        };
        let (first, second) = (host("first")?, host("second")?);
        Ok(Self { app, faults, first, second })
    }

    /// Status, the header that says when to try again, and body.
    async fn post(&self, path: &str, body: Value) -> Result<(u16, bool, String)> {
        let request = Request::post(path).body(Body::from(body.to_string()))?;
        let (head, body) = router(self.app.clone()).oneshot(request).await?.into_parts();
        let body = String::from_utf8(body.collect().await?.to_bytes().into())?;
        Ok((head.status.as_u16(), head.headers.contains_key("retry-after"), body))
    }

    async fn complete(&self, name: &str, tokens: usize, stream: bool) -> Result<(u16, bool, String)> {
        let body = json!({"model": name, "prompt": "rain", "max_tokens": tokens, "ignore_eos": true, "stream": stream});
        self.post("/v1/completions", body).await
    }

    async fn wait_for(&self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<()> {
        let begun = Instant::now();
        while !holds(self) {
            ensure!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Done when `first` is in the middle of an answer.
    async fn running(&self) -> Result<()> {
        self.wait_for("an answer to begin", |server| {
            Provider::load(&server.first).is_some_and(|load| load.running > 0) && server.faults.steps() > 2
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_in_use_makes_no_room_and_is_unloaded_after_its_answers() -> Result<()> {
    let server = Server::start()?;
    server.faults.slow_down(Duration::from_millis(10));
    let meanwhile = async {
        server.running().await?;
        let (status, again, refused) = server.complete("second", 1, false).await?;
        assert_eq!((status, again), (503, true), "{refused}");
        assert!(refused.contains("available beside models that are in use"), "{refused}");
        let unloading = server.post("/admin/models/first/unload", json!({}));
        let late = async {
            server.wait_for("the unloading", |server| server.first.status().state == ModelState::Unloading).await?;
            assert_eq!(server.first.status().requests, 1);
            server.complete("first", 1, false).await
        };
        let (unloaded, late) = tokio::join!(unloading, late);
        let (late, unloaded) = (late?, unloaded?);
        assert_eq!((late.0, late.1, unloaded.0), (503, true, 200), "{} {}", late.2, unloaded.2);
        anyhow::Ok(())
    };
    let (answer, meanwhile) = tokio::join!(server.complete("first", 60, true), meanwhile);
    meanwhile?;
    let (status, _, answer) = answer?;
    assert_eq!(status, 200);
    assert!(answer.contains("\"finish_reason\":\"length\"") && answer.ends_with("data: [DONE]\n\n"), "{answer}");
    assert_eq!((server.first.status().state, server.app.models().memory().0), (ModelState::Unloaded, 0));
    server.faults.slow_down(Duration::ZERO);
    for name in ["second", "first"] {
        assert_eq!(server.complete(name, 3, false).await?.0, 200, "{name}");
    }
    assert_eq!(server.second.status().state, ModelState::Unloaded);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn force_ends_answers_at_once_and_says_so() -> Result<()> {
    let server = Server::start()?;
    server.faults.slow_down(Duration::from_millis(20));
    let meanwhile = async {
        server.running().await?;
        server.post("/admin/models/first/unload", json!({"force": true})).await
    };
    let stream = server.complete("first", 100, true);
    let plain = server.complete("first", 100, false);
    let (stream, plain, unloaded) = tokio::join!(stream, plain, meanwhile);
    let (stream, plain, unloaded) = (stream?, plain?, unloaded?);
    let state: Value = serde_json::from_str(&unloaded.2).context("JSON")?;
    assert_eq!((unloaded.0, &state["state"], &state["requests"]), (200, &json!("unloaded"), &json!(0)));
    assert!(stream.2.contains("the model of endpoint `first` was unloaded"), "{}", stream.2);
    assert!(!stream.2.contains("\"finish_reason\":\"length\""), "{}", stream.2);
    assert_eq!((plain.0, plain.1), (503, true), "{}", plain.2);
    server.faults.slow_down(Duration::ZERO);
    assert_eq!(server.complete("first", 3, false).await?.0, 200, "it comes back");
    Ok(())
}
