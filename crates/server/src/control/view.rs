//! Endpoints as those see them who look them up.

use std::collections::HashMap;

use super::deploy::deployment_state;
use super::{Config, ControlPlane, Document, Entity, Record, What};
use crate::endpoints::{Endpoint, Task};
use crate::gate::{Allowed, Level};
use crate::models::{HostedModel, Residence};
use crate::wire::served::{
    ConfigView, DeploymentState, EndpointState, EndpointView, EntityView, FoundationModelView, ServedModelView,
    TrafficRouteView, TrafficView,
};
use crate::wire::serving::{AiGateway, Workload};

/// Who made what nobody has made over the API.
pub(crate) const OURSELVES: &str = "hearth";

impl ControlPlane {
    /// The endpoint as the caller sees it.
    pub fn view<L: Level>(&self, allowed: &Allowed<L>) -> EndpointView {
        let endpoint = allowed.endpoint();
        let view = match self.record(endpoint.id()) {
            Some(record) => self.of_record(endpoint, &record),
            None => of_argument(endpoint),
        };
        EndpointView { permission_level: Some(allowed.permission().name()), ..view }
    }

    fn of_record(&self, endpoint: &Endpoint, record: &Record) -> EndpointView {
        let Document { description, tags, budget_policy_id, ai_gateway, config, pending, .. } = record.document.clone();
        let models = self.inner.deployments.hosted(&record.id);
        let here = self.inner.deployments.version(&record.id);
        let serving = config.as_ref().filter(|config| Some(config.version) == here);
        let answers = serving.is_some_and(|config| {
            config.entities.iter().all(|entity| state(entity, &models).deployment == "DEPLOYMENT_READY")
        });
        let awaited = record.document.awaited().is_some() || config.is_some() && serving.is_none();
        let external = |config: &Config| config.entities.iter().any(|entity| matches!(entity.what, What::External(_)));
        EndpointView {
            name: record.name.clone(),
            id: record.id.clone(),
            creator: record.creator.clone(),
            creation_timestamp: record.created,
            last_updated_timestamp: record.updated,
            state: EndpointState {
                ready: if answers { "READY" } else { "NOT_READY" },
                config_update: match (awaited, &record.document.failure) {
                    (true, _) => "IN_PROGRESS",
                    (false, Some(_)) => "UPDATE_FAILED",
                    (false, None) => "NOT_UPDATING",
                },
            },
            task: endpoint.task().map(task_name),
            endpoint_type: match record.document.shown() {
                Some(config) if external(config) => "EXTERNAL_MODEL",
                _ => "FOUNDATION_MODEL_API",
            },
            config: config.map(|config| config_view(&config, &models, false, None)),
            pending_config: pending
                .map(|config| config_view(&config, &models, true, record.document.failure.as_deref())),
            tags,
            ai_gateway,
            description,
            budget_policy_id,
            permission_level: None,
            route_optimized: false,
        }
    }
}

fn state(entity: &Entity, models: &HashMap<String, HostedModel>) -> DeploymentState {
    let (deployment, deployment_state_message) = match &entity.what {
        What::External(_) => ("DEPLOYMENT_READY", String::new()),
        What::Hosted(hosted) => deployment_state(models.get(&entity.id), hosted.scale_to_zero == Some(true)),
    };
    DeploymentState { deployment, deployment_state_message }
}

fn config_view(
    config: &Config,
    models: &HashMap<String, HostedModel>,
    pending: bool,
    failure: Option<&str>,
) -> ConfigView {
    let views: Vec<EntityView> = config
        .entities
        .iter()
        .map(|entity| {
            let state = match failure {
                // Its models are gone; why it has not come up is what there is to say.
                Some(failure) => {
                    DeploymentState { deployment: "DEPLOYMENT_FAILED", deployment_state_message: failure.to_owned() }
                }
                None => state(entity, models),
            };
            entity_view(entity, state)
        })
        .collect();
    let route = |entity: &Entity| TrafficRouteView {
        served_entity_name: entity.name.clone(),
        served_model_name: entity.name.clone(),
        traffic_percentage: entity.share,
    };
    ConfigView {
        config_version: config.version,
        start_time: pending.then_some(config.started),
        served_models: served_models(&views),
        served_entities: views,
        traffic_config: TrafficView { routes: config.entities.iter().map(route).collect() },
    }
}

