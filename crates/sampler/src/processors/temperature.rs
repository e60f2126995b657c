//! Temperature: how much the better tokens are preferred.
//!
//! The maximum is subtracted before the division, which changes no probability: the best token's logit becomes 0, and no
//! temperature, however small, can make an infinity of it.

use super::LogitsProcessor;
use crate::history::TokenHistory;
use crate::params::SamplingParams;
use crate::softmax;

/// Divides the logits' distances from the best one by the temperature.
#[derive(Clone, Debug)]
pub struct Temperature(f32);

impl Temperature {
    /// Off at 1, and at 0, where the best token is taken without a draw.
    #[must_use]
    pub fn from_params(params: &SamplingParams) -> Option<Self> {
        let given = params.temperature();
        // A temperature too small for an f32 must not become a division by 0.
        (given != 1.0 && !params.is_greedy()).then(|| Self((given as f32).max(f32::MIN_POSITIVE)))
    }
}

impl LogitsProcessor for Temperature {
    fn process(&self, logits: &mut [f32], _history: &TokenHistory) {
        let max = softmax::maximum(logits);
        if max > f32::NEG_INFINITY {
            logits.iter_mut().for_each(|logit| *logit = (*logit - max) / self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing;
    use super::*;

    proptest! {
        #[test]
        fn scales_the_differences(logits in testing::logits(), temperature in 0.01_f64..2.0) {
            prop_assume!(temperature != 1.0);
            let params = testing::params(|r| r.temperature = temperature);
            let mut after = logits.clone();
            Temperature::from_params(&params).unwrap().process(&mut after, &TokenHistory::new(&[]));
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            prop_assume!(max > f32::NEG_INFINITY);
            for (&after, &before) in after.iter().zip(&logits) {
                let expected = (f64::from(before) - f64::from(max)) / temperature;
                let after = f64::from(after);
                prop_assert!(after == expected || (after - expected).abs() <= 1e-6 * expected.abs());
            }
        }
    }

    #[test]
    fn the_smallest_temperature_leaves_the_best_and_no_nan() {
        let params = testing::params(|r| r.temperature = f64::from_bits(1));
        let mut logits = [1.0, 3.0, f32::NEG_INFINITY, 3.0];
        Temperature::from_params(&params).unwrap().process(&mut logits, &TokenHistory::new(&[]));
        assert_eq!((logits[1], logits[3]), (0.0, 0.0));
        assert!(logits[0] < -1e37 && logits[2] == f32::NEG_INFINITY);
    }

    #[test]
    fn a_banned_row_stays_banned() {
        let params = testing::params(|r| r.temperature = 0.5);
        let mut logits = [f32::NEG_INFINITY; 3];
        Temperature::from_params(&params).unwrap().process(&mut logits, &TokenHistory::new(&[]));
        assert_eq!(logits, [f32::NEG_INFINITY; 3]);
    }

    #[test]
    fn off_at_one_and_at_zero() {
        assert!(Temperature::from_params(&testing::params(|_| {})).is_none());
        assert!(Temperature::from_params(&testing::params(|r| r.temperature = 0.0)).is_none());
    }
}
