//! Repetition penalty of Keskar and others, "CTRL" (arXiv 1909.05858), section 4.1, in the form in use since: positive logits
//! are divided by the penalty and negative ones multiplied, so that a penalty above 1 always lowers a token.

use super::LogitsProcessor;
use crate::history::TokenHistory;
use crate::params::SamplingParams;

/// Penalises, once, every token of the prompt or the answer.
#[derive(Clone, Debug)]
pub struct Repetition(f64);

impl Repetition {
    /// Off at 1.
    #[must_use]
    pub fn from_params(params: &SamplingParams) -> Option<Self> {
        (params.repetition_penalty() != 1.0).then(|| Self(params.repetition_penalty()))
    }
}

impl LogitsProcessor for Repetition {
    fn process(&self, logits: &mut [f32], history: &TokenHistory) {
        for token in history.seen() {
            if let Some(logit) = logits.get_mut(token as usize) {
                let before = f64::from(*logit);
                let after = if before > 0.0 { before / self.0 } else { before * self.0 };
                // A penalty close to 0 must not lift a logit to infinity.
                *logit = (after as f32).min(f32::MAX);
            }
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
        fn penalises_each_seen_token_once(
            logits in testing::logits(),
            (prompt, answer) in testing::history(),
            penalty in 0.01_f64..10.0,
        ) {
            prop_assume!(penalty != 1.0);
            let params = testing::params(|r| r.repetition_penalty = penalty);
            let mut after = logits.clone();
            Repetition::from_params(&params).unwrap().process(&mut after, &testing::history_of(&prompt, &answer));
            for (token, (&after, &before)) in (0_u32..).zip(after.iter().zip(&logits)) {
                if prompt.contains(&token) || answer.contains(&token) {
                    let factor = if before > 0.0 { 1.0 / penalty } else { penalty };
                    let expected = (f64::from(before) * factor) as f32;
                    prop_assert!(after == expected || (after - expected).abs() <= 1e-6 * expected.abs());
                } else {
                    prop_assert_eq!(after, before);
                }
            }
        }
    }

    #[test]
    fn the_smallest_penalty_makes_no_infinity_and_lifts_no_ban() {
        let params = testing::params(|r| r.repetition_penalty = f64::from_bits(1));
        let mut logits = [3.0, -3.0, 0.0, f32::NEG_INFINITY];
        Repetition::from_params(&params).unwrap().process(&mut logits, &TokenHistory::new(&[0, 1, 2, 3]));
        assert_eq!(logits, [f32::MAX, 0.0, 0.0, f32::NEG_INFINITY]);
    }

    #[test]
    fn off_at_one() {
        assert!(Repetition::from_params(&testing::params(|_| {})).is_none());
    }
}
