//! Weight matrices: kept as the checkpoint stores them, multiplied and looked up without a second copy.

use candle_core::Tensor;
use hearth_kernels::{MatrixView, combine_rows, gather_rows, matmul};

use super::Backend;
use super::host::host;
use crate::error::Error;
use crate::weights::WeightTensor;

/// Which dimension of a stored matrix is summed over by the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orientation {
    /// `[outputs, inputs]`, as PyTorch's linear layers have it.
    OutputsByInputs,
    /// `[inputs, outputs]`.
    InputsByOutputs,
}

/// A weight matrix `[rows, cols]` on a backend. On the CPU its bytes stay in the mapped file, in the stored format.
#[derive(Clone)]
pub struct Matrix {
    backend: Backend,
    tensor: WeightTensor,
    rows: usize,
    cols: usize,
    orientation: Orientation,
}

impl Matrix {
    /// Takes a two-dimensional tensor `[outputs, inputs]` of the checkpoint.
    ///
    /// # Errors
    /// When it has another number of dimensions or its bytes do not fit its format.
    pub fn new(backend: &Backend, tensor: WeightTensor) -> Result<Self, Error> {
        let [rows, cols] = tensor.shape[..] else {
            let reason = format!("a matrix has two dimensions, this has shape {:?}", tensor.shape);
            return Err(Error::config(&tensor.name, reason));
        };
        let orientation = Orientation::OutputsByInputs;
        let matrix = Self { backend: backend.clone(), tensor, rows, cols, orientation };
        matrix.view()?;
        Ok(matrix)
    }

    /// The same matrix, read as stored in this orientation.
    #[must_use]
    pub fn oriented(self, orientation: Orientation) -> Self {
        Self { orientation, ..self }
    }

    /// `x Wᵀ + bias`, or `x W + bias` where the matrix is stored as `[inputs, outputs]`: `[m, inputs]` to `[m, outputs]`.
    ///
    /// # Errors
    /// When `x` or `bias` has another width.
    pub fn multiply(&self, x: &Tensor, bias: Option<&[f32]>) -> Result<Tensor, Error> {
        let (m, _) = x.dims2()?;
        let (threads, x_host) = (self.backend.threads(), host(x)?);
        let outputs = match self.orientation {
            Orientation::OutputsByInputs => self.rows,
            Orientation::InputsByOutputs => self.cols,
        };
        let mut out = vec![0.0; m * outputs]; // [m, outputs]
        match self.orientation {
            Orientation::OutputsByInputs => matmul(threads, x_host.elements()?, &self.view()?, bias, &mut out)?,
            Orientation::InputsByOutputs => combine_rows(threads, x_host.elements()?, &self.view()?, bias, &mut out)?,
        }
        Ok(Tensor::from_vec(out, (m, outputs), x.device())?)
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
