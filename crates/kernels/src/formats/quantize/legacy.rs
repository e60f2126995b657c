//! Blocks of 32 with one scale, or one scale and one minimum.
//!
//! Numbers are rounded against the scale before it becomes a half, by adding a half and cutting off, as ggml does: the step
//! is a little off then, but the bytes are those every other program writes.

use super::put_half;
use crate::formats::legacy::{BLOCK, Q4_0_BYTES, Q4_1_BYTES, Q5_0_BYTES, Q5_1_BYTES, Q8_0_BYTES};

/// One over the scale; zero for the scale of a block without any step.
#[inline(always)]
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The number furthest from zero, with its sign; the first of equals.
#[inline(always)]
fn furthest(values: &[f32; BLOCK]) -> f32 {
    let mut furthest = 0.0f32;
    for &value in values {
        if furthest.abs() < value.abs() {
            furthest = value;
        }
    }
    furthest
}

/// The 32 levels as bytes: first with the scale that takes the number furthest from zero to the lowest of `2 * middle` levels.
#[inline(always)]
fn symmetric(values: &[f32; BLOCK], middle: i32) -> (f32, [u8; BLOCK]) {
    let scale = furthest(values) / -(middle as f32);
    let inverse = inverse(scale);
    let offset = middle as f32 + 0.5;
    (scale, values.map(|value| ((value * inverse + offset) as i32).clamp(0, 2 * middle - 1) as u8))
}

/// Scale, minimum and the 32 levels from 0 to `top`, which the minimum and the maximum become.
#[inline(always)]
fn spanned(values: &[f32; BLOCK], top: i32) -> (f32, f32, [u8; BLOCK]) {
    let (mut minimum, mut maximum) = (f32::MAX, f32::MIN);
    for &value in values {
        minimum = if value < minimum { value } else { minimum };
        maximum = if value > maximum { value } else { maximum };
    }
    let scale = (maximum - minimum) / top as f32;
    let inverse = inverse(scale);
    (scale, minimum, values.map(|value| (((value - minimum) * inverse + 0.5) as i32).clamp(0, top) as u8))
}

/// The low four bits of the levels as the last 16 bytes of a block; the fifth bits.
#[inline(always)]
fn pack<const N: usize>(block: &mut [u8; N], levels: &[u8; BLOCK]) -> [u8; 4] {
    let (low, high) = levels.split_at(BLOCK / 2);
    for (out, (low, high)) in block[N - 16..].iter_mut().zip(low.iter().zip(high)) {
        *out = (low & 15) | (high << 4);
    }
    let fifths = levels.iter().enumerate().fold(0u32, |fifths, (i, level)| fifths | (u32::from(level >> 4) << i));
    fifths.to_le_bytes()
}

#[inline(always)]
pub(super) fn q4_0(values: &[f32], out: &mut [u8]) {
    for (values, block) in values.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<Q4_0_BYTES>().0) {
        let (scale, levels) = symmetric(values, 8);
        put_half(block, 0, scale);
        pack(block, &levels);
    }
}

#[inline(always)]
pub(super) fn q4_1(values: &[f32], out: &mut [u8]) {
    for (values, block) in values.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<Q4_1_BYTES>().0) {
        let (scale, minimum, levels) = spanned(values, 15);
        put_half(block, 0, scale);
        put_half(block, 2, minimum);
        pack(block, &levels);
    }
}

#[inline(always)]
pub(super) fn q5_0(values: &[f32], out: &mut [u8]) {
    for (values, block) in values.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<Q5_0_BYTES>().0) {
        let (scale, levels) = symmetric(values, 16);
        put_half(block, 0, scale);
        let fifths = pack(block, &levels);
        block[2..6].copy_from_slice(&fifths);
    }
}

#[inline(always)]
pub(super) fn q5_1(values: &[f32], out: &mut [u8]) {
    for (values, block) in values.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<Q5_1_BYTES>().0) {
        let (scale, minimum, levels) = spanned(values, 31);
        put_half(block, 0, scale);
        put_half(block, 2, minimum);
        let fifths = pack(block, &levels);
        block[4..8].copy_from_slice(&fifths);
    }
}

#[inline(always)]
pub(super) fn q8_0(values: &[f32], out: &mut [u8]) {
    for (values, block) in values.as_chunks::<BLOCK>().0.iter().zip(out.as_chunks_mut::<Q8_0_BYTES>().0) {
        let scale = furthest(values).abs() / 127.0;
        let inverse = inverse(scale);
        put_half(block, 0, scale);
        for (out, value) in block[2..].iter_mut().zip(values) {
            *out = ((value * inverse).round() as i8).cast_unsigned();
        }
    }
}
