//! A server with a store, whose hosted models are scripts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hearth_engine::serve::Footprint;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::fake::{Fake, Script};
use super::{Answered, LIMITS, ask, scripted};
use crate::control::{Hosting, Sources};
use crate::endpoints::Task;
use crate::gate::Access;
use crate::models::{Models, Source};
use crate::providers::Provider;
use crate::providers::external::ExternalSettings;
use crate::secrets::Secrets;
use crate::serve::App;

/// The administrator's token.
pub(super) const ADMIN: &str = "sesame";

/// A server with a store of its own.
pub(super) struct Stored {
    pub(super) app: App,
    pub(super) folder: TempDir,
    /// Set when somebody lets go of an answer of the model `hanging`.
    pub(super) gone: Arc<AtomicBool>,
}

impl Stored {
    /// With [`ADMIN`]'s token.
    pub(super) async fn new() -> Self {
        Self::with(Access::token(ADMIN)).await
    }

    pub(super) async fn with(access: Access) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let gone = Arc::new(AtomicBool::new(false));
        let app = open(folder.path(), access, &gone).await;
        Self { app, folder, gone }
    }

    /// Another process on the same store.
    pub(super) async fn other(&self) -> App {
        open(self.folder.path(), Access::token(ADMIN), &self.gone).await
    }

    /// Sends a request with [`ADMIN`]'s token.
    pub(super) async fn call(&self, method: &str, path: &str, body: Value) -> Answered {
        call(&self.app, ADMIN, method, path, body).await
    }

    /// Makes an endpoint of one entity and waits until it answers.
    pub(super) async fn endpoint(&self, name: &str, model: &str) -> Value {
        let config = json!({"served_entities": [{"name": "only", "entity_name": model}]});
        let made = self.call("POST", "/api/2.0/serving-endpoints", json!({"name": name, "config": config})).await;
        assert_eq!(made.status, 200, "{}", made.body);
        self.settled(name).await
    }

    /// The endpoint once nothing is being changed.
    pub(super) async fn settled(&self, name: &str) -> Value {
        settled(&self.app, name).await
    }
}

/// The endpoint once nothing is being changed.
pub(super) async fn settled(app: &App, name: &str) -> Value {
    for _ in 0..1000 {
        let view = call(app, ADMIN, "GET", &format!("/api/2.0/serving-endpoints/{name}"), Value::Null).await.json();
        if view["state"]["config_update"] != "IN_PROGRESS" {
            return view;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("endpoint {name} does not come up");
}

/// Sends a request with a token; a body of null is none.
pub(super) async fn call(app: &App, token: &str, method: &str, path: &str, body: Value) -> Answered {
    let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {token}"));
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    ask(app, request.body(body).unwrap()).await
}

async fn open(folder: &std::path::Path, access: Access, gone: &Arc<AtomicBool>) -> App {
    let secrets = Secrets::temporary(folder).await;
    let hosting = Arc::new(Scripts(Arc::clone(gone)));
    let sources = Sources { models: Models::new(1000, false, None), hosting, external: ExternalSettings::default() };
    App::with_store(access, LIMITS, secrets, sources).await.unwrap()
}

/// Models by what they are to do: `chat`, `vectors`, `hanging`, `broken`, `huge`, and those of [`scripted`].
struct Scripts(Arc<AtomicBool>);

impl Hosting for Scripts {
    fn find(&self, entity_name: &str) -> Result<(String, Arc<dyn Source>), String> {
        let name = entity_name.strip_prefix("system.ai.").unwrap_or(entity_name);
        let known = ["chat", "vectors", "hanging", "broken", "huge"].contains(&name) || scripted::model(name).is_some();
        if !known {
            return Err(format!("unknown model {entity_name:?}"));
        }
        Ok((name.to_owned(), Arc::new(Scripted { name: name.to_owned(), gone: Arc::clone(&self.0) })))
    }
}

struct Scripted {
    name: String,
    gone: Arc<AtomicBool>,
}

impl Source for Scripted {
    fn model_name(&self) -> &str {
        &self.name
    }

    fn footprint(&self, _offered: u64) -> Result<Footprint, String> {
        let weights = if self.name == "huge" { 1001 } else { 100 };
        Ok(Footprint { weights, ..Footprint::default() })
    }

    fn load(&self, _granted: Footprint) -> Result<Arc<dyn Provider>, String> {
        match self.name.as_str() {
            "broken" => Err("the file is broken".into()),
            "vectors" => Ok(Arc::new(Fake::new(Task::Embeddings))),
            "hanging" => Ok(Arc::new(Fake::with(Script::Hang(Arc::clone(&self.gone))))),
            name => Ok(match scripted::model(name) {
                Some(model) => Arc::new(model),
                None => Arc::new(Fake::new(Task::Chat)),
            }),
        }
    }
}

/// Whether the answer of the model `hanging` was let go.
pub(super) fn was_let_go(stored: &Stored) -> bool {
    stored.gone.load(Ordering::SeqCst)
}
