//! Rotary position embedding. (Su et al. 2021)

use std::sync::Arc;

use candle_core::Tensor;
use hearth_kernels::{Rotary, RotaryStyle};

use super::backend::Arithmetic;
use super::{Backend, ForwardBatch, host, tensors};
use crate::error::Error;

/// The angles of a model: its inverse frequencies, and how a head's elements are paired. Shared by all layers.
#[derive(Clone)]
pub struct RotaryTable {
    table: Arc<hearth_kernels::RotaryTable>,
    style: RotaryStyle,
}

impl RotaryTable {
    /// A table for positions below `max_positions`; `inverse_frequencies` are `[head_dim / 2]`, in radians a token.
    ///
    /// # Errors
    /// When there are no frequencies, or more positions than can be numbered.
    pub fn new(inverse_frequencies: &[f32], max_positions: usize, style: RotaryStyle) -> Result<Self, Error> {
        let table = hearth_kernels::RotaryTable::new(inverse_frequencies, max_positions)?;
        Ok(Self { table: Arc::new(table), style })
    }
}

impl Backend {
    /// Rotates each head of `x [tokens, heads * head_dim]` by its token's position in its sequence. `table` is the model's: a
    /// batch is rotated by one alone.
    ///
    /// # Errors
    /// When the shapes do not fit or a position lies outside the table.
    pub fn rotate(
        &self,
        x: &Tensor,
        head_dim: usize,
        batch: &ForwardBatch,
        RotaryTable { table, style }: &RotaryTable,
    ) -> Result<Tensor, Error> {
        match self.arithmetic() {
            Arithmetic::Kernels => {
                let (_, width) = x.dims2()?;
                let how = Rotary { table, style: *style, heads: width / head_dim, head_dim };
                host::rows::rotate(self.threads(), x, &batch.positions, &how)
            }
            Arithmetic::Tensors => tensors::rows::rotate(x, head_dim, batch, (table, *style)),
        }
    }
}
