//! hearth-engine

pub mod text;
