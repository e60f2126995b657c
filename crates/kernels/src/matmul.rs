//! Activations times weights. Weights are expanded a group of rows at a time, activations stay f32 throughout.

#![expect(unsafe_code, reason = "jobs write disjoint columns of one output")]

use crate::error::{Result, check_length, size, whole_rows};
use crate::formats::expand_blocks;
use crate::matrix::MatrixView;
use crate::panel::{Rows, Target, dot_products};
use crate::threads::{Threads, with_scratch};

/// Floats of a group of expanded rows when many inputs use it: half of a small second-level cache.
const GROUP: usize = 32 * 1024;
/// The same when it is used once or twice: about the first-level cache.
const SMALL_GROUP: usize = 8 * 1024;
/// Rows are expanded in multiples of the tallest tile.
const TILE_ROWS: usize = 4;

/// `out` `[m, rows]` = `x` `[m, cols]` · `w`ᵀ (+ `bias` `[rows]`), for any m.
///
/// A row of `out` depends on its own row of `x` alone, to the bit: not on m, nor on the number of threads, nor on the
/// instruction set (the order of the sum is told in the crate's documentation).
///
/// # Errors
/// When `x` is no whole number of rows, or `out` or `bias` has another length.
pub fn matmul(threads: &Threads, x: &[f32], w: &MatrixView<'_>, bias: Option<&[f32]>, out: &mut [f32]) -> Result<()> {
    let m = whole_rows("x", x.len(), w.cols())?;
    check_length("out", out.len(), size("out", &[m, w.rows()])?)?;
    if let Some(bias) = bias {
        check_length("bias", bias.len(), w.rows())?;
    }
    if m == 0 || w.rows() == 0 {
        return Ok(());
    }
    let inputs = Rows::dense(x, m, w.cols());
    let target = Target::new(out, w.rows());
    let group = group_rows(w, m, threads.count());
    threads.for_each(w.rows().div_ceil(group), |job| {
        let first = job * group;
        let count = group.min(w.rows() - first);
        with_rows(threads, w, first..first + count, |weights| {
            // SAFETY: the columns `first..first + count` of `out` exist and belong to this job alone.
            unsafe { dot_products(threads.isa(), &weights, &inputs, target.at_column(first)) };
        });
    });
    add_bias(bias, out);
    Ok(())
}

/// Adds the bias, where there is one, to every row of a finished product.
pub(crate) fn add_bias(bias: Option<&[f32]>, out: &mut [f32]) {
    let Some(bias) = bias else { return };
    for row in out.chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
    }
}

/// How many rows a job takes: as many as the cache holds expanded, but enough jobs that all threads end together.
fn group_rows(w: &MatrixView<'_>, m: usize, threads: usize) -> usize {
    let cached = if m <= 2 { SMALL_GROUP } else { GROUP } / w.cols();
    // Expanding a few rows takes longer than starting a job only from some thousand numbers on.
    let worthwhile = SMALL_GROUP.div_ceil(w.cols());
    let fair = w.rows().div_ceil(4 * threads).max(worthwhile);
    cached.min(fair).max(1).next_multiple_of(TILE_ROWS)
}

/// Hands the rows `range` of `w` to `work` as floats.
fn with_rows(threads: &Threads, w: &MatrixView<'_>, range: std::ops::Range<usize>, work: impl FnOnce(Rows<'_>)) {
    let (count, cols) = (range.len(), w.cols());
    if let Some(floats) = w.in_place() {
        return work(Rows::dense(&floats[range.start * cols..range.end * cols], count, cols));
    }
    with_scratch(count * cols, |expanded| {
        expand_blocks(threads.isa(), w.format(), w.row_range(range.start, count), expanded);
        work(Rows::dense(expanded, count, cols));
    });
}
