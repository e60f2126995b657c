//! One step of one sequence: from a row of logits to the next token.
//!
//! Owns the checks, the greedy choice, the place of the draw in the random stream and what is reported about the token. The
//! order of everything is in [`crate::chain`]. Must not know who else is in the batch.

use thiserror::Error;

use crate::candidates::{Candidates, DrawBuffers};
use crate::chain::LogitsChain;
use crate::grammar::TokenMask;
use crate::history::TokenHistory;
use crate::logprobs::token_logprobs;
use crate::params::SamplingParams;
use crate::{random, softmax};

/// A row of logits that no token can be taken from.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum SampleError {
    /// The model's output is broken.
    #[error("logits must be finite or minus infinity, got {value} for token {token}")]
    InvalidLogit {
        /// The first such token.
        token: usize,
        /// NaN or plus infinity.
        value: f32,
    },
    /// The row is shorter than the vocabulary the parameters were checked against.
    #[error("logits must cover the vocabulary of {vocab_size} tokens, got {given}")]
    ShortRow {
        /// The vocabulary.
        vocab_size: usize,
        /// The row's length.
        given: usize,
    },
    /// Every token is banned: by the model, the mask, `logit_bias` or `min_tokens`.
    #[error("at least 1 of {vocab_size} tokens must be allowed, got none")]
    NothingLeft {
        /// The row's length.
        vocab_size: usize,
    },
    /// A log probability was asked for a token the row does not have.
    #[error("tokens must be below {vocab_size}, got {token}")]
    TokenOutside {
        /// The token asked for.
        token: u32,
        /// The row's length.
        vocab_size: usize,
    },
}

/// The next token, and what was asked to be reported about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// The token's id.
    pub token: u32,
    /// Its log probability in the model's own output; `None` unless log probabilities were asked for.
    pub logprob: Option<f32>,
    /// The best tokens of the model's own output with their log probabilities, best first, equal ones by rising id.
    pub top: Vec<(u32, f32)>,
}

/// Samples one sequence. It has buffers but no state: the same call gives the same token at any time.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    chain: LogitsChain,
    buffers: DrawBuffers,
    /// The row as the model gave it, kept only where log probabilities are asked for.
    untouched: Vec<f32>,
}

impl Sampler {
    /// The sampler of one choice of one request; `end_tokens` are the model's end-of-sequence tokens.
    #[must_use]
    pub fn new(params: SamplingParams, end_tokens: &[u32]) -> Self {
        let chain = LogitsChain::new(&params, end_tokens);
        Self { params, chain, buffers: DrawBuffers::default(), untouched: Vec::new() }
    }

    /// The parameters it samples by.
    #[must_use]
    pub fn params(&self) -> &SamplingParams {
        &self.params
    }

    /// The next token after `history`. `logits` is the model's row, `[vocabulary]`, and is overwritten.
    ///
    /// # Errors
    /// A row that is too short, that holds NaN or plus infinity, or that has no token left after the bans.
    pub fn sample(
        &mut self,
        logits: &mut [f32],
        history: &TokenHistory,
        mask: Option<&dyn TokenMask>,
    ) -> Result<Sampled, SampleError> {
        self.check(logits)?;
        if self.params.logprobs().is_some() {
            self.untouched.clear();
            self.untouched.extend_from_slice(logits);
        }
        if let Some(mask) = mask {
            mask.apply(logits);
        }
        self.chain.adjust(logits, history);
        let token = if self.params.is_greedy() { best(logits) } else { self.draw(logits, history.generated()) };
        let token = token.ok_or(SampleError::NothingLeft { vocab_size: logits.len() })?;
        self.report(token)
    }

    fn check(&self, logits: &[f32]) -> Result<(), SampleError> {
        let vocab_size = self.params.vocab_size();
        if logits.len() < vocab_size {
            return Err(SampleError::ShortRow { vocab_size, given: logits.len() });
        }
        match softmax::first_invalid(logits) {
            Some(token) => Err(SampleError::InvalidLogit { token, value: logits[token] }),
            None => Ok(()),
        }
    }

    fn draw(&mut self, logits: &[f32], position: usize) -> Option<u32> {
        let mut candidates = Candidates::new(logits, &mut self.buffers)?;
        self.chain.truncate(&mut candidates);
        let uniform = random::uniform(self.params.seed(), self.params.choice(), position as u64);
        Some(candidates.draw(uniform))
    }

    fn report(&self, token: u32) -> Result<Sampled, SampleError> {
        let Some(count) = self.params.logprobs() else {
            return Ok(Sampled { token, logprob: None, top: Vec::new() });
        };
        let report = token_logprobs(&self.untouched, token, count)?;
        Ok(Sampled { token, logprob: Some(report.logprob), top: report.top })
    }
}

