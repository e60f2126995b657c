//! The control plane: what principals, tokens, grants, secrets and endpoints there are, kept in the store and in memory alike.
//!
//! Owns every change of them, and that this process is as the store is, whoever changed that. Knows no HTTP: `routes` asks it
//! for changes, and the gate answers from what it has put in memory.

mod checks;
mod credentials;
mod declared;
mod deploy;
mod document;
mod endpoints;
mod follow;
mod grants;
mod history;
mod hosting;
mod people;
mod prices;
mod secrets;
mod tokens;
mod view;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::sync::Mutex;

pub(crate) use self::checks::no_mail;
pub use self::declared::DeclareError;
use self::deploy::Deployments;
pub(crate) use self::document::{Config, Document, Entity, What};
pub use self::grants::WantedGrant;
use self::hosting::SharedModels;
pub use self::hosting::{Hosting, Sources};
pub use self::people::{Person, check_name};
pub(crate) use self::people::{check_text, word};
pub use self::secrets::Scope;
pub use self::tokens::{NewToken, TOKENS_PER_PRINCIPAL, TokensOf};
pub(crate) use self::view::{OURSELVES, task_name};
use crate::error::{ApiError, ErrorKind};
use crate::gate::{Directory, Gate};
use crate::models::HostedModel;
use crate::providers::external::Upstreams;
use crate::secrets::Secrets;
use crate::store::{Change, Store, StoreError};

/// How often the store is asked for what others have changed.
const FOLLOW: Duration = Duration::from_millis(250);

/// The control plane of a process. A clone is the same one.
#[derive(Clone)]
pub struct ControlPlane {
    inner: Arc<Inner>,
}

struct Inner {
    secrets: Secrets,
    gate: Arc<Gate>,
    deployments: Deployments,
    /// The endpoints of the store, by id.
    records: RwLock<HashMap<String, Arc<Record>>>,
    /// Up to which change of the store this process has come.
    revision: Mutex<i64>,
}

/// An endpoint of the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// 32 hexadecimal digits.
    pub id: String,
    /// What calls name it.
    pub name: String,
    /// Name of who made it.
    pub creator: String,
    /// Milliseconds since 1970.
    pub created: i64,
    /// Milliseconds since 1970.
    pub updated: i64,
    /// What it is.
    pub document: Document,
}

impl ControlPlane {
    /// The control plane of the store that these secrets are in, before it has looked into it. Must be called within a runtime.
    pub fn new(secrets: Secrets, gate: Arc<Gate>, sources: Sources) -> Self {
        let Sources { models, hosting, external } = sources;
        let upstreams = Upstreams::new(external, Arc::new(secrets.clone()));
        let deployments = Deployments::new(SharedModels::new(models, hosting), upstreams);
        let (records, revision) = (RwLock::default(), Mutex::new(-1));
        Self { inner: Arc::new(Inner { secrets, gate, deployments, records, revision }) }
    }

    /// Lets endpoints use a model that is kept anyway, under the name that [`Hosting`] finds it by.
    pub fn adopt(&self, model: String, hosted: HostedModel) {
        self.inner.deployments.models.adopt(model, hosted);
    }

    /// The endpoint of that id, if it is one of the store.
    pub fn record(&self, id: &str) -> Option<Arc<Record>> {
        self.records().get(id).cloned()
    }

    fn records(&self) -> RwLockReadGuard<'_, HashMap<String, Arc<Record>>> {
        // No change leaves the map half made.
        self.inner.records.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn records_mut(&self) -> RwLockWriteGuard<'_, HashMap<String, Arc<Record>>> {
        self.inner.records.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store.
    pub fn store(&self) -> &Store {
        self.inner.secrets.store()
    }

    /// The secrets in the store.
    pub fn secrets(&self) -> &Secrets {
        &self.inner.secrets
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
        match error {
            StoreError::Missing { .. } => Self::new(ErrorKind::NotFound, error.to_string()),
            error if error.is_orphan() => {
                Self::new(ErrorKind::Conflict, "what this is to belong to was removed meanwhile")
            }
            error => Self::unavailable(text, error.to_string()),
        }
    }
}

/// The refusal of a name that is taken.
pub(crate) fn already_exists(what: &str, name: &str) -> ApiError {
    ApiError::new(ErrorKind::AlreadyExists, format!("the {what} `{name}` exists already"))
}

/// The refusal of a name that nothing has.
pub(crate) fn does_not_exist(what: &str, name: &str) -> ApiError {
    ApiError::new(ErrorKind::NotFound, format!("there is no {what} `{name}`"))
}
