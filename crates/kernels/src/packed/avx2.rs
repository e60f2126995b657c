//! The products with AVX2: a register is one half of the rows of a tile, two neighbouring numbers of each.

#![expect(clippy::needless_range_loop, reason = "the index counts registers of several arrays at once")]

use std::arch::x86_64::*;

use super::activations::{GroupMeta, Strip};
use super::layout::{GROUP, Layout};
use crate::formats::Format;
use crate::panel::Target;

/// Rows of a strip: each takes two registers for a half of a tile.
pub(super) const STRIP_ROWS: &[usize] = &[4, 2, 1];

const Q4_0: u8 = 0;
const Q4_1: u8 = 1;
const Q8_0: u8 = 2;
const Q4K: u8 = 3;
const Q6K: u8 = 4;

/// # Safety
/// As [`super::PackedMatrix::product`]; the strip's rows are one of [`STRIP_ROWS`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn product(layout: Layout, tile: &[u8], strip: &Strip<'_>, out: (Target, usize)) {
    // SAFETY: the caller's promises.
    unsafe {
        match layout.format {
            Format::Q4_0 => of_format::<Q4_0>(layout, tile, strip, out),
            Format::Q4_1 => of_format::<Q4_1>(layout, tile, strip, out),
            Format::Q4K => of_format::<Q4K>(layout, tile, strip, out),
            Format::Q6K => of_format::<Q6K>(layout, tile, strip, out),
            _ => of_format::<Q8_0>(layout, tile, strip, out),
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn of_format<const F: u8>(layout: Layout, tile: &[u8], strip: &Strip<'_>, out: (Target, usize)) {
    // SAFETY: the caller's promises. With one or two rows both halves are computed at once, so that the tile is read in order.
    unsafe {
        match strip.rows {
            4 => {
                rows::<F, 1, 4>(layout, (tile, 0), strip, out);
                rows::<F, 1, 4>(layout, (tile, 1), strip, out);
            }
            2 => rows::<F, 2, 2>(layout, (tile, 0), strip, out),
            _ => rows::<F, 2, 1>(layout, (tile, 0), strip, out),
        }
    }
}

/// `H` halves from `first` on.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows<const F: u8, const H: usize, const T: usize>(
    layout: Layout,
    (tile, first): (&[u8], usize),
    strip: &Strip<'_>,
    (out, columns): (Target, usize),
) {
    let (header, bytes) = (layout.header_bytes(), layout.group_bytes());
    let mut sums = [[_mm256_setzero_ps(); T]; H];
    let (mut x, mut meta) = (strip.integers.as_ptr(), strip.meta.as_ptr());
    for unit in tile.chunks_exact(layout.unit_bytes()) {
        for group in 0..layout.groups() {
            // SAFETY: tile and strip have so many groups.
            unsafe {
                let packed = unit.as_ptr().add(header + group * bytes);
                let mut scales = [([_mm256_setzero_ps(); 2], _mm256_setzero_ps()); H];
                for h in 0..H {
                    scales[h] = scales_of::<F>(unit.as_ptr(), group, first + h);
                }
                add_group::<F, H, T>((packed, first), &scales, (x, &*meta.cast()), &mut sums);
                (x, meta) = (x.add(T * GROUP), meta.add(T));
            }
        }
    }
    for h in 0..H {
        let at = 8 * (first + h);
        let mask = _mm256_cmpgt_epi32(
            _mm256_set1_epi32(columns as i32 - at as i32),
            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
        );
        for t in 0..T {
            // SAFETY: the caller's promise; the mask leaves out the columns that are not there.
            unsafe { _mm256_maskstore_ps(out.row(strip.first + t).wrapping_add(at), mask, sums[h][t]) };
        }
    }
}

/// Adds the products of a group.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_group<const F: u8, const H: usize, const T: usize>(
    (packed, first): (*const u8, usize),
    scales: &[([__m256; 2], __m256); H],
    (x, meta): (*const i16, &[GroupMeta; T]),
    sums: &mut [[__m256; T]; H],
) {
    let halves = if F == Q6K { 2 } else { 1 };
    for half in 0..halves {
        let mut dots = [[_mm256_setzero_si256(); T]; H];
        for t in 0..T {
            let start = start::<F>(&meta[t], half);
            for h in 0..H {
                dots[h][t] = start;
            }
        }
        for c in half * 2..half * 2 + 4 / halves {
            for h in 0..H {
                // SAFETY: the group has these numbers, and 32 integers of each row are there.
                let numbers = unsafe { numbers::<F>(packed, c, first + h) };
                for j in 0..4 {
                    for t in 0..T {
                        let pair = unsafe { x.add(t * GROUP + 8 * c + 2 * j).cast::<i32>().read_unaligned() };
                        let products = _mm256_madd_epi16(numbers[j], _mm256_set1_epi32(pair));
                        dots[h][t] = _mm256_add_epi32(dots[h][t], products);
                    }
                }
            }
        }
        for t in 0..T {
            let scale = _mm256_set1_ps(meta[t].scale);
            for h in 0..H {
                let factor = _mm256_mul_ps(scales[h].0[half], scale);
                sums[h][t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[h][t]), factor, sums[h][t]);
            }
        }
    }
    if F == Q4_1 || F == Q4K {
        for t in 0..T {
            let sum = _mm256_set1_ps(meta[t].sum);
            for h in 0..H {
                sums[h][t] = _mm256_fmadd_ps(scales[h].1, sum, sums[h][t]);
            }
        }
    }
}

