//! Top-k of Fan, Lewis and Dauphin, "Hierarchical Neural Story Generation" (arXiv 1805.04833): the k best tokens. Exactly k:
//! of tokens with equal logits those of lower id are kept.

use super::Truncation;
use crate::candidates::{BestOf, Candidate, Candidates};
use crate::params::SamplingParams;

/// Keeps the k best candidates.
#[derive(Clone, Debug)]
pub struct TopK(usize);

impl TopK {
    /// Off when no k was given.
    #[must_use]
    pub fn from_params(params: &SamplingParams) -> Option<Self> {
        params.top_k().map(|k| Self(k as usize))
    }
}

impl Truncation for TopK {
    fn last_kept(&self, candidates: &Candidates<'_>, buffer: &mut Vec<Candidate>) -> Option<Candidate> {
        if self.0 >= candidates.count_bound() {
            return None;
        }
        let mut best = BestOf::new(self.0, buffer);
        candidates.visit_above(f32::NEG_INFINITY, |candidate| best.admit(candidate));
        best.last()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing;
    use super::*;

    proptest! {
        #[test]
        fn keeps_the_head_of_the_sorted_list(logits in testing::logits(), k in 1_u32..220) {
            let top_k = TopK::from_params(&testing::params(|r| r.top_k = Some(k))).unwrap();
            let expected = testing::ranked(&logits).into_iter().take(k as usize).map(|(token, _)| token);
            prop_assert_eq!(testing::kept(&logits, &[&top_k]), testing::ascending(expected));
        }
    }

    #[test]
    fn ties_go_to_the_lower_ids() {
        let top_k = TopK::from_params(&testing::params(|r| r.top_k = Some(3))).unwrap();
        assert_eq!(testing::kept(&[1.0, 2.0, 1.0, 1.0, 0.0], &[&top_k]), [0, 1, 2]);
    }

    #[test]
    fn off_without_k() {
        assert!(TopK::from_params(&testing::params(|_| {})).is_none());
    }
}
