//! Root-mean-square and layer normalisation over the last dimension.

use candle_core::Tensor;
use hearth_kernels::Affine;

use super::Backend;
use super::host::host;
use crate::error::Error;

impl Backend {
    /// `x / rms(x) * weight` for each row of `[m, n]`. (Zhang and Sennrich 2019)
    ///
    /// # Errors
    /// When `weight` does not have `n` elements.
    pub fn rms_norm(&self, x: &Tensor, weight: &[f32], epsilon: f32) -> Result<Tensor, Error> {
        let mut out = vec![0.0; x.elem_count()];
        hearth_kernels::rms_norm(self.threads(), host(x)?.elements()?, weight, epsilon, &mut out)?;
        Ok(Tensor::from_vec(out, x.shape(), x.device())?)
    }

    /// `(x - mean) / deviation * weight + bias` for each row of `[m, n]`. (Ba et al. 2016)
    ///
    /// # Errors
    /// When `weight` or `bias` do not have `n` elements.
    pub fn layer_norm(&self, x: &Tensor, affine: &LayerNormWeights, epsilon: f32) -> Result<Tensor, Error> {
        let mut out = vec![0.0; x.elem_count()];
        let x_host = host(x)?;
        let affine = Affine { weight: &affine.weight, bias: affine.bias.as_deref() };
        hearth_kernels::layer_norm(self.threads(), x_host.elements()?, &affine, epsilon, &mut out)?;
        Ok(Tensor::from_vec(out, x.shape(), x.device())?)
    }
}

/// The learned scale and shift of a layer normalisation.
#[derive(Clone, Debug)]
pub struct LayerNormWeights {
    /// `[n]`
    pub weight: Vec<f32>,
    /// `[n]`
    pub bias: Option<Vec<f32>>,
}
