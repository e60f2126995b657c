//! One model and its state: unloaded, loading, ready, failed, unloading.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::lease::Lease;
use super::{LoadFailure, Reservation, Residence, Shared, Source, lock, seconds_since};
use crate::endpoints::Task;
use crate::providers::{Provider, ProviderError, ProviderLoad};

/// How often an ending model's thread is looked at.
const DEPARTURE: Duration = Duration::from_millis(5);

/// A model that is loaded when it is needed. A clone is the same model.
#[derive(Clone)]
pub struct HostedModel(pub(super) Arc<Hosted>);

/// What a model is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelState {
    /// It is not in memory, and will be when it is asked for.
    Unloaded,
    /// It is being loaded.
    Loading,
    /// It answers.
    Ready,
    /// It could not be loaded, for this reason; the next request tries again.
    Failed(String),
    /// Answers that have begun come to their end.
    Unloading,
}

/// A model as those see it who manage it.
#[derive(Debug, Clone)]
pub struct ModelStatus {
    /// What it is doing.
    pub state: ModelState,
    /// What it calls itself.
    pub model: String,
    /// When it is loaded.
    pub residence: Residence,
    /// Bytes of memory that it holds.
    pub memory: u64,
    /// Times it was loaded since the start.
    pub loads: u64,
    /// Seconds that the last load took.
    pub load_seconds: Option<f64>,
    /// Seconds since its last request began or ended; `None` before the first.
    pub idle_seconds: Option<f64>,
    /// Requests in hand: running and waiting ones.
    pub requests: usize,
}

/// Why a model is not unloaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnloadError {
    /// It is not loaded yet.
    #[error("the model is still loading")]
    Loading,
}

pub(super) struct Hosted {
    id: u64,
    endpoint: String,
    source: Arc<dyn Source>,
    residence: Residence,
    shared: Arc<Shared>,
    state: Mutex<State>,
    /// Told of every change of the state.
    changed: watch::Sender<()>,
    /// Known since it was loaded for the first time.
    task: OnceLock<Task>,
    last_used: Mutex<Option<Instant>>,
    loads: AtomicU64,
    load_seconds: Mutex<Option<f64>>,
}

enum State {
    Unloaded,
    Loading,
    Ready(Ready),
    Failed(LoadFailure),
    Unloading(Weak<Running>),
}

/// A model that answers, and what must be given back after it.
struct Ready {
    running: Arc<Running>,
    /// Done when the last that uses `running` has let go of it.
    released: oneshot::Receiver<()>,
    reservation: Reservation,
}

/// What is left to do for a model that is being unloaded.
struct Ending {
    /// Whether its thread has ended.
    departed: Box<dyn Fn() -> bool + Send + Sync>,
    released: oneshot::Receiver<()>,
    reservation: Reservation,
}

/// A model that answers; everyone who uses it holds this.
pub(super) struct Running {
    pub(super) provider: Arc<dyn Provider>,
    /// Whether its answers are to end now.
    pub(super) cancelled: watch::Sender<bool>,
    /// Dropped after the provider.
    _released: oneshot::Sender<()>,
}

