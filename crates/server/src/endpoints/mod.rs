//! Endpoints: the names under which models are served, and the registry that holds them.
//!
//! Owns names, tasks, served entities and readiness. Knows no permission: the registry hands an endpoint only to
//! the gate, which does.

mod registry;
mod split;

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use self::split::Split;

pub(crate) use registry::Found;
pub use registry::Registry;

use crate::policy::{Policies, Rest};
use crate::providers::Provider;

/// What an endpoint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Task {
    /// Answers conversations; such an endpoint also completes texts.
    Chat,
    /// Completes texts.
    Completions,
    /// Turns texts into vectors.
    Embeddings,
    /// Ranks documents by how well they answer a query.
    Rerank,
}

impl Task {
    /// Whether an endpoint of this task takes calls of task `wanted`.
    pub fn serves(self, wanted: Self) -> bool {
        self == wanted || (self == Self::Chat && wanted == Self::Completions)
    }
}

impl fmt::Display for Task {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Rerank => "rerank",
        })
    }
}

/// Longest name of an endpoint.
const NAME_LENGTH: usize = 128;

/// Words that stand where a name would stand in some path.
const RESERVED_NAMES: [&str; 10] = [
    "chat",
    "completions",
    "embeddings",
    "rerank",
    "responses",
    "models",
    "tokenize",
    "detokenize",
    "tokenizer_info",
    "pt",
];

/// An endpoint that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The name has no place in a path.
    #[error(
        "the endpoint name must be 1 to {NAME_LENGTH} letters, digits, `-`, `_` or `.` and begin with a letter or \
         digit, not `{0}`"
    )]
    Name(String),
    /// The name is part of a path already.
    #[error("the endpoint name `{0}` is reserved")]
    Reserved(String),
    /// Two endpoints of one name.
    #[error("there is an endpoint named `{0}` already")]
    Exists(String),
}

/// A name under which models are served, as it is now: a change makes another one, and whoever holds this one goes on with it.
pub struct Endpoint {
    name: String,
    id: String,
    created: u64,
    tracks_usage: bool,
    entities: Vec<ServedEntity>,
    split: Split,
    policies: Policies,
    awaited: bool,
}

impl Endpoint {
    /// An endpoint with one entity, that the command line or the configuration file names; `created` in seconds since 1970.
    /// Its id follows from its name, so that what is granted on it outlives the process.
    ///
    /// # Errors
    /// Where the name has no place in a path.
    pub fn new(name: impl Into<String>, provider: Arc<dyn Provider>, created: u64) -> Result<Self, EndpointError> {
        let name = name.into();
        check_name(&name)?;
        let id = id_of(&name);
        let entity = ServedEntity::new(entity_name(provider.model_name()), id_of(&format!("{name}/1")), provider);
        Ok(Self {
            name,
            id,
            created,
            tracks_usage: true,
            entities: vec![entity],
            split: Split::default(),
            policies: Policies::default(),
            awaited: false,
        })
    }

    /// An endpoint of the control plane. `shares` are percentages by entity, in order, and sum up to 100.
    pub(crate) fn of_parts(id: String, name: String, created: u64, entities: Vec<(ServedEntity, u32)>) -> Self {
        let split = Split::new(entities.iter().map(|(_, share)| *share));
        let entities = entities.into_iter().map(|(entity, _)| entity).collect();
        Self { name, id, created, tracks_usage: true, entities, split, policies: Policies::default(), awaited: false }
    }

    /// The same, whose requests are written into the usage or not.
    pub fn with_usage(self, tracks_usage: bool) -> Self {
        Self { tracks_usage, ..self }
    }

    /// The same, which has answered before and is to answer again as soon as its models are here.
    pub(crate) fn awaited(self, awaited: bool) -> Self {
        Self { awaited, ..self }
    }

    /// Whether the server is not ready before its models are here.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited
    }

    /// The same, with those policies.
    pub fn with_policies(self, policies: Policies) -> Self {
        Self { policies, ..self }
    }

    /// The name that calls give.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// 32 hexadecimal digits, for the permissions API.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it does; `None` where that shows only when its model is loaded.
    pub fn task(&self) -> Option<Task> {
        self.entities.iter().find_map(|entity| entity.provider.task())
    }

    /// Seconds since 1970.
    pub fn created(&self) -> u64 {
        self.created
    }

    /// Whether its requests are written into the usage.
    pub fn tracks_usage(&self) -> bool {
        self.tracks_usage
    }

    /// What stands behind the name.
    pub fn entities(&self) -> &[ServedEntity] {
        &self.entities
    }

    /// What its calls go through.
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// The place of the entity whose turn it is; 0 where there is none.
    pub fn next_entity(&self) -> usize {
        self.split.next().min(self.entities.len().saturating_sub(1))
    }
}

/// A model behind an endpoint. A clone is the same one.
#[derive(Clone)]
pub struct ServedEntity {
    name: String,
    id: String,
    provider: Arc<dyn Provider>,
    rest: Arc<Rest>,
    /// What is given back when nobody calls the entity any more.
    _held: Option<Arc<dyn Send + Sync>>,
}

impl ServedEntity {
    /// An entity of that name and id.
    pub(crate) fn new(name: String, id: String, provider: Arc<dyn Provider>) -> Self {
        Self { name, id, provider, rest: Arc::default(), _held: None }
    }

    /// The same, which keeps `held` for as long as somebody may call it.
    pub(crate) fn holding(self, held: Arc<dyn Send + Sync>) -> Self {
        Self { _held: Some(held), ..self }
    }

    /// Its name, the value of the `served-model-name` header.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// 32 hexadecimal digits, for the usage.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How it has been doing.
    pub(crate) fn rest(&self) -> &Rest {
        &self.rest
    }

    /// The model.
    pub fn provider(&self) -> &Arc<dyn Provider> {
        &self.provider
    }
}

/// 32 hexadecimal digits that follow from a name.
pub fn id_of(name: &str) -> String {
    let digest = Sha256::digest(format!("hearth endpoint {name}"));
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Checks that a name has a place in a path.
pub(crate) fn check_name(name: &str) -> Result<(), EndpointError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins_well || name.len() > NAME_LENGTH || !name.chars().all(legal) {
        return Err(EndpointError::Name(name.to_owned()));
    }
    if RESERVED_NAMES.contains(&name) {
        return Err(EndpointError::Reserved(name.to_owned()));
    }
    Ok(())
}

/// Names of entities stand in headers and may not hold what model names hold.
pub(crate) fn entity_name(model: &str) -> String {
    model.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_a_path_can_hold() {
        assert_eq!(check_name("bge-small-zh-v1.5"), Ok(()));
        assert_eq!(check_name("models"), Err(EndpointError::Reserved("models".into())));
        for bad in ["", "a/b", "..", "-x", "ä", &"a".repeat(129)] {
            assert_eq!(check_name(bad), Err(EndpointError::Name(bad.into())));
        }
    }

    #[test]
    fn a_chat_endpoint_also_completes_but_never_embeds() {
        assert!(Task::Chat.serves(Task::Completions));
        assert!(!Task::Completions.serves(Task::Chat));
        assert!(!Task::Chat.serves(Task::Embeddings));
        assert!(!Task::Embeddings.serves(Task::Chat));
    }

    #[test]
    fn entity_names_fit_into_a_header() {
        assert_eq!(entity_name("org/Model v1.5 é"), "org-Model-v1-5--");
    }
}