/// The token of the largest logit, of equals the lowest id; `None` when all are banned.
fn best(logits: &[f32]) -> Option<u32> {
    let max = softmax::maximum(logits);
    if max == f32::NEG_INFINITY {
        return None;
    }
    (0_u32..).zip(logits).find(|&(_, &logit)| logit == max).map(|(token, _)| token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::TokenSet;
    use crate::params::SamplingRequest;

    fn sampler(request: SamplingRequest) -> Sampler {
        Sampler::new(request.check(4, 0).expect("within bounds"), &[3])
    }

    fn greedy() -> SamplingRequest {
        SamplingRequest { temperature: 0.0, ..Default::default() }
    }

    fn token(request: SamplingRequest, mut logits: Vec<f32>, mask: Option<&dyn TokenMask>) -> Result<u32, SampleError> {
        sampler(request).sample(&mut logits, &TokenHistory::new(&[]), mask).map(|sampled| sampled.token)
    }

    #[test]
    fn greedy_takes_the_best_and_of_equals_the_lowest_id() {
        assert_eq!(token(greedy(), vec![0.0, 2.0, 1.0, 2.0], None), Ok(1));
        assert_eq!(token(greedy(), vec![-1.0, -0.0, 0.0, -2.0], None), Ok(1));
        let penalised = SamplingRequest { logit_bias: vec![(1, -1.0)], ..greedy() };
        assert_eq!(token(penalised, vec![0.0, 2.0, 1.0, 1.5], None), Ok(3));
        let ending = SamplingRequest { min_tokens: 1, ..greedy() };
        assert_eq!(token(ending, vec![0.0, 1.0, 0.5, 5.0], None), Ok(1));
    }

    #[test]
    fn a_mask_holds_for_greedy_and_drawn_tokens() {
        let mut mask = TokenSet::none(4);
        mask.allow(2);
        assert_eq!(token(greedy(), vec![9.0, 8.0, -50.0, 7.0], Some(&mask)), Ok(2));
        assert_eq!(token(SamplingRequest::default(), vec![9.0, 8.0, -50.0, 7.0], Some(&mask)), Ok(2));
    }

    #[test]
    fn a_row_without_a_token_is_an_error() {
        for request in
            [greedy(), SamplingRequest { top_k: Some(2), temperature: 0.7, top_p: 0.5, ..Default::default() }]
        {
            let nothing = Err(SampleError::NothingLeft { vocab_size: 4 });
            assert_eq!(token(request.clone(), vec![f32::NEG_INFINITY; 4], None), nothing);
            assert_eq!(token(request.clone(), vec![0.0; 4], Some(&TokenSet::none(4))), nothing);
            assert_eq!(token(request, vec![0.0; 3], None), Err(SampleError::ShortRow { vocab_size: 4, given: 3 }));
        }
    }

    #[test]
    fn a_broken_row_is_an_error() {
        for value in [f32::NAN, f32::INFINITY] {
            for request in [greedy(), SamplingRequest::default()] {
                let error = token(request, vec![0.0, 1.0, value, 1.0], None).unwrap_err();
                assert!(matches!(error, SampleError::InvalidLogit { token: 2, .. }), "{error}");
                assert!(error.to_string().ends_with("for token 2"), "{error}");
            }
        }
    }

    #[test]
    fn log_probabilities_are_those_of_the_models_own_output() {
        let request = SamplingRequest {
            logprobs: Some(2),
            temperature: 0.1,
            top_k: Some(1),
            logit_bias: vec![(0, 50.0)],
            ..Default::default()
        };
        let mut mask = TokenSet::none(4);
        [0, 3].iter().for_each(|&token| mask.allow(token));
        let raw = [0.0_f32, 2.0, 1.0, 2.0];
        let sampled = sampler(request).sample(&mut raw.clone(), &TokenHistory::new(&[]), Some(&mask)).unwrap();
        let expected = token_logprobs(&raw, 0, 2).unwrap();
        assert_eq!(sampled, Sampled { token: 0, logprob: Some(expected.logprob), top: expected.top });
        assert_eq!(sampled.top.iter().map(|&(token, _)| token).collect::<Vec<_>>(), [1, 3]);
    }

    #[test]
    fn log_probabilities_are_reported_only_where_asked_for() {
        let mut logits = vec![0.0; 4];
        let history = TokenHistory::new(&[]);
        let plain = sampler(greedy()).sample(&mut logits, &history, None).unwrap();
        assert_eq!(plain, Sampled { token: 0, logprob: None, top: vec![] });
        let request = SamplingRequest { logprobs: Some(0), ..greedy() };
        let own = sampler(request).sample(&mut logits, &history, None).unwrap();
        assert!(own.logprob.is_some() && own.top.is_empty());
    }
}
