//! The two loops everything else is made of: all dot products between two sets of rows, and weighted sums of rows.
//!
//! The order of every sum is fixed. A dot product has sixteen lanes: lane l takes the products with k = l modulo 16 in
//! increasing k, each fused into the sum; a last incomplete sixteen is filled with zeros; at the end lanes 8 apart are
//! added, then 4 apart, 2 apart, 1 apart. A weighted sum adds its rows in order, each product fused. So a result depends
//! on its own row alone: not on the rows beside it, the tile it was computed in, the thread or the instruction set.

#![expect(unsafe_code, reason = "vector loads and stores through pointers, checked when the rows are made")]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod scalar;

use std::ops::Range;

use crate::isa::{Isa, Level};

/// How many partial sums a dot product has.
const LANES: usize = 16;

/// `count` rows of `width` floats, each `stride` after the one before.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    data: &'a [f32],
    count: usize,
    width: usize,
    stride: usize,
}

impl<'a> Rows<'a> {
    /// The rows must lie inside `data`: that is what the pointers below rely on.
    pub(crate) fn new(data: &'a [f32], [count, width]: [usize; 2], stride: usize) -> Self {
        assert!(count == 0 || (count - 1) * stride + width <= data.len(), "rows reach beyond their data");
        Self { data, count, width, stride }
    }

    /// Row after row without gaps.
    pub(crate) fn dense(data: &'a [f32], count: usize, width: usize) -> Self {
        Self::new(data, [count, width], width)
    }

    /// Some of the rows.
    pub(crate) fn part(&self, range: Range<usize>) -> Self {
        Self::new(&self.data[range.start * self.stride..], [range.len(), self.width], self.stride)
    }

    /// Where row `index` starts.
    #[inline(always)]
    fn row(&self, index: usize) -> *const f32 {
        debug_assert!(index < self.count);
        self.data.as_ptr().wrapping_add(index * self.stride)
    }

    fn slice(&self, index: usize) -> &'a [f32] {
        &self.data[index * self.stride..][..self.width]
    }
}

/// Where the rows of a result go: row i at `start + i * stride`.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) start: *mut f32,
    pub(crate) stride: usize,
}

// SAFETY: a target is only an address; those who write through it say why no other thread writes to the same place.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// A whole buffer of rows of `stride` floats.
    pub(crate) fn new(out: &mut [f32], stride: usize) -> Self {
        Self { start: out.as_mut_ptr(), stride }
    }

    /// The same rows from column `column` on.
    pub(crate) fn at_column(self, column: usize) -> Self {
        Self { start: self.start.wrapping_add(column), stride: self.stride }
    }

    /// Where row `index` starts.
    #[inline(always)]
    pub(crate) fn row(self, index: usize) -> *mut f32 {
        self.start.wrapping_add(index * self.stride)
    }
}

/// `out[i][j]` = inputs[i] · weights[j].
///
/// # Safety
/// `out` must be valid for writes of `weights.count` floats in each of `inputs.count` rows, and nothing else may touch
/// those while this runs.
pub(crate) unsafe fn dot_products(isa: Isa, weights: &Rows<'_>, inputs: &Rows<'_>, out: Target) {
    assert_eq!(weights.width, inputs.width, "both sides of a dot product have the same length");
    // SAFETY: the caller's promise is passed on, and an `Isa` of a level exists only where its instructions do.
    match isa.level() {
        Level::Scalar => unsafe { scalar::dot_products(weights, inputs, out) },
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2::dot_products(weights, inputs, out) },
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { avx512::dot_products(weights, inputs, out) },
    }
}

/// `out[i]` += the sum over p of factors[i][p] * values[p].
///
/// # Safety
/// `out` must be valid for reads and writes of `values.width` floats in each of `factors.count` rows, and nothing else may
/// touch those while this runs.
pub(crate) unsafe fn weighted_sums(isa: Isa, factors: &Rows<'_>, values: &Rows<'_>, out: Target) {
    assert_eq!(factors.width, values.count, "one factor for each row");
    // SAFETY: as in `dot_products`.
    match isa.level() {
        Level::Scalar => unsafe { scalar::weighted_sums(factors, values, out) },
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2::weighted_sums(factors, values, out) },
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { avx512::weighted_sums(factors, values, out) },
    }
}
