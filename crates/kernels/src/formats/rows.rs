//! Expansion of rows that lie apart, as attention reads the heads of a cache. It happens anew for each token, between reading a
//! head and using it, so the formats of caches are written out for the instructions that convert them at once.
//!
//! The numbers are those of [`super::expand`]; only a signalling NaN, which no conversion to a cache's format makes, may lose its
//! signal.

#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "vector loads and stores through pointers to arrays of known size")
)]

use super::{Format, expand_any};
use crate::isa::{Isa, for_each_isa};

/// Expands rows of whole blocks, each `stride` bytes after the one before, to rows of so many numbers, one after another.
pub(crate) fn expand_rows(isa: Isa, format: Format, bytes: &[u8], stride: usize, rows: (usize, &mut [f32])) {
    #[cfg(target_arch = "x86_64")]
    match (isa.level(), format) {
        // SAFETY: an `Isa` of a level exists only where its instructions do; here and below.
        (crate::isa::Level::Avx2, Format::F16) => return unsafe { avx2::halves(bytes, stride, rows) },
        (crate::isa::Level::Avx512, Format::F16) => return unsafe { avx512::halves(bytes, stride, rows) },
        (crate::isa::Level::Avx512, Format::BF16) => return unsafe { avx512::bf16(bytes, stride, rows) },
        (crate::isa::Level::Avx512, Format::Q8_0) => return unsafe { avx512::q8_0(bytes, stride, rows) },
        _ => {}
    }
    expand_plain(isa, format, bytes, stride, rows);
}

for_each_isa! {
    fn expand_plain(format: Format, bytes: &[u8], stride: usize, rows: (usize, &mut [f32])) = expand_each;
}

#[inline(always)]
fn expand_each(format: Format, bytes: &[u8], stride: usize, (width, out): (usize, &mut [f32])) {
    for (index, out) in out.chunks_exact_mut(width).enumerate() {
        expand_any(format, &bytes[index * stride..], out);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use crate::formats::float;

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn halves(bytes: &[u8], stride: usize, (width, out): (usize, &mut [f32])) {
        for (index, out) in out.chunks_exact_mut(width).enumerate() {
            let (sources, rest) = bytes[index * stride..][..2 * width].as_chunks::<16>();
            let (eights, last) = out.as_chunks_mut::<8>();
            for (source, out) in sources.iter().zip(eights) {
                // SAFETY: sixteen bytes and eight floats are there, and neither needs to be aligned.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(source.as_ptr().cast()))) };
            }
            float::f16(rest, last);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use crate::formats::float::{self, half_at};
    use crate::formats::legacy;

    #[target_feature(enable = "avx2,fma,avx512f")]
    pub(super) fn halves(bytes: &[u8], stride: usize, (width, out): (usize, &mut [f32])) {
        for (index, out) in out.chunks_exact_mut(width).enumerate() {
            let (sources, rest) = bytes[index * stride..][..2 * width].as_chunks::<32>();
            let (sixteens, last) = out.as_chunks_mut::<16>();
            for (source, out) in sources.iter().zip(sixteens) {
                store(_mm512_cvtph_ps(load(source)), out);
            }
            float::f16(rest, last);
        }
    }

    #[target_feature(enable = "avx2,fma,avx512f")]
    pub(super) fn bf16(bytes: &[u8], stride: usize, (width, out): (usize, &mut [f32])) {
        for (index, out) in out.chunks_exact_mut(width).enumerate() {
            let (sources, rest) = bytes[index * stride..][..2 * width].as_chunks::<32>();
            let (sixteens, last) = out.as_chunks_mut::<16>();
            for (source, out) in sources.iter().zip(sixteens) {
                let bits = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(load(source)));
                store(_mm512_castsi512_ps(bits), out);
            }
            float::bf16(rest, last);
        }
    }

    #[target_feature(enable = "avx2,fma,avx512f")]
    pub(super) fn q8_0(bytes: &[u8], stride: usize, (width, out): (usize, &mut [f32])) {
        for (index, out) in out.chunks_exact_mut(width).enumerate() {
            let blocks = bytes[index * stride..].as_chunks::<{ legacy::Q8_0_BYTES }>().0;
            for (block, out) in blocks.iter().zip(out.as_chunks_mut::<{ legacy::BLOCK }>().0) {
                let scale = _mm512_set1_ps(half_at(block, 0));
                for (source, out) in block[2..].as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<16>().0) {
                    // SAFETY: sixteen bytes are there, and need not be aligned.
                    let numbers = unsafe { _mm_loadu_si128(source.as_ptr().cast()) };
                    store(_mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(numbers)), scale), out);
                }
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f")]
    fn load(bytes: &[u8; 32]) -> __m256i {
        // SAFETY: thirty-two bytes are there, and need not be aligned.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,avx512f")]
    fn store(numbers: __m512, out: &mut [f32; 16]) {
        // SAFETY: sixteen floats are there, and need not be aligned.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), numbers) };
    }
}
