//! hearth-engine

pub mod error;
pub mod weights;
