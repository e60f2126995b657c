//! A table of vectors, looked up by index.

use candle_core::Tensor;

use super::LayerSource;
use crate::error::Error;
use crate::ops::{Matrix, Table};

/// `[entries, width]`, kept in its stored format and expanded row by row.
pub struct Embedding {
    table: Table,
}

impl Embedding {
    /// Loads `weight [entries, width]` from this place.
    ///
    /// # Errors
    /// When it is missing or misshapen.
    pub fn load(source: &LayerSource<'_>, entries: usize, width: usize) -> Result<Self, Error> {
        let tensor = source.weights.tensor(&source.name("weight"), &[entries, width])?;
        Ok(Self { table: Table::new(source.backend, tensor)? })
    }

    /// The rows of those indices: `[n]` to `[n, width]`.
    ///
    /// # Errors
    /// When an index is not below the number of entries.
    pub fn forward(&self, indices: &[u32]) -> Result<Tensor, Error> {
        self.table.gather(indices)
    }

    /// The same weights for an output layer that is tied to them.
    ///
    /// # Errors
    /// When the device has no memory for them.
    pub fn matrix(&self) -> Result<Matrix, Error> {
        self.table.matrix()
    }
}
