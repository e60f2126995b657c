//! Elementwise functions between matrix products.

use candle_core::Tensor;

use super::backend::Arithmetic;
use super::{Backend, host, tensors};
use crate::error::Error;

impl Backend {
    /// `silu(gate) * up`, both `[m, n]`. (Shazeer 2020)
    ///
    /// # Errors
    /// When the shapes differ.
    pub fn silu_mul(&self, gate: &Tensor, up: &Tensor) -> Result<Tensor, Error> {
        match self.arithmetic() {
            Arithmetic::Kernels => host::rows::silu_mul(self.threads(), gate, up),
            Arithmetic::Tensors => tensors::rows::silu_mul(gate, up),
        }
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
        match self.arithmetic() {
            Arithmetic::Kernels => host::rows::gelu(self.threads(), x),
            Arithmetic::Tensors => tensors::rows::gelu(x),
        }
    }
}
