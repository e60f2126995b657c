//! hearth-engine

pub mod config;
pub mod hub;
