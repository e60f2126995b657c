//! The control plane: what principals, tokens, grants, secrets and endpoints there are, kept in the store and in memory alike.
//!
//! Owns every change of them, and that this process is as the store is, whoever changed that. Knows no HTTP: `routes` asks it
//! for changes, and the gate answers from what it has put in memory.

mod follow;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::error::{ApiError, ErrorKind};
use crate::gate::{Directory, Gate};
use crate::store::{Change, Store, StoreError};

/// How often the store is asked for what others have changed.
const FOLLOW: Duration = Duration::from_millis(250);

/// The control plane of a process. A clone is the same one.
#[derive(Clone)]
pub struct ControlPlane {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    gate: Arc<Gate>,
    /// Up to which change of the store this process has come.
    revision: Mutex<i64>,
}

impl ControlPlane {
    /// The control plane of that store, before it has looked into it.
    pub fn new(store: Store, gate: Arc<Gate>) -> Self {
        Self { inner: Arc::new(Inner { store, gate, revision: Mutex::new(-1) }) }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The gate, whose directory is kept as the store is.
    pub fn gate(&self) -> &Gate {
        &self.inner.gate
    }

    /// Makes a change last, and this process as the store is then.
    ///
    /// # Errors
    /// Where the store fails; nothing is changed then.
    pub async fn commit(&self, change: Change) -> Result<(), ApiError> {
        change.commit().await?;
        // What was committed stands, though it be seen a moment later.
        if let Err(error) = self.catch_up().await {
            tracing::error!(%error, "the store could not be read after a change");
        }
        Ok(())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let text = "the store does not answer, so nothing can be looked up or changed";
        ApiError::unavailable(text, error.to_string())
    }
}

/// The refusal of a name that is taken.
pub(crate) fn already_exists(what: &str, name: &str) -> ApiError {
    ApiError::new(ErrorKind::AlreadyExists, format!("there is a {what} named `{name}` already"))
}

/// The refusal of a name that nothing has.
pub(crate) fn does_not_exist(what: &str, name: &str) -> ApiError {
    ApiError::new(ErrorKind::NotFound, format!("there is no {what} `{name}`"))
}
