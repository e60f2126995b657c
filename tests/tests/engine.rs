//! The engine's promises on its public API, on tiny checkpoints: alone or in a batch, in chunks or whole, preempted or
//! not, a request gives the same tokens and the same log-probabilities, with the CPU kernels to the last bit; a dropped stream
//! frees its cache; what cannot run is refused with the reason.

use std::sync::Arc;

use anyhow::{Result, bail};
use futures::StreamExt;
use futures::future::try_join_all;
use hearth_engine::hub::LocalModel;
use hearth_engine::run::LOGIT_ROWS;
use hearth_engine::serve::{
    EngineHandle, FinishReason, GenerationRequest, LoadOptions, RequestError, SubmitError, TextEvent, TextOptions,
    TextStream,
};
use hearth_engine::text::SpecialTokens;
use hearth_sampler::{SamplingParams, SamplingRequest};
use hearth_tests::{
    Arithmetic, assert_same, checkpoint, decoder, encoder, generate, greedy, options, prompt, sampled,
    with_each_arithmetic,
};

with_each_arithmetic! {
    a_request_gives_the_same_alone_and_in_a_batch,
    a_prompt_gives_the_same_in_chunks_and_whole,
    preemption_loses_and_repeats_nothing,
    preemption_repeats_no_prompt_log_probability,
    a_dropped_stream_frees_its_cache_and_hurts_nobody,
    an_answer_ends_at_the_end_of_the_context,
    texts_embed_the_same_alone_and_packed,
}

/// What most of these tests load.
const CHECKPOINT: &str = "llama-tied-f32";

/// A block of its cache: keys and values, layers, key-value heads, elements, tokens, bytes.
const BLOCK_BYTES: u64 = 2 * 2 * 2 * 16 * 16 * 4;

fn engine(options: &LoadOptions) -> Result<EngineHandle> {
    decoder(&checkpoint(CHECKPOINT), options)
}

async fn wait_until_idle(engine: &EngineHandle) -> Result<()> {
    hearth_tests::wait_until_idle(|| engine.load()).await
}

/// Decoders of every kind of layer: dense, and mixtures whose experts see another set of tokens in each batch.
const DECODERS: [&str; 6] =
    ["llama-tied-f32", "mixtral-f32", "mixtral-bf16", "dbrx-f32", "dbrx-bf16", "mixtral-q8_0.gguf"];

async fn a_request_gives_the_same_alone_and_in_a_batch(arithmetic: Arithmetic) -> Result<()> {
    for name in DECODERS {
        check_alone_and_in_a_batch(decoder(&checkpoint(name), &arithmetic.options())?, name, arithmetic.spread(name))
            .await?;
    }
    Ok(())
}

async fn check_alone_and_in_a_batch(engine: EngineHandle, name: &str, spread: f32) -> Result<()> {
    let requests: Vec<(Vec<u32>, SamplingParams)> = (0..12)
        .map(|number| {
            let params = if number % 3 == 0 { greedy(&engine, 3) } else { sampled(&engine, number as u64) };
            Ok((prompt(1 + number * 7, number), params?))
        })
        .collect::<Result<_>>()?;
    let mut alone = Vec::new();
    for (prompt, params) in &requests {
        alone.push(generate(&engine, prompt, params.clone(), 40, Some(2)).await?);
    }
    let together = requests.iter().map(|(prompt, params)| generate(&engine, prompt, params.clone(), 40, Some(2)));
    for (number, found) in try_join_all(together).await?.iter().enumerate() {
        assert_same(&alone[number], found, spread, &format!("{name}, request {number}"));
    }
    wait_until_idle(&engine).await
}

async fn a_prompt_gives_the_same_in_chunks_and_whole(arithmetic: Arithmetic) -> Result<()> {
    for name in DECODERS {
        let whole = decoder(&checkpoint(name), &arithmetic.options())?;
        for token_budget in [1, 2, 7, 16, 33] {
            let options = LoadOptions { token_budget: Some(token_budget), max_sequences: 1, ..arithmetic.options() };
            let chunked = decoder(&checkpoint(name), &options)?;
            // More rows than are held at a time.
            let tokens = prompt(2 * LOGIT_ROWS + 9, 5);
            let a = generate(&whole, &tokens, sampled(&whole, 9)?, 30, Some(4)).await?;
            let b = generate(&chunked, &tokens, sampled(&chunked, 9)?, 30, Some(4)).await?;
            assert_same(&a, &b, arithmetic.spread(name), &format!("{name}, {token_budget} tokens a step"));
        }
    }
    Ok(())
}

