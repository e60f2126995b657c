//! Sampled tokens follow the distribution they should, by chi-squared tests on fixed seeds, and depend on nothing but
//! (parameters, history, seed, choice, position).

use hearth_sampler::{Sampler, SamplingRequest, TokenHistory};

const DRAWS: u32 = 20_000;
/// A vocabulary larger than a block of the draw, so that the walk over blocks is part of what is tested.
const VOCAB: usize = 3000;

/// A row with a peak, a shoulder and a long tail, without pattern in the ids.
fn logits() -> Vec<f32> {
    (0..VOCAB as u32)
        .map(|token| {
            let scattered = token.wrapping_mul(2_654_435_761) >> 8;
            6.0 - 1.3 * (1.0 + (scattered % 3000) as f32).ln()
        })
        .collect()
}

fn sampler(request: SamplingRequest) -> Sampler {
    Sampler::new(request.check(VOCAB, 0).expect("parameters within their bounds"), &[])
}

fn history_of_length(length: u32) -> TokenHistory {
    let mut history = TokenHistory::new(&[]);
    (0..length).for_each(|_| history.push(0));
    history
}

/// How often each token comes at the first `DRAWS` positions of the stream.
fn frequencies(request: SamplingRequest) -> Vec<u32> {
    let mut sampler = sampler(SamplingRequest { seed: Some(20_240_229), ..request });
    let row = logits();
    let mut scratch = row.clone();
    let mut history = TokenHistory::new(&[]);
    let mut counts = vec![0; VOCAB];
    for _ in 0..DRAWS {
        scratch.copy_from_slice(&row);
        let sampled = sampler.sample(&mut scratch, &history, None).expect("a token");
        counts[sampled.token as usize] += 1;
        history.push(0);
    }
    counts
}

/// Exact probabilities at a temperature, restricted by a rule that sees tokens best first with probability and mass before.
fn expected(temperature: f64, mut keep: impl FnMut(usize, f64, f64) -> bool) -> Vec<f64> {
    let weights: Vec<f64> = logits().iter().map(|&logit| (f64::from(logit) / temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut order: Vec<usize> = (0..VOCAB).collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]).then(a.cmp(&b)));
    let mut kept = vec![0.0; VOCAB];
    let mut before = 0.0;
    for (rank, token) in order.into_iter().enumerate() {
        let probability = weights[token] / total;
        if keep(rank, probability, before) {
            kept[token] = probability;
        }
        before += probability;
    }
    let mass: f64 = kept.iter().sum();
    kept.iter().map(|probability| probability / mass).collect()
}

/// The chi-squared statistic against `expected` as a standard normal number, by the cube root of Wilson and Hilferty. Tokens
/// expected fewer than 8 times count as one.
fn deviation(counts: &[u32], expected: &[f64]) -> f64 {
    let (mut statistic, mut cells) = (0.0, 0);
    let (mut rare_count, mut rare_expected) = (0.0, 0.0);
    let mut add = |count: f64, expected: f64| {
        statistic += (count - expected).powi(2) / expected;
        cells += 1;
    };
    for (&count, &probability) in counts.iter().zip(expected) {
        let mean = probability * f64::from(DRAWS);
        if mean >= 8.0 {
            add(f64::from(count), mean);
        } else {
            rare_count += f64::from(count);
            rare_expected += mean;
        }
    }
    if rare_expected >= 8.0 {
        add(rare_count, rare_expected);
    }
    let freedom = f64::from(cells - 1);
    let spread = 2.0 / (9.0 * freedom);
    ((statistic / freedom).cbrt() - (1.0 - spread)) / spread.sqrt()
}

fn assert_follows(request: SamplingRequest, expected: &[f64]) {
    let counts = frequencies(request);
    for (token, (&count, &probability)) in counts.iter().zip(expected).enumerate() {
        assert!(count == 0 || probability > 0.0, "token {token} was cut and yet drawn");
    }
    let deviation = deviation(&counts, expected);
    assert!(deviation.abs() < 3.9, "{deviation} standard deviations from the expected distribution");
}

