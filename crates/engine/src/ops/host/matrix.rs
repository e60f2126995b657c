//! Products with weights that stay in the mapped file, in the stored format.

use candle_core::Tensor;
use hearth_kernels::{MatrixView, Threads, combine_rows, gather_rows, matmul};

use super::slice::host;
use crate::error::Error;
use crate::ops::{Backend, Orientation};
use crate::weights::WeightTensor;

/// A weight matrix `[rows, cols]` in the mapped file.
#[derive(Clone)]
pub(in crate::ops) struct MappedMatrix {
    tensor: WeightTensor,
    rows: usize,
    cols: usize,
}

impl MappedMatrix {
    /// # Errors
    /// When the tensor has not two dimensions, or its bytes do not fit its format.
    pub(in crate::ops) fn new(tensor: WeightTensor) -> Result<Self, Error> {
        let [rows, cols] = tensor.shape[..] else {
            let reason = format!("a matrix has two dimensions, this has shape {:?}", tensor.shape);
            return Err(Error::config(&tensor.name, reason));
        };
        let matrix = Self { tensor, rows, cols };
        matrix.view()?;
        Ok(matrix)
    }

    /// The tensor it was made of.
    pub(in crate::ops) fn tensor(&self) -> &WeightTensor {
        &self.tensor
    }

    /// `[m, inputs]` to `[m, outputs]`.
    pub(in crate::ops) fn multiply(
        &self,
        threads: &Threads,
        x: &Tensor,
        bias: Option<&[f32]>,
        orientation: Orientation,
    ) -> Result<Tensor, Error> {
        let (m, _) = x.dims2()?;
        let (x_host, view) = (host(x)?, self.view()?);
        let outputs = match orientation {
            Orientation::OutputsByInputs => self.rows,
            Orientation::InputsByOutputs => self.cols,
        };
        let mut out = vec![0.0; m * outputs]; // [m, outputs]
        match orientation {
            Orientation::OutputsByInputs => matmul(threads, x_host.elements()?, &view, bias, &mut out)?,
            Orientation::InputsByOutputs => combine_rows(threads, x_host.elements()?, &view, bias, &mut out)?,
        }
        Ok(Tensor::from_vec(out, (m, outputs), x.device())?)
    }

    /// The rows of those indices, as f32, on the backend's device: `[n]` to `[n, cols]`.
    pub(in crate::ops) fn gather(&self, backend: &Backend, indices: &[u32]) -> Result<Tensor, Error> {
        let mut out = vec![0.0; indices.len() * self.cols]; // [n, cols]
        gather_rows(&self.view()?, indices, &mut out)?;
        Ok(Tensor::from_vec(out, (indices.len(), self.cols), backend.device())?)
    }

    fn view(&self) -> Result<MatrixView<'_>, Error> {
        Ok(MatrixView::new(self.tensor.format, self.rows, self.cols, &self.tensor.bytes)?)
    }
}
