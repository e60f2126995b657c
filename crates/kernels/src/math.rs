//! Functions of one number that vectorise: plain arithmetic without branches or calls, so that a loop over a slice becomes
//! vector code and the bits are the same with every instruction set. They use no fused products for that reason.

/// Magic constant that rounds to the nearest integer when added and taken away: 1.5 * 2^23.
const ROUND: f32 = 12_582_912.0;

/// e^x within 2 units in the last place; overflows to infinity, underflows to zero, keeps NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Beyond these the result is infinite or zero in any case. Written so that a NaN passes through.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    // x = n ln 2 + r with |r| <= ln 2 / 2. The first part of ln 2 has few enough bits that its product with n is exact.
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let p = (p * (r * r) + r) + 1.0;
    // 2^n in two factors, because n reaches beyond the exponents of normal numbers. The integer n stands in the low bits
    // of the shifted value.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n.wrapping_sub(half))
}

/// 2^n for n within -126..=127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

/// x / (1 + e^-x).
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// x Φ(x) with the normal distribution function itself (Abramowitz and Stegun 7.1.26 for its tail).
#[inline(always)]
pub(crate) fn gelu_erf(x: f32) -> f32 {
    // tail = erfc(|x| / sqrt 2). For negative x the result is x * tail / 2, which does not cancel.
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let mut p = 1.061_405_4;
    p = p * t - 1.453_152_1;
    p = p * t + 1.421_413_8;
    p = p * t - 0.284_496_72;
    p = p * t + 0.254_829_6;
    let tail = p * t * exp(-z * z);
    let small = 0.5 * x.abs() * tail;
    if x > 0.0 { x - small } else { -small }
}

/// The approximation of the same with a hyperbolic tangent, as PyTorch's `approximate="tanh"`.
#[inline(always)]
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    // (1 + tanh u) / 2 = 1 / (1 + e^-2u)
    let u = 0.797_884_6 * (x + 0.044_715 * x * x * x);
    x / (1.0 + exp(-2.0 * u))
}

/// Lanes of the sums below.
const LANES: usize = 16;

/// The sum of f(x) in double precision: sixteen lanes in order, then the lanes in order.
#[inline(always)]
pub(crate) fn sum_of(values: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += f(f64::from(value));
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane += f(f64::from(value));
    }
    lanes.iter().sum()
}

/// Replaces the scores by e^(scale * score - the largest of them) and returns the largest and their sum. The order of the sum depends on
/// the number of scores alone.
#[inline(always)]
pub(crate) fn softmax_weights(scores: &mut [f32], scale: f32) -> (f32, f32) {
    let mut largest = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = scores.as_chunks_mut::<LANES>();
    for chunk in whole.iter_mut() {
        for (largest, score) in largest.iter_mut().zip(chunk) {
            *score *= scale;
            *largest = if *score > *largest { *score } else { *largest };
        }
    }
    for (largest, score) in largest.iter_mut().zip(rest) {
        *score *= scale;
        *largest = if *score > *largest { *score } else { *largest };
    }
    let largest = largest.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0f32; LANES];
    let (whole, rest) = scores.as_chunks_mut::<LANES>();
    for chunk in whole.iter_mut() {
        for (sum, score) in sums.iter_mut().zip(chunk) {
            *score = exp(*score - largest);
            *sum += *score;
        }
    }
    for (sum, score) in sums.iter_mut().zip(rest) {
        *score = exp(*score - largest);
        *sum += *score;
    }
    for apart in [8, 4, 2, 1] {
        for l in 0..apart {
            sums[l] += sums[l + apart];
        }
    }
    (largest, sums[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps through the floats of a range, some 200,000 of them.
    fn floats(from: f32, to: f32) -> impl Iterator<Item = f32> {
        (0..=200_000).map(move |i| from + (to - from) * (i as f32 / 200_000.0))
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for x in floats(-87.0, 88.7) {
            let expected = f64::from(x).exp();
            let unit = f64::from((expected as f32).next_up()) - f64::from(expected as f32);
            assert!((f64::from(exp(x)) - expected).abs() <= 2.0 * unit, "exp({x}) = {} not {expected}", exp(x));
        }
    }

    #[test]
    fn exp_at_the_ends() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(1e30), f32::INFINITY);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-1e30), 0.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-100.0) > 0.0, "subnormal results are kept");
    }

    /// Φ(x) by summing the series of erf, in double precision.
    fn normal_distribution(x: f64) -> f64 {
        let z = x / std::f64::consts::SQRT_2;
        let (mut term, mut sum) = (z, z);
        for n in 1..200 {
            term *= -z * z / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        0.5 * (1.0 + sum * std::f64::consts::FRAC_2_SQRT_PI)
    }

    #[test]
    fn gelu_is_within_a_millionth() {
        for x in floats(-5.0, 5.0) {
            let expected = f64::from(x) * normal_distribution(f64::from(x));
            assert!((f64::from(gelu_erf(x)) - expected).abs() <= 1e-6, "gelu({x}) = {} not {expected}", gelu_erf(x));
        }
        assert_eq!(gelu_erf(60.0), 60.0);
        assert_eq!(gelu_erf(-60.0), 0.0);
        assert!(gelu_erf(f32::NAN).is_nan());
    }

    #[test]
    fn gelu_tanh_and_silu_are_within_a_millionth() {
        for x in floats(-12.0, 12.0) {
            let wide = f64::from(x);
            let u = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044_715 * wide.powi(3));
            assert!((f64::from(gelu_tanh(x)) - 0.5 * wide * (1.0 + u.tanh())).abs() <= 2e-6, "gelu_tanh({x})");
            assert!((f64::from(silu(x)) - wide / (1.0 + (-wide).exp())).abs() <= 2e-6, "silu({x})");
        }
        assert_eq!(silu(-200.0), 0.0);
        assert_eq!(gelu_tanh(-200.0), 0.0);
    }
}
