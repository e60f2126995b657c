//! Blocks of 256: the scales (and minima) of the small groups are found first, then quantised themselves against the largest
//! of them, then the numbers are rounded with what has become of the scales. Layouts: `formats/k_quants.rs`.

use super::put_half;
use super::search::{
    Fit, Lanes, Search, Weighted, nearest, scale_and_minimum, side_by_side, symmetric_scale,
    symmetric_scale_by_exchange, within,
};
use crate::formats::k_quants::{BLOCK, Q2K_BYTES, Q3K_BYTES, Q4K_BYTES, Q5K_BYTES, Q6K_BYTES};

/// Below this a block is all zero.
const ZERO: f32 = 1e-15;

/// The largest of some numbers and zero.
#[inline(always)]
fn largest(numbers: &[f32]) -> f32 {
    numbers.iter().fold(0.0, |largest, &number| if number > largest { number } else { largest })
}

/// The number furthest from zero, with its sign.
#[inline(always)]
fn furthest(numbers: &[f32]) -> f32 {
    numbers.iter().fold(0.0f32, |furthest, &number| if number.abs() > furthest.abs() { number } else { furthest })
}

/// Rounds the numbers again with the scales and minima that were stored. A group whose stored scale is zero keeps the levels
/// of the search: they stand for nothing, but they are what is written.
#[inline(always)]
fn round_again<const GROUPS: usize, const LEN: usize>(
    fit: &mut Fit<GROUPS, LEN>,
    x: &Lanes<f32, GROUPS, LEN>,
    top: i32,
) {
    for (levels, x) in fit.levels.iter_mut().zip(x) {
        for g in 0..GROUPS {
            let level = within(nearest((x[g] + fit.minima[g]) / fit.scales[g]), 0, top);
            levels[g] = if fit.scales[g] == 0.0 { levels[g] } else { level };
        }
    }
}

#[inline(always)]
pub(super) fn q2k(values: &[f32], out: &mut [u8]) {
    const SEARCH: Search = Search { top: 3, first: -0.5, steps: 15, absolute: true };
    for (values, block) in values.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<Q2K_BYTES>().0) {
        let x: Lanes<f32, 16, 16> = side_by_side(values);
        let weights = x.map(|x| x.map(f32::abs));
        let mut fit = scale_and_minimum(&Weighted { x: &x, weights: &weights }, &SEARCH);
        let (scale, minimum) = (largest(&fit.scales), largest(&fit.minima));
        let step = |largest: f32| if largest > 0.0 { 15.0 / largest } else { 0.0 };
        let (scale_step, minimum_step) = (step(scale), step(minimum));
        let scale = put_half(block, 80, scale / 15.0);
        let minimum = put_half(block, 82, minimum / 15.0);
        for ((pair, own_scale), own_minimum) in block.iter_mut().zip(&mut fit.scales).zip(&mut fit.minima) {
            *pair = nearest(scale_step * *own_scale) as u8 | ((nearest(minimum_step * *own_minimum) as u8) << 4);
            *own_scale = scale * f32::from(*pair & 15);
            *own_minimum = minimum * f32::from(*pair >> 4);
        }
        round_again(&mut fit, &x, 3);
        pack_two_bits(&mut block[16..80], &fit.levels);
    }
}

/// 64 bytes of two bits: each 32 bytes hold 128 numbers, bits 0-1 the first 32 and so on.
#[inline(always)]
fn pack_two_bits(out: &mut [u8], levels: &Lanes<i32, 16, 16>) {
    for (i, levels) in levels.iter().enumerate() {
        for half in 0..2 {
            for sixteen in 0..2 {
                let level = |quarter: usize| levels[8 * half + 2 * quarter + sixteen] & 3;
                out[32 * half + 16 * sixteen + i] =
                    (level(0) | (level(1) << 2) | (level(2) << 4) | (level(3) << 6)) as u8;
            }
        }
    }
}

#[inline(always)]
pub(super) fn q3k(values: &[f32], out: &mut [u8]) {
    for (values, block) in values.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<Q3K_BYTES>().0) {
        let groups = values.as_chunks::<16>().0;
        let (mut scales, mut levels) = ([0.0; 16], [[0; 16]; 16]);
        for (g, x) in groups.iter().enumerate() {
            let (scale, found) = symmetric_scale_by_exchange(x, 4);
            scales[g] = scale;
            levels.iter_mut().zip(found).for_each(|(levels, found)| levels[g] = found);
        }
        let furthest = furthest(&scales);
        let step = if furthest == 0.0 { 0.0 } else { -32.0 / furthest };
        let scale = put_half(block, 108, if furthest == 0.0 { 0.0 } else { 1.0 / step });
        block[96..108].fill(0);
        for g in 0..16 {
            // Without any scale the six bits are zero, which stands for -32 times nothing.
            let stored = if furthest == 0.0 { 0 } else { nearest(step * scales[g]).clamp(-32, 31) + 32 };
            block[96 + g % 8] |= ((stored & 15) as u8) << (4 * (g / 8));
            block[104 + g % 4] |= ((stored >> 4) as u8) << (2 * (g / 4));
            let scale = scale * (stored - 32) as f32;
            for (levels, x) in levels.iter_mut().zip(&groups[g]) {
                levels[g] = if scale == 0.0 { levels[g] } else { nearest(x / scale).clamp(-4, 3) + 4 };
            }
        }
        block[..32].fill(0);
        for (i, levels) in levels.iter().enumerate() {
            for (g, level) in levels.iter().enumerate() {
                block[16 * (g % 2) + i] |= ((level >> 2) as u8) << (g / 2);
            }
        }
        pack_two_bits(&mut block[32..96], &levels);
    }
}

