//! The formats with blocks of 32: one scale (and one minimum) in half precision, then the numbers.
//! In the 4- and 5-bit ones the low halves of the 16 bytes are the first 16 numbers, the high halves the last 16.

use super::float::half_at;

pub(super) const BLOCK: usize = 32;
pub(super) const Q4_0_BYTES: usize = 2 + 16;
pub(super) const Q4_1_BYTES: usize = 2 + 2 + 16;
pub(super) const Q5_0_BYTES: usize = 2 + 4 + 16;
pub(super) const Q5_1_BYTES: usize = 2 + 2 + 4 + 16;
pub(super) const Q8_0_BYTES: usize = 2 + 32;

/// Writes `number(q)` for each 4-bit q of `packed`.
#[inline(always)]
fn four_bits(packed: &[u8; 16], out: &mut [f32; BLOCK], number: impl Fn(i32) -> f32) {
    let (low, high) = out.split_at_mut(16);
    for (out, &packed) in low.iter_mut().zip(packed) {
        *out = number(i32::from(packed & 15));
    }
    for (out, &packed) in high.iter_mut().zip(packed) {
        *out = number(i32::from(packed >> 4));
    }
}

/// The same with 5 bits: bit i of `fifths` is the fifth bit of number i.
#[inline(always)]
fn five_bits(fifths: [u8; 4], packed: &[u8; 16], out: &mut [f32; BLOCK], number: impl Fn(i32) -> f32) {
    let fifths = u32::from_le_bytes(fifths);
    let (low, high) = out.split_at_mut(16);
    for (i, (out, &packed)) in low.iter_mut().zip(packed).enumerate() {
        *out = number(i32::from(packed & 15) | (((fifths >> i) & 1) << 4) as i32);
    }
    for (i, (out, &packed)) in high.iter_mut().zip(packed).enumerate() {
        *out = number(i32::from(packed >> 4) | (((fifths >> (i + 16)) & 1) << 4) as i32);
    }
}

/// The last 16 bytes of a block: the numbers of the 4- and 5-bit formats.
#[inline(always)]
fn packed<const N: usize>(block: &[u8; N]) -> &[u8; 16] {
    &block[N - 16..].as_chunks::<16>().0[0]
}

#[inline(always)]
pub(super) fn q4_0(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<Q4_0_BYTES>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let scale = half_at(block, 0);
        four_bits(packed(block), out, |q| (q - 8) as f32 * scale);
    }
}

#[inline(always)]
pub(super) fn q4_1(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<Q4_1_BYTES>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
        four_bits(packed(block), out, |q| q as f32 * scale + minimum);
    }
}

#[inline(always)]
pub(super) fn q5_0(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<Q5_0_BYTES>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let scale = half_at(block, 0);
        five_bits([block[2], block[3], block[4], block[5]], packed(block), out, |q| (q - 16) as f32 * scale);
    }
}

#[inline(always)]
pub(super) fn q5_1(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<Q5_1_BYTES>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
        five_bits([block[4], block[5], block[6], block[7]], packed(block), out, |q| q as f32 * scale + minimum);
    }
}

#[inline(always)]
pub(super) fn q8_0(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<Q8_0_BYTES>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let scale = half_at(block, 0);
        for (out, &number) in out.iter_mut().zip(&block[2..]) {
            *out = i32::from(number.cast_signed()) as f32 * scale;
        }
    }
}