/// A cache that is much too small for all of them: the younger are preempted and computed again, and nobody notices.
async fn preemption_loses_and_repeats_nothing(arithmetic: Arithmetic) -> Result<()> {
    let roomy = engine(&arithmetic.options())?;
    let tight = engine(&LoadOptions { kv_memory: Some(BLOCK_BYTES * 12), ..arithmetic.options() })?;
    let requests: Vec<Vec<u32>> = (0..8).map(|number| prompt(20 + number, number)).collect();
    let runs = |engine: EngineHandle| {
        let requests = requests.clone();
        async move {
            let params: Vec<_> = (0..8).map(|seed| sampled(&engine, seed)).collect::<Result<_>>()?;
            let all = requests.iter().zip(params).map(|(prompt, params)| generate(&engine, prompt, params, 80, None));
            try_join_all(all).await
        }
    };
    let (expected, found) = (runs(roomy.clone()).await?, runs(tight.clone()).await?);
    for (number, (a, b)) in expected.iter().zip(&found).enumerate() {
        assert_same(a, b, arithmetic.spread(CHECKPOINT), &format!("request {number}"));
    }
    assert!(tight.load().preemptions > 0, "the cache was not small enough to test anything");
    assert_eq!(roomy.load().preemptions, 0);
    wait_until_idle(&tight).await
}

async fn a_dropped_stream_frees_its_cache_and_hurts_nobody(arithmetic: Arithmetic) -> Result<()> {
    let engine = engine(&arithmetic.options())?;
    let tokens = prompt(30, 1);
    let expected = generate(&engine, &tokens, sampled(&engine, 4)?, 60, None).await?;
    let survivor = generate(&engine, &tokens, sampled(&engine, 4)?, 60, None);
    let dropped = async {
        for number in 0..10 {
            let params = sampled(&engine, number)?;
            let request = GenerationRequest::check(prompt(40, 2), params, 200, None, engine.info())?;
            let mut stream = engine.submit(request)?;
            for _ in 0..number {
                stream.next().await;
            }
        }
        anyhow::Ok(())
    };
    let (survivor, dropped) = tokio::join!(survivor, dropped);
    dropped?;
    assert_same(&expected, &survivor?, arithmetic.spread(CHECKPOINT), "the request beside them");
    // A marker of three tokens, sent after a drop, ends long before the dropped request would have.
    let request = GenerationRequest::check(prompt(4, 2), sampled(&engine, 1)?, 250, None, engine.info())?;
    let mut stream = engine.submit(request)?;
    stream.next().await;
    drop(stream);
    let mut marker = engine.submit(GenerationRequest::check(vec![9], greedy(&engine, 0)?, 3, None, engine.info())?)?;
    while marker.next().await.is_some() {
        assert!(engine.load().running <= 1, "the dropped request still runs");
    }
    wait_until_idle(&engine).await
}

/// Prompt log-probabilities of a request that is preempted are those of the request alone, each once.
async fn preemption_repeats_no_prompt_log_probability(arithmetic: Arithmetic) -> Result<()> {
    let roomy = engine(&arithmetic.options())?;
    let tight = engine(&LoadOptions {
        kv_memory: Some(BLOCK_BYTES * 12),
        token_budget: Some(16),
        max_sequences: 8,
        ..arithmetic.options()
    })?;
    let prompts: Vec<Vec<u32>> = (0..6).map(|number| prompt(60 + number, number)).collect();
    let mut expected = Vec::new();
    for prompt in &prompts {
        expected.push(generate(&roomy, prompt, sampled(&roomy, 3)?, 60, Some(2)).await?);
    }
    let all = prompts.iter().map(|prompt| {
        let params = sampled(&tight, 3);
        async { generate(&tight, prompt, params?, 60, Some(2)).await }
    });
    for (number, found) in try_join_all(all).await?.iter().enumerate() {
        assert_same(&expected[number], found, arithmetic.spread(CHECKPOINT), &format!("request {number}"));
    }
    assert!(tight.load().preemptions > 0, "the cache was not small enough to test anything");
    wait_until_idle(&tight).await
}

