//! What a caller asked of the sampler, and the checked value the sampler works with.
//!
//! Owns the defaults and the bounds. Must not know how a request was spelled on the wire, nor where a seed comes from when the
//! caller named none.

use thiserror::Error;

/// Most alternatives that may be asked for at each position.
pub const MAX_LOGPROBS: u8 = 20;
/// Most stop strings of one request.
pub const MAX_STOPS: usize = 64;
/// Longest stop string, in bytes.
pub const MAX_STOP_BYTES: usize = 1024;

/// What was asked for, unchecked. `Default` is the API's defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingRequest {
    /// 0 (greedy) to 2.
    pub temperature: f64,
    /// Nucleus mass, above 0 and at most 1; 1 keeps every token.
    pub top_p: f64,
    /// Number of best tokens kept, at least 1; `None` keeps every token.
    pub top_k: Option<u32>,
    /// Least probability relative to the best token's, 0 to 1; 0 keeps every token.
    pub min_p: f64,
    /// Subtracted for each time a token was generated, -2 to 2.
    pub frequency_penalty: f64,
    /// Subtracted once from each token that was generated, -2 to 2.
    pub presence_penalty: f64,
    /// Divides positive and multiplies negative logits of tokens in the prompt or the answer; above 0, at most 10; 1 is off.
    pub repetition_penalty: f64,
    /// Added to the logits of these tokens, -100 to 100 each, no token twice.
    pub logit_bias: Vec<(u32, f32)>,
    /// No end-of-sequence token before this many tokens were generated.
    pub min_tokens: usize,
    /// The random stream's seed; `None` lets the caller of [`SamplingRequest::check`] supply one.
    pub seed: Option<u64>,
    /// Which of several choices of one request this is: its own random stream under the same seed.
    pub choice: u32,
    /// Log probabilities: `Some(n)` reports the token's and those of the `n` best tokens, at most 20.
    pub logprobs: Option<u8>,
    /// Text that ends the answer: at most 64 strings, none empty, none over 1024 bytes.
    pub stop: Vec<String>,
    /// Whether the answer goes on past an end-of-sequence token. The sampler carries it for whoever decides when to stop.
    pub ignore_eos: bool,
}

impl Default for SamplingRequest {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: None,
            min_p: 0.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Vec::new(),
            min_tokens: 0,
            seed: None,
            choice: 0,
            logprobs: None,
            stop: Vec::new(),
            ignore_eos: false,
        }
    }
}

/// A field out of its bounds.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum ParamError {
    /// A number outside its range, or not a number.
    #[error("{field} must be {bound}, got {value}")]
    OutOfRange {
        /// The field's name.
        field: &'static str,
        /// The range in words.
        bound: &'static str,
        /// What was given.
        value: f64,
    },
    /// A bias outside its range, or not a number.
    #[error("logit_bias must be between -100 and 100, got {value} for token {token}")]
    BiasValue {
        /// The token it was given for.
        token: u32,
        /// What was given.
        value: f32,
    },
    /// A bias for a token the model does not have.
    #[error("logit_bias must name tokens below {vocab_size}, got token {token}")]
    BiasToken {
        /// The token named.
        token: u32,
        /// The model's vocabulary.
        vocab_size: usize,
    },
    /// Two biases for one token.
    #[error("logit_bias must name each token once, got token {token} twice")]
    BiasTwice {
        /// The token named twice.
        token: u32,
    },
    /// More stop strings than allowed.
    #[error("stop must hold at most 64 strings, got {count}")]
    StopCount {
        /// How many were given.
        count: usize,
    },
    /// A stop string of no or too many bytes.
    #[error("stop strings must be 1 to 1024 bytes long, got {bytes} bytes at index {index}")]
    StopLength {
        /// Which string.
        index: usize,
        /// Its length.
        bytes: usize,
    },
}

impl ParamError {
    /// The field that is out of bounds, as [`SamplingRequest`] names it.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::OutOfRange { field, .. } => field,
            Self::BiasValue { .. } | Self::BiasToken { .. } | Self::BiasTwice { .. } => "logit_bias",
            Self::StopCount { .. } | Self::StopLength { .. } => "stop",
        }
    }
}

/// Checked sampling parameters: only [`SamplingRequest::check`] makes them, so holding one is the proof.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    request: SamplingRequest,
    seed: u64,
    vocab_size: usize,
}

impl SamplingRequest {
    /// Checks every field. `vocab_size` is the number of logits the model gives; `fallback_seed` is used when the request names
    /// no seed, because this crate reads neither a clock nor the machine's randomness.
    ///
    /// # Errors
    /// The first field out of its bounds.
    pub fn check(mut self, vocab_size: usize, fallback_seed: u64) -> Result<SamplingParams, ParamError> {
        self.check_numbers()?;
        self.check_bias(vocab_size)?;
        self.check_stops()?;
        let seed = self.seed.unwrap_or(fallback_seed);
        Ok(SamplingParams { request: self, seed, vocab_size })
    }

