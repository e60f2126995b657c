//! The products with AVX2: a register is one number of each of eight rows, a half of a tile.

#![expect(clippy::needless_range_loop, reason = "the index counts registers of several arrays at once")]

use std::arch::x86_64::*;

use super::activations::Strip;
use super::layout::{GROUP, Layout, ROWS};
use super::{Q4_1, Q4K, Q6K, Q8_0, Tiles, with_format};
use crate::panel::Target;
use crate::threads::with_scratch;

/// Rows of a strip: each takes two registers, beside those of the numbers.
pub(super) const STRIP_ROWS: &[usize] = &[6, 4, 3, 2, 1];
/// Tiles that are multiplied together where there is one row, whose sums alone would wait for each other.
pub(super) const TILES: usize = 2;

/// Strips from which on the numbers of a tile are expanded once for all of them.
const MANY: usize = 3;

/// # Safety
/// As [`super::PackedMatrix::product`]; the rows of each strip are one of [`STRIP_ROWS`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn product(layout: Layout, tiles: Tiles<'_>, strips: &[Strip<'_>], out: (Target, usize)) {
    // SAFETY: the caller's promises.
    with_format!(layout.format, F => unsafe { of_format::<F>(layout, tiles, strips, out) });
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn of_format<const F: u8>(layout: Layout, tiles: Tiles<'_>, strips: &[Strip<'_>], out: (Target, usize)) {
    if strips.len() < MANY {
        for strip in strips {
            // SAFETY: the caller's promises.
            unsafe {
                match (strip.rows, tiles.count) {
                    (1, TILES) => rows::<F, 4, 1, false>(layout, tiles, strip, out),
                    _ => tiles.each(1, out, |tile, out| any_rows::<F, false>(layout, tile, strip, out)),
                }
            }
        }
        return;
    }
    tiles.each(1, out, |tile, out| {
        with_scratch(tile.numbers(layout), |room| {
            // SAFETY: the caller's promises, and there is room for so many numbers.
            unsafe { expand::<F>(layout, tile, room) };
            let tile = Tiles { expanded: room.as_ptr(), ..tile };
            for strip in strips {
                unsafe { any_rows::<F, true>(layout, tile, strip, out) };
            }
        });
    });
}

/// One tile times a strip, from its numbers as floats where `E` says so.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn any_rows<const F: u8, const E: bool>(
    layout: Layout,
    tile: Tiles<'_>,
    strip: &Strip<'_>,
    out: (Target, usize),
) {
    // SAFETY: the caller's promises.
    unsafe {
        match strip.rows {
            6 => rows::<F, 2, 6, E>(layout, tile, strip, out),
            4 => rows::<F, 2, 4, E>(layout, tile, strip, out),
            3 => rows::<F, 2, 3, E>(layout, tile, strip, out),
            2 => rows::<F, 2, 2, E>(layout, tile, strip, out),
            _ => rows::<F, 2, 1, E>(layout, tile, strip, out),
        }
    }
}

/// Writes the numbers of a tile as floats, less their offset: sixteen rows of the first, then of the second, and so on.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn expand<const F: u8>(layout: Layout, tile: Tiles<'_>, room: &mut [f32]) {
    let mut groups = room.chunks_exact_mut(GROUP * ROWS);
    for unit in tile.bytes.chunks_exact(layout.unit_bytes()) {
        for group in 0..layout.groups() {
            let packed = layout.group(unit, group).as_ptr();
            let Some(room) = groups.next() else { return };
            for (c, room) in room.chunks_exact_mut(8 * ROWS).enumerate() {
                // SAFETY: the group has these numbers, and the room as many.
                unsafe {
                    for h in 0..2 {
                        let lanes = lanes_of::<F>(packed, c, h);
                        for j in 0..8 {
                            let number = number::<F>(packed, &lanes, 8 * c + j, h);
                            _mm256_storeu_ps(room.as_mut_ptr().add(j * ROWS + 8 * h), number);
                        }
                    }
                }
            }
        }
    }
}