/// End tokens end an answer, are not part of it, and are held back by `min_tokens` and `ignore_eos`.
#[tokio::test]
async fn end_tokens_end_an_answer() -> Result<()> {
    let engine = engine(&options())?;
    let end = engine.text().end_tokens.clone();
    assert!(!end.is_empty());
    let ending = |min_tokens, ignore_eos| {
        let logit_bias = end.iter().map(|token| (*token, 100.0)).collect();
        let request =
            SamplingRequest { temperature: 0.0, logit_bias, min_tokens, ignore_eos, ..SamplingRequest::default() };
        request.check(engine.info().vocab_size, 0)
    };
    let tokens = prompt(5, 1);
    let at_once = generate(&engine, &tokens, ending(0, false)?, 10, None).await?;
    assert_eq!((at_once.ids(), at_once.reason), (vec![], FinishReason::Stop));
    let later = generate(&engine, &tokens, ending(4, false)?, 10, None).await?;
    assert_eq!((later.ids().len(), later.reason), (4, FinishReason::Stop));
    assert!(later.ids().iter().all(|token| !end.contains(token)));
    let ignored = generate(&engine, &tokens, ending(0, true)?, 10, None).await?;
    assert_eq!((ignored.ids().len(), ignored.reason), (10, FinishReason::Length));
    let (text, count, _) = text_of(&engine, &tokens, ending(4, false)?, 10).await?;
    assert!(!text.is_empty());
    assert_eq!(count, 5, "the end token is counted");
    Ok(())
}

async fn text_of(
    engine: &EngineHandle,
    prompt: &[u32],
    params: SamplingParams,
    max_tokens: usize,
) -> Result<(String, usize, FinishReason)> {
    let stops = params.stop().to_vec();
    let options = TextOptions { stops: &stops, ..TextOptions::default() };
    let request = GenerationRequest::check(prompt.to_vec(), params, max_tokens, None, engine.info())?;
    let mut stream = TextStream::new(engine.submit(request)?, Arc::clone(engine.text()), options);
    let (mut text, mut counted) = (String::new(), 0);
    while let Some(event) = stream.next().await {
        match event? {
            TextEvent::Delta(delta) => {
                let own: usize = delta.tokens.len();
                counted += own;
                text.push_str(&delta.text);
            }
            TextEvent::Finished { reason, completion_tokens, .. } => {
                assert!(stream.next().await.is_none(), "nothing comes after the end");
                assert!(counted <= completion_tokens);
                return Ok((text, completion_tokens, reason));
            }
            TextEvent::Prompt(_) => {}
        }
    }
    bail!("the text ended without an end")
}

#[tokio::test]
async fn a_stop_string_cuts_the_text_where_it_begins() -> Result<()> {
    let engine = engine(&options())?;
    let tokens = prompt(12, 3);
    let request =
        || SamplingRequest { temperature: 0.0, ignore_eos: true, logprobs: Some(0), ..SamplingRequest::default() };
    let plain = request().check(engine.info().vocab_size, 0)?;
    let (whole, count, reason) = text_of(&engine, &tokens, plain, 40).await?;
    assert_eq!((count, reason), (40, FinishReason::Length));
    let letters: Vec<(usize, char)> = whole.char_indices().collect();
    for start in [1, letters.len() / 2, letters.len() - 3] {
        let stop: String = letters[start..start + 2].iter().map(|(_, letter)| letter).collect();
        let at = whole.find(&stop).unwrap();
        let params = SamplingRequest { stop: vec!["never there".to_owned(), stop.clone()], ..request() };
        let (text, _, reason) = text_of(&engine, &tokens, params.check(engine.info().vocab_size, 0)?, 40).await?;
        assert_eq!(text, whole[..at], "stopped at {stop:?}");
        assert_eq!(reason, FinishReason::Stop);
    }
    wait_until_idle(&engine).await
}

#[tokio::test]
async fn a_request_that_cannot_run_is_refused_with_the_reason() -> Result<()> {
    let engine = engine(&LoadOptions { max_sequences: 1, queue: 1, ..options() })?;
    let (params, info) = (greedy(&engine, 0)?, engine.info().clone());
    let check =
        |prompt: Vec<u32>, max_tokens| GenerationRequest::check(prompt, params.clone(), max_tokens, None, &info);
    assert_eq!(check(vec![], 1).unwrap_err(), RequestError::Empty);
    assert_eq!(check(vec![5], 0).unwrap_err(), RequestError::NothingToDo);
    let unknown = RequestError::UnknownToken { index: 1, token: info.vocab_size as u32, vocab_size: info.vocab_size };
    assert_eq!(check(vec![5, info.vocab_size as u32], 1).unwrap_err(), unknown);
    let long = check(vec![5; info.context_length], 1).unwrap_err();
    assert!(long.is_context_length() && long.to_string().contains("256 tokens, but the prompt has 256"), "{long}");
    let held: Vec<_> = (0..2).map(|_| engine.submit(check(vec![5], 200).unwrap()).unwrap()).collect();
    assert_eq!(engine.submit(check(vec![5], 1)?).unwrap_err(), SubmitError::QueueFull { limit: 2 });
    drop(held);
    wait_until_idle(&engine).await?;
    generate(&engine, &[5], params.clone(), 1, None).await?;
    Ok(())
}

