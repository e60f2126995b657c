//! The state of models, for those who manage them.

use serde::{Deserialize, Serialize};

/// The body of a call that loads a model: it has no field.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadFields {}

/// The body of a call that unloads a model.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnloadFields {
    /// Whether answers that have begun are broken off, default false.
    pub force: Option<bool>,
}

/// All models that the caller may manage.
#[derive(Debug, Serialize)]
pub struct HostedList {
    /// Always `list`.
    pub object: &'static str,
    /// One a model, by the endpoint's name.
    pub data: Vec<Hosted>,
    /// Bytes that they hold together.
    pub memory_reserved: u64,
    /// Bytes that there are for models.
    pub memory_total: u64,
}

/// One model.
#[derive(Debug, Serialize)]
pub struct Hosted {
    /// Name of the endpoint.
    pub name: String,
    /// What the model calls itself.
    pub model: String,
    /// `unloaded`, `loading`, `ready`, `failed` or `unloading`.
    pub state: &'static str,
    /// Why it could not be loaded; null in every other state.
    pub reason: Option<String>,
    /// Whether it is loaded when it is asked for, and not at the start.
    pub on_demand: bool,
    /// Bytes of memory that it holds.
    pub memory: u64,
    /// Times that it was loaded.
    pub loads: u64,
    /// Seconds that the last load took; null before the first.
    pub load_seconds: Option<f64>,
    /// Seconds since a request last began or ended; null before the first.
    pub idle_seconds: Option<f64>,
    /// Requests in hand.
    pub requests: usize,
    /// Sequences in the batch; null where the model does not tell.
    pub running: Option<usize>,
    /// Sequences in the queue; null where the model does not tell.
    pub waiting: Option<usize>,
}
