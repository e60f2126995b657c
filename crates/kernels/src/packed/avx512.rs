//! The products with AVX-512: a register is one number of each of the sixteen rows of a tile.

#![expect(clippy::needless_range_loop, reason = "the index counts registers of several arrays at once")]

use std::arch::x86_64::*;

use super::activations::Strip;
use super::layout::{GROUP, Layout, ROWS};
use super::{Q4_1, Q4K, Q6K, Q8_0, Tiles, with_format};
use crate::panel::Target;
use crate::threads::with_scratch;

/// Rows of a strip: each takes two registers.
pub(super) const STRIP_ROWS: &[usize] = &[12, 8, 6, 4, 3, 2, 1];
/// Tiles that are multiplied together where there are one or two rows, whose sums alone would wait for each other.
pub(super) const TILES: usize = 4;

/// Strips from which on the numbers of a tile are expanded once for all of them, where that takes longer than reading them again.
const MANY: usize = 3;

/// # Safety
/// As [`super::PackedMatrix::product`]; the rows of each strip are one of [`STRIP_ROWS`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
pub(super) unsafe fn product(layout: Layout, tiles: Tiles<'_>, strips: &[Strip<'_>], out: (Target, usize)) {
    // SAFETY: the caller's promises.
    with_format!(layout.format, F => unsafe { of_format::<F>(layout, tiles, strips, out) });
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn of_format<const F: u8>(layout: Layout, tiles: Tiles<'_>, strips: &[Strip<'_>], out: (Target, usize)) {
    if strips.len() < MANY || F != Q6K {
        for strip in strips {
            // SAFETY: the caller's promises.
            unsafe {
                match (strip.rows, tiles.count) {
                    (1, TILES) => rows::<F, TILES, 1, false>(layout, tiles, strip, out),
                    (2, TILES) => rows::<F, TILES, 2, false>(layout, tiles, strip, out),
                    _ => tiles.each(1, out, |tile, out| any_rows::<F, false>(layout, tile, strip, out)),
                }
            }
        }
        return;
    }
    tiles.each(1, out, |tile, out| {
        with_scratch(tile.numbers(layout), |room| {
            // SAFETY: the caller's promises, and there is room for so many numbers.
            unsafe { expand::<F>(layout, tile.bytes, room) };
            let tile = Tiles { expanded: room.as_ptr(), ..tile };
            for strip in strips {
                unsafe { any_rows::<F, true>(layout, tile, strip, out) };
            }
        });
    });
}

/// One tile times a strip, from its numbers as floats where `E` says so.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn any_rows<const F: u8, const E: bool>(
    layout: Layout,
    tile: Tiles<'_>,
    strip: &Strip<'_>,
    out: (Target, usize),
) {
    // SAFETY: the caller's promises.
    unsafe {
        match strip.rows {
            12 => rows::<F, 1, 12, E>(layout, tile, strip, out),
            8 => rows::<F, 1, 8, E>(layout, tile, strip, out),
            6 => rows::<F, 1, 6, E>(layout, tile, strip, out),
            4 => rows::<F, 1, 4, E>(layout, tile, strip, out),
            3 => rows::<F, 1, 3, E>(layout, tile, strip, out),
            2 => rows::<F, 1, 2, E>(layout, tile, strip, out),
            _ => rows::<F, 1, 1, E>(layout, tile, strip, out),
        }
    }
}

/// Writes the numbers of a tile as floats, less their offset: sixteen rows of the first, then of the second, and so on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn expand<const F: u8>(layout: Layout, tile: &[u8], room: &mut [f32]) {
    let mut groups = room.chunks_exact_mut(GROUP * ROWS);
    for unit in tile.chunks_exact(layout.unit_bytes()) {
        for group in 0..layout.groups() {
            let packed = layout.group(unit, group).as_ptr();
            let Some(room) = groups.next() else { return };
            for (c, room) in room.chunks_exact_mut(8 * ROWS).enumerate() {
                // SAFETY: the group has these numbers, and the room as many.
                unsafe {
                    let lanes = lanes_of::<F>(packed, c);
                    for j in 0..8 {
                        let number = number::<F>(packed, &lanes, 8 * c + j);
                        _mm512_storeu_ps(room.as_mut_ptr().add(j * ROWS), number);
                    }
                }
            }
        }
    }
}