    fn check_numbers(&self) -> Result<(), ParamError> {
        // Written as "is inside", so that NaN, which compares false with everything, is refused.
        let checks = [
            ("temperature", "between 0 and 2", self.temperature, (0.0..=2.0).contains(&self.temperature)),
            ("top_p", "above 0 and at most 1", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0),
            ("top_k", "at least 1", self.top_k.map_or(1.0, f64::from), self.top_k != Some(0)),
            ("min_p", "between 0 and 1", self.min_p, (0.0..=1.0).contains(&self.min_p)),
            (
                "frequency_penalty",
                "between -2 and 2",
                self.frequency_penalty,
                (-2.0..=2.0).contains(&self.frequency_penalty),
            ),
            (
                "presence_penalty",
                "between -2 and 2",
                self.presence_penalty,
                (-2.0..=2.0).contains(&self.presence_penalty),
            ),
            (
                "repetition_penalty",
                "above 0 and at most 10",
                self.repetition_penalty,
                self.repetition_penalty > 0.0 && self.repetition_penalty <= 10.0,
            ),
            ("logprobs", "at most 20", self.logprobs.map_or(0.0, f64::from), self.logprobs <= Some(MAX_LOGPROBS)),
        ];
        match checks.into_iter().find(|&(.., inside)| !inside) {
            Some((field, bound, value, _)) => Err(ParamError::OutOfRange { field, bound, value }),
            None => Ok(()),
        }
    }

    /// Leaves the biases sorted by token, which is how a token named twice shows.
    fn check_bias(&mut self, vocab_size: usize) -> Result<(), ParamError> {
        for &(token, value) in &self.logit_bias {
            if token as usize >= vocab_size {
                return Err(ParamError::BiasToken { token, vocab_size });
            }
            if !(-100.0..=100.0).contains(&value) {
                return Err(ParamError::BiasValue { token, value });
            }
        }
        self.logit_bias.sort_unstable_by_key(|&(token, _)| token);
        match self.logit_bias.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(ParamError::BiasTwice { token: pair[0].0 }),
            None => Ok(()),
        }
    }

    fn check_stops(&self) -> Result<(), ParamError> {
        if self.stop.len() > MAX_STOPS {
            return Err(ParamError::StopCount { count: self.stop.len() });
        }
        match self.stop.iter().position(|stop| stop.is_empty() || stop.len() > MAX_STOP_BYTES) {
            Some(index) => Err(ParamError::StopLength { index, bytes: self.stop[index].len() }),
            None => Ok(()),
        }
    }
}

impl SamplingParams {
    /// The parameters of choice `index` of several: the same seed, another random stream. Choice 0 is this one unchanged.
    #[must_use]
    pub fn for_choice(&self, index: u32) -> Self {
        let mut choice = self.clone();
        choice.request.choice = self.request.choice.wrapping_add(index);
        choice
    }

    /// Whether the best token is taken instead of a drawn one (temperature 0).
    #[must_use]
    pub fn is_greedy(&self) -> bool {
        self.request.temperature == 0.0
    }

    /// 0 (greedy) to 2.
    #[must_use]
    pub fn temperature(&self) -> f64 {
        self.request.temperature
    }

    /// Above 0, at most 1.
    #[must_use]
    pub fn top_p(&self) -> f64 {
        self.request.top_p
    }

    /// At least 1; `None` keeps every token.
    #[must_use]
    pub fn top_k(&self) -> Option<u32> {
        self.request.top_k
    }

    /// 0 to 1.
    #[must_use]
    pub fn min_p(&self) -> f64 {
        self.request.min_p
    }

    /// -2 to 2.
    #[must_use]
    pub fn frequency_penalty(&self) -> f64 {
        self.request.frequency_penalty
    }

    /// -2 to 2.
    #[must_use]
    pub fn presence_penalty(&self) -> f64 {
        self.request.presence_penalty
    }

    /// Above 0, at most 10.
    #[must_use]
    pub fn repetition_penalty(&self) -> f64 {
        self.request.repetition_penalty
    }

    /// Token and bias, by ascending token, each token once and below the vocabulary size.
    #[must_use]
    pub fn logit_bias(&self) -> &[(u32, f32)] {
        &self.request.logit_bias
    }

    /// Tokens to generate before an end-of-sequence token may come.
    #[must_use]
    pub fn min_tokens(&self) -> usize {
        self.request.min_tokens
    }

    /// The seed, the request's own or the caller's.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The random stream under the seed: one for each choice of a request.
    #[must_use]
    pub fn choice(&self) -> u32 {
        self.request.choice
    }

    /// Number of alternatives to report, at most 20; `None` reports no log probability at all.
    #[must_use]
    pub fn logprobs(&self) -> Option<u8> {
        self.request.logprobs
    }

