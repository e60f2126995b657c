//! Time for one token on a vocabulary of 131,072, the size of today's large ones.

use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use hearth_sampler::{Sampler, SamplingRequest, TokenHistory, random};

const VOCAB: usize = 131_072;

/// Bell-shaped logits with a few tokens far ahead, as language models give them.
fn logits() -> Vec<f32> {
    let mut logits: Vec<f32> = (0..VOCAB as u64)
        .map(|token| {
            let sum: f64 = (0..12).map(|part| random::uniform(1, part, token)).sum();
            ((sum - 6.0) * 2.5) as f32
        })
        .collect();
    for rank in 0..30 {
        logits[(rank * 4001 + 17) % VOCAB] = 19.0 - 0.4 * rank as f32;
    }
    logits
}

fn history() -> TokenHistory {
    let prompt: Vec<u32> = (0..1000).map(|token| token * 131).collect();
    let mut history = TokenHistory::new(&prompt);
    (0..300).for_each(|token| history.push(token * 401));
    history
}

fn main() {
    let defaults = SamplingRequest::default;
    let cases = [
        ("greedy", SamplingRequest { temperature: 0.0, ..defaults() }),
        ("plain", defaults()),
        ("temperature 0.8", SamplingRequest { temperature: 0.8, ..defaults() }),
        ("top_p 0.9", SamplingRequest { top_p: 0.9, ..defaults() }),
        ("top_p 0.999 of a flat row", SamplingRequest { top_p: 0.999, temperature: 2.0, ..defaults() }),
        ("top_k 50", SamplingRequest { top_k: Some(50), ..defaults() }),
        ("min_p 0.05", SamplingRequest { min_p: 0.05, ..defaults() }),
        (
            "top_k 50, top_p 0.9, temperature 0.8",
            SamplingRequest { temperature: 0.8, top_k: Some(50), top_p: 0.9, ..defaults() },
        ),
        (
            "penalties",
            SamplingRequest { frequency_penalty: 0.5, presence_penalty: 0.5, repetition_penalty: 1.1, ..defaults() },
        ),
        ("greedy, 20 log probabilities", SamplingRequest { temperature: 0.0, logprobs: Some(20), ..defaults() }),
    ];
    let mut criterion = Criterion::default().configure_from_args();
    let (row, history) = (logits(), history());
    for (name, request) in cases {
        let params = request.check(VOCAB, 7).expect("parameters within their bounds");
        let mut sampler = Sampler::new(params, &[2]);
        criterion.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || row.clone(),
                |logits| black_box(sampler.sample(logits, &history, None).expect("a token")),
                BatchSize::LargeInput,
            );
        });
    }
    criterion.final_summary();
}
