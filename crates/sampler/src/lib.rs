//! From one row of logits to one token, and from text to text cut at a stop string.
//!
//! Pure functions over `&mut [f32]`: no tensors, no threads, no clock, no randomness of the machine. A sampled token depends
//! on (logits, parameters, history, seed, choice, position) alone, and on every machine alike: the arithmetic uses no
//! platform's mathematics library where a draw is decided (see [`softmax`]).
//!
//! | module | owns |
//! |---|---|
//! | [`params`] | what was asked ([`SamplingRequest`]) and what is used ([`SamplingParams`], always checked) |
//! | [`history`] | the tokens a sequence has seen, counted |
//! | [`processors`] | the sampling methods, one idea a file |
//! | [`chain`] | the order they run in |
//! | [`candidates`] | the tokens still in the race, cutting them and drawing one |
//! | [`softmax`] | the exponential, the sums and the maximum all of them share |
//! | [`random`] | the counter-based random stream |
//! | [`sampler`] | one step: check, mask, chain, draw, log probabilities |
//! | [`logprobs`] | log probabilities of the model's own output |
//! | [`grammar`] | the seam for constrained decoding |
//! | [`stop`] | stop strings over streamed text |

pub mod candidates;
pub mod chain;
pub mod grammar;
pub mod history;
pub mod logprobs;
pub mod params;
pub mod processors;
pub mod random;
pub mod sampler;
pub mod softmax;
pub mod stop;

pub use candidates::{Candidate, Candidates};
pub use chain::LogitsChain;
pub use grammar::{TokenMask, TokenSet};
pub use history::TokenHistory;
pub use logprobs::{TokenLogprobs, token_logprobs};
pub use params::{ParamError, SamplingParams, SamplingRequest};
pub use processors::{LogitsProcessor, Truncation};
pub use sampler::{SampleError, Sampled, Sampler};
pub use stop::{StopMatcher, StopOutcome};
