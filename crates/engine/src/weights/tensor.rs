//! One tensor of a checkpoint as it is stored. Owns the arithmetic between shape, format and bytes; must not know file formats.

use std::path::PathBuf;

use hearth_kernels::Format;

use super::error::{Fault, Part, WeightsError};
use super::map::{MappedBytes, WeightMap};

/// A tensor in its stored format: `bytes` is exactly as long as `format` and `shape` say.
#[derive(Debug, Clone)]
pub struct WeightTensor {
    /// The name it was asked for by.
    pub name: String,
    /// How its values are stored. Every row begins a new block.
    pub format: Format,
    /// Row-major, outermost dimension first, as PyTorch writes it. Empty for a scalar.
    pub shape: Vec<usize>,
    /// The stored values, still in the map. In safetensors files they may lie at any address, so nothing may be assumed
    /// of their alignment.
    pub bytes: MappedBytes,
}

impl WeightTensor {
    /// The length of a row: the innermost dimension.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The number of rows: the product of all dimensions but the innermost.
    pub fn rows(&self) -> usize {
        self.shape.split_last().map_or(1, |(_, outer)| outer.iter().product())
    }

    /// Checks that the tensor has this shape.
    ///
    /// # Errors
    /// [`Fault::WrongShape`] with both shapes.
    pub fn expect_shape(&self, expected: &[usize]) -> Result<(), WeightsError> {
        if self.shape == expected {
            return Ok(());
        }
        let fault = Fault::WrongShape { expected: expected.to_vec(), found: self.shape.clone() };
        Err(fault.of(self.bytes.file(), Part::Tensor(self.name.clone())))
    }

    /// Shares out the rows in order, as matrices of so many rows each, without a copy: the experts of a stacked tensor, the
    /// projections of a fused one.
    ///
    /// # Errors
    /// [`Fault::WrongShape`] when `counts` do not add up to the tensor's rows.
    pub fn split_rows(&self, counts: &[usize]) -> Result<Vec<Self>, WeightsError> {
        let (rows, cols) = (self.rows(), self.cols());
        let wanted = counts.iter().try_fold(0_usize, |sum, &count| sum.checked_add(count));
        let row_bytes = self.bytes.len() / rows.max(1);
        let cut = |start: usize, count: usize| {
            let bytes = self.bytes.part(start * row_bytes..(start + count) * row_bytes)?;
            Some(Self { name: self.name.clone(), format: self.format, shape: vec![count, cols], bytes })
        };
        let mut start = 0;
        let parts = counts.iter().map(|&count| {
            start += count;
            cut(start - count, count)
        });
        let parts = if wanted == Some(rows) { parts.collect() } else { None };
        parts.ok_or_else(|| {
            let expected = vec![wanted.unwrap_or(usize::MAX), cols];
            let fault = Fault::WrongShape { expected, found: self.shape.clone() };
            fault.of(self.bytes.file(), Part::Tensor(self.name.clone()))
        })
    }

    /// The matrix with its rows as columns, in memory; the pages of the original are given back.
    ///
    /// # Errors
    /// [`Fault::AlreadyQuantized`] where that would tear blocks apart.
    pub fn turned(&self) -> Result<Self, WeightsError> {
        let (rows, cols, size) = (self.rows(), self.cols(), self.format.block_bytes());
        if self.format.block_len() != 1 {
            let fault = Fault::AlreadyQuantized { format: self.format };
            return Err(fault.of(self.bytes.file(), Part::Tensor(self.name.clone())));
        }
        let mut bytes = Vec::with_capacity(self.bytes.len());
        for col in 0..cols {
            for row in 0..rows {
                bytes.extend_from_slice(&self.bytes[(row * cols + col) * size..][..size]);
            }
        }
        self.bytes.release(0..self.bytes.len());
        let bytes = WeightMap::from_bytes(self.bytes.file(), bytes).whole();
        Ok(Self { name: self.name.clone(), format: self.format, shape: vec![cols, rows], bytes })
    }

    /// All values as f32, in row-major order: for vectors such as norms and biases. A matrix is expanded a block at a
    /// time by the kernels instead.
    #[expect(clippy::expect_used, reason = "the length of `bytes` is the one stated invariant of this type")]
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.rows() * self.cols()];
        hearth_kernels::expand(self.format, &self.bytes, &mut values).expect("`bytes` is as long as the shape says");
        values
    }
}

/// A tensor of an element type no model computes with, such as the I64 `position_ids` of BERT checkpoints.
#[derive(Debug, Clone)]
pub struct IgnoredTensor {
    /// Its name in the file.
    pub name: String,
    /// Its element type, as the format calls it.
    pub element: String,
    /// The file it lies in.
    pub file: PathBuf,
}

/// What a file holds, in the order of the file's list.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) tensors: Vec<WeightTensor>,
    pub(super) ignored: Vec<IgnoredTensor>,
}

/// The number of bytes a tensor takes: whole blocks, each row on its own.
///
/// # Errors
/// The product of the dimensions overflows, or a row is not a whole number of blocks.
pub(super) fn stored_bytes(format: Format, shape: &[usize]) -> Result<u64, Fault> {
    let columns = shape.last().copied().unwrap_or(1);
    let block = format.block_len();
    if !columns.is_multiple_of(block) {
        return Err(Fault::PartialBlock { columns, format, block });
    }
    // The values as f32 are to fit as well, so that `rows * cols` and a buffer of them can be trusted later.
    checked_bytes(shape, 32)?;
    let blocks = checked_product(shape)? / block as u64;
    blocks.checked_mul(format.block_bytes() as u64).ok_or_else(|| overflow(shape))
}

/// The number of bytes of a tensor of plain elements, rounded up to whole bytes.
///
/// # Errors
/// [`Fault::ShapeOverflow`].
pub(super) fn checked_bytes(shape: &[usize], bits: usize) -> Result<u64, Fault> {
    let total = checked_product(shape)?.checked_mul(bits as u64).map(|bits| bits.div_ceil(8));
    total.filter(|&total| total <= isize::MAX as u64).ok_or_else(|| overflow(shape))
}

/// The product without a shortcut at 0: `[0, 2^40, 2^40]` is refused too, as later products of a part of the shape overflow.
fn checked_product(shape: &[usize]) -> Result<u64, Fault> {
    let mut nonzero = shape.iter().map(|&dimension| (dimension as u64).max(1));
    let product = nonzero.try_fold(1_u64, u64::checked_mul);
    let product = product.ok_or_else(|| overflow(shape))?;
    Ok(if shape.contains(&0) { 0 } else { product })
}

fn overflow(shape: &[usize]) -> Fault {
    Fault::ShapeOverflow { shape: shape.iter().map(|&dimension| dimension as u64).collect() }
}
