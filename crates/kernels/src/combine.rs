//! Activations times weights that lie the other way around: each row of the weights is scaled and added. For checkpoints that
//! store a projection as `[inputs, outputs]`, so that none has to be turned over, which blocks of quantised weights forbid.

#![expect(unsafe_code, reason = "jobs write disjoint columns of one output")]

use std::ops::Range;

use crate::error::{Result, check_length, size, whole_rows};
use crate::formats::expand_blocks;
use crate::matmul::add_bias;
use crate::matrix::MatrixView;
use crate::panel::{Rows, Target, weighted_sums};
use crate::threads::{Threads, with_scratch};

/// Columns of a job where blocks allow it: some cache lines of every row, and a multiple of the widest register.
const COLUMNS: usize = 256;
/// Floats of a group of expanded pieces of rows: about the first-level cache.
const GROUP: usize = 8 * 1024;

/// `out` `[m, cols]` = `x` `[m, rows]` · `w` `[rows, cols]` (+ `bias` `[cols]`), for any m.
///
/// The rows are added in order, each product fused into the sum: a row of `out` depends on its own row of `x` alone, to the bit.
///
/// # Errors
/// When `x` is no whole number of rows, or `out` or `bias` has another length.
pub fn combine_rows(
    threads: &Threads,
    x: &[f32],
    w: &MatrixView<'_>,
    bias: Option<&[f32]>,
    out: &mut [f32],
) -> Result<()> {
    let m = whole_rows("x", x.len(), w.rows())?;
    check_length("out", out.len(), size("out", &[m, w.cols()])?)?;
    if let Some(bias) = bias {
        check_length("bias", bias.len(), w.cols())?;
    }
    out.fill(0.0);
    if m == 0 {
        return Ok(());
    }
    let target = Target::new(out, w.cols());
    let width = job_columns(w, threads.count());
    threads.for_each(w.cols().div_ceil(width), |job| {
        let columns = job * width..w.cols().min((job + 1) * width);
        let group = (GROUP / columns.len()).max(1);
        for first in (0..w.rows()).step_by(group) {
            let rows = first..w.rows().min(first + group);
            let factors = Rows::new(&x[first..], [m, rows.len()], w.rows());
            with_pieces(threads, w, [rows, columns.clone()], |values| {
                // SAFETY: these columns of `out` exist and belong to this job alone.
                unsafe { weighted_sums(threads.isa(), &factors, &values, target.at_column(columns.start)) };
            });
        }
    });
    add_bias(bias, out);
    Ok(())
}

/// How many columns a job takes: whole blocks, and few enough that all threads have work.
fn job_columns(w: &MatrixView<'_>, threads: usize) -> usize {
    let fair = w.cols().div_ceil(2 * threads).max(32);
    COLUMNS.min(fair).next_multiple_of(w.format().block_len())
}

/// Hands the columns `columns` (whole blocks) of the rows `rows` of `w` to `work` as floats.
fn with_pieces(threads: &Threads, w: &MatrixView<'_>, [rows, columns]: [Range<usize>; 2], work: impl FnOnce(Rows<'_>)) {
    let (count, width) = (rows.len(), columns.len());
    if let Some(floats) = w.in_place() {
        let start = rows.start * w.cols() + columns.start;
        return work(Rows::new(&floats[start..], [count, width], w.cols()));
    }
    let (block, block_bytes) = (w.format().block_len(), w.format().block_bytes());
    let piece = columns.start / block * block_bytes..columns.end / block * block_bytes;
    with_scratch(count * width, |expanded| {
        for (row, expanded) in rows.zip(expanded.chunks_exact_mut(width)) {
            expand_blocks(threads.isa(), w.format(), &w.row_range(row, 1)[piece.clone()], expanded);
        }
        work(Rows::dense(expanded, count, width));
    });
}
