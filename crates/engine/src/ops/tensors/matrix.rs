//! Weight matrices on the device, in the stored format.
//!
//! Matrices of f32 are multiplied in f32, those of bf16 and f16 as [`half`] says. Quantised ones are multiplied in f32 without
//! rounding the activations: up to [`SINGLE_ROWS`] rows on a CUDA device row by row, with a kernel that expands each weight in registers (the
//! matrix is read once for each row); more rows, and any on another device, by expanding a band of at most
//! [`BAND_ELEMENTS`] weights to f32 and one f32 product (for each 4-bit weight half a byte is read, and four bytes are written and
//! read again). That is slower than the 8-bit products the tensor library has, and as exact as the weights are.

use std::borrow::Cow;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{DType, Device, Tensor};
use hearth_kernels::Format;

use super::half;
use crate::error::Error;
use crate::ops::Orientation;
use crate::weights::WeightTensor;

/// Most weights that are expanded at a time: 256 MiB of f32.
const BAND_ELEMENTS: usize = 1 << 26;

/// Up to this many rows it is cheaper to read a quantised matrix once for each than to expand it.
const SINGLE_ROWS: usize = 8;

/// The kernel that expands weights in registers takes this many columns at a time and cannot stop between.
const SINGLE_ROW_COLUMNS: usize = 64;

/// A weight matrix on a device.
pub(in crate::ops) enum UploadedMatrix {
    /// `[outputs, inputs]`, whatever way it was stored.
    Dense(Tensor),
    /// Bands of rows, in the stored orientation.
    Quantised(Vec<QTensor>, Orientation),
}

impl UploadedMatrix {
    /// Uploads a two-dimensional tensor.
    ///
    /// # Errors
    /// When it has another number of dimensions, or the device no memory for it.
    pub(in crate::ops) fn upload(
        device: &Device,
        tensor: &WeightTensor,
        orientation: Orientation,
    ) -> Result<Self, Error> {
        let [rows, cols] = tensor.shape[..] else {
            let reason = format!("a matrix has two dimensions, this has shape {:?}", tensor.shape);
            return Err(Error::config(&tensor.name, reason));
        };
        let uploaded = match stored_type(tensor.format) {
            Stored::Dense(dtype) => upload_dense(device, tensor, dtype, orientation).map(Self::Dense),
            Stored::Quantised(dtype) => {
                // What is summed over cannot be cut: the parts' products would have to be added.
                let band = match orientation {
                    Orientation::OutputsByInputs => (BAND_ELEMENTS / cols.max(1)).clamp(1, rows.max(1)),
                    Orientation::InputsByOutputs => rows.max(1),
                };
                upload_bands(device, tensor, dtype, band).map(|bands| Self::Quantised(bands, orientation))
            }
        };
        uploaded
            .map_err(|error| Error::config(&tensor.name, format!("cannot be uploaded as {}: {error}", tensor.format)))
    }

    /// `[m, inputs]` to `[m, outputs]`, both f32.
    pub(in crate::ops) fn multiply(&self, x: &Tensor) -> Result<Tensor, Error> {
        match self {
            Self::Dense(weight) => multiply_dense(x, weight),
            Self::Quantised(bands, orientation) => {
                let parts: Vec<Tensor> =
                    bands.iter().map(|band| multiply_quantised(x, band, *orientation)).collect::<Result<_, _>>()?;
                match &parts[..] {
                    [whole] => Ok(whole.clone()),
                    parts => Ok(Tensor::cat(parts, 1)?),
                }
            }
        }
    }
}

/// `[.., m, inputs]` times a transposed `[.., outputs, inputs]`, to `[.., m, outputs]` in f32.
pub(super) fn multiply_dense(x: &Tensor, weights: &Tensor) -> Result<Tensor, Error> {
    match weights.dtype() {
        DType::F32 => Ok(x.matmul(&weights.t()?)?),
        _ => half::multiply(x, weights),
    }
}