#[test]
fn plain_sampling_follows_the_softmax() {
    assert_follows(SamplingRequest::default(), &expected(1.0, |_, _, _| true));
}

#[test]
fn temperature_sharpens_and_flattens() {
    for temperature in [0.5, 0.8, 1.7] {
        assert_follows(SamplingRequest { temperature, ..Default::default() }, &expected(temperature, |_, _, _| true));
    }
}

#[test]
fn top_k_follows_the_softmax_of_the_best() {
    let request = SamplingRequest { top_k: Some(40), ..Default::default() };
    assert_follows(request, &expected(1.0, |rank, _, _| rank < 40));
}

#[test]
fn top_p_follows_the_softmax_of_the_nucleus() {
    for top_p in [0.3, 0.9, 0.99] {
        let request = SamplingRequest { top_p, ..Default::default() };
        assert_follows(request, &expected(1.0, |_, _, before| before < top_p));
    }
}

#[test]
fn min_p_follows_the_softmax_of_the_probable() {
    let mut best = None;
    let expected = expected(1.3, |_, probability, _| probability >= 0.021 * *best.get_or_insert(probability));
    assert_follows(SamplingRequest { min_p: 0.021, temperature: 1.3, ..Default::default() }, &expected);
}

#[test]
fn the_test_tells_a_near_miss_from_the_right_distribution() {
    let counts = frequencies(SamplingRequest { temperature: 0.95, ..Default::default() });
    assert!(deviation(&counts, &expected(1.0, |_, _, _| true)) > 6.0);
    let counts = frequencies(SamplingRequest { top_k: Some(38), ..Default::default() });
    assert!(deviation(&counts, &expected(1.0, |rank, _, _| rank < 40)) > 6.0);
}

fn token(sampler: &mut Sampler, position: u32) -> u32 {
    sampler.sample(&mut logits(), &history_of_length(position), None).expect("a token").token
}

#[test]
fn a_token_depends_on_seed_choice_and_position_and_not_on_what_ran_before() {
    let request = || SamplingRequest { seed: Some(5), ..Default::default() };
    let forward: Vec<u32> = {
        let mut sampler = sampler(request());
        (0..50).map(|position| token(&mut sampler, position)).collect()
    };
    // Backwards, with other work between, and each from a new sampler.
    let mut busy = sampler(request());
    let mut other = sampler(SamplingRequest { seed: Some(6), top_p: 0.5, ..Default::default() });
    for position in (0..50).rev() {
        token(&mut other, position);
        assert_eq!(token(&mut busy, position), forward[position as usize]);
        assert_eq!(token(&mut sampler(request()), position), forward[position as usize]);
    }
}

#[test]
fn seeds_and_choices_are_streams_of_their_own() {
    let base = SamplingRequest { seed: Some(5), ..Default::default() }.check(VOCAB, 0).expect("within bounds");
    let stream = |params| {
        let mut sampler = Sampler::new(params, &[]);
        (0..200).map(|position| token(&mut sampler, position)).collect::<Vec<_>>()
    };
    let first = stream(base.clone());
    assert_eq!(first, stream(base.for_choice(0)));
    let reseeded = SamplingRequest { seed: Some(6), ..Default::default() }.check(VOCAB, 0).expect("within bounds");
    for other in [stream(base.for_choice(1)), stream(base.for_choice(2)), stream(reseeded)] {
        let agreements = first.iter().zip(&other).filter(|(a, b)| a == b).count();
        // Independent streams over this distribution agree at about one position in ten.
        assert!(agreements < 60, "{agreements} of 200 tokens agree");
    }
}

/// The tokens themselves, so that a change of the stream or of the arithmetic does not pass unnoticed: a user's seed would
/// give another answer.
#[test]
fn a_seed_gives_the_same_tokens_in_every_version() {
    let request = SamplingRequest { seed: Some(1234), temperature: 0.8, top_p: 0.95, ..Default::default() };
    let mut sampler = sampler(request);
    let tokens: Vec<u32> = (0..8).map(|position| token(&mut sampler, position)).collect();
    assert_eq!(tokens, [1411, 0, 2822, 0, 1842, 0, 431, 431]);
}