impl Hosted {
    pub(super) fn new(endpoint: &str, source: Arc<dyn Source>, residence: Residence, shared: Arc<Shared>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            endpoint: endpoint.to_owned(),
            source,
            residence,
            shared,
            state: Mutex::new(State::Unloaded),
            changed: watch::Sender::new(()),
            task: OnceLock::new(),
            last_used: Mutex::default(),
            loads: AtomicU64::new(0),
            load_seconds: Mutex::default(),
        })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) fn model_name(&self) -> &str {
        self.source.model_name()
    }

    pub(super) fn task(&self) -> Option<Task> {
        self.task.get().copied()
    }

    /// Notes that a request begins or ends.
    pub(super) fn touch(&self) {
        *lock(&self.last_used) = Some(Instant::now());
    }

    /// Since when nobody has used it, if it may be unloaded for that.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let idle = matches!(&*lock(&self.state), State::Ready(ready) if Arc::strong_count(&ready.running) == 1);
        (idle && self.residence == Residence::OnDemand).then(|| lock(&self.last_used).unwrap_or_else(Instant::now))
    }

    /// What answers now, without loading it.
    pub(super) fn provider(&self) -> Option<Arc<dyn Provider>> {
        match &*lock(&self.state) {
            State::Ready(ready) => Some(Arc::clone(&ready.running.provider)),
            _ => None,
        }
    }

    fn set(&self, state: State) {
        *lock(&self.state) = state;
        self.changed.send_replace(());
    }

    /// The model, if it is ready; begins to load it where nobody does. `waited`: whether the caller has waited already, so
    /// that a failure is that of the load it waited for.
    fn try_lease(self: &Arc<Self>, waited: bool) -> Result<Option<Lease>, ProviderError> {
        let mut state = lock(&self.state);
        match &*state {
            State::Ready(ready) => return Ok(Some(Lease::new(Arc::clone(self), Arc::clone(&ready.running)))),
            State::Loading => return Ok(None),
            State::Unloading(running) if running.strong_count() > 0 => {
                let text = format!("the model of endpoint `{}` is being unloaded", self.endpoint);
                return Err(ProviderError::Stopped(text));
            }
            State::Unloading(_) => return Ok(None),
            State::Failed(failure) if waited => return Err(failure.refusal(&self.endpoint)),
            State::Failed(_) | State::Unloaded => {}
        }
        *state = State::Loading;
        // A task of its own: a caller who gives up does not take the load away from others.
        tokio::spawn(load(Arc::clone(self)));
        Ok(None)
    }

    /// The model, once it is ready; waits for that until `deadline`.
    pub(super) async fn lease(self: &Arc<Self>, deadline: Option<Instant>) -> Result<Lease, ProviderError> {
        match deadline {
            None => self.ready().await,
            Some(deadline) => {
                let late = |_| Err(ProviderError::Late { begun: false });
                tokio::time::timeout_at(deadline.into(), self.ready()).await.unwrap_or_else(late)
            }
        }
    }

    async fn ready(self: &Arc<Self>) -> Result<Lease, ProviderError> {
        let mut waited = false;
        loop {
            let mut changes = self.changed.subscribe();
            if let Some(lease) = self.try_lease(waited)? {
                return Ok(lease);
            }
            // The sender is in `self` and cannot be gone.
            let _ = changes.changed().await;
            waited = true;
        }
    }

    async fn start(self: &Arc<Self>) -> Result<Ready, LoadFailure> {
        let offered = |bytes| {
            let source = Arc::clone(&self.source);
            blocking(move || source.footprint(bytes))
        };
        // Before its turn: fetching its files may take long.
        let least = offered(0).await?;
        // The semaphore is never closed.
        let _turn = self.shared.turn.acquire().await;
        self.shared.make_room(&self.endpoint, least).await?;
        let granted = offered(self.shared.free()).await?;
        let reservation = self.shared.reserve(self.id, granted.total());
        let reservation = reservation.ok_or_else(|| {
            let text = format!("the model of endpoint `{}` does not fit into memory: {granted}", self.endpoint);
            LoadFailure::NoRoom(text)
        })?;
        let source = Arc::clone(&self.source);
        let provider = blocking(move || source.load(granted)).await?;
        let (last, released) = oneshot::channel();
        let running = Running { provider, cancelled: watch::Sender::new(false), _released: last };
        Ok(Ready { running: Arc::new(running), released, reservation })
    }
}

async fn load(hosted: Arc<Hosted>) {
    let (begun, endpoint) = (Instant::now(), hosted.endpoint());
    match hosted.start().await {
        Ok(ready) => {
            let seconds = seconds_since(begun);
            if let Some(task) = ready.running.provider.task() {
                // A model that is loaded again does what it did.
                let _ = hosted.task.set(task);
            }
            hosted.loads.fetch_add(1, Ordering::Relaxed);
            *lock(&hosted.load_seconds) = Some(seconds);
            hosted.touch();
            tracing::info!(endpoint, seconds, "the model is loaded");
            hosted.set(State::Ready(ready));
        }
        Err(failure) => {
            tracing::error!(endpoint, reason = %failure, "the model could not be loaded");
            hosted.set(State::Failed(failure));
        }
    }
}

/// Unloads a model that nobody has used for so long.
pub(super) async fn unload_if_idle(hosted: &Arc<Hosted>, idle: Duration) {
    let ending = {
        let mut state = lock(&hosted.state);
        let used = lock(&hosted.last_used).is_some_and(|used| used.elapsed() < idle);
        match &*state {
            State::Ready(ready) if !used && Arc::strong_count(&ready.running) == 1 => take(&mut state),
            _ => None,
        }
    };
    if let Some(ending) = ending {
        finish(Arc::clone(hosted), ending).await;
    }
}

