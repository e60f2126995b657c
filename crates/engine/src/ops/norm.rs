//! Root-mean-square and layer normalisation over the last dimension.

use candle_core::Tensor;
use hearth_kernels::Affine;

use super::backend::Arithmetic;
use super::{Backend, Vector, host, tensors};
use crate::error::Error;

impl Backend {
    /// `x / rms(x) * weight` for each row of `[m, n]`. (Zhang and Sennrich 2019)
    ///
    /// # Errors
    /// When `weight` does not have `n` elements.
    pub fn rms_norm(&self, x: &Tensor, weight: &Vector, epsilon: f32) -> Result<Tensor, Error> {
        match self.arithmetic() {
            Arithmetic::Kernels => host::rows::rms_norm(self.threads(), x, weight.host()?, epsilon),
            Arithmetic::Tensors => tensors::rows::rms_norm(x, weight.device()?, epsilon),
        }
    }

    /// `(x - mean) / deviation * weight + bias` for each row of `[m, n]`. (Ba et al. 2016)
    ///
    /// # Errors
    /// When `weight` or `bias` do not have `n` elements.
    pub fn layer_norm(&self, x: &Tensor, affine: &LayerNormWeights, epsilon: f32) -> Result<Tensor, Error> {
        let LayerNormWeights { weight, bias } = affine;
        match self.arithmetic() {
            Arithmetic::Kernels => {
                let bias = bias.as_ref().map(Vector::host).transpose()?;
                host::rows::layer_norm(self.threads(), x, &Affine { weight: weight.host()?, bias }, epsilon)
            }
            Arithmetic::Tensors => {
                let bias = bias.as_ref().map(Vector::device).transpose()?;
                tensors::rows::layer_norm(x, weight.device()?, bias, epsilon)
            }
        }
    }
}

/// The learned scale and shift of a layer normalisation.
#[derive(Clone, Debug)]
pub struct LayerNormWeights {
    /// `[n]`
    pub weight: Vector,
    /// `[n]`
    pub bias: Option<Vector>,
}
