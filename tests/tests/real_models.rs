//! The real weights: SmolLM2 against its own dequantised weights in PyTorch, the embedding models against
//! sentence-transformers. Left out, and counted, where the weights are not on this disk.

use anyhow::{Context, Result};
use hearth_engine::hub::LocalModel;
use hearth_engine::kv::KvType;
use hearth_engine::serve::{EngineHandle, FinishReason, LoadOptions};
use hearth_engine::text::{Conversation, SpecialTokens};
use hearth_sampler::SamplingRequest;
use hearth_tests::{
    Arithmetic, Embedded, cosine, decoder, embedded, encoder, generate, golden, greedy, options, real_model,
    with_each_arithmetic,
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct SmolLm2 {
    sequences: Vec<Sequence>,
    chat: Chat,
}

#[derive(Deserialize)]
struct Sequence {
    name: String,
    text: String,
    tokens: Vec<u32>,
    logprobs: Vec<Option<f32>>,
    top: Vec<Vec<(u32, f32)>>,
}

#[derive(Deserialize)]
struct Chat {
    messages: Vec<Value>,
    tokens: Vec<u32>,
    greedy: Greedy,
    text: String,
}

#[derive(Deserialize)]
struct Greedy {
    tokens: Vec<u32>,
}

/// What is known of how far our distributions lie from the reference's.
#[derive(Default)]
struct Divergence {
    positions: usize,
    kl: f64,
    same_top: usize,
    worst: f32,
}

impl Divergence {
    /// Adds the positions of one sequence. The KL divergence is summed over the reference's likeliest tokens, with all
    /// others taken as one.
    fn add(&mut self, ours: &[(u32, f32)], reference: &[(u32, f32)]) {
        let (mut kl, mut mass, mut reference_mass) = (0.0, 0.0, 0.0);
        for (token, expected) in reference {
            let Some((_, found)) = ours.iter().find(|(other, _)| other == token) else { continue };
            let probability = f64::from(*expected).exp();
            kl += probability * f64::from(expected - found);
            mass += f64::from(*found).exp();
            reference_mass += probability;
            self.worst = self.worst.max((expected - found).abs());
        }
        let (rest, reference_rest) = (1.0 - mass, 1.0 - reference_mass);
        if rest > 0.0 && reference_rest > 0.0 {
            kl += reference_rest * (reference_rest / rest).ln();
        }
        self.kl += kl;
        self.positions += 1;
        self.same_top += usize::from(ours[0].0 == reference[0].0);
    }
}

fn smollm2(options: LoadOptions) -> Result<Option<EngineHandle>> {
    let model: Option<LocalModel> = real_model("smollm2-135m-instruct");
    model.map(|model| decoder(&model, &LoadOptions { kv_memory: Some(256 << 20), ..options })).transpose()
}

with_each_arithmetic! {
    smollm2_is_faithful_to_its_weights,
    smollm2_is_near_itself_with_every_type_of_cache,
    minilm_agrees_with_sentence_transformers,
}

async fn smollm2_is_faithful_to_its_weights(arithmetic: Arithmetic) -> Result<()> {
    let Some(engine) = smollm2(arithmetic.options())? else { return Ok(()) };
    let mut divergence = Divergence::default();
    for sequence in golden::<SmolLm2>("real/smollm2-135m-instruct")?.sequences {
        let encoded = engine.text().tokenizer.encode(&sequence.text, SpecialTokens::Omit)?;
        assert_eq!(encoded, sequence.tokens, "{}", sequence.name);
        let found = generate(&engine, &sequence.tokens, greedy(&engine, 8)?, 1, Some(20)).await?;
        for (position, expected) in sequence.logprobs.iter().enumerate().skip(1) {
            let ours = found.prompt[position].as_ref().context("a log-probability")?;
            divergence.add(&ours.top, &sequence.top[position - 1]);
            let difference = (ours.logprob - expected.context("a log-probability")?).abs();
            divergence.worst = divergence.worst.max(difference);
        }
    }
    let Divergence { positions, kl, same_top, worst } = divergence;
    let (mean, share) = (kl / positions as f64, same_top as f64 / positions as f64);
    println!("{positions} positions: mean KL {mean:.2e}, same top token {share:.4}, worst difference {worst:.2e}");
    assert!(positions > 500);
    assert!(mean <= 1e-6, "mean KL divergence {mean}");
    assert!(share >= 0.9999, "same top token {share}");
    assert!(worst <= 2e-3, "worst difference of a log-probability {worst}");
    Ok(())
}

/// The types of a cache, each with the largest mean KL divergence from f32 that is stated in `benchmarks/kv-types.md`.
const KV_TYPES: [(KvType, f64); 3] = [(KvType::F16, 2e-6), (KvType::Bf16, 1e-4), (KvType::Q8_0, 2e-3)];

async fn smollm2_is_near_itself_with_every_type_of_cache(arithmetic: Arithmetic) -> Result<()> {
    /// Alternatives of a token: nearly the whole distribution.
    const TOP: u8 = 255;
    let Some(exact) = smollm2(arithmetic.options())? else { return Ok(()) };
    let sequences = golden::<SmolLm2>("real/smollm2-135m-instruct")?.sequences;
    let mut expected = Vec::new();
    for sequence in &sequences {
        expected.push(generate(&exact, &sequence.tokens, greedy(&exact, 0)?, 1, Some(TOP)).await?);
    }
    drop(exact);
    for (kv_type, bound) in KV_TYPES {
        if arithmetic == Arithmetic::Tensors && kv_type == KvType::Q8_0 {
            continue;
        }
        let options = LoadOptions { kv_type, ..arithmetic.options() };
        let engine = smollm2(options)?.context("the weights that were there")?;
        let mut divergence = Divergence::default();
        for (sequence, expected) in sequences.iter().zip(&expected) {
            let found = generate(&engine, &sequence.tokens, greedy(&engine, 0)?, 1, Some(TOP)).await?;
            for (found, expected) in found.prompt.iter().flatten().zip(expected.prompt.iter().flatten()) {
                divergence.add(&found.top, &expected.top);
            }
        }
        let Divergence { positions, kl, same_top, worst } = divergence;
        let (mean, share) = (kl / positions as f64, same_top as f64 / positions as f64);
        println!(
            "{arithmetic:?} {kv_type}, {positions} positions: mean KL {mean:.2e}, same top token {share:.4}, {worst:.2e}"
        );
        assert!(positions > 500);
        assert!(mean <= bound, "{kv_type}: mean KL divergence {mean}");
    }
    Ok(())
}

#[tokio::test]
async fn smollm2_knows_the_capital_of_france() -> Result<()> {
    let Some(engine) = smollm2(options())? else { return Ok(()) };
    let chat = golden::<SmolLm2>("real/smollm2-135m-instruct")?.chat;
    let conversation =
        Conversation { messages: &chat.messages, add_generation_prompt: true, ..Conversation::default() };
    let prompt = engine.text().prompt_tokens(&conversation)?;
    assert_eq!(prompt, chat.tokens);
    let sampling = SamplingRequest { temperature: 0.0, ..SamplingRequest::default() };
    let found = generate(&engine, &prompt, sampling.check(engine.info().vocab_size, 0)?, 64, None).await?;
    let (end, expected) = chat.greedy.tokens.split_last().context("an answer")?;
    assert_eq!(found.ids(), expected, "{}", chat.text);
    assert_eq!(found.reason, FinishReason::Stop);
    assert!(engine.text().end_tokens.contains(end));
    Ok(())
}

async fn check_embeddings(name: &str, options: &LoadOptions) -> Result<()> {
    let Some(model) = real_model(name) else { return Ok(()) };
    for Embedded { text, ours, reference } in embedded(&encoder(&model, options)?, &format!("real/{name}")).await? {
        let cosine = cosine(&ours, &reference);
        assert!(cosine >= 0.9999, "{name}: {text:?}: cosine {cosine}");
    }
    Ok(())
}

async fn minilm_agrees_with_sentence_transformers(arithmetic: Arithmetic) -> Result<()> {
    check_embeddings("all-minilm-l6-v2", &arithmetic.options()).await
}

#[tokio::test]
async fn bge_small_zh_agrees_with_sentence_transformers() -> Result<()> {
    check_embeddings("bge-small-zh-v1.5", &options()).await
}