/// The numbers 8c..8c + 8 of a group, two of each row of that half of the tile to a register.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn numbers<const F: u8>(group: *const u8, c: usize, h: usize) -> [__m256i; 4] {
    // SAFETY: the caller's group has these bytes.
    unsafe {
        if F == Q8_0 {
            let pair = group.add(4 * c * 32 + h * 16).cast::<__m128i>();
            return [
                _mm256_cvtepi8_epi16(_mm_loadu_si128(pair)),
                _mm256_cvtepi8_epi16(_mm_loadu_si128(pair.add(2))),
                _mm256_cvtepi8_epi16(_mm_loadu_si128(pair.add(4))),
                _mm256_cvtepi8_epi16(_mm_loadu_si128(pair.add(6))),
            ];
        }
        let (low, four) = (_mm256_loadu_si256(group.add(c * 64 + h * 32).cast()), _mm256_set1_epi16(15));
        let lows = [
            _mm256_and_si256(low, four),
            _mm256_and_si256(_mm256_srli_epi16::<4>(low), four),
            _mm256_and_si256(_mm256_srli_epi16::<8>(low), four),
            _mm256_srli_epi16::<12>(low),
        ];
        if F != Q6K {
            return lows;
        }
        let (high, two) = (_mm256_loadu_si256(group.add(256 + c / 2 * 64 + h * 32).cast()), _mm256_set1_epi16(0x30));
        let high = _mm256_srl_epi16(high, _mm_cvtsi32_si128(8 * (c % 2) as i32));
        [
            _mm256_or_si256(lows[0], _mm256_and_si256(_mm256_slli_epi16::<4>(high), two)),
            _mm256_or_si256(lows[1], _mm256_and_si256(_mm256_slli_epi16::<2>(high), two)),
            _mm256_or_si256(lows[2], _mm256_and_si256(high, two)),
            _mm256_or_si256(lows[3], _mm256_and_si256(_mm256_srli_epi16::<2>(high), two)),
        ]
    }
}

/// Eight halves as floats.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn halves(at: *const u8) -> __m256 {
    // SAFETY: the caller has 16 bytes there.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(at.cast()) })
}

/// Eight bytes without sign.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn bytes(at: *const u8) -> __m256i {
    // SAFETY: the caller has 8 bytes there.
    _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(at.cast()) })
}

/// The scale of a group of each row of that half of the tile, or of each half of the group, and its minimum.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn scales_of<const F: u8>(unit: *const u8, group: usize, h: usize) -> ([__m256; 2], __m256) {
    // SAFETY: the caller's unit has this header.
    unsafe {
        let scale = halves(unit.add(16 * h));
        match F {
            Q4_1 => ([scale; 2], halves(unit.add(32 + 16 * h))),
            Q4K => {
                let at = |i: usize| bytes(unit.add(64 + 16 * i + 8 * h));
                let (six, four) = (_mm256_set1_epi32(63), _mm256_set1_epi32(15));
                let (factor, minimum) = if group < 4 {
                    (_mm256_and_si256(at(group), six), _mm256_and_si256(at(group + 4), six))
                } else {
                    let (low, first, second) = (at(group + 4), at(group - 4), at(group));
                    let first = _mm256_slli_epi32::<4>(_mm256_srli_epi32::<6>(first));
                    let second = _mm256_slli_epi32::<4>(_mm256_srli_epi32::<6>(second));
                    let factor = _mm256_or_si256(_mm256_and_si256(low, four), first);
                    (factor, _mm256_or_si256(_mm256_srli_epi32::<4>(low), second))
                };
                let minimum = _mm256_mul_ps(halves(unit.add(32 + 16 * h)), _mm256_cvtepi32_ps(minimum));
                let scale = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(factor));
                ([scale; 2], _mm256_xor_ps(minimum, _mm256_set1_ps(-0.0)))
            }
            Q6K => {
                let at = |i: usize| {
                    let factor = _mm_loadl_epi64(unit.add(32 + 16 * (2 * group + i) + 8 * h).cast());
                    _mm256_mul_ps(scale, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(factor)))
                };
                ([at(0), at(1)], _mm256_setzero_ps())
            }
            _ => ([scale; 2], _mm256_setzero_ps()),
        }
    }
}

/// What a sum of integers begins with: the weights' offset times the activations.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn start<const F: u8>(meta: &GroupMeta, half: usize) -> __m256i {
    match F {
        Q4_0 => _mm256_add_epi32(_mm256_set1_epi32(meta.offsets[0]), _mm256_set1_epi32(meta.offsets[1])),
        Q6K => _mm256_slli_epi32::<2>(_mm256_set1_epi32(meta.offsets[half])),
        _ => _mm256_setzero_si256(),
    }
}
