//! Top-p, or nucleus sampling, of Holtzman and others, "The Curious Case of Neural Text Degeneration" (arXiv 1904.09751): the
//! fewest best tokens that together have at least probability p among the candidates.
//!
//! No sort of the vocabulary: tokens that are too light to matter even all together are left aside, and among the rest the
//! edge of the nucleus is found by halving, at a cost linear in their number.

use super::Truncation;
use crate::candidates::{Candidate, Candidates, weight_of};
use crate::params::SamplingParams;

/// How far below the computed floor a logit is still looked at: covers the rounding of the sums by far.
const FLOOR_MARGIN: f64 = 1e-3;

/// Keeps the fewest best candidates with probability p together.
#[derive(Clone, Debug)]
pub struct TopP(f64);

impl TopP {
    /// Off at 1.
    #[must_use]
    pub fn from_params(params: &SamplingParams) -> Option<Self> {
        (params.top_p() < 1.0).then(|| Self(params.top_p()))
    }
}

impl Truncation for TopP {
    fn last_kept(&self, candidates: &Candidates<'_>, buffer: &mut Vec<Candidate>) -> Option<Candidate> {
        let max = candidates.max_logit();
        let total = candidates.total_weight();
        // All tokens lighter than this weigh less than (1 - p) of the whole together, so the nucleus is complete without them.
        let floor_weight = (1.0 - self.0) * total / candidates.count_bound() as f64;
        let floor = f64::from(max) + floor_weight.ln() - FLOOR_MARGIN;
        // One f32 lower again, for logits so large that the margin is lost in their rounding.
        let floor = (floor as f32).next_down();
        buffer.clear();
        candidates.visit_above(floor, |candidate| {
            buffer.push(candidate);
            floor
        });
        last_of_mass(buffer, self.0 * total, max)
    }
}

/// The candidate at which the weights, best first, first add up to `mass`; the last one if they never do.
fn last_of_mass(mut candidates: &mut [Candidate], mass: f64, max: f32) -> Option<Candidate> {
    let mut before = 0.0;
    while candidates.len() > 1 {
        let half = candidates.len() / 2;
        candidates.select_nth_unstable_by(half, Candidate::order);
        let (better, worse) = candidates.split_at_mut(half);
        let through = before + weight_of(better, max);
        candidates = if through >= mass {
            better
        } else {
            before = through;
            worse
        };
    }
    candidates.first().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing;
    use super::*;
    use crate::processors::TopK;

    fn top_p(p: f64) -> TopP {
        TopP::from_params(&testing::params(|r| r.top_p = p)).unwrap()
    }

    proptest! {
        #[test]
        fn keeps_the_fewest_best_tokens_of_enough_mass(logits in testing::logits(), p in 0.001_f64..0.9999) {
            let kept = testing::kept(&logits, &[&top_p(p)]);
            let ranked = testing::ranked(&logits);
            let total: f64 = ranked.iter().map(|(_, weight)| weight).sum();
            let head = &ranked[..kept.len()];
            prop_assert_eq!(&kept, &testing::ascending(head.iter().map(|&(token, _)| token)));
            let mass = |tokens: &[(u32, f64)]| tokens.iter().map(|(_, weight)| weight).sum::<f64>() / total;
            // The weights under test are f32, hence the tolerance at the edge.
            if let Some((_, fewer)) = head.split_last() {
                prop_assert!(mass(head) >= p - 1e-6, "{} < {p}", mass(head));
                prop_assert!(mass(fewer) < p + 1e-6, "{} >= {p}", mass(fewer));
            } else {
                prop_assert!(ranked.is_empty());
            }
        }

        #[test]
        fn counts_mass_among_the_candidates_left(logits in testing::logits(), k in 1_u32..50, p in 0.001_f64..0.9999) {
            let top_k = TopK::from_params(&testing::params(|r| r.top_k = Some(k))).unwrap();
            let mut only_head = vec![f32::NEG_INFINITY; logits.len()];
            for (token, _) in testing::ranked(&logits).into_iter().take(k as usize) {
                only_head[token as usize] = logits[token as usize];
            }
            let after_top_k = testing::kept(&logits, &[&top_k, &top_p(p)]);
            prop_assert!(after_top_k.len().abs_diff(testing::kept(&only_head, &[&top_p(p)]).len()) <= 1);
        }
    }

    #[test]
    fn equal_tokens_are_counted_exactly() {
        assert_eq!(testing::kept(&[0.0; 10], &[&top_p(0.3)]), [0, 1, 2]);
        assert_eq!(testing::kept(&[0.0; 4], &[&top_p(0.5)]), [0, 1]);
        assert_eq!(testing::kept(&[0.0; 4], &[&top_p(0.500_001)]), [0, 1, 2]);
        assert_eq!(testing::kept(&[0.0; 100_000], &[&top_p(0.25)]).len(), 25_000);
    }

    #[test]
    fn the_best_token_stays_at_any_p() {
        assert_eq!(testing::kept(&[1.0, 5.0, 5.0], &[&top_p(f64::from_bits(1))]), [1]);
        assert_eq!(testing::kept(&[-1e30, 1e30, 0.0], &[&top_p(1.0 - f64::EPSILON)]), [1]);
    }

    #[test]
    fn off_at_one() {
        assert!(TopP::from_params(&testing::params(|_| {})).is_none());
    }
}
