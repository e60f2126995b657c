//! Stubs of other providers' APIs on loopback: each speaks its provider's wire as the provider's own client reads it,
//! refuses what the provider would refuse, and fails in the way that the name of the model asks for.
//!
//! `stub` answers; `stub--cut` and its like fail. Written from the providers' wire alone: nothing here is shared with the
//! code under test.

mod anthropic;
mod cohere;
mod openai;
mod script;
mod texts;
mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Result;
use axum::Router;
use axum::http::HeaderMap;
use axum::serve::ListenerExt;
use serde_json::Value;
use tokio::sync::oneshot;

/// The key that every stub wants.
pub const STUB_KEY: &str = "sk-stub-5f3c9a7e1b2d4c6f8a0e";
/// What Entra's stub gives for it.
pub const STUB_TOKEN: &str = "entra-token-77aa12bc90de";

/// All stubs, on one port of their own. They stop when this is dropped.
pub struct ProviderStubs {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A request that a stub has got.
#[derive(Debug, Clone)]
pub struct StubRequest {
    /// Path and query.
    pub path: String,
    /// Its head.
    pub headers: HeaderMap,
    /// Its body, if that is JSON.
    pub body: Value,
}

#[derive(Default)]
struct State {
    requests: Mutex<Vec<StubRequest>>,
    /// How often each model was asked.
    asked: Mutex<HashMap<String, usize>>,
    connections: AtomicUsize,
    /// Answers that somebody is still reading.
    open: AtomicUsize,
    /// Whether requests are answered and not kept.
    forgets: bool,
}

impl State {
    fn record(&self, request: StubRequest) {
        if self.forgets {
            return;
        }
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    }

    /// How often the model was asked before.
    fn count(&self, model: &str) -> usize {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let count = asked.entry(model.to_owned()).or_default();
        *count += 1;
        *count - 1
    }
}

impl ProviderStubs {
    /// Starts them.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub fn start() -> Result<Self> {
        Self::with(State::default())
    }

    /// Starts them for benchmarks: they keep no request.
    ///
    /// # Errors
    /// As [`ProviderStubs::start`].
    pub fn forgetful() -> Result<Self> {
        Self::with(State { forgets: true, ..State::default() })
    }

    fn with(state: State) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let state = Arc::new(state);
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let counted = Arc::clone(&served);
                let listener = listener.tap_io(move |connection| {
                    counted.connections.fetch_add(1, Ordering::SeqCst);
                    let _ = connection.set_nodelay(true);
                });
                let serving = axum::serve(listener, router(served));
                tokio::select! {
                    _ = serving => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { address, state, stop: Some(stop), thread: Some(thread) })
    }

    /// The base URL of a provider's API: `openai`, `azure`, `entra`, `anthropic`, `cohere`, `databricks` or `custom`.
    #[must_use]
    pub fn base(&self, provider: &str) -> String {
        let path = if provider == "openai" { "openai/v1" } else { provider };
        format!("http://{}/{path}", self.address)
    }

    /// `http://ADDRESS`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<StubRequest> {
        self.state.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The bodies of all requests so far.
    #[must_use]
    pub fn bodies(&self) -> Vec<Value> {
        self.requests().into_iter().map(|request| request.body).collect()
    }

    /// How many connections were made.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// How many answers are being read.
    #[must_use]
    pub fn open_answers(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }
}

impl Drop for ProviderStubs {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn router(state: Arc<State>) -> Router {
    let routes = Router::new().merge(openai::routes()).merge(texts::routes());
    routes.merge(anthropic::routes()).merge(cohere::routes()).with_state(state)
}
