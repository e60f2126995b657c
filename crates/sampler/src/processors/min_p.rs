//! Min-p of Nguyen and others, "Turning Up the Heat" (arXiv 2407.01082): the tokens at least `min_p` times as probable as the
//! best one.

use super::Truncation;
use crate::candidates::{Candidate, Candidates};
use crate::params::SamplingParams;

/// Keeps the candidates within a ratio of the best one's probability.
#[derive(Clone, Debug)]
pub struct MinP {
    /// The logarithm of the ratio: probabilities compare as their logits do, so none is computed.
    log_ratio: f64,
}

impl MinP {
    /// Off at 0.
    #[must_use]
    pub fn from_params(params: &SamplingParams) -> Option<Self> {
        (params.min_p() > 0.0).then(|| Self { log_ratio: params.min_p().ln() })
    }
}

impl Truncation for MinP {
    fn last_kept(&self, candidates: &Candidates<'_>, _buffer: &mut Vec<Candidate>) -> Option<Candidate> {
        let logit = (f64::from(candidates.max_logit()) + self.log_ratio) as f32;
        // Any token at this very logit still belongs.
        Some(Candidate { token: u32::MAX, logit })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing;
    use super::*;

    proptest! {
        #[test]
        fn keeps_what_is_within_the_ratio(logits in testing::logits(), min_p in 1e-6_f64..1.0) {
            let method = MinP::from_params(&testing::params(|r| r.min_p = min_p)).unwrap();
            let kept = testing::kept(&logits, &[&method]);
            for (token, weight) in testing::ranked(&logits) {
                // Logits near 30 are exact to about 2e-6, and so are ratios of weights.
                if weight >= min_p * (1.0 + 1e-5) {
                    prop_assert!(kept.contains(&token));
                } else if weight < min_p * (1.0 - 1e-5) {
                    prop_assert!(!kept.contains(&token));
                }
            }
        }
    }

    #[test]
    fn one_keeps_the_best_and_its_equals() {
        let method = MinP::from_params(&testing::params(|r| r.min_p = 1.0)).unwrap();
        assert_eq!(testing::kept(&[3.0, 2.999, 3.0, f32::NEG_INFINITY], &[&method]), [0, 2]);
    }

    #[test]
    fn off_at_zero() {
        assert!(MinP::from_params(&testing::params(|_| {})).is_none());
    }
}
