//! Weight matrices: kept as the checkpoint stores them, multiplied and looked up without a second copy.

use candle_core::Tensor;
use hearth_kernels::{MatrixView, gather_rows, matmul};

use super::Backend;
use super::host::host;
use crate::error::Error;
use crate::weights::WeightTensor;

/// A weight matrix `[rows, cols]` on a backend. On the CPU its bytes stay in the mapped file, in the stored format.
#[derive(Clone)]
pub struct Matrix {
    backend: Backend,
    tensor: WeightTensor,
    rows: usize,
    cols: usize,
}

impl Matrix {
    /// Takes a two-dimensional tensor of the checkpoint.
    ///
    /// # Errors
    /// When it has another number of dimensions or its bytes do not fit its format.
    pub fn new(backend: &Backend, tensor: WeightTensor) -> Result<Self, Error> {
        let [rows, cols] = tensor.shape[..] else {
            let reason = format!("a matrix has two dimensions, this has shape {:?}", tensor.shape);
            return Err(Error::config(&tensor.name, reason));
        };
        let matrix = Self { backend: backend.clone(), tensor, rows, cols };
        matrix.view()?;
        Ok(matrix)
    }

    /// Outputs of the product.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// `x Wᵀ + bias`: `[m, cols]` to `[m, rows]`.
    ///
    /// # Errors
    /// When `x` is not `[m, cols]`.
    pub fn multiply(&self, x: &Tensor, bias: Option<&[f32]>) -> Result<Tensor, Error> {
        let (m, _) = x.dims2()?;
        let mut out = vec![0.0; m * self.rows]; // [m, rows]
        matmul(self.backend.threads(), host(x)?.elements()?, &self.view()?, bias, &mut out)?;
        Ok(Tensor::from_vec(out, (m, self.rows), x.device())?)
    }

    /// The rows of those indices, as f32: `[n]` to `[n, cols]`.
    ///
    /// # Errors
    /// When an index is not below `rows`.
    pub fn gather(&self, indices: &[u32]) -> Result<Tensor, Error> {
        let mut out = vec![0.0; indices.len() * self.cols]; // [n, cols]
        gather_rows(&self.view()?, indices, &mut out)?;
        Ok(Tensor::from_vec(out, (indices.len(), self.cols), self.backend.device())?)
    }

    fn view(&self) -> Result<MatrixView<'_>, Error> {
        Ok(MatrixView::new(self.tensor.format, self.rows, self.cols, &self.tensor.bytes)?)
    }
}
