//! Expansion with AVX2 of the formats whose groups of sixteen numbers compilers do not vectorise by themselves. The layouts
//! are told in `legacy` and `k_quants`; the products and sums are the same ones, so the bits are too.

#![expect(unsafe_code, reason = "vector loads and stores through pointers to arrays of known size")]

use std::arch::x86_64::*;

use super::float::half_at;
use super::{Format, k_quants, legacy};

/// Expands `bytes` if this module knows the format.
#[target_feature(enable = "avx2,fma")]
pub(super) fn expand(format: Format, bytes: &[u8], out: &mut [f32]) -> bool {
    match format {
        Format::Q4_0 => q4_0(bytes, out),
        Format::Q4_1 => q4_1(bytes, out),
        Format::Q5_0 => q5_0(bytes, out),
        Format::Q5_1 => q5_1(bytes, out),
        Format::Q2K => q2k(bytes, out),
        Format::Q3K => q3k(bytes, out),
        Format::Q6K => q6k(bytes, out),
        _ => return false,
    }
    true
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: sixteen bytes are there, and the load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// The last sixteen bytes of a block.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn load_last<const N: usize>(block: &[u8; N]) -> __m128i {
    load(&block[N - 16..].as_chunks::<16>().0[0])
}

/// Bits `shift..` of every byte, as far as `mask` takes them.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn bits(bytes: __m128i, shift: usize, mask: i8) -> __m128i {
    _mm_and_si128(_mm_srl_epi16(bytes, _mm_cvtsi32_si128(shift as i32)), _mm_set1_epi8(mask))
}

/// Sixteen where bit i of `bits` is set in byte i, else zero.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn fifth_bits(low: u8, high: u8) -> __m128i {
    let spread = _mm_unpacklo_epi64(_mm_set1_epi8(low.cast_signed()), _mm_set1_epi8(high.cast_signed()));
    let bit = _mm_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
    _mm_and_si128(_mm_cmpeq_epi8(_mm_and_si128(spread, bit), bit), _mm_set1_epi8(16))
}

/// Writes `numbers` * `scale`, plus `addend` where there is one (adding zero would lose the sign of a zero).
#[inline]
#[target_feature(enable = "avx2,fma")]
fn store(numbers: __m128i, scale: f32, addend: Option<f32>, out: &mut [f32; 16]) {
    let scale = _mm256_set1_ps(scale);
    let halves = [numbers, _mm_srli_si128::<8>(numbers)];
    for (numbers, out) in halves.into_iter().zip(out.as_chunks_mut::<8>().0) {
        let mut value = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(numbers)), scale);
        if let Some(addend) = addend {
            value = _mm256_add_ps(value, _mm256_set1_ps(addend));
        }
        // SAFETY: eight floats are there.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), value) };
    }
}

#[target_feature(enable = "avx2,fma")]
fn q4_0(bytes: &[u8], out: &mut [f32]) {
    let out = out.as_chunks_mut::<16>().0.as_chunks_mut::<2>().0;
    for (block, [low, high]) in bytes.as_chunks::<{ legacy::Q4_0_BYTES }>().0.iter().zip(out) {
        let (scale, packed, zero) = (half_at(block, 0), load_last(block), _mm_set1_epi8(8));
        store(_mm_sub_epi8(bits(packed, 0, 15), zero), scale, None, low);
        store(_mm_sub_epi8(bits(packed, 4, 15), zero), scale, None, high);
    }
}

#[target_feature(enable = "avx2,fma")]
fn q4_1(bytes: &[u8], out: &mut [f32]) {
    let out = out.as_chunks_mut::<16>().0.as_chunks_mut::<2>().0;
    for (block, [low, high]) in bytes.as_chunks::<{ legacy::Q4_1_BYTES }>().0.iter().zip(out) {
        let (scale, minimum, packed) = (half_at(block, 0), half_at(block, 2), load_last(block));
        store(bits(packed, 0, 15), scale, Some(minimum), low);
        store(bits(packed, 4, 15), scale, Some(minimum), high);
    }
}

