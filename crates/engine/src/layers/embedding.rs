//! A table of vectors, looked up by index.

use candle_core::Tensor;

use super::LayerSource;
use crate::error::Error;
use crate::ops::Matrix;

/// `[entries, width]`, kept in its stored format and expanded row by row.
pub struct Embedding {
    table: Matrix,
}

impl Embedding {
    /// Loads `weight [entries, width]` from this place.
    ///
    /// # Errors
    /// When it is missing or misshapen.
    pub fn load(source: &LayerSource<'_>, entries: usize, width: usize) -> Result<Self, Error> {
        let tensor = source.weights.tensor(&source.name("weight"), &[entries, width])?;
        Ok(Self { table: Matrix::new(source.backend, tensor)? })
    }

    /// The rows of those indices: `[n]` to `[n, width]`.
    ///
    /// # Errors
    /// When an index is not below the number of entries.
    pub fn forward(&self, indices: &[u32]) -> Result<Tensor, Error> {
        self.table.gather(indices)
    }

    /// The table itself, shared with an output layer that is tied to it.
    #[must_use]
    pub fn matrix(&self) -> Matrix {
        self.table.clone()
    }
}
