//! A matrix of weights where it lies, in the format it is stored in, and the lookup of rows in it.

use crate::error::{KernelError, Result, check_length, check_positive, size};
use crate::formats::{Format, as_f32, expand_blocks};
use crate::isa::Isa;

/// A borrowed matrix `[rows, cols]`, row after row. The bytes need no alignment: they are usually a part of a mapped file.
#[derive(Debug, Clone, Copy)]
pub struct MatrixView<'a> {
    format: Format,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    bytes: &'a [u8],
}

impl<'a> MatrixView<'a> {
    /// Checks that `bytes` are `rows` rows of `cols` numbers.
    ///
    /// # Errors
    /// When `cols` is zero or no whole number of blocks, when the size overflows, or when `bytes` has another length.
    pub fn new(format: Format, rows: usize, cols: usize, bytes: &'a [u8]) -> Result<Self> {
        check_positive("cols", cols)?;
        let row_bytes = format.row_bytes(cols).ok_or(KernelError::NotMultiple {
            argument: "cols",
            multiple_of: format.block_len(),
            actual: cols,
        })?;
        check_length("bytes", bytes.len(), size("bytes", &[rows, row_bytes])?)?;
        Ok(Self { format, rows, cols, row_bytes, bytes })
    }

    /// How the numbers are stored.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many numbers a row has.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All the bytes.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes of `count` rows from `first`; both within bounds.
    pub(crate) fn row_range(&self, first: usize, count: usize) -> &'a [u8] {
        &self.bytes[first * self.row_bytes..(first + count) * self.row_bytes]
    }

    /// The numbers themselves, where they need no expansion.
    pub(crate) fn in_place(&self) -> Option<&'a [f32]> {
        if self.format == Format::F32 { as_f32(self.bytes) } else { None }
    }
}

/// Copies the rows `ids` of `w`, expanded, to `out` `[ids.len(), cols]`: the lookup of embeddings.
///
/// # Errors
/// When an id is not below `rows` or `out` has another length.
pub fn gather_rows(w: &MatrixView<'_>, ids: &[u32], out: &mut [f32]) -> Result<()> {
    check_length("out", out.len(), size("out", &[ids.len(), w.cols])?)?;
    if let Some(&id) = ids.iter().find(|&&id| id as usize >= w.rows) {
        return Err(KernelError::OutOfBounds { argument: "ids", bound: w.rows, value: id as usize });
    }
    let isa = Isa::best();
    for (&id, out) in ids.iter().zip(out.chunks_exact_mut(w.cols)) {
        expand_blocks(isa, w.format, w.row_range(id as usize, 1), out);
    }
    Ok(())
}
