//! The loops for AVX-512: one register is the sixteen lanes.

#![expect(clippy::needless_range_loop, reason = "the index counts registers of several arrays at once")]

use std::arch::x86_64::*;

use super::{LANES, Rows, Target};

/// Rows of weights and of inputs in a tile. More than 16 sums would fit the 32 registers, but compilers then spill some.
const WEIGHT_ROWS: usize = 4;
const INPUT_ROWS: usize = 4;

/// # Safety
/// As [`super::dot_products`].
#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
pub(super) unsafe fn dot_products(weights: &Rows<'_>, inputs: &Rows<'_>, out: Target) {
    let mut i = 0;
    while i < inputs.count {
        let take = (inputs.count - i).min(INPUT_ROWS);
        // SAFETY: `take` rows from `i` exist on both sides.
        unsafe {
            match take {
                1 => strip::<1>(weights, inputs, i, out),
                2 => strip::<2>(weights, inputs, i, out),
                3 => strip::<3>(weights, inputs, i, out),
                _ => strip::<INPUT_ROWS>(weights, inputs, i, out),
            }
        }
        i += take;
    }
}

/// All weights against `X` inputs from `i`.
#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
unsafe fn strip<const X: usize>(weights: &Rows<'_>, inputs: &Rows<'_>, i: usize, out: Target) {
    let mut j = 0;
    while j + WEIGHT_ROWS <= weights.count {
        // SAFETY: the rows exist, and `out` has them by the caller's promise.
        let sums = unsafe { tile::<WEIGHT_ROWS, X>([weights, inputs], [j, i]) };
        for (x, sums) in sums.iter().enumerate() {
            unsafe { _mm_storeu_ps(out.row(i + x).add(j), reduce_four(sums)) };
        }
        j += WEIGHT_ROWS;
    }
    while j < weights.count {
        // SAFETY: as above.
        let sums = unsafe { tile::<1, X>([weights, inputs], [j, i]) };
        for (x, sums) in sums.iter().enumerate() {
            let zero = _mm512_setzero_ps();
            unsafe { *out.row(i + x).add(j) = _mm_cvtss_f32(reduce_four(&[sums[0], zero, zero, zero])) };
        }
        j += 1;
    }
}

/// The lanes of `W` x `X` dot products.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
unsafe fn tile<const W: usize, const X: usize>(sides: [&Rows<'_>; 2], [j, i]: [usize; 2]) -> [[__m512; W]; X] {
    let depth = sides[0].width;
    let weights: [*const f32; W] = std::array::from_fn(|w| sides[0].row(j + w));
    let inputs: [*const f32; X] = std::array::from_fn(|x| sides[1].row(i + x));
    let mut sums = [[_mm512_setzero_ps(); W]; X];
    let whole = depth - depth % LANES;
    let mut k = 0;
    while k < whole {
        // SAFETY: sixteen floats from `k` lie inside every row.
        let mut loaded = [_mm512_setzero_ps(); W];
        for w in 0..W {
            loaded[w] = unsafe { _mm512_loadu_ps(weights[w].add(k)) };
        }
        for x in 0..X {
            let input = unsafe { _mm512_loadu_ps(inputs[x].add(k)) };
            for w in 0..W {
                sums[x][w] = _mm512_fmadd_ps(loaded[w], input, sums[x][w]);
            }
        }
        k += LANES;
    }
    if whole < depth {
        let mask = (1u16 << (depth - whole)) - 1;
        // SAFETY: the mask leaves out what lies beyond the row.
        let mut loaded = [_mm512_setzero_ps(); W];
        for w in 0..W {
            loaded[w] = unsafe { _mm512_maskz_loadu_ps(mask, weights[w].add(k)) };
        }
        for x in 0..X {
            let input = unsafe { _mm512_maskz_loadu_ps(mask, inputs[x].add(k)) };
            for w in 0..W {
                sums[x][w] = _mm512_fmadd_ps(loaded[w], input, sums[x][w]);
            }
        }
    }
    sums
}

/// The four dot products from their lanes: 8 apart, 4 apart, then 2 and 1 apart for all four at once.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
fn reduce_four(sums: &[__m512; 4]) -> __m128 {
    let mut quarters = [_mm_setzero_ps(); 4];
    for (quarter, &sum) in quarters.iter_mut().zip(sums) {
        let eight = _mm256_add_ps(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps::<1>(sum));
        *quarter = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    }
    super::avx2::reduce_quarters(quarters)
}

/// # Safety
/// As [`super::weighted_sums`].
#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
pub(super) unsafe fn weighted_sums(factors: &Rows<'_>, values: &Rows<'_>, out: Target) {
    let mut i = 0;
    // SAFETY: the rows exist by the bounds of the loops.
    unsafe {
        while i + 4 <= factors.count {
            columns::<4>(factors, values, i, out);
            i += 4;
        }
        while i < factors.count {
            columns::<1>(factors, values, i, out);
            i += 1;
        }
    }
}

/// All columns of `R` sums from `i`.
#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
unsafe fn columns<const R: usize>(factors: &Rows<'_>, values: &Rows<'_>, i: usize, out: Target) {
    let width = values.width;
    let mut d = 0;
    // SAFETY: the columns from `d` exist, or the mask leaves them out.
    unsafe {
        while d + 4 * LANES <= width {
            sum_tile::<R, 4>([factors, values], [i, d], u16::MAX, out);
            d += 4 * LANES;
        }
        while d < width {
            let left = (width - d).min(LANES);
            sum_tile::<R, 1>([factors, values], [i, d], u16::MAX >> (LANES - left), out);
            d += LANES;
        }
    }
}

/// `R` sums, `C` registers wide.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
unsafe fn sum_tile<const R: usize, const C: usize>(
    [factors, values]: [&Rows<'_>; 2],
    [i, d]: [usize; 2],
    mask: u16,
    out: Target,
) {
    let rows: [*mut f32; R] = std::array::from_fn(|r| out.row(i + r).wrapping_add(d));
    let weights: [*const f32; R] = std::array::from_fn(|r| factors.row(i + r));
    // SAFETY: `out` has these rows by the caller's promise, and the mask leaves out the columns that it has not.
    let mut sums = [[_mm512_setzero_ps(); C]; R];
    for r in 0..R {
        for c in 0..C {
            sums[r][c] = unsafe { _mm512_maskz_loadu_ps(mask, rows[r].add(c * LANES)) };
        }
    }
    for p in 0..values.count {
        let value = values.row(p).wrapping_add(d);
        let mut loaded = [_mm512_setzero_ps(); C];
        for c in 0..C {
            loaded[c] = unsafe { _mm512_maskz_loadu_ps(mask, value.add(c * LANES)) };
        }
        for r in 0..R {
            let factor = _mm512_set1_ps(unsafe { *weights[r].add(p) });
            for c in 0..C {
                sums[r][c] = _mm512_fmadd_ps(factor, loaded[c], sums[r][c]);
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            unsafe { _mm512_mask_storeu_ps(rows[r].add(c * LANES), mask, sums[r][c]) };
        }
    }
}