/// What a configuration asks for and the model cannot do is refused before any token is computed.
#[test]
fn a_mixture_that_contradicts_itself_is_refused() -> Result<()> {
    let cases = [
        ("mixtral-f32", "\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 5", "5 exceeds num_local_experts 4"),
        ("mixtral-f32", "\"num_local_experts\": 4", "\"num_local_experts\": 5", "experts.4.w1.weight"),
        ("mixtral-f32", "\"sliding_window\": null", "\"sliding_window\": 64", "64 is shorter than the context of 256"),
        ("mixtral-f32", "\"rms_norm_eps\"", "\"epsilon\"", "rms_norm_eps: is missing"),
        ("dbrx-f32", "\"moe_num_experts\": 6", "\"moe_num_experts\": 8", "has shape [192, 32], expected [256, 32]"),
        ("dbrx-f32", "\"clip_qkv\": 1.5", "\"clip_qkv\": -1.5", "clip_qkv: must be a positive number, not -1.5"),
        ("dbrx-f32", "\"attn_config\"", "\"attention\"", "attn_config: is missing"),
    ];
    for (name, written, instead, expected) in cases {
        let folder = tempfile::tempdir()?;
        for entry in std::fs::read_dir(checkpoint(name).path)? {
            let path = entry?.path();
            std::fs::copy(&path, folder.path().join(path.file_name().unwrap()))?;
        }
        let config = std::fs::read_to_string(folder.path().join("config.json"))?;
        assert!(config.contains(written), "{name} has no {written}");
        std::fs::write(folder.path().join("config.json"), config.replace(written, instead))?;
        let model = LocalModel { name: name.to_owned(), path: folder.path().to_owned(), card: None };
        let Err(error) = decoder(&model, &options()) else { bail!("{instead} was accepted") };
        assert!(format!("{error:#}").contains(expected), "{instead}: {error:#}");
    }
    Ok(())
}

/// `max_tokens` past the context is no error: the answer ends where the context does.
async fn an_answer_ends_at_the_end_of_the_context(arithmetic: Arithmetic) -> Result<()> {
    let engine = engine(&arithmetic.options())?;
    let found = generate(&engine, &prompt(250, 1), greedy(&engine, 0)?, 1000, None).await?;
    assert_eq!((found.tokens.len(), found.reason), (6, FinishReason::Length));
    let scored = generate(&engine, &prompt(256, 1), greedy(&engine, 0)?, 0, Some(0)).await?;
    assert_eq!((scored.tokens.len(), scored.prompt.len()), (0, 256));
    Ok(())
}

#[tokio::test]
async fn choices_of_one_seed_differ_and_repeat() -> Result<()> {
    let engine = engine(&options())?;
    let params = sampled(&engine, 11)?;
    let tokens = prompt(10, 4);
    let mut answers = Vec::new();
    for choice in 0..4 {
        let a = generate(&engine, &tokens, params.for_choice(choice), 20, None).await?;
        let b = generate(&engine, &tokens, params.for_choice(choice), 20, None).await?;
        assert_same(&a, &b, 0.0, "the same choice again");
        answers.push(a.ids());
    }
    answers.sort();
    answers.dedup();
    assert_eq!(answers.len(), 4, "four choices are four answers");
    Ok(())
}

async fn texts_embed_the_same_alone_and_packed(arithmetic: Arithmetic) -> Result<()> {
    for name in ["bert-cls", "bert-mean"] {
        let encoder = encoder(&checkpoint(name), &LoadOptions { token_budget: Some(64), ..arithmetic.options() })?;
        let words =
            ["rain", "hills and a river", "morning", "What is the capital of France?", "a", "night night night"];
        let texts: Vec<Vec<u32>> = (0..40)
            .map(|number| {
                let text = words[number % words.len()].repeat(1 + number / 7);
                Ok(encoder.tokenizer().encode(&text, SpecialTokens::Add)?)
            })
            .collect::<Result<_>>()?;
        encoder.check(&texts)?;
        let together = encoder.submit(texts.clone())?.await?;
        assert_eq!(together.len(), texts.len());
        for (text, expected) in texts.iter().zip(&together) {
            let alone = &encoder.submit(vec![text.clone()])?.await?[0];
            assert_eq!(alone.len(), expected.len());
            let furthest = alone.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(furthest <= arithmetic.spread(name) && furthest.is_finite(), "{name}: {furthest} apart");
        }
        assert!(encoder.submit(Vec::new())?.await?.is_empty());
        let long = vec![5; encoder.info().context_length + 1];
        let error = encoder.check(&[vec![5], long]).unwrap_err();
        assert!(error.to_string().starts_with("input 1: "), "{error}");
    }
    Ok(())
}
