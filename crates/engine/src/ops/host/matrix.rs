//! Products with weights in host memory: packed once for the kernels, or in the mapped file, in the stored format.

use std::sync::Arc;

use candle_core::Tensor;
use hearth_kernels::{MatrixView, PackedMatrix, Threads, combine_rows, gather_rows, matmul};

use super::slice::host;
use crate::error::Error;
use crate::ops::{Backend, Orientation};
use crate::weights::WeightTensor;

/// A weight matrix `[outputs, inputs]`.
#[derive(Clone)]
pub(in crate::ops) struct HostMatrix(Weights);

#[derive(Clone)]
enum Weights {
    /// Rearranged for products, in memory of its own; the pages it was read from are given back.
    Packed(Arc<PackedMatrix>),
    /// As it is stored, and which way around.
    Mapped(MappedMatrix, Orientation),
}

impl HostMatrix {
    /// Packs the tensor where its format and orientation allow it.
    ///
    /// # Errors
    /// When the tensor has not two dimensions, or its bytes do not fit its format.
    pub(in crate::ops) fn new(
        threads: &Threads,
        tensor: WeightTensor,
        orientation: Orientation,
    ) -> Result<Self, Error> {
        let mapped = MappedMatrix::new(tensor)?;
        let packed = match orientation {
            Orientation::OutputsByInputs => {
                PackedMatrix::pack(threads, &mapped.view()?, |part| mapped.tensor.bytes.release(part))
            }
            Orientation::InputsByOutputs => None,
        };
        Ok(Self(match packed {
            Some(packed) => Weights::Packed(Arc::new(packed)),
            None => Weights::Mapped(mapped, orientation),
        }))
    }

    /// `[m, inputs]` to `[m, outputs]`.
    pub(in crate::ops) fn multiply(
        &self,
        threads: &Threads,
        x: &Tensor,
        bias: Option<&[f32]>,
    ) -> Result<Tensor, Error> {
        let (m, _) = x.dims2()?;
        let x_host = host(x)?;
        let x_rows = x_host.elements()?;
        let mut out = vec![0.0; m * self.outputs()]; // [m, outputs]
        match &self.0 {
            Weights::Packed(packed) => packed.multiply(threads, x_rows, bias, &mut out)?,
            Weights::Mapped(mapped, orientation) => match orientation {
                Orientation::OutputsByInputs => matmul(threads, x_rows, &mapped.view()?, bias, &mut out)?,
                Orientation::InputsByOutputs => combine_rows(threads, x_rows, &mapped.view()?, bias, &mut out)?,
            },
        }
        Ok(Tensor::from_vec(out, (m, self.outputs()), x.device())?)
    }

    /// The weights, where they are packed.
    pub(in crate::ops) fn packed(&self) -> Option<&Arc<PackedMatrix>> {
        match &self.0 {
            Weights::Packed(packed) => Some(packed),
            Weights::Mapped(..) => None,
        }
    }

    fn outputs(&self) -> usize {
        match &self.0 {
            Weights::Packed(packed) => packed.rows(),
            Weights::Mapped(mapped, Orientation::OutputsByInputs) => mapped.rows,
            Weights::Mapped(mapped, Orientation::InputsByOutputs) => mapped.cols,
        }
    }
}

/// A matrix `[rows, cols]` in the mapped file.
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
