//! The products with AVX-512: a register is the sixteen rows of a tile, two neighbouring numbers of each.

#![expect(clippy::needless_range_loop, reason = "the index counts registers of several arrays at once")]

use std::arch::x86_64::*;

use super::activations::{GroupMeta, Strip};
use super::layout::{GROUP, Layout};
use crate::formats::Format;
use crate::panel::Target;

/// Rows of a strip: each takes two registers.
pub(super) const STRIP_ROWS: &[usize] = &[12, 8, 6, 4, 3, 2, 1];

const Q4_0: u8 = 0;
const Q4_1: u8 = 1;
const Q8_0: u8 = 2;
const Q4K: u8 = 3;
const Q6K: u8 = 4;

/// The numbers 8c..8c + 8 of a group, two of each row to a register.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn numbers<const F: u8>(group: *const u8, c: usize) -> [__m512i; 4] {
    // SAFETY: the caller's group has these bytes.
    unsafe {
        if F == Q8_0 {
            let pair = group.add(4 * c * 32).cast::<__m256i>();
            return [
                _mm512_cvtepi8_epi16(_mm256_loadu_si256(pair)),
                _mm512_cvtepi8_epi16(_mm256_loadu_si256(pair.add(1))),
                _mm512_cvtepi8_epi16(_mm256_loadu_si256(pair.add(2))),
                _mm512_cvtepi8_epi16(_mm256_loadu_si256(pair.add(3))),
            ];
        }
        let (low, four) = (_mm512_loadu_si512(group.add(c * 64).cast()), _mm512_set1_epi16(15));
        let lows = [
            _mm512_and_si512(low, four),
            _mm512_and_si512(_mm512_srli_epi16::<4>(low), four),
            _mm512_and_si512(_mm512_srli_epi16::<8>(low), four),
            _mm512_srli_epi16::<12>(low),
        ];
        if F != Q6K {
            return lows;
        }
        let (high, two) = (_mm512_loadu_si512(group.add(256 + c / 2 * 64).cast()), _mm512_set1_epi16(0x30));
        let high = _mm512_srl_epi16(high, _mm_cvtsi32_si128(8 * (c % 2) as i32));
        [
            _mm512_or_si512(lows[0], _mm512_and_si512(_mm512_slli_epi16::<4>(high), two)),
            _mm512_or_si512(lows[1], _mm512_and_si512(_mm512_slli_epi16::<2>(high), two)),
            _mm512_or_si512(lows[2], _mm512_and_si512(high, two)),
            _mm512_or_si512(lows[3], _mm512_and_si512(_mm512_srli_epi16::<2>(high), two)),
        ]
    }
}

/// Sixteen halves as floats.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn halves(at: *const u8) -> __m512 {
    // SAFETY: the caller has 32 bytes there.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(at.cast()) })
}

/// Sixteen bytes without sign.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn bytes(at: *const u8) -> __m512i {
    // SAFETY: the caller has 16 bytes there.
    _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(at.cast()) })
}

/// The scale of a group of each row, or of each half of it, and what its minimum is subtracted as.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn scales<const F: u8>(unit: *const u8, group: usize) -> ([__m512; 2], __m512) {
    // SAFETY: the caller's unit has this header.
    unsafe {
        let scale = halves(unit);
        match F {
            Q4_1 => ([scale; 2], halves(unit.add(32))),
            Q4K => {
                let at = |i: usize| bytes(unit.add(64 + 16 * i));
                let (six, four) = (_mm512_set1_epi32(63), _mm512_set1_epi32(15));
                let (factor, minimum) = if group < 4 {
                    (_mm512_and_si512(at(group), six), _mm512_and_si512(at(group + 4), six))
                } else {
                    let (low, first, second) = (at(group + 4), at(group - 4), at(group));
                    let first = _mm512_slli_epi32::<4>(_mm512_srli_epi32::<6>(first));
                    let second = _mm512_slli_epi32::<4>(_mm512_srli_epi32::<6>(second));
                    let factor = _mm512_or_si512(_mm512_and_si512(low, four), first);
                    (factor, _mm512_or_si512(_mm512_srli_epi32::<4>(low), second))
                };
                let minimum = _mm512_mul_ps(halves(unit.add(32)), _mm512_cvtepi32_ps(minimum));
                ([_mm512_mul_ps(scale, _mm512_cvtepi32_ps(factor)); 2], _mm512_xor_ps(minimum, _mm512_set1_ps(-0.0)))
            }
            Q6K => {
                let at = |i: usize| {
                    let factor = _mm512_cvtepi8_epi32(_mm_loadu_si128(unit.add(32 + 16 * (2 * group + i)).cast()));
                    _mm512_mul_ps(scale, _mm512_cvtepi32_ps(factor))
                };
                ([at(0), at(1)], _mm512_setzero_ps())
            }
            _ => ([scale; 2], _mm512_setzero_ps()),
        }
    }
}

