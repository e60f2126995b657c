//! The cache in each of its types: alone or in a batch, in chunks or whole, preempted or not, a request gives the same, with the
//! CPU kernels to the last bit; the numbers stay near those of f32; what a model or a device cannot have is refused.

use anyhow::Result;
use futures::future::try_join_all;
use hearth_engine::hub::LocalModel;
use hearth_engine::kv::KvType;
use hearth_engine::serve::{EngineHandle, LoadOptions};
use hearth_sampler::SamplingRequest;
use hearth_tests::{Arithmetic, Generated, checkpoint, decoder, generate, options, with_each_arithmetic};
use tempfile::TempDir;

with_each_arithmetic! {
    a_request_gives_the_same_in_any_company,
    numbers_stay_near_those_of_f32,
    a_smaller_type_holds_more_tokens,
}

/// A checkpoint whose 4 heads of 16 are read as 2 heads of 32, which q8_0 needs: another model, of the same tensors.
fn wide() -> Result<(TempDir, LocalModel)> {
    let (folder, stored) = (TempDir::new()?, checkpoint("llama-sharded-f16"));
    for entry in std::fs::read_dir(&stored.path)? {
        let entry = entry?;
        std::fs::copy(entry.path(), folder.path().join(entry.file_name()))?;
    }
    let path = folder.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    for field in ["num_attention_heads", "num_key_value_heads"] {
        assert_eq!(config[field], 4);
        config[field] = 2.into();
    }
    std::fs::write(&path, config.to_string())?;
    let model = LocalModel { name: "wide".to_owned(), path: folder.path().to_owned(), card: None };
    Ok((folder, model))
}

/// A block of its cache in f32: keys and values, layers, heads, elements, tokens, bytes.
const BLOCK_BYTES: u64 = 2 * 2 * 2 * 32 * 16 * 4;

/// The types that there are, each with how far a log-probability may lie from that of f32.
fn types(arithmetic: Arithmetic) -> Vec<(KvType, f32)> {
    let all = [(KvType::F32, 0.0), (KvType::F16, 5e-2), (KvType::Bf16, 4e-1), (KvType::Q8_0, 4e-1)];
    all.into_iter().filter(|(kv_type, _)| arithmetic == Arithmetic::Kernels || *kv_type != KvType::Q8_0).collect()
}

fn prompt(length: usize, number: usize) -> Vec<u32> {
    (0..length).map(|position| ((position * 37 + number * 101 + 7) % 297 + 3) as u32).collect()
}

async fn run(engine: &EngineHandle, number: usize) -> Result<Generated> {
    let request = SamplingRequest {
        temperature: 0.9,
        seed: Some(number as u64),
        logprobs: Some(2),
        ignore_eos: true,
        ..SamplingRequest::default()
    };
    let params = request.check(engine.info().vocab_size, 0)?;
    generate(engine, &prompt(11 + 9 * number, number), params, 60, Some(2)).await
}

/// How far the log-probabilities of two requests' prompts lie apart.
fn distance(a: &Generated, b: &Generated) -> f32 {
    assert_eq!(a.prompt.len(), b.prompt.len());
    let pairs = a.prompt.iter().flatten().zip(b.prompt.iter().flatten());
    pairs.map(|(a, b)| (a.logprob - b.logprob).abs()).fold(0.0, f32::max)
}

async fn a_request_gives_the_same_in_any_company(arithmetic: Arithmetic) -> Result<()> {
    let (_folder, model) = wide()?;
    for (kv_type, tolerance) in types(arithmetic) {
        let plain = LoadOptions { kv_type, ..arithmetic.options() };
        let engine = decoder(&model, &plain)?;
        let mut alone = Vec::new();
        for number in 0..6 {
            alone.push(run(&engine, number).await?);
        }
        let others = [
            ("together", plain.clone()),
            ("in chunks", LoadOptions { token_budget: Some(7), max_sequences: 3, ..plain.clone() }),
            ("preempted", LoadOptions { kv_memory: Some(12 * block_bytes(kv_type)), ..plain }),
        ];
        for (what, options) in others {
            let engine = decoder(&model, &options)?;
            let together = try_join_all((0..6).map(|number| run(&engine, number))).await?;
            assert_eq!(what == "preempted", engine.load().preemptions > 0, "{kv_type} {what}");
            for (number, (a, b)) in alone.iter().zip(&together).enumerate() {
                match arithmetic {
                    Arithmetic::Kernels => {
                        assert_eq!(a.tokens, b.tokens, "{kv_type} {what}, request {number}");
                        assert_eq!(a.prompt, b.prompt, "{kv_type} {what}, request {number}");
                    }
                    // Sums in another order may round to the next number of the cache's type.
                    Arithmetic::Tensors => {
                        let far = distance(a, b);
                        assert!(far <= tolerance.max(1e-4), "{kv_type} {what}, request {number}: {far}");
                    }
                }
            }
        }
    }
    Ok(())
}

/// A block of the cache.
fn block_bytes(kv_type: KvType) -> u64 {
    match kv_type {
        KvType::F32 => BLOCK_BYTES,
        KvType::F16 | KvType::Bf16 => BLOCK_BYTES / 2,
        KvType::Q8_0 => BLOCK_BYTES / 128 * 34, // 34 bytes for 32 numbers
    }
}

async fn numbers_stay_near_those_of_f32(arithmetic: Arithmetic) -> Result<()> {
    let (_folder, model) = wide()?;
    let exact = run(&decoder(&model, &arithmetic.options())?, 9).await?;
    for (kv_type, tolerance) in types(arithmetic) {
        let found = run(&decoder(&model, &LoadOptions { kv_type, ..arithmetic.options() })?, 9).await?;
        let far = distance(&exact, &found);
        println!("{arithmetic:?}, {kv_type}: log-probabilities at most {far:e} from those of f32");
        assert!(far <= tolerance, "{kv_type}: {far}");
        assert_eq!(far == 0.0, kv_type == KvType::F32, "{kv_type} is a type of its own");
    }
    Ok(())
}

/// The same memory holds twice the tokens in halves, and nearly four times as many in q8_0.
async fn a_smaller_type_holds_more_tokens(arithmetic: Arithmetic) -> Result<()> {
    let (_folder, model) = wide()?;
    for (kv_type, _) in types(arithmetic) {
        let options = LoadOptions { kv_type, kv_memory: Some(BLOCK_BYTES * 4), ..arithmetic.options() };
        let expected = match kv_type {
            KvType::F32 => 4 * 16,
            KvType::F16 | KvType::Bf16 => 8 * 16,
            KvType::Q8_0 => 15 * 16,
        };
        assert_eq!(decoder(&model, &options)?.info().context_length, expected, "{kv_type}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_kept_so_is_refused() -> Result<()> {
    let narrow = LoadOptions { kv_type: KvType::Q8_0, ..options() };
    let refused = |model: &LocalModel, options: &LoadOptions| decoder(model, options).err().unwrap().to_string();
    assert_eq!(
        refused(&checkpoint("llama-tied-f32"), &narrow),
        "the key-value cache: q8_0 needs a head_dim that is a multiple of 32, and this model's is 16"
    );
    let (_folder, model) = wide()?;
    assert!(decoder(&model, &narrow).is_ok());
    assert_eq!(
        refused(&model, &LoadOptions { tensor_operations: true, ..narrow }),
        "the key-value cache: q8_0 is not there on the CPU with tensor operations, which has f32, f16 and bf16"
    );
    Ok(())
}
