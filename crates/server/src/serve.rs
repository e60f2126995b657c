//! The running server: what all handlers share, the whole router, and the life of the listener.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;

pub use crate::config::{Limits, ServeConfig, ServeSettings};
use crate::endpoints::Registry;
use crate::gate::{Access, Gate};
use crate::metrics::Metrics;
use crate::models::Models;
use crate::routes;

/// How often the metrics are folded.
const FOLD_METRICS: Duration = Duration::from_secs(5);

/// What all handlers share. A clone is the same server.
#[derive(Clone)]
pub struct App {
    inner: Arc<Inner>,
}

struct Inner {
    gate: Gate,
    models: Models,
    limits: Limits,
    metrics: Metrics,
}

impl App {
    /// A server without endpoints, whose models share the memory of `models`.
    pub fn new(access: Access, limits: Limits, models: Models) -> Self {
        let (gate, metrics) = (Gate::new(access), Metrics::of_process());
        Self { inner: Arc::new(Inner { gate, models, limits, metrics }) }
    }

    /// The models of this process, to host more.
    pub fn models(&self) -> &Models {
        &self.inner.models
    }

    /// The endpoints, to announce and to add.
    pub fn endpoints(&self) -> &Registry {
        self.inner.gate.registry()
    }

    /// The way to an endpoint.
    pub fn gate(&self) -> &Gate {
        &self.inner.gate
    }

    /// How much one request may ask for.
    pub fn limits(&self) -> Limits {
        self.inner.limits
    }

    /// The numbers about this process.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }
}

/// Every route of the server, with everything that stands around them.
pub fn router(app: App) -> Router {
    routes::router(app)
}

/// Answers on `listener` until `shutdown` is done; then lets the answers that have begun come to their end.
///
/// # Errors
/// The listener's.
pub async fn serve(
    listener: TcpListener,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let metrics = app.metrics().clone();
    let listening = axum::serve(listener, router(app)).with_graceful_shutdown(shutdown);
    let folding = async move {
        let mut ticks = tokio::time::interval(FOLD_METRICS);
        loop {
            ticks.tick().await;
            metrics.fold();
        }
    };
    tokio::select! {
        served = listening => served,
        () = folding => Ok(()),
    }
}