/// What a sum of integers begins with: the weights' offset times the activations.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn start<const F: u8>(meta: &GroupMeta, half: usize) -> __m512i {
    match F {
        Q4_0 => _mm512_add_epi32(_mm512_set1_epi32(meta.offsets[0]), _mm512_set1_epi32(meta.offsets[1])),
        Q6K => _mm512_slli_epi32::<2>(_mm512_set1_epi32(meta.offsets[half])),
        _ => _mm512_setzero_si512(),
    }
}

macro_rules! products {
    ($(#[$about:meta])* $name:ident, $features:tt, $add:expr) => {
        $(#[$about])*
        pub(super) mod $name {
            use super::*;

            /// # Safety
            /// As [`super::super::PackedMatrix::product`]; the strip's rows are one of [`STRIP_ROWS`].
            #[target_feature(enable = $features)]
            pub(in crate::packed) unsafe fn product(
                layout: Layout,
                tile: &[u8],
                strip: &Strip<'_>,
                out: (Target, usize),
            ) {
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

            #[target_feature(enable = $features)]
            unsafe fn of_format<const F: u8>(layout: Layout, tile: &[u8], strip: &Strip<'_>, out: (Target, usize)) {
                // SAFETY: the caller's promises.
                unsafe {
                    match strip.rows {
                        12 => rows::<F, 12>(layout, tile, strip, out),
                        8 => rows::<F, 8>(layout, tile, strip, out),
                        6 => rows::<F, 6>(layout, tile, strip, out),
                        4 => rows::<F, 4>(layout, tile, strip, out),
                        3 => rows::<F, 3>(layout, tile, strip, out),
                        2 => rows::<F, 2>(layout, tile, strip, out),
                        _ => rows::<F, 1>(layout, tile, strip, out),
                    }
                }
            }

            #[target_feature(enable = $features)]
            unsafe fn rows<const F: u8, const T: usize>(
                layout: Layout,
                tile: &[u8],
                strip: &Strip<'_>,
                (out, columns): (Target, usize),
            ) {
                let (header, bytes) = (layout.header_bytes(), layout.group_bytes());
                let mut sums = [_mm512_setzero_ps(); T];
                let (mut x, mut meta) = (strip.integers.as_ptr(), strip.meta.as_ptr());
                for unit in tile.chunks_exact(layout.unit_bytes()) {
                    for group in 0..layout.groups() {
                        // SAFETY: tile and strip have so many groups.
                        unsafe {
                            let packed = unit.as_ptr().add(header + group * bytes);
                            let scales = scales::<F>(unit.as_ptr(), group);
                            add_group::<F, T>((packed, scales), (x, &*meta.cast()), &mut sums);
                            (x, meta) = (x.add(T * GROUP), meta.add(T));
                        }
                    }
                }
                let mask = u16::MAX >> (16 - columns);
                for (t, sum) in sums.into_iter().enumerate() {
                    // SAFETY: the caller's promise; the mask leaves out the columns that are not there.
                    unsafe { _mm512_mask_storeu_ps(out.row(strip.first + t), mask, sum) };
                }
            }

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn add_group<const F: u8, const T: usize>(
                (packed, (scale, minimum)): (*const u8, ([__m512; 2], __m512)),
                (x, meta): (*const i16, &[GroupMeta; T]),
                sums: &mut [__m512; T],
            ) {
                let halves = if F == Q6K { 2 } else { 1 };
                for half in 0..halves {
                    let mut dots = [_mm512_setzero_si512(); T];
                    for t in 0..T {
                        dots[t] = start::<F>(&meta[t], half);
                    }
                    for c in half * 2..half * 2 + 4 / halves {
                        // SAFETY: the group has these numbers.
                        let numbers = unsafe { numbers::<F>(packed, c) };
                        for j in 0..4 {
                            for t in 0..T {
                                // SAFETY: 32 integers of each row are there.
                                let pair = unsafe { x.add(t * GROUP + 8 * c + 2 * j).cast::<i32>().read_unaligned() };
                                dots[t] = $add(dots[t], numbers[j], _mm512_set1_epi32(pair));
                            }
                        }
                    }
                    for t in 0..T {
                        let factor = _mm512_mul_ps(scale[half], _mm512_set1_ps(meta[t].scale));
                        sums[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[t]), factor, sums[t]);
                    }
                }
                if F == Q4_1 || F == Q4K {
                    for t in 0..T {
                        sums[t] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(meta[t].sum), sums[t]);
                    }
                }
            }
        }
    };
}

products! {
    /// With a product and an addition for each two numbers.
    plain, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma",
    |sum, a, b| _mm512_add_epi32(sum, _mm512_madd_epi16(a, b))
}

products! {
    /// With one instruction for both.
    vnni, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma",
    |sum, a, b| _mm512_dpwssd_epi32(sum, a, b)
}
