//! `hearth bench`: how fast a model is here.
//!
//! A prompt of random tokens is computed and continued greedily, end tokens ignored, after a short warm-up; several
//! rounds, the median of each number. Prefill is the prompt's tokens over the time to the first token; decode is the
//! other tokens over the time from the first to the last, at the context that the prompt has left.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use futures::future::try_join_all;
use hearth_engine::serve::{EncoderHandle, EngineHandle, GenerationEvent, GenerationRequest, LoadedModel};
use hearth_sampler::SamplingRequest;
use serde::Serialize;

use super::load::{LoadArguments, load};
use super::terminal::answer;

/// Arguments of `hearth bench`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Catalogue name, folder, `.gguf` file, or hub id
    model: String,
    /// Tokens of each prompt, or of each text for an embedding model
    #[arg(long, default_value_t = 512)]
    prompt_tokens: usize,
    /// Tokens of each answer
    #[arg(long, default_value_t = 128)]
    output_tokens: usize,
    /// Requests at the same time
    #[arg(long, default_value_t = 1)]
    concurrency: usize,
    /// Rounds, of which the median is reported
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: LoadArguments,
}

/// What was measured. Rates are over all concurrent requests.
#[derive(Serialize)]
struct Report {
    model: String,
    threads: usize,
    concurrency: usize,
    prompt_tokens: usize,
    #[serde(flatten)]
    rates: Rates,
    load_seconds: f64,
    peak_memory_bytes: Option<u64>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Rates {
    Decoder {
        output_tokens: usize,
        prefill_tokens_per_second: f64,
        decode_tokens_per_second: Option<f64>,
        time_to_first_token_seconds: f64,
    },
    Encoder {
        texts_per_second: f64,
        prefill_tokens_per_second: f64,
    },
}

/// Measures and prints.
pub(super) fn main(arguments: &Arguments) -> Result<()> {
    for (name, value) in [
        ("--prompt-tokens", arguments.prompt_tokens),
        ("--output-tokens", arguments.output_tokens),
        ("--concurrency", arguments.concurrency),
        ("--rounds", arguments.rounds),
    ] {
        if value == 0 {
            bail!("{name} must be at least 1, not 0");
        }
    }
    let begun = Instant::now();
    let model = load(&arguments.model, &arguments.load.options())?;
    let load_seconds = begun.elapsed().as_secs_f64();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    let rates = runtime.block_on(async {
        match &model {
            LoadedModel::Decoder(engine) => bench_decoder(engine, arguments).await,
            LoadedModel::Encoder(encoder) => bench_encoder(encoder, arguments).await,
            LoadedModel::Reranker(_) => bail!("{} is a reranker, which is not measured here", arguments.model),
        }
    })?;
    let report = Report {
        model: arguments.model.clone(),
        threads: arguments.load.thread_count(),
        concurrency: arguments.concurrency,
        prompt_tokens: arguments.prompt_tokens,
        rates,
        load_seconds,
        peak_memory_bytes: peak_memory_bytes(),
    };
    print(&report, arguments.json)
}

fn print(report: &Report, json: bool) -> Result<()> {
    let value = serde_json::to_value(report)?;
    if json {
        answer(&format!("{value}\n"))?;
        return Ok(());
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let shown = value.as_f64().filter(|_| value.is_f64()).map(|number| format!("{number:.2}"));
        answer(&format!("{name:30} {}\n", shown.unwrap_or_else(|| value.to_string())))?;
    }
    Ok(())
}

/// When the first and the last token of one request came, in seconds after all were submitted.
struct Times {
    first: f64,
    last: f64,
}

async fn bench_decoder(engine: &EngineHandle, arguments: &Arguments) -> Result<Rates> {
    let (prompt, output, streams) = (arguments.prompt_tokens, arguments.output_tokens, arguments.concurrency);
    decode_round(engine, prompt.min(32), 4, 1, 0).await?;
    let (mut prefill, mut decode, mut first_token) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=arguments.rounds {
        let times = decode_round(engine, prompt, output, streams, round).await?;
        let all_first = times.iter().map(|times| times.first).fold(0.0, f64::max);
        let all_last = times.iter().map(|times| times.last).fold(0.0, f64::max);
        prefill.push((prompt * streams) as f64 / all_first);
        decode.push(((output - 1) * streams) as f64 / (all_last - all_first));
        first_token.push(median(times.iter().map(|times| times.first).collect()));
    }
    Ok(Rates::Decoder {
        output_tokens: output,
        prefill_tokens_per_second: median(prefill),
        decode_tokens_per_second: (output > 1).then(|| median(decode)),
        time_to_first_token_seconds: median(first_token),
    })
}

/// Runs `streams` requests at once and waits for their last tokens.
async fn decode_round(
    engine: &EngineHandle,
    prompt: usize,
    output: usize,
    streams: usize,
    round: usize,
) -> Result<Vec<Times>> {
    let info = engine.info();
    let begun = Instant::now();
    let requests = (0..streams).map(|stream| async move {
        let sampling = SamplingRequest { temperature: 0.0, ignore_eos: true, ..SamplingRequest::default() };
        let params = sampling.check(info.vocab_size, 0)?;
        let tokens = random_tokens(prompt, info.vocab_size, (round * streams + stream) as u64);
        let request = GenerationRequest::check(tokens, params, output, None, info)?;
        let mut generation = engine.submit(request)?;
        let mut times = Times { first: 0.0, last: 0.0 };
        while let Some(event) = generation.next().await {
            if let GenerationEvent::Token(_) = event? {
                times.last = begun.elapsed().as_secs_f64();
                times.first = if times.first == 0.0 { times.last } else { times.first };
            }
        }
        anyhow::Ok(times)
    });
    try_join_all(requests).await
}

async fn bench_encoder(encoder: &EncoderHandle, arguments: &Arguments) -> Result<Rates> {
    let (length, texts, info) = (arguments.prompt_tokens, arguments.concurrency, encoder.info());
    let batch = |round: usize| -> Vec<Vec<u32>> {
        let seeds = (0..texts).map(|text| (round * texts + text) as u64);
        seeds.map(|seed| random_tokens(length, info.vocab_size, seed)).collect()
    };
    encoder.check(&batch(0)).context("--prompt-tokens")?;
    encoder.submit(batch(0))?.await?;
    let mut rates = Vec::new();
    for round in 1..=arguments.rounds {
        let texts_of_round = batch(round);
        let begun = Instant::now();
        encoder.submit(texts_of_round)?.await?;
        rates.push(texts as f64 / begun.elapsed().as_secs_f64());
    }
    let texts_per_second = median(rates);
    Ok(Rates::Encoder { texts_per_second, prefill_tokens_per_second: texts_per_second * length as f64 })
}

/// Tokens without meaning, the same for the same seed: a linear congruential generator's high bits. (Knuth, MMIX)
fn random_tokens(count: usize, vocab_size: usize, seed: u64) -> Vec<u32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocab_size as u64) as u32
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The most memory this process has held; `None` where the system does not tell.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
    }

    #[test]
    fn random_tokens_repeat_with_their_seed_and_stay_in_the_vocabulary() {
        let tokens = random_tokens(1000, 300, 7);
        assert_eq!(tokens, random_tokens(1000, 300, 7));
        assert_ne!(tokens, random_tokens(1000, 300, 8));
        assert!(tokens.iter().all(|token| *token < 300));
        assert!(tokens.iter().collect::<std::collections::HashSet<_>>().len() > 200);
    }
}
