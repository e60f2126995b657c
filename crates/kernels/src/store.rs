//! A matrix written in another format, its rows in parallel. It knows formats and rows; which format a matrix should have is
//! not its business.

use std::sync::{Mutex, PoisonError};

use crate::error::{KernelError, Result, check_length, size};
use crate::formats::{Format, check_values, expand_blocks, quantize_blocks};
use crate::matrix::MatrixView;
use crate::threads::{Threads, with_scratch};

/// Writes `w` in `format` to `out`, row after row. No more than one row a thread is held as f32.
///
/// # Errors
/// When a row is no whole number of blocks, `out` has another length than all rows together, or a number is not finite or too
/// large for the format (see [`crate::quantize`]); the first such number is named by its place in the matrix. What stands in
/// `out` then is not specified.
pub fn store_as(threads: &Threads, w: &MatrixView<'_>, format: Format, out: &mut [u8]) -> Result<()> {
    let row_bytes = format.row_bytes(w.cols()).ok_or(KernelError::NotMultiple {
        argument: "cols",
        multiple_of: format.block_len(),
        actual: w.cols(),
    })?;
    check_length("out", out.len(), size("out", &[w.rows(), row_bytes])?)?;
    if format == w.format() {
        out.copy_from_slice(w.bytes());
        return Ok(());
    }
    let first_fault: Mutex<Option<(usize, KernelError)>> = Mutex::new(None);
    threads.for_each_chunk(out, row_bytes, |row, out| {
        let checked = with_scratch(w.cols(), |values| {
            expand_blocks(threads.isa(), w.format(), w.row_range(row, 1), values);
            check_values(format, values, row * w.cols())?;
            quantize_blocks(threads.isa(), format, values, out);
            Ok(())
        });
        if let Err(fault) = checked {
            let mut first = first_fault.lock().unwrap_or_else(PoisonError::into_inner);
            if first.as_ref().is_none_or(|(earlier, _)| row < *earlier) {
                *first = Some((row, fault));
            }
        }
    });
    match first_fault.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, fault)) => Err(fault),
        None => Ok(()),
    }
}
