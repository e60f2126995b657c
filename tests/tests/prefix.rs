//! What is computed once is used again: a request that finds the beginning of its prompt in the cache gives the same
//! tokens and log-probabilities as alone in a fresh engine, with the CPU kernels to the last bit.

use anyhow::{Result, bail};
use futures::StreamExt;
use futures::future::try_join_all;
use hearth_engine::schedule::PrefixCounts;
use hearth_engine::serve::{EngineHandle, EngineLoad, GenerationRequest, LoadOptions};
use hearth_tests::{
    Arithmetic, assert_same, checkpoint, decoder, generate, greedy, prompt, sampled, with_each_arithmetic,
};

with_each_arithmetic! {
    a_repeated_prompt_gives_the_same_and_is_not_computed,
    choices_of_one_prompt_compute_it_once,
    prompts_that_part_inside_a_block_give_the_same,
    a_conversation_goes_on_from_what_was_generated,
    a_tiny_cache_evicts_and_preempts_and_nobody_notices,
    prompt_log_probabilities_are_computed_whatever_is_cached,
    without_the_cache_nothing_is_found,
}

const CHECKPOINT: &str = "llama-tied-f32";

/// Dense, and mixtures whose experts see another set of tokens when a part of a prompt is not computed.
const DECODERS: [&str; 4] = ["llama-tied-f32", "mixtral-bf16", "dbrx-f32", "mixtral-q8_0.gguf"];

/// A block of the cache of [`CHECKPOINT`]: keys and values, layers, key-value heads, elements, tokens, bytes.
const BLOCK_BYTES: u64 = 2 * 2 * 2 * 16 * 16 * 4;

/// Tokens of a block.
const BLOCK: usize = 16;

fn engine(options: &LoadOptions) -> Result<EngineHandle> {
    decoder(&checkpoint(CHECKPOINT), options)
}

/// A prompt that begins as `prompt(shared, 0)` and goes on in its own way.
fn parting(shared: usize, length: usize, number: usize) -> Vec<u32> {
    [prompt(shared, 0), prompt(length - shared, number)].concat()
}

