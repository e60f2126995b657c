//! The running server: what all handlers share, the whole router, and the life of the listener.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;

pub use crate::config::{ConnectionLimits, Limits, ServeConfig, ServeSettings};
use crate::connections::{self, Listener};
use crate::control::{ControlPlane, Sources};
use crate::endpoints::Registry;
use crate::error::{ApiError, ErrorKind};
use crate::gate::{Access, Directory, Gate};
use crate::life::Life;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::policy::{Policies, limits};
use crate::room::Room;
use crate::routes;
use crate::secrets::Secrets;
use crate::store::StoreError;
use crate::usage::{Ingest, UsageLog};
use crate::wire::serving::AiGateway;

/// How often the metrics are folded.
const FOLD_METRICS: Duration = Duration::from_secs(5);

/// What all handlers share. A clone is the same server.
#[derive(Clone)]
pub struct App {
    inner: Arc<Inner>,
}

struct Inner {
    gate: Arc<Gate>,
    control: Option<ControlPlane>,
    models: Models,
    limits: Limits,
    bodies: Room,
    metrics: Metrics,
    life: Life,
    usage: UsageLog,
    ingest: Option<Ingest>,
}

impl App {
    /// A server without endpoints and without a store, whose models share the memory of `models`.
    pub fn new(access: Access, limits: Limits, models: Models) -> Self {
        let gate = Arc::new(Gate::new(access, Directory::built_in()));
        Self::of_parts(gate, None, None, limits, models)
    }

    /// A server with what is in the store that `secrets` are in.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn with_store(
        access: Access,
        limits: Limits,
        secrets: Secrets,
        sources: Sources,
    ) -> Result<Self, StoreError> {
        let counters = limits::Counters::open(secrets.store()).await?;
        let gate = Arc::new(Gate::new(access, Directory::default()).with_counters(counters));
        let models = sources.models.clone();
        let control = ControlPlane::new(secrets, Arc::clone(&gate), sources);
        control.catch_up().await?;
        Ok(Self::of_parts(gate, Some(control), None, limits, models))
    }

    /// The same server, which writes down who uses what.
    pub fn with_usage(self, ingest: Ingest) -> Self {
        let Inner { gate, control, models, limits, .. } = &*self.inner;
        Self::of_parts(Arc::clone(gate), control.clone(), Some(ingest), *limits, models.clone())
    }

    fn of_parts(
        gate: Arc<Gate>,
        control: Option<ControlPlane>,
        ingest: Option<Ingest>,
        limits: Limits,
        models: Models,
    ) -> Self {
        let (metrics, life, bodies) = (Metrics::of_process(), Life::default(), Room::new(limits.bodies));
        let usage = ingest.as_ref().map(Ingest::log).unwrap_or_default();
        Self { inner: Arc::new(Inner { gate, control, models, limits, bodies, metrics, life, usage, ingest }) }
    }

    /// The control plane.
    ///
    /// # Errors
    /// 501 where the server has no store.
    pub fn control(&self) -> Result<&ControlPlane, ApiError> {
        let none = || ApiError::new(ErrorKind::NotImplemented, "this server has no store, and so no control plane");
        self.inner.control.as_ref().ok_or_else(none)
    }

    /// Where it is written who used what.
    pub(crate) fn usage(&self) -> &UsageLog {
        &self.inner.usage
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

    /// The policies of an endpoint of this server that were checked.
    pub fn policies(&self, gateway: &AiGateway) -> Policies {
        Policies::of(gateway, &Arc::downgrade(&self.inner.gate))
    }

    /// How much one request may ask for.
    pub fn limits(&self) -> Limits {
        self.inner.limits
    }

    /// The room for bodies of requests.
    pub(crate) fn bodies(&self) -> &Room {
        &self.inner.bodies
    }

    /// Whether requests are taken, and how many have begun.
    pub fn life(&self) -> &Life {
        &self.inner.life
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

/// How long the answers that were cut off get to say so.
const AFTER_THE_CUT: Duration = Duration::from_secs(1);

/// Answers on `listener` until `shutdown` is done. Then no more requests are taken, while those that have begun get
/// `drain` to come to their end; what is left after that is cut off.
pub async fn serve(
    listener: impl Into<Listener>,
    app: App,
    limits: ConnectionLimits,
    drain: Duration,
    shutdown: impl Future<Output = ()>,
) {
    let life = async {
        shutdown.await;
        app.life().stop();
        if tokio::time::timeout(drain, app.life().finished()).await.is_err() {
            tracing::warn!(requests = app.life().running(), "requests are cut off: they have not ended in time");
            app.life().cut();
            // Clients that do not even read that are not waited for.
            let _ = tokio::time::timeout(AFTER_THE_CUT, app.life().finished()).await;
        }
    };
    let metrics = app.metrics().clone();
    let folding = async move {
        let mut ticks = tokio::time::interval(FOLD_METRICS);
        loop {
            ticks.tick().await;
            metrics.fold();
        }
    };
    let following = async {
        match app.control() {
            Ok(control) => control.follow().await,
            Err(_) => std::future::pending().await,
        }
    };
    let ingesting = async {
        match &app.inner.ingest {
            Some(ingest) => ingest.run().await,
            None => std::future::pending().await,
        }
    };
    let saving = app.gate().counters().clone();
    tokio::select! {
        () = connections::answer(listener.into(), router(app.clone()), limits, life) => {}
        () = folding => {}
        () = following => {}
        () = ingesting => {}
        () = saving.run() => {}
    }
    app.gate().counters().finish().await;
    if let Some(ingest) = &app.inner.ingest {
        ingest.finish().await;
    }
}
