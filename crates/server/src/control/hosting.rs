//! Models that endpoints share: one that two of them serve is in memory once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use super::document::HostedEntity;
use crate::models::{HostedModel, Models, Residence, Source};
use crate::providers::external::ExternalSettings;

/// Finds the model that an entity names. Looks at the disk and the catalogue, never at the network.
pub trait Hosting: Send + Sync {
    /// What the name stands for, spelled in one way, and where the model comes from.
    ///
    /// # Errors
    /// Where the name means nothing, in words for the caller.
    fn find(&self, entity_name: &str) -> Result<(String, Arc<dyn Source>), String>;
}

/// Where the models of endpoints come from.
#[derive(Clone)]
pub struct Sources {
    /// Those that this process runs, and the memory that they share.
    pub models: Models,
    /// How one of them is found by its name.
    pub hosting: Arc<dyn Hosting>,
    /// How those of other providers are called.
    pub external: ExternalSettings,
}

/// What makes two entities the same model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    model: String,
    on_demand: bool,
}

/// The models of all endpoints of the control plane, and how many of them use each.
pub(super) struct SharedModels {
    models: Models,
    hosting: Arc<dyn Hosting>,
    held: Mutex<HashMap<Key, (HostedModel, usize)>>,
    /// Where models are unloaded, whoever lets go of them.
    runtime: Handle,
}

/// How often a model that nobody wants any more is looked at while it is still loading.
const WHILE_LOADING: Duration = Duration::from_millis(100);

impl SharedModels {
    pub(super) fn new(models: Models, hosting: Arc<dyn Hosting>) -> Self {
        Self { models, hosting, held: Mutex::default(), runtime: Handle::current() }
    }

    /// Shares a model that is kept whether endpoints of the control plane use it or not.
    pub(super) fn adopt(&self, model: String, hosted: HostedModel) {
        let on_demand = hosted.status().residence == Residence::OnDemand;
        self.held().insert(Key { model, on_demand }, (hosted, 1));
    }

    // No critical section leaves the map half changed.
    fn held(&self) -> MutexGuard<'_, HashMap<Key, (HostedModel, usize)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is such a model.
    ///
    /// # Errors
    /// In words for the caller.
    pub(super) fn check(&self, entity_name: &str) -> Result<(), String> {
        self.hosting.find(entity_name).map(drop)
    }

    /// What the model calls itself.
    ///
    /// # Errors
    /// Where there is no such model.
    pub(super) fn model_name(&self, entity_name: &str) -> Result<String, String> {
        self.hosting.find(entity_name).map(|(_, source)| source.model_name().to_owned())
    }

    /// The model of an entity, not necessarily loaded.
    ///
    /// # Errors
    /// Where there is no such model.
    pub(super) fn take(self: &Arc<Self>, entity: &HostedEntity) -> Result<Hold, String> {
        let (model, source) = self.hosting.find(&entity.entity_name)?;
        let on_demand = entity.scale_to_zero == Some(true);
        let residence = if on_demand { Residence::OnDemand } else { Residence::Kept };
        let key = Key { model, on_demand };
        let mut held = self.held();
        let (hosted, users) =
            held.entry(key.clone()).or_insert_with(|| (self.models.host(&key.model, source, residence), 0));
        *users += 1;
        Ok(Hold { hosted: hosted.clone(), key, shared: Arc::clone(self) })
    }

    fn release(&self, key: &Key) {
        let mut held = self.held();
        let Some((_, users)) = held.get_mut(key) else { return };
        *users -= 1;
        if *users > 0 {
            return;
        }
        if let Some((hosted, _)) = held.remove(key) {
            self.runtime.spawn(async move {
                // Answers that have begun come to their end.
                while hosted.unload(false).await.is_err() {
                    tokio::time::sleep(WHILE_LOADING).await;
                }
            });
        }
    }
}

/// The use of a model by an entity; when the last one goes, the model is unloaded.
pub(super) struct Hold {
    pub(super) hosted: HostedModel,
    key: Key,
    shared: Arc<SharedModels>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.release(&self.key);
    }
}