/// Waits until no request is left, and looks at what stays.
async fn idle(engine: &EngineHandle) -> Result<EngineLoad> {
    for _ in 0..10_000 {
        let load = engine.load();
        if (load.running, load.waiting, load.blocks_used) == (0, 0, 0) {
            return Ok(load);
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    bail!("still busy: {:?}", engine.load())
}

async fn a_repeated_prompt_gives_the_same_and_is_not_computed(arithmetic: Arithmetic) -> Result<()> {
    for name in DECODERS {
        let options = arithmetic.options();
        for length in [1, 15, 16, 17, 48, 100] {
            let engine = decoder(&checkpoint(name), &options)?;
            let tokens = prompt(length, length);
            let cold = generate(&engine, &tokens, sampled(&engine, 3)?, 24, None).await?;
            let warm = generate(&engine, &tokens, sampled(&engine, 3)?, 24, None).await?;
            assert_same(&cold, &warm, arithmetic.spread(name), &format!("{name}, {length} tokens"));
            let load = idle(&engine).await?;
            // The first has left all its full blocks, its answer's among them.
            let found = (length - 1).min((length + 23) / BLOCK * BLOCK);
            assert_eq!((cold.cached, warm.cached), (0, found), "{name}, {length} tokens");
            let expected = PrefixCounts { queried: 2 * length as u64, hit: found as u64 };
            assert_eq!(load.prefixes, expected, "{name}, {length} tokens");
            assert_eq!(load.blocks_cached, (length + 23) / BLOCK, "{name}, {length} tokens");
        }
    }
    Ok(())
}

async fn choices_of_one_prompt_compute_it_once(arithmetic: Arithmetic) -> Result<()> {
    let (together, tokens) = (engine(&arithmetic.options())?, prompt(70, 1));
    let params = sampled(&together, 11)?;
    let choices = (0..8).map(|choice| generate(&together, &tokens, params.for_choice(choice), 30, None));
    let found = try_join_all(choices).await?;
    for (choice, found) in (0..).zip(&found) {
        let fresh = engine(&arithmetic.options())?;
        let alone = generate(&fresh, &tokens, params.for_choice(choice), 30, None).await?;
        assert_same(&alone, found, arithmetic.spread(CHECKPOINT), &format!("choice {choice}"));
    }
    // Four full blocks; the prompt's end is each choice's own.
    assert_eq!(idle(&together).await?.prefixes, PrefixCounts { queried: 8 * 70, hit: 7 * 64 });
    Ok(())
}

async fn prompts_that_part_inside_a_block_give_the_same(arithmetic: Arithmetic) -> Result<()> {
    for name in DECODERS {
        let together = decoder(&checkpoint(name), &arithmetic.options())?;
        let lengths = [(0, 40), (1, 40), (5, 6), (16, 40), (20, 41), (31, 33), (32, 33), (39, 90), (40, 41)];
        let prompts: Vec<_> =
            (1..).zip(lengths).map(|(number, (shared, length))| parting(shared, length, number)).collect();
        generate(&together, &prompt(48, 0), greedy(&together, 0)?, 1, None).await?;
        let all = prompts.iter().map(|prompt| {
            let params = sampled(&together, 5);
            async { generate(&together, prompt, params?, 20, None).await }
        });
        let found = try_join_all(all).await?;
        for (number, (tokens, found)) in prompts.iter().zip(&found).enumerate() {
            let fresh = decoder(&checkpoint(name), &arithmetic.options())?;
            let alone = generate(&fresh, tokens, sampled(&fresh, 5)?, 20, None).await?;
            assert_same(&alone, found, arithmetic.spread(name), &format!("{name}, prompt {number}"));
        }
        let shared: usize = lengths.iter().map(|(shared, _)| shared).sum();
        let hit = idle(&together).await?.prefixes.hit as usize;
        assert!(hit >= shared, "{name}: {hit} tokens were found of {shared}");
    }
    Ok(())
}

async fn a_conversation_goes_on_from_what_was_generated(arithmetic: Arithmetic) -> Result<()> {
    let (kept, mut tokens) = (engine(&arithmetic.options())?, prompt(20, 2));
    for turn in 0..4 {
        let before = kept.load().prefixes.hit;
        let found = generate(&kept, &tokens, sampled(&kept, turn)?, 25, None).await?;
        let fresh = engine(&arithmetic.options())?;
        let alone = generate(&fresh, &tokens, sampled(&fresh, turn)?, 25, None).await?;
        assert_same(&alone, &found, arithmetic.spread(CHECKPOINT), &format!("turn {turn}"));
        if turn > 0 {
            // What the turn before has read and written, less its last word, and less the six tokens that are new.
            let least = ((tokens.len() - 6 - 1) / BLOCK * BLOCK) as u64;
            let hit = idle(&kept).await?.prefixes.hit - before;
            assert!(hit >= least, "turn {turn}: {hit} tokens were found of {least}");
        }
        tokens.extend(found.ids());
        tokens.extend(prompt(6, turn as usize + 7));
    }
    Ok(())
}

/// Twelve blocks for requests that want far more, of which many begin alike; some callers go away.
async fn a_tiny_cache_evicts_and_preempts_and_nobody_notices(arithmetic: Arithmetic) -> Result<()> {
    let options = LoadOptions { kv_memory: Some(BLOCK_BYTES * 12), token_budget: Some(24), ..arithmetic.options() };
    let (tight, roomy) = (engine(&LoadOptions { max_sequences: 8, ..options })?, engine(&arithmetic.options())?);
    let prompts: Vec<_> = (0..24).map(|number| parting([0, 9, 32, 40][number % 4], 50 + number, number + 1)).collect();
    let mut expected = Vec::new();
    for tokens in &prompts {
        expected.push(generate(&roomy, tokens, sampled(&roomy, 8)?, 60, None).await?);
    }
    for round in 0..2 {
        let dropped = async {
            for number in 0..6 {
                let params = sampled(&tight, number)?;
                let tokens = parting(40, 44, number as usize + 50);
                let mut stream = tight.submit(GenerationRequest::check(tokens, params, 90, None, tight.info())?)?;
                for _ in 0..number * 3 {
                    stream.next().await;
                }
            }
            anyhow::Ok(())
        };
        let all = prompts.iter().map(|tokens| {
            let params = sampled(&tight, 8);
            async { generate(&tight, tokens, params?, 60, None).await }
        });
        let (found, dropped) = tokio::join!(try_join_all(all), dropped);
        dropped?;
        for (number, (expected, found)) in expected.iter().zip(&found?).enumerate() {
            assert_same(expected, found, arithmetic.spread(CHECKPOINT), &format!("round {round}, request {number}"));
        }
        let load = idle(&tight).await?;
        assert!(load.preemptions > 0, "the cache was not small enough to test anything");
        assert!(load.prefixes.hit > 0 && load.blocks_cached > 0, "{load:?}");
    }
    Ok(())
}

async fn prompt_log_probabilities_are_computed_whatever_is_cached(arithmetic: Arithmetic) -> Result<()> {
    let (engine, tokens) = (engine(&arithmetic.options())?, prompt(50, 3));
    let cold = generate(&engine, &tokens, greedy(&engine, 2)?, 4, Some(2)).await?;
    generate(&engine, &tokens, greedy(&engine, 2)?, 4, None).await?;
    let warm = generate(&engine, &tokens, greedy(&engine, 2)?, 4, Some(2)).await?;
    assert_eq!((warm.prompt.len(), cold.prompt.len()), (50, 50));
    if arithmetic == Arithmetic::Kernels {
        assert_eq!(cold.prompt, warm.prompt);
    }
    assert_same(&cold, &warm, arithmetic.spread(CHECKPOINT), "the same request again");
    assert_eq!(idle(&engine).await?.prefixes, PrefixCounts { queried: 50, hit: 48 });
    Ok(())
}

async fn without_the_cache_nothing_is_found(arithmetic: Arithmetic) -> Result<()> {
    let (with, without) =
        (engine(&arithmetic.options())?, engine(&LoadOptions { prefix_cache: false, ..arithmetic.options() })?);
    let tokens = prompt(60, 4);
    for _ in 0..2 {
        let a = generate(&with, &tokens, sampled(&with, 2)?, 20, None).await?;
        let b = generate(&without, &tokens, sampled(&without, 2)?, 20, None).await?;
        assert_same(&a, &b, arithmetic.spread(CHECKPOINT), "with and without");
    }
    let load = idle(&without).await?;
    assert_eq!((load.blocks_cached, load.prefixes), (0, PrefixCounts::default()));
    Ok(())
}
