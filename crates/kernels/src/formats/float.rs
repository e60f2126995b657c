//! Plain floating-point formats, and the half-precision scales of all the others.

/// The value of an IEEE half, exactly, without a branch (so that a loop over it vectorises).
#[inline(always)]
pub(crate) fn half_to_f32(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let magnitude = u32::from(half & 0x7fff);
    // Exponent and fraction moved into place are too small by 2^112, the difference of the two biases. Multiplying by
    // it is exact, and turns the subnormals of the half into normal numbers on the way.
    let finite = (f32::from_bits(magnitude << 13) * f32::from_bits(0x7780_0000)).to_bits();
    // Infinities and NaNs keep their fraction and get the largest exponent instead.
    let special = (magnitude << 13) | 0x7f80_0000;
    f32::from_bits(sign | if magnitude >= 0x7c00 { special } else { finite })
}

/// The half at `bytes[at..at + 2]`.
#[inline(always)]
pub(super) fn half_at<const N: usize>(bytes: &[u8; N], at: usize) -> f32 {
    half_to_f32(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// `bytes` as floats in place, where the machine can read them so.
pub(crate) fn as_f32(bytes: &[u8]) -> Option<&[f32]> {
    if cfg!(target_endian = "little") { bytemuck::try_cast_slice(bytes).ok() } else { None }
}

#[inline(always)]
pub(super) fn f32(bytes: &[u8], out: &mut [f32]) {
    for (source, out) in bytes.as_chunks::<4>().0.iter().zip(out) {
        *out = f32::from_le_bytes(*source);
    }
}

#[inline(always)]
pub(super) fn f16(bytes: &[u8], out: &mut [f32]) {
    for (source, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *out = half_to_f32(u16::from_le_bytes(*source));
    }
}

#[inline(always)]
pub(super) fn bf16(bytes: &[u8], out: &mut [f32]) {
    for (source, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *out = f32::from_bits(u32::from(u16::from_le_bytes(*source)) << 16);
    }
}

#[cfg(test)]
mod tests {
    use super::half_to_f32;

    #[test]
    fn every_half_converts_exactly() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            let actual = half_to_f32(bits);
            if expected.is_nan() {
                assert!(actual.is_nan(), "{bits:#06x}");
            } else {
                assert_eq!(actual.to_bits(), expected.to_bits(), "{bits:#06x}");
            }
        }
    }
}
