//! Rotary position embedding. (Su et al. 2021)

use std::sync::Arc;

use candle_core::Tensor;
use hearth_kernels::{Rotary, RotaryStyle};

use super::Backend;
use super::host::host;
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
    /// Rotates each head of `x [tokens, heads * head_dim]` by its token's position.
    ///
    /// # Errors
    /// When the shapes do not fit or a position lies outside the table.
    pub fn rotate(&self, x: &Tensor, head_dim: usize, positions: &[u32], table: &RotaryTable) -> Result<Tensor, Error> {
        let (_, width) = x.dims2()?;
        let mut out = host(x)?.elements()?.to_vec();
        let how = Rotary { table: &table.table, style: table.style, heads: width / head_dim, head_dim };
        hearth_kernels::rotary(self.threads(), &mut out, positions, &how)?;
        Ok(Tensor::from_vec(out, x.shape(), x.device())?)
    }
}
