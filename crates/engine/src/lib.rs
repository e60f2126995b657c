//! The engine of Hearth: models from their files to their answers, on one OS thread each.
//!
//! It knows no HTTP, no JSON request and no permission; it takes checked requests ([`serve::GenerationRequest`]) and
//! gives streams. The modules stand in layers, and each uses only what stands before it:
//!
//! | layer | modules |
//! |---|---|
//! | 0 | [`error`], [`ids`] |
//! | 1 | [`config`], [`memory`], [`device`], [`hub`], [`weights`], [`checkpoint`] |
//! | 2 | [`kv`] (`block`, `pool`, `prefix`: no tensors) |
//! | 3 | [`ops`]: what runs where |
//! | 4 | [`kv`] (`store`: the cache's tensors) |
//! | 5 | [`layers`] |
//! | 6 | [`models`] |
//! | 7 | [`schedule`] and [`text`]: no tensors |
//! | 8 | [`run`]; [`export`]: a model as one GGUF file |
//! | 9 | [`serve`] |

pub mod checkpoint;
pub mod config;
pub mod device;
pub mod error;
pub mod export;
pub mod hub;
pub mod ids;
pub mod kv;
pub mod layers;
pub mod memory;
pub mod models;
pub mod ops;
pub mod run;
pub mod schedule;
pub mod serve;
pub mod text;
pub mod weights;

pub use error::Error;
