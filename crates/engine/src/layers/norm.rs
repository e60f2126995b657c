//! Normalisation layers.

use candle_core::Tensor;

use super::{LayerSource, RowLayer};
use crate::error::Error;
use crate::ops::{Backend, LayerNormWeights, Vector};

/// Root-mean-square normalisation with a learned scale.
pub struct RmsNorm {
    backend: Backend,
    weight: Vector,
    epsilon: f32,
}

impl RmsNorm {
    /// Loads `weight [width]` from this place.
    ///
    /// # Errors
    /// When it is missing or misshapen.
    pub fn load(source: &LayerSource<'_>, width: usize, epsilon: f32) -> Result<Self, Error> {
        Ok(Self { backend: source.backend.clone(), weight: source.vector("weight", width)?, epsilon })
    }
}

impl RowLayer for RmsNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        self.backend.rms_norm(x, &self.weight, self.epsilon)
    }
}

/// Layer normalisation with a learned scale and, in most models, shift.
pub struct LayerNorm {
    backend: Backend,
    affine: LayerNormWeights,
    epsilon: f32,
}

impl LayerNorm {
    /// Loads `weight` and `bias`, each `[width]`, from this place. Checkpoints of the first BERTs call them `gamma` and
    /// `beta`.
    ///
    /// # Errors
    /// When one is missing or misshapen.
    pub fn load(source: &LayerSource<'_>, width: usize, epsilon: f32) -> Result<Self, Error> {
        let vector = |name: &str, old_name: &str| {
            let old = source.weights.get(&source.name(old_name));
            source.vector(old.map_or(name, |_| old_name), width)
        };
        let (weight, bias) = (vector("weight", "gamma")?, Some(vector("bias", "beta")?));
        Ok(Self { backend: source.backend.clone(), affine: LayerNormWeights { weight, bias }, epsilon })
    }

    /// Loads `weight [width]` alone: a scale without a shift.
    ///
    /// # Errors
    /// When it is missing or misshapen.
    pub fn load_without_bias(source: &LayerSource<'_>, width: usize, epsilon: f32) -> Result<Self, Error> {
        let weight = source.vector("weight", width)?;
        Ok(Self { backend: source.backend.clone(), affine: LayerNormWeights { weight, bias: None }, epsilon })
    }
}

impl RowLayer for LayerNorm {
    fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        self.backend.layer_norm(x, &self.affine, self.epsilon)
    }
}
