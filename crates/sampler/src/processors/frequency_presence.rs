//! Frequency and presence penalties, as the OpenAI API defines them: `logit -= count * frequency + (count > 0) * presence`,
//! where `count` is how often the token was generated. The prompt does not count.

use super::LogitsProcessor;
use crate::history::TokenHistory;
use crate::params::SamplingParams;

/// Penalises generated tokens by how often they were generated and for having been generated.
#[derive(Clone, Debug)]
pub struct FrequencyPresence {
    frequency: f64,
    presence: f64,
}

impl FrequencyPresence {
    /// Off when both penalties are 0.
    #[must_use]
    pub fn from_params(params: &SamplingParams) -> Option<Self> {
        let (frequency, presence) = (params.frequency_penalty(), params.presence_penalty());
        (frequency != 0.0 || presence != 0.0).then_some(Self { frequency, presence })
    }
}

impl LogitsProcessor for FrequencyPresence {
    fn process(&self, logits: &mut [f32], history: &TokenHistory) {
        for (token, count) in history.counts() {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = (f64::from(*logit) - (f64::from(count) * self.frequency + self.presence)) as f32;
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
        fn subtracts_by_count_and_by_presence(
            logits in testing::logits(),
            (prompt, answer) in testing::history(),
            frequency in -2.0_f64..2.0,
            presence in -2.0_f64..2.0,
        ) {
            let params = testing::params(|r| (r.frequency_penalty, r.presence_penalty) = (frequency, presence));
            let mut after = logits.clone();
            FrequencyPresence::from_params(&params)
                .unwrap()
                .process(&mut after, &testing::history_of(&prompt, &answer));
            for (token, (&after, &before)) in (0_u32..).zip(after.iter().zip(&logits)) {
                let count = answer.iter().filter(|&&t| t == token).count();
                let expected = before - count as f32 * frequency as f32 - if count > 0 { presence as f32 } else { 0.0 };
                prop_assert!(after == expected || (after - expected).abs() <= 1e-4);
            }
        }
    }

    #[test]
    fn either_penalty_alone_turns_it_on() {
        assert!(FrequencyPresence::from_params(&testing::params(|_| {})).is_none());
        assert!(FrequencyPresence::from_params(&testing::params(|r| r.frequency_penalty = 0.1)).is_some());
        assert!(FrequencyPresence::from_params(&testing::params(|r| r.presence_penalty = 0.1)).is_some());
    }
}
