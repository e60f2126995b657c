//! The seam around a model's arithmetic.

use std::fmt;
use std::sync::Arc;

use crate::models::Model;

/// What is put around each model when it is loaded: for instrumentation, and for tests of what happens when a model fails, hangs
/// or answers with nonsense. It has to give back a model of the same kind.
#[derive(Clone)]
pub struct Decorator(Arc<dyn Fn(Model) -> Model + Send + Sync>);

impl Decorator {
    /// Puts `decorate` around each model.
    pub fn new(decorate: impl Fn(Model) -> Model + Send + Sync + 'static) -> Self {
        Self(Arc::new(decorate))
    }

    pub(super) fn apply(&self, model: Model) -> Model {
        (self.0)(model)
    }
}

impl fmt::Debug for Decorator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Decorator")
    }
}
