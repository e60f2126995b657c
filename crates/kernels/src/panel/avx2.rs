//! The loops for AVX2 with FMA: two registers are the sixteen lanes.

#![expect(clippy::needless_range_loop, reason = "the index counts registers of several arrays at once")]

use std::arch::x86_64::*;

use super::{LANES, Rows, Target};

/// Floats in a register.
const WIDTH: usize = 8;
/// Registers in the sixteen lanes.
const PARTS: usize = LANES / WIDTH;

/// # Safety
/// As [`super::dot_products`].
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn dot_products(weights: &Rows<'_>, inputs: &Rows<'_>, out: Target) {
    let mut i = 0;
    // Twelve sums and what they are made of fill the sixteen registers: 2 x 3 pairs, or 4 x 1.
    while i < inputs.count {
        // SAFETY: the rows taken from `i` exist.
        i += unsafe {
            match inputs.count - i {
                1 => strip::<4, 1>(weights, inputs, i, out),
                2 => strip::<2, 2>(weights, inputs, i, out),
                _ => strip::<2, 3>(weights, inputs, i, out),
            }
        };
    }
}

/// All weights, `W` at a time, against `X` inputs from `i`.
#[target_feature(enable = "avx2,fma")]
unsafe fn strip<const W: usize, const X: usize>(weights: &Rows<'_>, inputs: &Rows<'_>, i: usize, out: Target) -> usize {
    let mut j = 0;
    while j + W <= weights.count {
        // SAFETY: the rows exist, and `out` has them by the caller's promise.
        let sums = unsafe { tile::<W, X>([weights, inputs], [j, i]) };
        for (x, sums) in sums.iter().enumerate() {
            for (w, &lanes) in sums.iter().enumerate() {
                unsafe { *out.row(i + x).add(j + w) = reduce(lanes) };
            }
        }
        j += W;
    }
    while j < weights.count {
        // SAFETY: as above.
        let sums = unsafe { tile::<1, X>([weights, inputs], [j, i]) };
        for (x, sums) in sums.iter().enumerate() {
            unsafe { *out.row(i + x).add(j) = reduce(sums[0]) };
        }
        j += 1;
    }
    X
}

/// The lanes of `W` x `X` dot products.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const W: usize, const X: usize>(sides: [&Rows<'_>; 2], [j, i]: [usize; 2]) -> [[[__m256; PARTS]; W]; X] {
    let depth = sides[0].width;
    let weights: [*const f32; W] = std::array::from_fn(|w| sides[0].row(j + w));
    let inputs: [*const f32; X] = std::array::from_fn(|x| sides[1].row(i + x));
    let mut sums = [[[_mm256_setzero_ps(); PARTS]; W]; X];
    let whole = depth - depth % LANES;
    let mut k = 0;
    while k < whole {
        for part in 0..PARTS {
            let at = k + part * WIDTH;
            // SAFETY: eight floats from `at` lie inside every row.
            let mut loaded = [_mm256_setzero_ps(); W];
            for w in 0..W {
                loaded[w] = unsafe { _mm256_loadu_ps(weights[w].add(at)) };
            }
            for x in 0..X {
                let input = unsafe { _mm256_loadu_ps(inputs[x].add(at)) };
                for w in 0..W {
                    sums[x][w][part] = _mm256_fmadd_ps(loaded[w], input, sums[x][w][part]);
                }
            }
        }
        k += LANES;
    }
    if whole < depth {
        for part in 0..PARTS {
            let mask = tail_mask(depth - whole, part);
            let at = k + part * WIDTH;
            // SAFETY: the mask leaves out what lies beyond the row.
            let mut loaded = [_mm256_setzero_ps(); W];
            for w in 0..W {
                loaded[w] = unsafe { _mm256_maskload_ps(weights[w].wrapping_add(at), mask) };
            }
            for x in 0..X {
                let input = unsafe { _mm256_maskload_ps(inputs[x].wrapping_add(at), mask) };
                for w in 0..W {
                    sums[x][w][part] = _mm256_fmadd_ps(loaded[w], input, sums[x][w][part]);
                }
            }
        }
    }
    sums
}

/// All ones in the lanes of this part that lie below `left`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn tail_mask(left: usize, part: usize) -> __m256i {
    let left = _mm256_set1_epi32(left as i32 - (part * WIDTH) as i32);
    _mm256_cmpgt_epi32(left, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

/// The dot product from its lanes.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn reduce([low, high]: [__m256; PARTS]) -> f32 {
    let eight = _mm256_add_ps(low, high);
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// The last two steps of the sum for four dot products at once.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn reduce_quarters([a, b, c, d]: [__m128; 4]) -> __m128 {
    let (ab_low, ab_high) = (_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b)); // a0 b0 a1 b1, a2 b2 a3 b3
    let (cd_low, cd_high) = (_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
    let (ab, cd) = (_mm_add_ps(ab_low, ab_high), _mm_add_ps(cd_low, cd_high)); // a0+a2 b0+b2 a1+a3 b1+b3
    _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab))
}

/// # Safety
/// As [`super::weighted_sums`].
#[target_feature(enable = "avx2,fma")]
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
#[target_feature(enable = "avx2,fma")]
unsafe fn columns<const R: usize>(factors: &Rows<'_>, values: &Rows<'_>, i: usize, out: Target) {
    let width = values.width;
    let mut d = 0;
    // SAFETY: the columns from `d` exist by the bounds of the loops.
    unsafe {
        while d + 2 * WIDTH <= width {
            sum_tile::<R, 2>([factors, values], [i, d], out);
            d += 2 * WIDTH;
        }
        while d + WIDTH <= width {
            sum_tile::<R, 1>([factors, values], [i, d], out);
            d += WIDTH;
        }
        for r in i..i + R {
            for d in d..width {
                let sum = &mut *out.row(r).add(d);
                for p in 0..values.count {
                    *sum = (*factors.row(r).add(p)).mul_add(*values.row(p).add(d), *sum);
                }
            }
        }
    }
}

/// `R` sums, `C` registers wide.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn sum_tile<const R: usize, const C: usize>([factors, values]: [&Rows<'_>; 2], [i, d]: [usize; 2], out: Target) {
    let rows: [*mut f32; R] = std::array::from_fn(|r| out.row(i + r).wrapping_add(d));
    let weights: [*const f32; R] = std::array::from_fn(|r| factors.row(i + r));
    // SAFETY: `out` has these rows and columns by the caller's promise.
    let mut sums = [[_mm256_setzero_ps(); C]; R];
    for r in 0..R {
        for c in 0..C {
            sums[r][c] = unsafe { _mm256_loadu_ps(rows[r].add(c * WIDTH)) };
        }
    }
    for p in 0..values.count {
        let value = values.row(p).wrapping_add(d);
        let mut loaded = [_mm256_setzero_ps(); C];
        for c in 0..C {
            loaded[c] = unsafe { _mm256_loadu_ps(value.add(c * WIDTH)) };
        }
        for r in 0..R {
            let factor = _mm256_set1_ps(unsafe { *weights[r].add(p) });
            for c in 0..C {
                sums[r][c] = _mm256_fmadd_ps(factor, loaded[c], sums[r][c]);
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            unsafe { _mm256_storeu_ps(rows[r].add(c * WIDTH), sums[r][c]) };
        }
    }
}
