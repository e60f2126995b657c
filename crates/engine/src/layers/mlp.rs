//! The gated feed-forward network of Llama-like models.

use candle_core::Tensor;

use super::{LayerSource, Linear, RowLayer};
use crate::error::Error;
use crate::ops::Backend;

/// `down(silu(gate(x)) * up(x))`.
pub struct GatedMlp {
    backend: Backend,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl GatedMlp {
    /// Loads `gate_proj`, `up_proj` and `down_proj` from this place.
    ///
    /// # Errors
    /// When a tensor is missing or misshapen.
    pub fn load(source: &LayerSource<'_>, width: usize, inner: usize, bias: bool) -> Result<Self, Error> {
        Ok(Self {
            backend: source.backend.clone(),
            gate: Linear::load(&source.at("gate_proj"), width, inner, bias)?,
            up: Linear::load(&source.at("up_proj"), width, inner, bias)?,
            down: Linear::load(&source.at("down_proj"), inner, width, bias)?,
        })
    }
}

impl RowLayer for GatedMlp {
    fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        let gated = self.backend.silu_mul(&self.gate.forward(x)?, &self.up.forward(x)?)?; // [tokens, inner]
        self.down.forward(&gated)
    }
}
