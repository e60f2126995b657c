//! What the tests of the engine's promises ask, and how they compare what they get.

use anyhow::Result;
use hearth_engine::serve::EngineHandle;
use hearth_sampler::{SamplingParams, SamplingRequest, TokenLogprobs};

use crate::Generated;

/// A prompt of that many tokens that no other has.
#[must_use]
pub fn prompt(length: usize, number: usize) -> Vec<u32> {
    (0..length).map(|position| ((position * 37 + number * 101 + 7) % 297 + 3) as u32).collect()
}

/// Checked parameters: drawn with that seed, with three alternatives of each token, to `max_tokens` whatever comes.
///
/// # Errors
/// When the model's vocabulary does not fit them.
pub fn sampled(engine: &EngineHandle, seed: u64) -> Result<SamplingParams> {
    let request = SamplingRequest {
        temperature: 0.9,
        top_p: 0.95,
        seed: Some(seed),
        logprobs: Some(3),
        ignore_eos: true,
        ..SamplingRequest::default()
    };
    Ok(request.check(engine.info().vocab_size, 0)?)
}

/// The same tokens, and log-probabilities no further apart than `spread`; with 0, alternatives and all are the same bit for
/// bit.
///
/// # Panics
/// When they are not.
pub fn assert_same(a: &Generated, b: &Generated, spread: f32, what: &str) {
    assert_eq!(a.ids(), b.ids(), "{what}");
    if spread == 0.0 {
        assert_eq!(a.tokens, b.tokens, "{what}");
        assert_eq!(a.prompt, b.prompt, "{what}");
    }
    let near = |a: f32, b: f32| assert!((a - b).abs() <= spread, "{what}: {a} and {b}");
    let near_all = |a: &[(u32, f32)], b: &[(u32, f32)]| {
        assert_eq!(a.len(), b.len(), "{what}");
        a.iter().zip(b).for_each(|(a, b)| near(a.1, b.1)); // near ties may change places
    };
    for (a, b) in a.tokens.iter().zip(&b.tokens) {
        near(a.logprob.unwrap(), b.logprob.unwrap());
        near_all(&a.top, &b.top);
    }
    assert_eq!(a.prompt.len(), b.prompt.len(), "{what}");
    for pair in a.prompt.iter().zip(&b.prompt) {
        match pair {
            (None, None) => {}
            (Some(TokenLogprobs { logprob, top }), Some(b)) => {
                near(*logprob, b.logprob);
                near_all(top, &b.top);
            }
            _ => panic!("{what}: {pair:?}"),
        }
    }
}