fn entity_view(entity: &Entity, state: DeploymentState) -> EntityView {
    let (hosted, external_model) = match &entity.what {
        What::Hosted(hosted) => (Some(hosted), None),
        What::External(model) => (None, Some(model.clone())),
    };
    EntityView {
        name: entity.name.clone(),
        id: entity.id.clone(),
        entity_name: hosted.map(|hosted| hosted.entity_name.clone()),
        entity_version: hosted.map(|hosted| hosted.entity_version.clone()),
        external_model,
        foundation_model: hosted.map(|hosted| foundation_model(&hosted.entity_name)),
        scale_to_zero_enabled: hosted.and_then(|hosted| hosted.scale_to_zero),
        workload: hosted.map(|hosted| hosted.workload.clone()).unwrap_or_default(),
        creator: entity.creator.clone(),
        creation_timestamp: entity.created,
        state,
    }
}

fn foundation_model(name: &str) -> FoundationModelView {
    let display_name = name.rsplit(['.', '/']).next().unwrap_or(name).to_owned();
    FoundationModelView { name: name.to_owned(), display_name }
}

fn served_models(entities: &[EntityView]) -> Vec<ServedModelView> {
    let hosted = entities.iter().filter_map(|entity| {
        Some(ServedModelView {
            name: entity.name.clone(),
            model_name: entity.entity_name.clone()?,
            model_version: entity.entity_version.clone()?,
            state: entity.state.clone(),
        })
    });
    hosted.collect()
}

/// An endpoint that the command line or the configuration file names.
fn of_argument(endpoint: &Endpoint) -> EndpointView {
    let created = i64::try_from(endpoint.created()).unwrap_or_default() * 1000;
    let entities: Vec<EntityView> = endpoint
        .entities()
        .iter()
        .map(|entity| {
            let model = entity.provider().hosted();
            let on_demand = model.is_some_and(|model| model.status().residence == Residence::OnDemand);
            let (deployment, deployment_state_message) = match model {
                Some(model) => deployment_state(Some(model), on_demand),
                None => ("DEPLOYMENT_READY", String::new()),
            };
            let name = entity.provider().model_name();
            EntityView {
                name: entity.name().to_owned(),
                id: entity.id().to_owned(),
                entity_name: Some(name.to_owned()),
                entity_version: Some("1".to_owned()),
                external_model: None,
                foundation_model: Some(foundation_model(name)),
                scale_to_zero_enabled: Some(on_demand),
                workload: Workload::default(),
                creator: OURSELVES.to_owned(),
                creation_timestamp: created,
                state: DeploymentState { deployment, deployment_state_message },
            }
        })
        .collect();
    let ready = entities.iter().all(|entity| entity.state.deployment == "DEPLOYMENT_READY");
    let route = |entity: &EntityView| TrafficRouteView {
        served_entity_name: entity.name.clone(),
        served_model_name: entity.name.clone(),
        traffic_percentage: 100,
    };
    EndpointView {
        name: endpoint.name().to_owned(),
        id: endpoint.id().to_owned(),
        creator: OURSELVES.to_owned(),
        creation_timestamp: created,
        last_updated_timestamp: created,
        state: EndpointState { ready: if ready { "READY" } else { "NOT_READY" }, config_update: "NOT_UPDATING" },
        task: endpoint.task().map(task_name),
        endpoint_type: "FOUNDATION_MODEL_API",
        config: Some(ConfigView {
            config_version: 1,
            start_time: None,
            served_models: served_models(&entities),
            traffic_config: TrafficView { routes: entities.iter().map(route).collect() },
            served_entities: entities,
        }),
        pending_config: None,
        tags: Vec::new(),
        ai_gateway: Some(endpoint.policies().asked.clone()).filter(|asked| *asked != AiGateway::default()),
        description: None,
        budget_policy_id: None,
        permission_level: None,
        route_optimized: false,
    }
}

/// A task as the clients know it.
pub(crate) fn task_name(task: Task) -> &'static str {
    match task {
        Task::Chat => "llm/v1/chat",
        Task::Completions => "llm/v1/completions",
        Task::Embeddings => "llm/v1/embeddings",
        Task::Rerank => "rerank",
    }
}
