//! The list of models.

use serde::Serialize;

/// All models a caller may see.
#[derive(Debug, Serialize)]
pub struct ModelList {
    /// Always `list`.
    pub object: &'static str,
    /// One a model, by name.
    pub data: Vec<Model>,
}

/// One model: an endpoint under its name.
#[derive(Debug, Serialize)]
pub struct Model {
    /// Name of the endpoint.
    pub id: String,
    /// Always `model`.
    pub object: &'static str,
    /// Seconds since 1970.
    pub created: u64,
    /// Who serves it.
    pub owned_by: &'static str,
}