    /// The stop strings, in the request's order.
    #[must_use]
    pub fn stop(&self) -> &[String] {
        &self.request.stop
    }

    /// Whether the answer goes on past an end-of-sequence token.
    #[must_use]
    pub fn ignore_eos(&self) -> bool {
        self.request.ignore_eos
    }

    /// The vocabulary the parameters were checked against.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCAB: usize = 10;

    fn refused(change: impl FnOnce(&mut SamplingRequest)) -> ParamError {
        let mut request = SamplingRequest::default();
        change(&mut request);
        request.check(VOCAB, 0).expect_err("must be refused")
    }

    fn accepted(change: impl FnOnce(&mut SamplingRequest)) -> SamplingParams {
        let mut request = SamplingRequest::default();
        change(&mut request);
        request.check(VOCAB, 0).expect("must be accepted")
    }

    type Number = (&'static str, fn(&mut SamplingRequest, f64), f64, f64);

    #[test]
    fn numbers_are_bounded_and_finite() {
        let above_zero = f64::MIN_POSITIVE;
        let fields: [Number; 6] = [
            ("temperature", |r, v| r.temperature = v, 0.0, 2.0),
            ("top_p", |r, v| r.top_p = v, above_zero, 1.0),
            ("min_p", |r, v| r.min_p = v, 0.0, 1.0),
            ("frequency_penalty", |r, v| r.frequency_penalty = v, -2.0, 2.0),
            ("presence_penalty", |r, v| r.presence_penalty = v, -2.0, 2.0),
            ("repetition_penalty", |r, v| r.repetition_penalty = v, above_zero, 10.0),
        ];
        for (name, set, low, high) in fields {
            accepted(|r| set(r, low));
            accepted(|r| set(r, high));
            let outside = if low == above_zero { 0.0 } else { low - 0.001 };
            for value in [outside, high + 0.001, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let error = refused(|r| set(r, value));
                assert_eq!(error.field(), name);
                assert!(error.to_string().starts_with(&format!("{name} must be ")), "{error}");
                assert!(error.to_string().ends_with(&value.to_string()), "{error}");
            }
        }
    }

    #[test]
    fn counts_are_bounded() {
        assert_eq!(refused(|r| r.top_k = Some(0)).to_string(), "top_k must be at least 1, got 0");
        assert_eq!(refused(|r| r.logprobs = Some(21)).to_string(), "logprobs must be at most 20, got 21");
        assert_eq!(accepted(|r| r.logprobs = Some(20)).logprobs(), Some(20));
        assert_eq!(accepted(|r| r.top_k = Some(1)).top_k(), Some(1));
    }

    #[test]
    fn biases_are_bounded_and_name_tokens_of_the_vocabulary() {
        assert_eq!(
            refused(|r| r.logit_bias = vec![(10, 1.0)]).to_string(),
            "logit_bias must name tokens below 10, got token 10"
        );
        for value in [100.5, f32::NAN, f32::NEG_INFINITY] {
            assert_eq!(refused(|r| r.logit_bias = vec![(3, value)]).field(), "logit_bias");
        }
        assert_eq!(refused(|r| r.logit_bias = vec![(3, 1.0), (2, 0.0), (3, 2.0)]), ParamError::BiasTwice { token: 3 });
        assert_eq!(accepted(|r| r.logit_bias = vec![(9, 100.0), (0, -100.0)]).logit_bias(), [(0, -100.0), (9, 100.0)]);
    }

    #[test]
    fn stops_are_bounded() {
        assert_eq!(refused(|r| r.stop = vec!["a".into(); 65]), ParamError::StopCount { count: 65 });
        assert_eq!(
            refused(|r| r.stop = vec!["a".into(), String::new()]),
            ParamError::StopLength { index: 1, bytes: 0 }
        );
        assert_eq!(
            refused(|r| r.stop = vec!["é".repeat(513)]).to_string(),
            "stop strings must be 1 to 1024 bytes long, got 1026 bytes at index 0"
        );
        accepted(|r| r.stop = vec!["é".repeat(512); 64]);
    }

    #[test]
    fn the_seed_is_the_requests_own_or_the_callers() {
        assert_eq!(SamplingRequest::default().check(VOCAB, 7).unwrap().seed(), 7);
        assert_eq!(SamplingRequest { seed: Some(0), ..Default::default() }.check(VOCAB, 7).unwrap().seed(), 0);
    }

    #[test]
    fn a_choice_differs_by_its_stream_alone() {
        let params = accepted(|r| r.seed = Some(3));
        assert_eq!(params.for_choice(0), params);
        let second = params.for_choice(2);
        assert_eq!((second.seed(), second.choice()), (3, 2));
        assert_eq!(SamplingParams { request: params.request.clone(), ..second.clone() }, params);
    }
}
