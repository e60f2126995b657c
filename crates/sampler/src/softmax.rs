//! The exponential, the sums and the maximum that sampling and log probabilities share.
//!
//! Weights are `exp(logit - max)` in f32, sums of them are in f64. The exponential is written here and not taken from the
//! platform: it is plain additions and multiplications, so it gives the same bits everywhere (a seed gives the same answer on
//! every machine) and the compiler can vectorise it, which a library call cannot be. Must not know what a token is.

/// Independent partial results, so that a loop can be vectorised without changing its result from machine to machine.
const LANES: usize = 8;
/// Logits worked on together: enough to vectorise, few enough to stay in the nearest cache.
const STRIDE: usize = 64;

/// `exp(logit - max)`: 1 for the maximum, 0 from about 87 below it. Relative error below 3e-7.
#[inline(always)]
#[must_use]
pub fn weight(logit: f32, max: f32) -> f32 {
    exp_of_non_positive(logit - max)
}

#[inline(always)]
fn exp_of_non_positive(x: f32) -> f32 {
    /// Adding this to a small number rounds it to an integer, left in the lowest bits of the sum.
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23
    /// ln 2 in two parts: the first has few enough bits that its product with the exponent is exact.
    const LN_2_HIGH: f32 = 0.693_359_375;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// Below this the result is not a normal number any more, and taken as 0.
    const LOWEST: f32 = -87.0;

    let clamped = if x < LOWEST { LOWEST } else { x };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = clamped - whole * LN_2_HIGH - whole * LN_2_LOW; // |rest| <= ln(2) / 2
    // The series of exp to the 7th power: the first term left out is below 6e-9.
    let mut series = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        series = series * rest + coefficient;
    }
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    let value = series * f32::from_bits(exponent);
    if x < LOWEST { 0.0 } else { value }
}

/// Sum of the weights of a row. The order is fixed: eight interleaved partial sums, then those from first to last, then what
/// the row's length leaves over of a stride of 64.
#[must_use]
pub fn sum_of_weights(logits: &[f32], max: f32) -> f64 {
    let mut lanes = [0.0_f64; LANES];
    let mut strides = logits.chunks_exact(STRIDE);
    for stride in &mut strides {
        // Weights first and sums after, in two loops: one loop over both is not vectorised.
        let mut weights = [0.0_f32; STRIDE];
        for (slot, &logit) in weights.iter_mut().zip(stride) {
            *slot = weight(logit, max);
        }
        for row in weights.chunks_exact(LANES) {
            for (lane, &weight) in lanes.iter_mut().zip(row) {
                *lane += f64::from(weight);
            }
        }
    }
    let tail = strides.remainder().iter().map(|&logit| f64::from(weight(logit, max)));
    lanes.into_iter().chain(tail).fold(0.0, |sum, part| sum + part)
}

/// The largest logit; minus infinity for an empty or fully masked row. NaN is passed over.
#[must_use]
pub fn maximum(logits: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut rows = logits.chunks_exact(LANES);
    for row in &mut rows {
        for (lane, &logit) in lanes.iter_mut().zip(row) {
            *lane = larger(*lane, logit);
        }
    }
    lanes.into_iter().chain(rows.remainder().iter().copied()).fold(f32::NEG_INFINITY, larger)
}

/// Visits, by ascending index, the logits above a floor, which each visit may raise by returning a higher one. Most of a row is
/// below the floor, and passed over without a branch for each logit.
#[inline(always)]
pub(crate) fn visit_above(logits: &[f32], mut floor: f32, mut visit: impl FnMut(u32, f32) -> f32) {
    for (stride, first) in logits.chunks(STRIDE).zip((0_u32..).step_by(STRIDE)) {
        if !stride.iter().fold(false, |any, &logit| any | (logit > floor)) {
            continue;
        }
        for (token, &logit) in (first..).zip(stride) {
            if logit > floor {
                floor = visit(token, logit);
            }
        }
    }
}

/// The first logit that no model should give: NaN or plus infinity. Minus infinity is a ban and allowed.
#[must_use]
pub fn first_invalid(logits: &[f32]) -> Option<usize> {
    let valid = |logit: f32| logit < f32::INFINITY;
    // The pass without an early exit is the one that vectorises; the search runs only for a broken row.
    if logits.iter().fold(true, |all, &logit| all & valid(logit)) {
        return None;
    }
    logits.iter().position(|&logit| !valid(logit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_accurate_to_a_few_parts_in_ten_million() {
        let mut worst = 0.0_f64;
        for step in 0..870_000 {
            let x = -(step as f32) * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp_of_non_positive(x)) - exact).abs() / exact);
        }
        assert!(worst < 3e-7, "{worst}");
    }

    #[test]
    fn the_exponential_of_the_ends() {
        assert_eq!(exp_of_non_positive(0.0), 1.0);
        assert_eq!(exp_of_non_positive(-0.0), 1.0);
        for x in [-88.0, -1e30, f32::MIN, f32::NEG_INFINITY] {
            assert_eq!(exp_of_non_positive(x), 0.0, "{x}");
        }
    }

    #[test]
    fn sum_and_maximum_cover_the_tail_of_a_row() {
        for length in [0_usize, 1, 7, 8, 17, 63, 64, 65, 200] {
            let logits: Vec<f32> = (0..length).map(|i| (i % 7) as f32).collect();
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(maximum(&logits), max);
            let exact: f64 = logits.iter().map(|&l| f64::from(l - max).exp()).sum();
            assert!((sum_of_weights(&logits, max) - exact).abs() < 1e-6 * exact.max(1.0));
        }
    }

    #[test]
    fn the_logits_above_a_rising_floor_are_visited_in_order() {
        let logits: Vec<f32> = (0..1000_u32).map(|i| (i * 7919 % 1000) as f32).collect();
        for floor in [f32::NEG_INFINITY, 500.0, 998.0, 999.0] {
            let (mut visited, mut expected) = (Vec::new(), Vec::new());
            visit_above(&logits, floor, |token, logit| {
                visited.push(token);
                if logit > 900.0 { logit } else { floor }
            });
            let mut bar = floor;
            for (token, &logit) in (0..).zip(&logits) {
                if logit > bar {
                    expected.push(token);
                    bar = if logit > 900.0 { logit } else { floor };
                }
            }
            assert_eq!(visited, expected);
        }
    }

    #[test]
    fn invalid_logits_are_found_anywhere() {
        for position in [0, 5, 31, 32] {
            for value in [f32::NAN, f32::INFINITY, -f32::NAN] {
                let mut logits = vec![f32::NEG_INFINITY; 33];
                assert_eq!(first_invalid(&logits), None);
                logits[position] = value;
                assert_eq!(first_invalid(&logits), Some(position));
            }
        }
    }
}