/// `R` tiles times `T` rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn rows<const F: u8, const R: usize, const T: usize, const E: bool>(
    layout: Layout,
    tiles: Tiles<'_>,
    strip: &Strip<'_>,
    (out, columns): (Target, usize),
) {
    let (header, bytes) = (layout.header_bytes, layout.group_bytes);
    let mut sums = [[_mm512_setzero_ps(); T]; R];
    let (mut x, mut totals, mut expanded) = (strip.values.as_ptr(), strip.sums.as_ptr(), tiles.expanded);
    for unit in (0..tiles.tile_bytes).step_by(layout.unit_bytes()) {
        for group in 0..layout.groups() {
            let mut packed = [std::ptr::null(); R];
            let mut scales = [([_mm512_setzero_ps(); 2], _mm512_setzero_ps()); R];
            // SAFETY: the tiles and the strip have so many groups.
            unsafe {
                for r in 0..R {
                    let unit = tiles.start().add(r * tiles.tile_bytes + unit);
                    (packed[r], scales[r]) = (unit.add(header + group * bytes), scales_of::<F>(unit, group));
                }
                if E {
                    packed = [expanded.cast(); R];
                    expanded = expanded.wrapping_add(GROUP * ROWS);
                }
                add_group::<F, R, T, E>(&packed, &scales, (x, totals), &mut sums);
                (x, totals) = (x.add(T * GROUP), totals.add(T));
            }
        }
    }
    for r in 0..R {
        let left = columns.saturating_sub(16 * r).min(16);
        let mask = ((1_u32 << left) - 1) as u16;
        for t in 0..T {
            // SAFETY: the caller's promise; the mask leaves out the columns that are not there.
            unsafe { _mm512_mask_storeu_ps(out.row(strip.first + t).wrapping_add(16 * r), mask, sums[r][t]) };
        }
    }
}

/// Adds the products of a group.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn add_group<const F: u8, const R: usize, const T: usize, const E: bool>(
    packed: &[*const u8; R],
    scales: &[([__m512; 2], __m512); R],
    (x, totals): (*const f32, *const f32),
    sums: &mut [[__m512; T]; R],
) {
    let parts = if F == Q6K { 2 } else { 1 };
    for part in 0..parts {
        let mut dots = [[_mm512_setzero_ps(); T]; R];
        for c in part * 2..part * 2 + 4 / parts {
            let mut lanes = [[_mm512_setzero_si512(); 2]; R];
            for r in 0..R {
                // SAFETY: the group has these numbers.
                lanes[r] = if E { lanes[r] } else { unsafe { lanes_of::<F>(packed[r], c) } };
            }
            for j in 0..8 {
                let mut numbers = [_mm512_setzero_ps(); R];
                for r in 0..R {
                    // SAFETY: as above.
                    numbers[r] = unsafe {
                        match E {
                            true => _mm512_loadu_ps(packed[r].cast::<f32>().add((8 * c + j) * ROWS)),
                            false => number::<F>(packed[r], &lanes[r], 8 * c + j),
                        }
                    };
                }
                for t in 0..T {
                    // SAFETY: 32 numbers of each row are there.
                    let value = _mm512_set1_ps(unsafe { *x.add(t * GROUP + 8 * c + j) });
                    for r in 0..R {
                        dots[r][t] = _mm512_fmadd_ps(numbers[r], value, dots[r][t]);
                    }
                }
            }
        }
        for r in 0..R {
            for t in 0..T {
                sums[r][t] = _mm512_fmadd_ps(dots[r][t], scales[r].0[part], sums[r][t]);
            }
        }
    }
    if F == Q4_1 || F == Q4K {
        for r in 0..R {
            for t in 0..T {
                // SAFETY: there is a sum of each row.
                let total = _mm512_set1_ps(unsafe { *totals.add(t) });
                sums[r][t] = _mm512_fmadd_ps(scales[r].1, total, sums[r][t]);
            }
        }
    }
}