#[target_feature(enable = "avx2,fma")]
fn q5_0(bytes: &[u8], out: &mut [f32]) {
    let out = out.as_chunks_mut::<16>().0.as_chunks_mut::<2>().0;
    for (block, [low, high]) in bytes.as_chunks::<{ legacy::Q5_0_BYTES }>().0.iter().zip(out) {
        let (scale, packed, zero) = (half_at(block, 0), load_last(block), _mm_set1_epi8(16));
        let first = _mm_or_si128(bits(packed, 0, 15), fifth_bits(block[2], block[3]));
        let second = _mm_or_si128(bits(packed, 4, 15), fifth_bits(block[4], block[5]));
        store(_mm_sub_epi8(first, zero), scale, None, low);
        store(_mm_sub_epi8(second, zero), scale, None, high);
    }
}

#[target_feature(enable = "avx2,fma")]
fn q5_1(bytes: &[u8], out: &mut [f32]) {
    let out = out.as_chunks_mut::<16>().0.as_chunks_mut::<2>().0;
    for (block, [low, high]) in bytes.as_chunks::<{ legacy::Q5_1_BYTES }>().0.iter().zip(out) {
        let (scale, minimum, packed) = (half_at(block, 0), half_at(block, 2), load_last(block));
        let first = _mm_or_si128(bits(packed, 0, 15), fifth_bits(block[4], block[5]));
        let second = _mm_or_si128(bits(packed, 4, 15), fifth_bits(block[6], block[7]));
        store(first, scale, Some(minimum), low);
        store(second, scale, Some(minimum), high);
    }
}

#[target_feature(enable = "avx2,fma")]
fn q2k(bytes: &[u8], out: &mut [f32]) {
    let out = out.as_chunks_mut::<16>().0.as_chunks_mut::<16>().0;
    for (block, out) in bytes.as_chunks::<{ k_quants::Q2K_BYTES }>().0.iter().zip(out) {
        let (scale, minimum) = (half_at(block, 80), half_at(block, 82));
        let packed = block[16..80].as_chunks::<16>().0;
        for (group, out) in out.iter_mut().enumerate() {
            let numbers = bits(load(&packed[2 * (group / 8) + group % 2]), 2 * ((group / 2) % 4), 3);
            let group_scale = scale * f32::from(block[group] & 15);
            store(numbers, group_scale, Some(-(minimum * f32::from(block[group] >> 4))), out);
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn q3k(bytes: &[u8], out: &mut [f32]) {
    let out = out.as_chunks_mut::<16>().0.as_chunks_mut::<16>().0;
    for (block, out) in bytes.as_chunks::<{ k_quants::Q3K_BYTES }>().0.iter().zip(out) {
        let (scale, scales) = (half_at(block, 108), k_quants::q3k_scales(block));
        let (thirds, packed) = (block[..32].as_chunks::<16>().0, block[32..96].as_chunks::<16>().0);
        for (group, out) in out.iter_mut().enumerate() {
            let low = bits(load(&packed[2 * (group / 8) + group % 2]), 2 * ((group / 2) % 4), 3);
            let third = bits(load(&thirds[group % 2]), group / 2, 1);
            let numbers = _mm_or_si128(low, _mm_slli_epi16::<2>(third));
            store(_mm_sub_epi8(numbers, _mm_set1_epi8(4)), scale * scales[group] as f32, None, out);
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn q6k(bytes: &[u8], out: &mut [f32]) {
    let out = out.as_chunks_mut::<16>().0.as_chunks_mut::<16>().0;
    for (block, out) in bytes.as_chunks::<{ k_quants::Q6K_BYTES }>().0.iter().zip(out) {
        let scale = half_at(block, 208);
        let (lows, highs) = (block[..128].as_chunks::<16>().0, block[128..192].as_chunks::<16>().0);
        for (group, out) in out.iter_mut().enumerate() {
            let (half, quarter, sixteen) = (group / 8, (group / 2) % 4, group % 2);
            let low = bits(load(&lows[4 * half + 2 * (quarter % 2) + sixteen]), 4 * (quarter / 2), 15);
            let high = bits(load(&highs[2 * half + sixteen]), 2 * quarter, 3);
            let numbers = _mm_sub_epi8(_mm_or_si128(low, _mm_slli_epi16::<4>(high)), _mm_set1_epi8(32));
            store(numbers, scale * f32::from(block[192 + group].cast_signed()), None, out);
        }
    }
}
