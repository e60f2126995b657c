//! The formats with blocks of 32: one scale (and one minimum) in half precision, then the numbers.
//! In the 4- and 5-bit ones the low halves of the 16 bytes are the first 16 numbers, the high halves the last 16.

use super::float::half_at;

pub(super) const BLOCK: usize = 32;
pub(super) const Q4_0_BYTES: usize = 2 + 16;
pub(super) const Q4_1_BYTES: usize = 2 + 2 + 16;
pub(super) const Q5_0_BYTES: usize = 2 + 4 + 16;
pub(super) const Q5_1_BYTES: usize = 2 + 2 + 4 + 16;
pub(super) const Q8_0_BYTES: usize = 2 + 32;

/// The 4-bit numbers from `block[at..at + 16]`.
#[inline(always)]
fn nibbles<const N: usize>(block: &[u8; N], at: usize) -> [u8; BLOCK] {
    let mut numbers = [0; BLOCK];
    for j in 0..BLOCK / 2 {
        numbers[j] = block[at + j] & 15;
        numbers[j + 16] = block[at + j] >> 4;
    }
    numbers
}

/// The 5-bit numbers whose fifth bits are the 32 bits at `at` and whose other bits are the 16 bytes after them.
#[inline(always)]
fn five_bits<const N: usize>(block: &[u8; N], at: usize) -> [u8; BLOCK] {
    let high = u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let mut numbers = nibbles(block, at + 4);
    for (j, number) in numbers.iter_mut().enumerate() {
        *number |= (((high >> j) & 1) << 4) as u8;
    }
    numbers
}

#[inline(always)]
pub(super) fn q4_0(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<Q4_0_BYTES>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let scale = half_at(block, 0);
        for (out, number) in out.iter_mut().zip(nibbles(block, 2)) {
            *out = (i32::from(number) - 8) as f32 * scale;
        }
    }
}

#[inline(always)]
pub(super) fn q4_1(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<Q4_1_BYTES>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
        for (out, number) in out.iter_mut().zip(nibbles(block, 4)) {
            *out = i32::from(number) as f32 * scale + minimum;
        }
    }
}

#[inline(always)]
pub(super) fn q5_0(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<Q5_0_BYTES>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let scale = half_at(block, 0);
        for (out, number) in out.iter_mut().zip(five_bits(block, 2)) {
            *out = (i32::from(number) - 16) as f32 * scale;
        }
    }
}

#[inline(always)]
pub(super) fn q5_1(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<Q5_1_BYTES>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
        for (out, number) in out.iter_mut().zip(five_bits(block, 4)) {
            *out = i32::from(number) as f32 * scale + minimum;
        }
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