fn multiply_quantised(x: &Tensor, band: &QTensor, orientation: Orientation) -> Result<Tensor, Error> {
    let ((m, _), (_, cols)) = (x.dims2()?, band.shape().dims2()?);
    let plain = orientation == Orientation::OutputsByInputs;
    if plain && x.device().is_cuda() && m <= SINGLE_ROWS && cols.is_multiple_of(SINGLE_ROW_COLUMNS) {
        let rows: Vec<Tensor> =
            (0..m).map(|row| x.narrow(0, row, 1)?.apply_op1_no_bwd(band)).collect::<candle_core::Result<_>>()?;
        return Ok(Tensor::cat(&rows, 0)?);
    }
    let weight = band.dequantize(x.device())?;
    Ok(match orientation {
        Orientation::OutputsByInputs => x.matmul(&weight.t()?)?,
        Orientation::InputsByOutputs => x.matmul(&weight)?,
    })
}

/// What the tensor library calls a format.
enum Stored {
    Dense(DType),
    Quantised(GgmlDType),
}

fn stored_type(format: Format) -> Stored {
    match format {
        Format::F32 => Stored::Dense(DType::F32),
        Format::F16 => Stored::Dense(DType::F16),
        Format::BF16 => Stored::Dense(DType::BF16),
        Format::Q4_0 => Stored::Quantised(GgmlDType::Q4_0),
        Format::Q4_1 => Stored::Quantised(GgmlDType::Q4_1),
        Format::Q5_0 => Stored::Quantised(GgmlDType::Q5_0),
        Format::Q5_1 => Stored::Quantised(GgmlDType::Q5_1),
        Format::Q8_0 => Stored::Quantised(GgmlDType::Q8_0),
        Format::Q2K => Stored::Quantised(GgmlDType::Q2K),
        Format::Q3K => Stored::Quantised(GgmlDType::Q3K),
        Format::Q4K => Stored::Quantised(GgmlDType::Q4K),
        Format::Q5K => Stored::Quantised(GgmlDType::Q5K),
        Format::Q6K => Stored::Quantised(GgmlDType::Q6K),
    }
}

/// The type of a format that is multiplied as it is; `None` for quantised ones.
pub(super) fn dense_type(format: Format) -> Option<DType> {
    match stored_type(format) {
        Stored::Dense(dtype) => Some(dtype),
        Stored::Quantised(_) => None,
    }
}

/// Uploads a matrix as `[outputs, inputs]`.
pub(super) fn upload_dense(
    device: &Device,
    tensor: &WeightTensor,
    dtype: DType,
    orientation: Orientation,
) -> candle_core::Result<Tensor> {
    let stored = Tensor::from_raw_buffer(&tensor.bytes, dtype, &tensor.shape, device)?;
    match orientation {
        Orientation::OutputsByInputs => Ok(stored),
        Orientation::InputsByOutputs => stored.t()?.contiguous(), // once, on the device
    }
}

fn upload_bands(
    device: &Device,
    tensor: &WeightTensor,
    dtype: GgmlDType,
    band: usize,
) -> candle_core::Result<Vec<QTensor>> {
    let row_bytes = tensor.bytes.len() / tensor.rows().max(1);
    let bands = tensor.bytes.chunks((band * row_bytes).max(1));
    bands
        .map(|bytes| {
            let storage = QStorage::from_data(aligned(bytes), device, dtype)?;
            QTensor::new(storage, (bytes.len() / row_bytes, tensor.cols()))
        })
        .collect()
}

/// The same bytes where a block may begin, which a file does not promise.
fn aligned(bytes: &[u8]) -> Cow<'_, [u8]> {
    match bytes.as_ptr().align_offset(align_of::<u32>()) {
        0 => Cow::Borrowed(bytes),
        _ => Cow::Owned(bytes.to_vec()),
    }
}
