//! Elementwise functions between matrix products.

use candle_core::Tensor;

use super::Backend;
use super::host::host;
use crate::error::Error;

impl Backend {
    /// `silu(gate) * up`, both `[m, n]`. (Shazeer 2020)
    ///
    /// # Errors
    /// When the shapes differ.
    pub fn silu_mul(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor, Error> {
        let mut out = vec![0.0; gate.elem_count()];
        let (gate_host, up_host) = (host(gate)?, host(up)?);
        hearth_kernels::silu_mul(self.threads(), gate_host.elements()?, up_host.elements()?, &mut out)?;
        Ok(Tensor::from_vec(out, gate.shape(), gate.device())?)
    }

    /// Every element moved to the nearer end of `-bound..=bound` where it lies outside.
    ///
    /// # Errors
    /// The tensor library's.
    pub fn clip(&self, x: &Tensor, bound: f32) -> Result<Tensor, Error> {
        Ok(x.clamp(-bound, bound)?)
    }

    /// The exact (erf) Gaussian error linear unit.
    ///
    /// # Errors
    /// The tensor library's.
    pub fn gelu(&self, x: &Tensor) -> Result<Tensor, Error> {
        let mut out = host(x)?.elements()?.to_vec();
        hearth_kernels::gelu_erf(self.threads(), &mut out);
        Ok(Tensor::from_vec(out, x.shape(), x.device())?)
    }
}