/// Takes a ready model out of the state, which is `Unloading` then.
fn take(state: &mut State) -> Option<Ending> {
    match mem::replace(state, State::Unloaded) {
        State::Ready(Ready { running, released, reservation }) => {
            *state = State::Unloading(Arc::downgrade(&running));
            Some(Ending { departed: running.provider.departure(), released, reservation })
        }
        other => {
            *state = other;
            None
        }
    }
}

/// Waits until nobody uses the model and its thread has ended, and gives its memory back.
async fn finish(hosted: Arc<Hosted>, ending: Ending) {
    let Ending { departed, released, reservation } = ending;
    // The sender is dropped and sends nothing.
    let _ = released.await;
    while !departed() {
        tokio::time::sleep(DEPARTURE).await;
    }
    drop(reservation);
    tracing::info!(endpoint = hosted.endpoint(), "the model is unloaded");
    hosted.set(State::Unloaded);
}

impl HostedModel {
    /// Loads the model unless it is loaded, and waits for that.
    ///
    /// # Errors
    /// As a request would be refused.
    pub async fn load(&self) -> Result<(), ProviderError> {
        self.0.lease(None).await.map(drop)
    }

    /// Why the last load failed, in full.
    pub fn failure(&self) -> Option<LoadFailure> {
        match &*lock(&self.0.state) {
            State::Failed(failure) => Some(failure.clone()),
            _ => None,
        }
    }

    /// Unloads the model once the answers that have begun have come to their end, or with `force` breaks them off, and waits
    /// for that. New requests are refused in the meantime. Nothing happens where it is not loaded.
    ///
    /// # Errors
    /// While it is loading.
    pub async fn unload(&self, force: bool) -> Result<(), UnloadError> {
        let mut changes = self.0.changed.subscribe();
        let taken = {
            let mut state = lock(&self.0.state);
            if force {
                cancel(&state);
            }
            match &*state {
                State::Loading => return Err(UnloadError::Loading),
                State::Unloaded | State::Failed(_) => return Ok(()),
                State::Ready(_) | State::Unloading(_) => take(&mut state),
            }
        };
        if let Some(ending) = taken {
            // A task of its own: it is finished though nobody waits for it any more.
            tokio::spawn(finish(Arc::clone(&self.0), ending));
        }
        while matches!(&*lock(&self.0.state), State::Unloading(_)) {
            // The sender is in `self` and cannot be gone.
            let _ = changes.changed().await;
        }
        Ok(())
    }

    /// What there is to see.
    pub fn status(&self) -> ModelStatus {
        let hosted = &self.0;
        let (state, running) = match &*lock(&hosted.state) {
            State::Unloaded => (ModelState::Unloaded, None),
            State::Loading => (ModelState::Loading, None),
            State::Ready(ready) => (ModelState::Ready, Some(Arc::downgrade(&ready.running))),
            State::Failed(failure) => (ModelState::Failed(failure.to_string()), None),
            State::Unloading(running) => (ModelState::Unloading, Some(running.clone())),
        };
        // The state itself holds a ready model once; everyone else is a request.
        let own = usize::from(state == ModelState::Ready);
        ModelStatus {
            model: hosted.model_name().to_owned(),
            residence: hosted.residence,
            memory: hosted.shared.held_by(hosted.id),
            loads: hosted.loads.load(Ordering::Relaxed),
            load_seconds: *lock(&hosted.load_seconds),
            idle_seconds: lock(&hosted.last_used).map(seconds_since),
            requests: running.map_or(0, |running| running.strong_count().saturating_sub(own)),
            state,
        }
    }

    /// How busy the model is; `None` where it is not loaded.
    pub(super) fn load_now(&self) -> Option<ProviderLoad> {
        self.0.provider()?.load()
    }
}

fn cancel(state: &State) {
    let running = match state {
        State::Ready(ready) => Some(Arc::clone(&ready.running)),
        State::Unloading(running) => running.upgrade(),
        _ => None,
    };
    if let Some(running) = running {
        running.cancelled.send_replace(true);
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, LoadFailure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(format!("loading broke off: {error}"))).map_err(LoadFailure::Broken)
}
