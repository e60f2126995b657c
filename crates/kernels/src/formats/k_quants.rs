//! The formats with blocks of 256, whose small groups have quantised scales of their own.

use super::float::half_at;

pub(super) const BLOCK: usize = 256;
pub(super) const Q2K_BYTES: usize = 16 + 64 + 2 + 2;
pub(super) const Q3K_BYTES: usize = 32 + 64 + 12 + 2;
pub(super) const Q4K_BYTES: usize = 2 + 2 + 12 + 128;
pub(super) const Q5K_BYTES: usize = 2 + 2 + 12 + 32 + 128;
pub(super) const Q6K_BYTES: usize = 128 + 64 + 16 + 2;

/// Layout: 16 bytes of scale (low 4 bits) and minimum (high 4 bits), 64 bytes of numbers, scale, scale of the minima.
/// Each 32 bytes of numbers hold 128: bits 0-1 are the first 32, bits 2-3 the next, and so on.
#[inline(always)]
pub(super) fn q2k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<Q2K_BYTES>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let (scale, minimum) = (half_at(block, 80), half_at(block, 82));
        let numbers = block[16..80].as_chunks::<16>().0;
        for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let group_scale = scale * f32::from(block[group] & 15);
            let group_minimum = minimum * f32::from(block[group] >> 4);
            let shift = 2 * ((group / 2) % 4);
            for (out, packed) in out.iter_mut().zip(&numbers[2 * (group / 8) + group % 2]) {
                let number = (packed >> shift) & 3;
                *out = group_scale * i32::from(number) as f32 - group_minimum;
            }
        }
    }
}

/// The sixteen 6-bit scales of a Q3_K block, from `block[96..108]`: eight bytes whose halves are the low four bits of
/// scales 0-7 and 8-15, then four bytes with the upper two bits of scales i, i+4, i+8, i+12.
#[inline(always)]
pub(super) fn q3k_scales(block: &[u8; Q3K_BYTES]) -> [i32; 16] {
    let mut scales = [0; 16];
    for (i, scale) in scales.iter_mut().enumerate() {
        let low = (block[96 + i % 8] >> (4 * (i / 8))) & 15;
        let high = (block[104 + i % 4] >> (2 * (i / 4))) & 3;
        *scale = i32::from(low | (high << 4)) - 32;
    }
    scales
}

/// Layout: 32 bytes of third bits (bit i for the i-th group of 32), 64 bytes of numbers as in Q2_K, 12 bytes of scales, scale.
/// A third bit that is not set means minus four.
#[inline(always)]
pub(super) fn q3k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<Q3K_BYTES>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let scale = half_at(block, 108);
        let scales = q3k_scales(block);
        let (thirds, numbers) = (block[..32].as_chunks::<16>().0, block[32..96].as_chunks::<16>().0);
        for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let group_scale = scale * scales[group] as f32;
            let (low, high) = (&numbers[2 * (group / 8) + group % 2], &thirds[group % 2]);
            let shift = 2 * ((group / 2) % 4);
            for (out, (low, high)) in out.iter_mut().zip(low.iter().zip(high)) {
                let number = (low >> shift) & 3;
                let third = (high >> (group / 2)) & 1;
                *out = group_scale * (i32::from(number | (third << 2)) - 4) as f32;
            }
        }
    }
}

/// The scale and the minimum of group `group`, from the twelve bytes that [`scales_and_minima`] reads.
pub(crate) fn scale_and_minimum(packed: &[u8], group: usize) -> (u8, u8) {
    match group {
        0..4 => (packed[group] & 63, packed[group + 4] & 63),
        _ => {
            let low = packed[group + 4];
            ((low & 15) | ((packed[group - 4] >> 6) << 4), (low >> 4) | ((packed[group] >> 6) << 4))
        }
    }
}

/// The eight 6-bit scales and minima of a Q4_K or Q5_K block, from `block[4..16]`: four bytes of scales 0-3, four of
/// minima 0-3, four with the low four bits of scales and minima 4-7, whose upper two bits are those of the first eight bytes.
#[inline(always)]
fn scales_and_minima<const N: usize>(block: &[u8; N]) -> [(u8, u8); 8] {
    let mut pairs = [(0, 0); 8];
    for i in 0..4 {
        let (scale, minimum, low) = (block[4 + i], block[8 + i], block[12 + i]);
        pairs[i] = (scale & 63, minimum & 63);
        pairs[i + 4] = ((low & 15) | ((scale >> 6) << 4), (low >> 4) | ((minimum >> 6) << 4));
    }
    pairs
}

/// Layout: scale, scale of the minima, 12 bytes of scales and minima, 128 bytes of numbers.
/// Each 32 bytes of numbers hold 64: the low halves are the first 32, the high halves the last.
#[inline(always)]
pub(super) fn q4k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<Q4K_BYTES>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
        let pairs = scales_and_minima(block);
        let numbers = block[16..].as_chunks::<32>().0;
        for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let group_scale = scale * f32::from(pairs[group].0);
            let group_minimum = minimum * f32::from(pairs[group].1);
            let shift = 4 * (group % 2);
            for (out, &number) in out.iter_mut().zip(&numbers[group / 2]) {
                *out = group_scale * i32::from((number >> shift) & 15) as f32 - group_minimum;
            }
        }
    }
}

/// Layout: scale, scale of the minima, 12 bytes of scales and minima, 32 bytes of fifth bits (bit i for the i-th
/// group of 32), 128 bytes of numbers as in Q4_K.
#[inline(always)]
pub(super) fn q5k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<Q5K_BYTES>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let (scale, minimum) = (half_at(block, 0), half_at(block, 2));
        let pairs = scales_and_minima(block);
        let numbers = block[16..].as_chunks::<32>().0;
        for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let group_scale = scale * f32::from(pairs[group].0);
            let group_minimum = minimum * f32::from(pairs[group].1);
            let shift = 4 * (group % 2);
            // The first of the five 32s are the fifth bits.
            for ((out, &number), &fifth) in out.iter_mut().zip(&numbers[1 + group / 2]).zip(&numbers[0]) {
                let number = ((number >> shift) & 15) | (((fifth >> group) & 1) << 4);
                *out = group_scale * i32::from(number) as f32 - group_minimum;
            }
        }
    }
}

/// Layout: 128 bytes of low four bits, 64 bytes of upper two bits, 16 signed scales, scale. Each half of the block
/// (128 numbers) has 64 bytes of low bits (low halves first, then high halves) and 32 bytes of upper bits (bits 0-1 for
/// the first 32 numbers, bits 2-3 for the next, and so on).
#[inline(always)]
pub(super) fn q6k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<Q6K_BYTES>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let scale = half_at(block, 208);
        let (lows, highs) = (block[..128].as_chunks::<16>().0, block[128..192].as_chunks::<16>().0);
        for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let group_scale = scale * f32::from(block[192 + group].cast_signed());
            let (half, quarter, sixteen) = (group / 8, (group / 2) % 4, group % 2);
            let (low, high) = (&lows[4 * half + 2 * (quarter % 2) + sixteen], &highs[2 * half + sixteen]);
            let (low_shift, high_shift) = (4 * (quarter / 2), 2 * quarter);
            for (out, (low, high)) in out.iter_mut().zip(low.iter().zip(high)) {
                let number = ((low >> low_shift) & 15) | (((high >> high_shift) & 3) << 4);
                *out = group_scale * (i32::from(number) - 32) as f32;
            }
        }
    }
}