/// What the numbers 8c..8c + 8 of a group are taken from.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn lanes_of<const F: u8>(group: *const u8, c: usize) -> [__m512i; 2] {
    if F == Q8_0 {
        return [_mm512_setzero_si512(); 2];
    }
    // SAFETY: the caller's group has these bytes.
    unsafe {
        let low = _mm512_loadu_si512(group.add(c * 64).cast());
        let upper = match F {
            Q6K => _mm512_loadu_si512(group.add(256 + c / 2 * 64).cast()),
            _ => _mm512_srli_epi32::<20>(low),
        };
        [low, upper]
    }
}

/// The number k of each row, its offset taken away.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn number<const F: u8>(group: *const u8, [low, upper]: &[__m512i; 2], k: usize) -> __m512 {
    if F == Q8_0 {
        // SAFETY: the caller's group has these bytes.
        let bytes = unsafe { _mm_loadu_si128(group.add(k * 16).cast()) };
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
    }
    if F == Q6K {
        // A lane chooses from a table by its lowest four bits. Of those, two are the upper bits of the number and two its
        // neighbour's: that table repeats itself.
        let low = _mm512_srl_epi32(*low, _mm_cvtsi32_si128(4 * (k % 8) as i32));
        let upper = _mm512_srl_epi32(*upper, _mm_cvtsi32_si128(2 * (k % 16) as i32));
        let fours =
            _mm512_setr_ps(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0);
        let twos = _mm512_broadcast_f32x4(_mm_setr_ps(-32.0, -16.0, 0.0, 16.0));
        return _mm512_add_ps(_mm512_permutexvar_ps(low, fours), _mm512_permutexvar_ps(upper, twos));
    }
    // The four bits are made the last ones of a large number's fraction, so that no conversion is needed: those of the nibble j
    // count as one each in a number of 2^(23 - 4j).
    let (lane, j) = if k % 8 < 5 { (*low, k % 8) } else { (*upper, k % 8 - 5) };
    let large = ((1_u32 << (23 - 4 * j)) as f32, (1_u32 << (23 - 4 * j)) as f32 + 8.0);
    let (mask, fraction) = (_mm512_set1_epi32(15 << (4 * j)), _mm512_castps_si512(_mm512_set1_ps(large.0)));
    // Of the lane what the mask takes, or else of the large number.
    let number = _mm512_ternarylogic_epi32::<0xf8>(fraction, lane, mask);
    _mm512_sub_ps(_mm512_castsi512_ps(number), _mm512_set1_ps(large.1))
}

/// Sixteen halves as floats.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn halves(at: *const u8) -> __m512 {
    // SAFETY: the caller has 32 bytes there.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(at.cast()) })
}

/// Sixteen bytes without sign.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn bytes(at: *const u8) -> __m512i {
    // SAFETY: the caller has 16 bytes there.
    _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(at.cast()) })
}

/// The scale of a group of each row, or of each half of it, and what is added to every number.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn scales_of<const F: u8>(unit: *const u8, group: usize) -> ([__m512; 2], __m512) {
    // SAFETY: the caller's unit has this header.
    unsafe {
        let (scale, eight) = (halves(unit), _mm512_set1_ps(8.0));
        match F {
            Q4_1 => ([scale; 2], _mm512_fmadd_ps(scale, eight, halves(unit.add(32)))),
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
                let scale = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(factor));
                ([scale; 2], _mm512_fmsub_ps(scale, eight, minimum))
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
