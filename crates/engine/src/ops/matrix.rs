//! Weight matrices, and tables that are looked up by row.

use std::sync::{Arc, OnceLock};

use candle_core::Tensor;
use hearth_kernels::PackedMatrix;

use super::backend::Arithmetic;
use super::host::{HostMatrix, MappedMatrix};
use super::tensors::UploadedMatrix;
use super::{Backend, Vector};
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

/// A weight matrix `[outputs, inputs]` on a backend. For the CPU kernels quantised weights are packed once, and others stay in the
/// mapped file; to a device they are uploaded once.
#[derive(Clone)]
pub struct Matrix {
    backend: Backend,
    weights: MatrixWeights,
}

#[derive(Clone)]
enum MatrixWeights {
    Host(HostMatrix),
    Uploaded(Arc<UploadedMatrix>),
}

impl Matrix {
    /// Takes a two-dimensional tensor `[outputs, inputs]` of the checkpoint to the backend.
    ///
    /// # Errors
    /// When it has another number of dimensions, its bytes do not fit its format, or the device has no memory for it.
    pub fn new(backend: &Backend, tensor: WeightTensor) -> Result<Self, Error> {
        let plain = Orientation::OutputsByInputs;
        let weights = match backend.arithmetic() {
            Arithmetic::Kernels => MatrixWeights::Host(HostMatrix::new(backend.threads(), tensor, plain)?),
            Arithmetic::Tensors => {
                MatrixWeights::Uploaded(Arc::new(UploadedMatrix::upload(backend.device(), &tensor, plain)?))
            }
        };
        Ok(Self { backend: backend.clone(), weights })
    }

    /// `x Wᵀ + bias`: `[m, inputs]` to `[m, outputs]`.
    ///
    /// # Errors
    /// When `x` or `bias` has another width.
    pub fn multiply(&self, x: &Tensor, bias: Option<&Vector>) -> Result<Tensor, Error> {
        match &self.weights {
            MatrixWeights::Host(matrix) => {
                let bias = bias.map(Vector::host).transpose()?;
                matrix.multiply(self.backend.threads(), x, bias)
            }
            MatrixWeights::Uploaded(matrix) => {
                let product = matrix.multiply(x)?;
                match bias {
                    Some(bias) => Ok(product.broadcast_add(bias.device()?)?),
                    None => Ok(product),
                }
            }
        }
    }
}

/// A table `[entries, width]` that is looked up by row. It stays in host memory whatever the backend: a step's rows are few, and are
/// uploaded together.
pub struct Table {
    backend: Backend,
    rows: MappedMatrix,
    /// The same rows, once they have been packed for a matrix: the only copy that is then kept in memory.
    packed: OnceLock<Arc<PackedMatrix>>,
}

impl Table {
    /// Takes a two-dimensional tensor of the checkpoint.
    ///
    /// # Errors
    /// When it has another number of dimensions or its bytes do not fit its format.
    pub fn new(backend: &Backend, tensor: WeightTensor) -> Result<Self, Error> {
        Ok(Self { backend: backend.clone(), rows: MappedMatrix::new(tensor)?, packed: OnceLock::new() })
    }

    /// The rows of those indices, as f32: `[n]` to `[n, width]`.
    ///
    /// # Errors
    /// When an index is not below the number of entries.
    pub fn gather(&self, indices: &[u32]) -> Result<Tensor, Error> {
        let Some(packed) = self.packed.get() else { return self.rows.gather(&self.backend, indices) };
        let mut out = vec![0.0; indices.len() * packed.cols()]; // [n, width]
        packed.gather(indices, &mut out)?;
        Ok(Tensor::from_vec(out, (indices.len(), packed.cols()), self.backend.device())?)
    }

    /// The same weights as a matrix of products, for an output layer that is tied to the table.
    ///
    /// # Errors
    /// When the device has no memory for them.
    pub fn matrix(&self) -> Result<Matrix, Error> {
        let matrix = Matrix::new(&self.backend, self.rows.tensor().clone())?;
        if let MatrixWeights::Host(host) = &matrix.weights
            && let Some(packed) = host.packed()
        {
            self.packed.get_or_init(|| Arc::clone(packed));
        }
        Ok(matrix)
    }
}
