//! Bringing up what the store says is to be served: models are loaded beside those that answer, which go on until the new ones
//! do, and then until their calls have ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::document::{Config, Document, Entity, What};
use super::hosting::{Hold, SharedModels};
use super::{ControlPlane, Record, history};
use crate::endpoints::{Endpoint, ServedEntity, Task};
use crate::models::{HostedModel, ModelState};
use crate::policy::Policies;
use crate::providers::external::{ExternalModel, Upstreams};
use crate::store::{StoreError, now};
use crate::wire::serving::AiGateway;

/// What this process serves of the control plane's endpoints.
pub(super) struct Deployments {
    pub(super) models: Arc<SharedModels>,
    pub(super) upstreams: Upstreams,
    by_endpoint: Mutex<HashMap<String, Arc<Deployment>>>,
}

impl Deployments {
    pub(super) fn new(models: SharedModels, upstreams: Upstreams) -> Self {
        Self { models: Arc::new(models), upstreams, by_endpoint: Mutex::default() }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Deployment>>> {
        // No critical section leaves the map half changed.
        self.by_endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets an endpoint.
    pub(super) fn remove(&self, id: &str) {
        self.all().remove(id);
    }

    /// The models that the entities of an endpoint have here, by the entity's id.
    pub(super) fn hosted(&self, endpoint: &str) -> HashMap<String, HostedModel> {
        let deployment = self.all().get(endpoint).cloned();
        let Some(deployment) = deployment else { return HashMap::new() };
        let here = deployment.here();
        here.entities.iter().filter_map(|(id, one)| Some((id.clone(), one.hosted.clone()?))).collect()
    }

    /// What the models of an endpoint do, where that is known.
    fn task(&self, endpoint: &str) -> Option<Task> {
        let deployment = self.all().get(endpoint).cloned()?;
        let here = deployment.here();
        here.entities.values().find_map(|one| one.entity.provider().task())
    }

    /// Of which version this process serves the configuration; `None` where it serves none.
    pub(super) fn version(&self, endpoint: &str) -> Option<i64> {
        self.all().get(endpoint)?.here().version
    }
}

/// What this process serves of one endpoint.
#[derive(Default)]
struct Deployment {
    /// One configuration is brought up at a time.
    turn: tokio::sync::Mutex<()>,
    here: Mutex<Here>,
}

#[derive(Default)]
struct Here {
    version: Option<i64>,
    /// By the entity's id, of the served configuration and of the one that is coming up.
    entities: HashMap<String, Served>,
}

#[derive(Clone)]
struct Served {
    entity: ServedEntity,
    hosted: Option<HostedModel>,
}

impl Deployment {
    fn here(&self) -> MutexGuard<'_, Here> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ControlPlane {
    /// Makes this process serve what the record says: what is quick at once, models in a task of its own.
    pub(super) fn deploy(&self, record: &Arc<Record>) {
        let deployments = &self.inner.deployments;
        let deployment = Arc::clone(deployments.all().entry(record.id.clone()).or_default());
        let serving = deployment.here().version;
        self.show(record, &deployment);
        let config = record.document.config.as_ref().filter(|config| Some(config.version) != serving);
        if config.is_some() || record.document.awaited().is_some() {
            let (control, id) = (self.clone(), record.id.clone());
            tokio::spawn(async move { control.bring_up(&id, &deployment).await });
        }
    }

    /// Puts the endpoint, with the entities that are served now, in the place of the one before.
    fn show(&self, record: &Record, deployment: &Deployment) {
        let here = deployment.here();
        let configs = [record.document.config.as_ref(), record.document.pending.as_ref()];
        let serving = configs.into_iter().flatten().find(|config| Some(config.version) == here.version);
        let served = |entity: &Entity| Some((here.entities.get(&entity.id)?.entity.clone(), entity.share));
        let entities = serving.map(|config| config.entities.iter().filter_map(served).collect());
        let seconds = u64::try_from(record.created / 1000).unwrap_or_default();
        let endpoint =
            Endpoint::of_parts(record.id.clone(), record.name.clone(), seconds, entities.unwrap_or_default());
        let gateway = record.document.ai_gateway.as_ref();
        let tracked = gateway.is_none_or(AiGateway::tracks_usage);
        let gate = Arc::downgrade(&self.inner.gate);
        let policies = gateway.map(|gateway| Policies::of(gateway, &gate)).unwrap_or_default();
        // One that has never come up is not waited for: it may never.
        let awaited = record.document.config.is_some() && here.version.is_none();
        self.gate().registry().replace(endpoint.with_usage(tracked).with_policies(policies).awaited(awaited));
    }

    /// Brings up the configuration that is served, where this process does not serve it yet, and then the pending one.
    async fn bring_up(&self, id: &str, deployment: &Arc<Deployment>) {
        let _turn = deployment.turn.lock().await;
        // It may have changed, or been brought up, before the turn came.
        let Some(record) = self.record(id) else { return };
        let serving = deployment.here().version;
        if let Some(config) = record.document.config.as_ref().filter(|config| Some(config.version) != serving) {
            // Here it fails as it would fail at a request: what cannot be loaded is tried again then.
            if let Err(reason) = self.load(config, deployment).await {
                tracing::error!(endpoint = record.name, reason, "a served model is not loaded");
            }
            self.switch(config, deployment, id);
        }
        if let Some(config) = record.document.awaited() {
            let result = self.load(config, deployment).await;
            if result.is_ok() {
                self.switch(config, deployment, id);
            } else {
                self.drop_unused(deployment, record.document.config.as_ref());
            }
            if let Err(error) = self.settle(id, config.version, result.err()).await {
                tracing::error!(endpoint = record.name, %error, "an endpoint's new configuration could not be noted");
            }
        }
    }

    /// Makes every entity of a configuration ready to be called.
    async fn load(&self, config: &Config, deployment: &Deployment) -> Result<(), String> {
        for entity in &config.entities {
            let known = deployment.here().entities.get(&entity.id).cloned();
            let served = match known {
                Some(served) => served,
                None => {
                    let served = self.served(entity)?;
                    deployment.here().entities.insert(entity.id.clone(), served.clone());
                    served
                }
            };
            let on_demand = matches!(&entity.what, What::Hosted(hosted) if hosted.scale_to_zero == Some(true));
            if let Some(hosted) = served.hosted.filter(|_| !on_demand)
                && hosted.load().await.is_err()
            {
                let reason = hosted.failure().map_or_else(|| "it was unloaded".to_owned(), |one| one.to_string());
                return Err(format!("{}: {reason}", entity.name));
            }
        }
        Ok(())
    }

    fn served(&self, entity: &Entity) -> Result<Served, String> {
        let deployments = &self.inner.deployments;
        match &entity.what {
            What::Hosted(wanted) => {
                let hold: Hold = deployments.models.take(wanted)?;
                let hosted = hold.hosted.clone();
                let served = ServedEntity::new(entity.name.clone(), entity.id.clone(), Arc::new(hosted.clone()));
                Ok(Served { entity: served.holding(Arc::new(hold)), hosted: Some(hosted) })
            }
            What::External(stored) => {
                let fields = serde_json::from_value(stored.clone()).map_err(|error| error.to_string())?;
                let model = ExternalModel::check(fields, "external_model").map_err(|error| error.to_string())?;
                let provider = deployments.upstreams.connect(model);
                let served = ServedEntity::new(entity.name.clone(), entity.id.clone(), provider);
                Ok(Served { entity: served, hosted: None })
            }
        }
    }

    /// Serves a configuration that has come up; what is not in it goes when its calls have ended.
    fn switch(&self, config: &Config, deployment: &Deployment, id: &str) {
        deployment.here().version = Some(config.version);
        self.drop_unused(deployment, Some(config));
        if let Some(record) = self.record(id) {
            self.show(&record, deployment);
        }
    }

    fn drop_unused(&self, deployment: &Deployment, config: Option<&Config>) {
        let used = |id: &String| config.is_some_and(|config| config.entities.iter().any(|entity| entity.id == *id));
        let mut here = deployment.here();
        let unused: Vec<Served> = here.entities.extract_if(|id, _| !used(id)).map(|(_, served)| served).collect();
        drop(here);
        drop(unused);
    }

    /// Notes in the store that a pending configuration has come up, or why it has not, unless somebody else has or it is gone.
    async fn settle(&self, id: &str, version: i64, failure: Option<String>) -> Result<(), StoreError> {
        let mut change = self.store().change().await?;
        let Some(row) = change.endpoint(id).await? else { return Ok(()) };
        let mut document = Document::read(&row)?;
        if document.awaited().is_none_or(|pending| pending.version != version) {
            return Ok(());
        }
        if let Some(config) = document.pending.as_ref().filter(|_| failure.is_none()) {
            history::record(&mut change, &row, config, self.inner.deployments.task(id)).await?;
        }
        match failure {
            None => document.config = document.pending.take(),
            // An endpoint that has never come up goes on showing what it was to serve.
            Some(_) if document.config.is_some() => document.pending = None,
            Some(_) => {}
        }
        document.failure = failure;
        change.set_endpoint(id, &document.written(), now()).await?;
        change.commit().await?;
        self.catch_up().await
    }
}

/// What a model of an endpoint is doing, in the words of the clients, and what there is to say of it.
pub(super) fn deployment_state(model: Option<&HostedModel>, on_demand: bool) -> (&'static str, String) {
    let Some(model) = model else { return ("DEPLOYMENT_CREATING", String::new()) };
    match model.status().state {
        ModelState::Ready => ("DEPLOYMENT_READY", String::new()),
        ModelState::Unloaded if on_demand => ("DEPLOYMENT_READY", "scaled to zero".to_owned()),
        ModelState::Unloaded | ModelState::Unloading => ("DEPLOYMENT_ABORTED", "the model was unloaded".to_owned()),
        ModelState::Loading => ("DEPLOYMENT_CREATING", "the model is loading".to_owned()),
        ModelState::Failed(reason) => ("DEPLOYMENT_FAILED", reason),
    }
}