/// Q4_K and Q5_K: eight groups of 32, each with a scale and a minimum of six bits. Writes the first 16 bytes of the block.
#[inline(always)]
fn eight_groups<const N: usize>(block: &mut [u8; N], values: &[f32; BLOCK], search: &Search) -> Lanes<i32, 8, 32> {
    let x: Lanes<f32, 8, 32> = side_by_side(values);
    let mut squares = [0.0f32; 8];
    for x in &x {
        for g in 0..8 {
            squares[g] += x[g] * x[g];
        }
    }
    let average = squares.map(|squares| (squares / 32.0).sqrt());
    let mut weights = x;
    for weights in &mut weights {
        for g in 0..8 {
            weights[g] = average[g] + weights[g].abs();
        }
    }
    let mut fit = scale_and_minimum(&Weighted { x: &x, weights: &weights }, search);
    let (scale, minimum) = (largest(&fit.scales), largest(&fit.minima));
    let step = |largest: f32| if largest > 0.0 { 63.0 / largest } else { 0.0 };
    let (scale_step, minimum_step) = (step(scale), step(minimum));
    let scale = put_half(block, 0, scale / 63.0);
    let minimum = put_half(block, 2, minimum / 63.0);
    let (mut stored_scales, mut stored_minima) = ([0; 8], [0; 8]);
    for g in 0..8 {
        stored_scales[g] = (nearest(scale_step * fit.scales[g]) as u8).min(63);
        stored_minima[g] = (nearest(minimum_step * fit.minima[g]) as u8).min(63);
        fit.scales[g] = scale * f32::from(stored_scales[g]);
        fit.minima[g] = minimum * f32::from(stored_minima[g]);
    }
    for i in 0..4 {
        let (late_scale, late_minimum) = (stored_scales[i + 4], stored_minima[i + 4]);
        block[4 + i] = stored_scales[i] | ((late_scale >> 4) << 6);
        block[8 + i] = stored_minima[i] | ((late_minimum >> 4) << 6);
        block[12 + i] = (late_scale & 15) | (late_minimum << 4);
    }
    round_again(&mut fit, &x, search.top);
    fit.levels
}

/// 128 bytes of four bits: each 32 bytes hold two groups of 32.
#[inline(always)]
fn pack_four_bits(out: &mut [u8], levels: &Lanes<i32, 8, 32>) {
    for (i, levels) in levels.iter().enumerate() {
        for pair in 0..4 {
            out[32 * pair + i] = ((levels[2 * pair] & 15) | ((levels[2 * pair + 1] & 15) << 4)) as u8;
        }
    }
}

#[inline(always)]
pub(super) fn q4k(values: &[f32], out: &mut [u8]) {
    const SEARCH: Search = Search { top: 15, first: -1.0, steps: 20, absolute: false };
    for (values, block) in values.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<Q4K_BYTES>().0) {
        let levels = eight_groups(block, values, &SEARCH);
        pack_four_bits(&mut block[16..], &levels);
    }
}

#[inline(always)]
pub(super) fn q5k(values: &[f32], out: &mut [u8]) {
    const SEARCH: Search = Search { top: 31, first: -0.5, steps: 15, absolute: false };
    for (values, block) in values.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<Q5K_BYTES>().0) {
        let levels = eight_groups(block, values, &SEARCH);
        for (fifths, levels) in block[16..48].iter_mut().zip(&levels) {
            *fifths = (0..8).fold(0, |bits, g| bits | (((levels[g] >> 4) as u8) << g));
        }
        pack_four_bits(&mut block[48..], &levels);
    }
}

#[inline(always)]
pub(super) fn q6k(values: &[f32], out: &mut [u8]) {
    for (values, block) in values.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<Q6K_BYTES>().0) {
        let x: Lanes<f32, 16, 16> = side_by_side(values);
        let mut fit = symmetric_scale(&x, 32);
        let furthest = furthest(&fit.scales);
        if furthest.abs() < ZERO {
            block.fill(0);
            continue;
        }
        let step = -128.0 / furthest;
        let scale = put_half(block, 208, 1.0 / step);
        for g in 0..16 {
            let stored = nearest(step * fit.scales[g]).min(127) as i8;
            block[192 + g] = stored.cast_unsigned();
            fit.scales[g] = scale * f32::from(stored);
        }
        for (levels, x) in fit.levels.iter_mut().zip(&x) {
            for g in 0..16 {
                let level = nearest(x[g] / fit.scales[g]).clamp(-32, 31) + 32;
                levels[g] = if fit.scales[g] == 0.0 { levels[g] } else { level };
            }
        }
        for (i, levels) in fit.levels.iter().enumerate() {
            for half in 0..2 {
                for sixteen in 0..2 {
                    let level = |quarter: usize| levels[8 * half + 2 * quarter + sixteen] as u8;
                    let [a, b, c, d] = [level(0), level(1), level(2), level(3)];
                    let low = 64 * half + 16 * sixteen + i;
                    block[low] = (a & 15) | (c << 4);
                    block[low + 32] = (b & 15) | (d << 4);
                    block[128 + 32 * half + 16 * sixteen + i] =
                        (a >> 4) | ((b >> 4) << 2) | ((c >> 4) << 4) | ((d >> 4) << 6);
                }
            }
        }
    }
}
