//! Endpoints: the names under which models are served, and the registry that holds them.
//!
//! Owns names, tasks, served entities and readiness. Knows no permission: the registry hands an endpoint only to
//! the gate, which does.

mod registry;

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

pub(crate) use registry::Found;
pub use registry::Registry;

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
const RESERVED_NAMES: [&str; 9] =
    ["chat", "completions", "embeddings", "rerank", "responses", "models", "tokenize", "detokenize", "tokenizer_info"];

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

/// A name under which a model is served.
pub struct Endpoint {
    name: String,
    id: String,
    created: u64,
    entities: Vec<ServedEntity>,
}

impl Endpoint {
    /// An endpoint with one entity; `created` in seconds since 1970.
    pub fn new(name: impl Into<String>, provider: Arc<dyn Provider>, created: u64) -> Result<Self, EndpointError> {
        let name = name.into();
        check_name(&name)?;
        let entity = ServedEntity { name: entity_name(provider.model_name()), provider };
        Ok(Self { name, id: Uuid::new_v4().simple().to_string(), created, entities: vec![entity] })
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
        self.entities.first().and_then(|entity| entity.provider.task())
    }

    /// Seconds since 1970.
    pub fn created(&self) -> u64 {
        self.created
    }

    /// What stands behind the name, at least one.
    pub fn entities(&self) -> &[ServedEntity] {
        &self.entities
    }
}

/// A model behind an endpoint.
pub struct ServedEntity {
    name: String,
    provider: Arc<dyn Provider>,
}

impl ServedEntity {
    /// Its name, the value of the `served-model-name` header.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model.
    pub fn provider(&self) -> &Arc<dyn Provider> {
        &self.provider
    }
}

fn check_name(name: &str) -> Result<(), EndpointError> {
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
fn entity_name(model: &str) -> String {
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
