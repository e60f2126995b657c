//! Minimum length: no end-of-sequence token before enough tokens were generated.

use super::LogitsProcessor;
use crate::history::TokenHistory;
use crate::params::SamplingParams;

/// Bans the end-of-sequence tokens while the answer is short.
#[derive(Clone, Debug)]
pub struct MinTokens {
    least: usize,
    end_tokens: Vec<u32>,
}

impl MinTokens {
    /// Off when the answer may be empty.
    #[must_use]
    pub fn from_params(params: &SamplingParams, end_tokens: &[u32]) -> Option<Self> {
        (params.min_tokens() > 0).then(|| Self { least: params.min_tokens(), end_tokens: end_tokens.to_vec() })
    }
}

impl LogitsProcessor for MinTokens {
    fn process(&self, logits: &mut [f32], history: &TokenHistory) {
        if history.generated() >= self.least {
            return;
        }
        for &token in &self.end_tokens {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = f32::NEG_INFINITY;
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
        fn bans_the_end_tokens_until_enough_were_generated(
            logits in testing::logits(),
            (prompt, answer) in testing::history(),
            least in 1_usize..60,
            end_tokens in prop::collection::vec(0_u32..220, 0..5),
        ) {
            let params = testing::params(|r| r.min_tokens = least);
            let mut after = logits.clone();
            MinTokens::from_params(&params, &end_tokens)
                .unwrap()
                .process(&mut after, &testing::history_of(&prompt, &answer));
            for (token, (&after, &before)) in (0_u32..).zip(after.iter().zip(&logits)) {
                let banned = answer.len() < least && end_tokens.contains(&token);
                prop_assert_eq!(after, if banned { f32::NEG_INFINITY } else { before });
            }
        }
    }

    #[test]
    fn off_at_zero() {
        assert!(MinTokens::from_params(&testing::params(|_| {}), &[1]).is_none());
    }
}
