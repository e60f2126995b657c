//! Log probabilities of the model's own output: the log softmax of a row of logits that nothing has changed.
//!
//! Used for sampled and for prompt tokens alike. Must not know how a token was chosen.

use crate::candidates::{BestOf, Candidate};
use crate::sampler::SampleError;
use crate::softmax;

/// A token's log probability, and the best tokens at its position. Natural logarithm; minus infinity for a token the model
/// itself rules out.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// The token's own.
    pub logprob: f32,
    /// The best tokens, by falling log probability, equal ones by rising id. Fewer than asked for when the row has fewer tokens
    /// of any probability. Holds the token itself only if it is among the best.
    pub top: Vec<(u32, f32)>,
}

/// The log probability of `token` and those of the `top` best tokens under `logits`, `[vocabulary]`, as the model gave them.
///
/// # Errors
/// A logit that is NaN or plus infinity, a row without any finite logit, a token outside the row.
pub fn token_logprobs(logits: &[f32], token: u32, top: u8) -> Result<TokenLogprobs, SampleError> {
    if let Some(index) = softmax::first_invalid(logits) {
        return Err(SampleError::InvalidLogit { token: index, value: logits[index] });
    }
    let Some(&logit) = logits.get(token as usize) else {
        return Err(SampleError::TokenOutside { token, vocab_size: logits.len() });
    };
    let max = softmax::maximum(logits);
    if max == f32::NEG_INFINITY {
        return Err(SampleError::NothingLeft { vocab_size: logits.len() });
    }
    let log_sum = softmax::sum_of_weights(logits, max).ln();
    // The two differences are in f64: the logit's distance from the maximum is exact, and only the end is rounded.
    let logprob = |logit: f32| (f64::from(logit) - f64::from(max) - log_sum) as f32;
    let top = best(logits, top).into_iter().map(|best| (best.token, logprob(best.logit))).collect();
    Ok(TokenLogprobs { logprob: logprob(logit), top })
}

/// The `count` best tokens above minus infinity, best first.
fn best(logits: &[f32], count: u8) -> Vec<Candidate> {
    let mut buffer = Vec::new();
    if count > 0 {
        let mut best = BestOf::new(usize::from(count), &mut buffer);
        softmax::visit_above(logits, f32::NEG_INFINITY, |token, logit| best.admit(Candidate { token, logit }));
        best.sort();
    }
    buffer
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::processors::testing;

    proptest! {
        #[test]
        fn agrees_with_the_log_softmax_in_f64(logits in testing::logits(), pick in any::<prop::sample::Index>(), top in 0_u8..21) {
            prop_assume!(logits.iter().any(|&logit| logit > f32::NEG_INFINITY));
            let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            let exact = |token: usize| f64::from(logits[token]) - sum.ln();
            let close = |got: f32, token: usize| {
                let (got, exact) = (f64::from(got), exact(token));
                got == exact || (got - exact).abs() <= 1e-6 + 1e-6 * exact.abs()
            };
            let token = pick.index(logits.len());
            let result = token_logprobs(&logits, token as u32, top).unwrap();
            prop_assert!(close(result.logprob, token));
            let expected: Vec<u32> =
                testing::ranked_by_logit(&logits).into_iter().take(usize::from(top)).collect();
            prop_assert_eq!(result.top.iter().map(|&(token, _)| token).collect::<Vec<_>>(), expected);
            prop_assert!(result.top.iter().all(|&(token, logprob)| close(logprob, token as usize)));
        }
    }

    #[test]
    fn a_large_offset_costs_no_accuracy() {
        let result = token_logprobs(&[1e6, 1e6], 0, 1).unwrap();
        assert!((result.logprob + std::f32::consts::LN_2).abs() < 1e-7);
        assert_eq!(result.top[0].0, 0);
    }

    #[test]
    fn broken_rows_and_foreign_tokens_are_errors() {
        assert!(matches!(token_logprobs(&[0.0, f32::NAN], 0, 0), Err(SampleError::InvalidLogit { token: 1, .. })));
        assert!(matches!(token_logprobs(&[0.0], 1, 0), Err(SampleError::TokenOutside { token: 1, vocab_size: 1 })));
        assert!(matches!(token_logprobs(&[f32::NEG_INFINITY], 0, 0), Err(SampleError::NothingLeft { vocab_size: 1 })));
    }
}
