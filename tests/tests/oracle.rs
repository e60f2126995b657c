//! A second opinion: candle-transformers' Llama and Mixtral on the same checkpoints give the same log-probabilities. They
//! share no code with our kernels but the tensor library's storage, and with the tensor operations but those.

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama::{Cache, Llama, LlamaConfig};
use candle_transformers::models::mixtral;
use hearth_engine::hub::LocalModel;
use hearth_tests::{Arithmetic, checkpoint, decoder, generate, greedy, with_each_arithmetic};

with_each_arithmetic! {
    llama_agrees_with_candle_transformers,
    mixtral_agrees_with_candle_transformers,
}

async fn llama_agrees_with_candle_transformers(arithmetic: Arithmetic) -> Result<()> {
    let model = checkpoint("llama-tied-f32");
    let tokens: Vec<u32> = (0..64).map(|position| (position * 53 + 11) % 297 + 3).collect();

    let config = std::fs::read_to_string(model.path.join("config.json"))?;
    let config = serde_json::from_str::<LlamaConfig>(&config)?.into_config(false);
    let weights = std::fs::read(model.path.join("model.safetensors"))?;
    let builder = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu)?;
    let oracle = Llama::load(builder, &config)?;
    let mut reference: Vec<f32> = Vec::new();
    for length in 1..tokens.len() {
        let input = Tensor::new(&tokens[..length], &Device::Cpu)?.unsqueeze(0)?;
        let mut cache = Cache::new(false, DType::F32, &config, &Device::Cpu)?;
        let logits = oracle.forward(&input, 0, &mut cache)?;
        let logprobs = candle_nn::ops::log_softmax(&logits, 1)?;
        reference.push(logprobs.get(0)?.get(tokens[length] as usize)?.to_scalar()?);
    }
    assert_agrees(&model, &tokens, &reference, arithmetic).await
}

async fn mixtral_agrees_with_candle_transformers(arithmetic: Arithmetic) -> Result<()> {
    let model = checkpoint("mixtral-f32");
    let tokens: Vec<u32> = (0..64).map(|position| (position * 59 + 5) % 297 + 3).collect();

    let config = std::fs::read_to_string(model.path.join("config.json"))?;
    let mut config: serde_json::Value = serde_json::from_str(&config)?;
    // It asks for a window, and for a switch of its own.
    config["sliding_window"] = 4096.into();
    config["use_flash_attn"] = false.into();
    let weights = std::fs::read(model.path.join("model.safetensors"))?;
    let builder = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu)?;
    let mut oracle = mixtral::Model::new(&serde_json::from_value(config)?, builder)?;
    let mut reference: Vec<f32> = Vec::new();
    for (position, next) in tokens[1..].iter().enumerate() {
        let input = Tensor::new(&tokens[position..=position], &Device::Cpu)?.unsqueeze(0)?;
        let logits = oracle.forward(&input, position)?.flatten_all()?;
        reference.push(candle_nn::ops::log_softmax(&logits, 0)?.get(*next as usize)?.to_scalar()?);
    }
    assert_agrees(&model, &tokens, &reference, arithmetic).await
}

/// Our log-probabilities of the tokens after the first are those.
async fn assert_agrees(model: &LocalModel, tokens: &[u32], reference: &[f32], arithmetic: Arithmetic) -> Result<()> {
    let engine = decoder(model, &arithmetic.options())?;
    let found = generate(&engine, tokens, greedy(&engine, 0)?, 0, Some(0)).await?;
    assert_eq!(found.prompt.len(), reference.len() + 1);
    for (position, expected) in reference.iter().enumerate() {
        let ours = found.prompt[position + 1].as_ref().context("no log-probability")?.logprob;
        assert!((ours - expected).abs() < 1e-4, "position {}: {ours} against {expected}", position + 1);
    }
    Ok(())
}
