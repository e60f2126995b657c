//! The parts that models are made of, loaded from a checkpoint by the checkpoint's own names.

mod attention;
mod embedding;
mod linear;
mod mlp;
mod moe;
mod norm;
mod rotary;

pub use attention::{Attention, AttentionConfig};
pub use embedding::Embedding;
pub use linear::Linear;
pub use mlp::GatedMlp;
pub use moe::{MixtureConfig, MixtureOfExperts, stacked_tensors};
pub use norm::{LayerNorm, RmsNorm};
pub use rotary::{RopeParameters, RopeType};

use candle_core::Tensor;

use crate::error::Error;
use crate::ops::{Backend, Vector};
use crate::weights::Weights;

/// A layer that maps each token's row by itself: `[tokens, width]` to `[tokens, width]`.
pub trait RowLayer: Send + Sync {
    /// Maps every row of `x`.
    ///
    /// # Errors
    /// When `x` has another width than the layer.
    fn forward(&self, x: &Tensor) -> Result<Tensor, Error>;
}

/// Where a layer loads from: a checkpoint, a place in it, and the backend to load to.
#[derive(Clone)]
pub struct LayerSource<'a> {
    /// The opened checkpoint.
    pub weights: &'a Weights,
    /// Where the layer will run.
    pub backend: &'a Backend,
    path: String,
}

impl<'a> LayerSource<'a> {
    /// The root of a checkpoint.
    #[must_use]
    pub fn new(weights: &'a Weights, backend: &'a Backend) -> Self {
        Self { weights, backend, path: String::new() }
    }

    /// The place `name` below this one.
    #[must_use]
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { path: self.name(name), ..self.clone() }
    }

    /// The vector `name` at this place, `[length]`, on the backend.
    ///
    /// # Errors
    /// When it is missing or misshapen, or the device has no memory for it.
    pub fn vector(&self, name: &str, length: usize) -> Result<Vector, Error> {
        Vector::new(self.backend, self.weights.vector(&self.name(name), length)?)
    }

    /// The full name of `name` at this place, as in `model.layers.0.mlp.up_proj.weight`.
    #[must_use]
    pub fn name(&self, name: impl std::fmt::Display) -> String {
        match self.path.is_empty() {
            true => name.to_string(),
            false => format!("{}.{name}", self.path),
        }
    }
}
