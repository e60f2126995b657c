//! Logit bias: a number the caller adds to a token's logit.

use super::LogitsProcessor;
use crate::history::TokenHistory;
use crate::params::SamplingParams;

/// Adds each bias to its token's logit.
#[derive(Clone, Debug)]
pub struct LogitBias(Vec<(u32, f32)>);

impl LogitBias {
    /// Off when no token has a bias.
    #[must_use]
    pub fn from_params(params: &SamplingParams) -> Option<Self> {
        (!params.logit_bias().is_empty()).then(|| Self(params.logit_bias().to_vec()))
    }
}

impl LogitsProcessor for LogitBias {
    fn process(&self, logits: &mut [f32], _history: &TokenHistory) {
        for &(token, bias) in &self.0 {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
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
        fn adds_its_bias_to_each_token(
            logits in testing::logits(),
            bias in prop::collection::btree_map(0_u32..220, -100.0_f32..100.0, 1..20),
        ) {
            let params = testing::params(|r| r.logit_bias = bias.clone().into_iter().collect());
            let mut after = logits.clone();
            LogitBias::from_params(&params).unwrap().process(&mut after, &TokenHistory::new(&[]));
            for (token, (&after, &before)) in (0_u32..).zip(after.iter().zip(&logits)) {
                prop_assert_eq!(after, before + bias.get(&token).copied().unwrap_or(0.0));
            }
        }
    }

    #[test]
    fn off_without_a_bias() {
        assert!(LogitBias::from_params(&testing::params(|_| {})).is_none());
    }
}
