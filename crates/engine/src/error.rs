//! The error of this crate: one enum, a variant for each room that can fail.

use crate::weights::WeightsError;

/// Anything that can go wrong in the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A checkpoint cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}