/// `H` halves of tiles times `T` rows.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows<const F: u8, const H: usize, const T: usize, const E: bool>(
    layout: Layout,
    tiles: Tiles<'_>,
    strip: &Strip<'_>,
    (out, columns): (Target, usize),
) {
    let (header, bytes) = (layout.header_bytes, layout.group_bytes);
    let mut sums = [[_mm256_setzero_ps(); T]; H];
    let (mut x, mut totals, mut expanded) = (strip.values.as_ptr(), strip.sums.as_ptr(), tiles.expanded);
    for unit in (0..tiles.tile_bytes).step_by(layout.unit_bytes()) {
        for group in 0..layout.groups() {
            let mut packed = [std::ptr::null(); H];
            let mut scales = [([_mm256_setzero_ps(); 2], _mm256_setzero_ps()); H];
            // SAFETY: the tiles and the strip have so many groups.
            unsafe {
                for h in 0..H {
                    let unit = tiles.start().add(h / 2 * tiles.tile_bytes + unit);
                    (packed[h], scales[h]) = (unit.add(header + group * bytes), scales_of::<F>(unit, group, h % 2));
                }
                if E {
                    packed = [expanded.cast(); H];
                    expanded = expanded.wrapping_add(GROUP * ROWS);
                }
                add_group::<F, H, T, E>(&packed, &scales, (x, totals), &mut sums);
                (x, totals) = (x.add(T * GROUP), totals.add(T));
            }
        }
    }
    for h in 0..H {
        let left = _mm256_set1_epi32(columns as i32 - 8 * h as i32);
        let mask = _mm256_cmpgt_epi32(left, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        for t in 0..T {
            // SAFETY: the caller's promise; the mask leaves out the columns that are not there.
            unsafe { _mm256_maskstore_ps(out.row(strip.first + t).wrapping_add(8 * h), mask, sums[h][t]) };
        }
    }
}

/// Adds the products of a group.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn add_group<const F: u8, const H: usize, const T: usize, const E: bool>(
    packed: &[*const u8; H],
    scales: &[([__m256; 2], __m256); H],
    (x, totals): (*const f32, *const f32),
    sums: &mut [[__m256; T]; H],
) {
    let parts = if F == Q6K { 2 } else { 1 };
    for part in 0..parts {
        let mut dots = [[_mm256_setzero_ps(); T]; H];
        for c in part * 2..part * 2 + 4 / parts {
            let mut lanes = [[_mm256_setzero_si256(); 2]; H];
            for h in 0..H {
                // SAFETY: the group has these numbers.
                lanes[h] = if E { lanes[h] } else { unsafe { lanes_of::<F>(packed[h], c, h % 2) } };
            }
            for j in 0..8 {
                let mut numbers = [_mm256_setzero_ps(); H];
                for h in 0..H {
                    // SAFETY: as above.
                    numbers[h] = unsafe {
                        match E {
                            true => _mm256_loadu_ps(packed[h].cast::<f32>().add((8 * c + j) * ROWS + h % 2 * 8)),
                            false => number::<F>(packed[h], &lanes[h], 8 * c + j, h % 2),
                        }
                    };
                }
                for t in 0..T {
                    // SAFETY: 32 numbers of each row are there.
                    let value = _mm256_set1_ps(unsafe { *x.add(t * GROUP + 8 * c + j) });
                    for h in 0..H {
                        dots[h][t] = _mm256_fmadd_ps(numbers[h], value, dots[h][t]);
                    }
                }
            }
        }
        for h in 0..H {
            for t in 0..T {
                sums[h][t] = _mm256_fmadd_ps(dots[h][t], scales[h].0[part], sums[h][t]);
            }
        }
    }
    if F == Q4_1 || F == Q4K {
        for h in 0..H {
            for t in 0..T {
                // SAFETY: there is a sum of each row.
                let total = _mm256_set1_ps(unsafe { *totals.add(t) });
                sums[h][t] = _mm256_fmadd_ps(scales[h].1, total, sums[h][t]);
            }
        }
    }
}

/// What the numbers 8c..8c + 8 of that half of a group are taken from.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn lanes_of<const F: u8>(group: *const u8, c: usize, h: usize) -> [__m256i; 2] {
    if F == Q8_0 {
        return [_mm256_setzero_si256(); 2];
    }
    // SAFETY: the caller's group has these bytes.
    unsafe {
        let low = _mm256_loadu_si256(group.add(c * 64 + h * 32).cast());
        let upper = if F == Q6K {
            _mm256_loadu_si256(group.add(256 + c / 2 * 64 + h * 32).cast())
        } else {
            _mm256_srli_epi32::<20>(low)
        };
        [low, upper]
    }
}

/// The number k of each row of that half, its offset taken away.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn number<const F: u8>(group: *const u8, [low, upper]: &[__m256i; 2], k: usize, h: usize) -> __m256 {
    if F == Q8_0 {
        // SAFETY: the caller's group has these bytes.
        let bytes = unsafe { _mm_loadl_epi64(group.add(k * 16 + h * 8).cast()) };
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
    }
    if F == Q6K {
        let low = _mm256_srl_epi32(*low, _mm_cvtsi32_si128(4 * (k % 8) as i32));
        let upper = _mm256_srl_epi32(*upper, _mm_cvtsi32_si128(2 * (k % 16) as i32));
        let low = _mm256_and_si256(low, _mm256_set1_epi32(15));
        let upper = _mm256_slli_epi32::<4>(_mm256_and_si256(upper, _mm256_set1_epi32(3)));
        let number = _mm256_cvtepi32_ps(_mm256_or_si256(low, upper));
        return _mm256_sub_ps(number, _mm256_set1_ps(32.0));
    }
    // The four bits are made the last ones of a large number's fraction, so that no conversion is needed: those of the nibble j
    // count as one each in a number of 2^(23 - 4j).
    let (lane, j) = if k % 8 < 5 { (*low, k % 8) } else { (*upper, k % 8 - 5) };
    let large = ((1_u32 << (23 - 4 * j)) as f32, (1_u32 << (23 - 4 * j)) as f32 + 8.0);
    let bits = _mm256_and_si256(lane, _mm256_set1_epi32(15 << (4 * j)));
    let number = _mm256_or_si256(bits, _mm256_castps_si256(_mm256_set1_ps(large.0)));
    _mm256_sub_ps(_mm256_castsi256_ps(number), _mm256_set1_ps(large.1))
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

/// The scale of a group of each row of that half, or of each half of the group, and what is added to every number.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn scales_of<const F: u8>(unit: *const u8, group: usize, h: usize) -> ([__m256; 2], __m256) {
    // SAFETY: the caller's unit has this header.
    unsafe {
        let (scale, eight) = (halves(unit.add(16 * h)), _mm256_set1_ps(8.0));
        match F {
            Q4_1 => ([scale; 2], _mm256_fmadd_ps(scale, eight, halves(unit.add(32 + 16 * h)))),
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
                ([scale; 2], _mm256_fmsub_ps(scale, eight, minimum))
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
