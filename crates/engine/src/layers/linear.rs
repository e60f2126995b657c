//! A linear layer over weights in any stored format.

use candle_core::Tensor;

use super::LayerSource;
use crate::error::Error;
use crate::ops::{Matrix, Vector};

/// `x Wᵀ + b` with `W [outputs, inputs]`.
pub struct Linear {
    weight: Matrix,
    bias: Option<Vector>,
}

impl Linear {
    /// Loads `weight`, and `bias` when the model has one, from this place of the checkpoint.
    ///
    /// # Errors
    /// When a tensor is missing or misshapen.
    pub fn load(source: &LayerSource<'_>, inputs: usize, outputs: usize, bias: bool) -> Result<Self, Error> {
        let tensor = source.weights.tensor(&source.name("weight"), &[outputs, inputs])?;
        let bias = match bias {
            true => Some(source.vector("bias", outputs)?),
            false => None,
        };
        Ok(Self { weight: Matrix::new(source.backend, tensor)?, bias })
    }

    /// A layer without bias over a matrix that is already loaded, such as tied embeddings.
    #[must_use]
    pub fn from_matrix(weight: Matrix) -> Self {
        Self { weight, bias: None }
    }

    /// `[m, inputs]` to `[m, outputs]`.
    ///
    /// # Errors
    /// When `x` has another width.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        self.weight.multiply(x, self.bias.as_ref())
    }
}
