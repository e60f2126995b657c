//! Numbers against PyTorch's, on the tiny checkpoints, by each arithmetic: log-probabilities within its tolerance, greedy tokens
//! the same, embeddings in the same direction.

use anyhow::Result;
use hearth_engine::hub::LocalModel;
use hearth_engine::serve::EngineHandle;
use hearth_sampler::TokenLogprobs;
use hearth_tests::{
    Arithmetic, Embedded, Generated, checkpoint, cosine, decoder, embedded, encoder, generate, golden, greedy,
    with_each_arithmetic,
};
use serde::Deserialize;

with_each_arithmetic! {
    llama_agrees_with_pytorch,
    mixtures_of_experts_agree_with_pytorch,
    mixtures_of_experts_in_gguf_agree_with_pytorch,
    llama_agrees_with_pytorch_in_small_chunks,
    bert_agrees_with_pytorch,
    bert_from_gguf_agrees_with_pytorch,
    weights_from_a_pytorch_file_are_those_of_the_safetensors,
}

const LLAMAS: [&str; 4] = ["llama-tied-f32", "llama-untied-bf16", "llama-linear-f32", "llama-sharded-f16"];
const MIXTURES: [&str; 5] = ["mixtral-f32", "mixtral-bf16", "mixtral-merged-f16", "dbrx-f32", "dbrx-bf16"];
/// GGUF files of the above, and the goldens with the numbers they hold.
const MIXTURE_FILES: [(&str, &str); 3] = [
    ("mixtral-per-expert-f32.gguf", "mixtral-f32"),
    ("mixtral-q8_0.gguf", "mixtral-q8_0"),
    ("dbrx-q8_0.gguf", "dbrx-q8_0"),
];
const BERTS: [&str; 5] = ["bert-cls", "bert-mean", "bert-mean-raw", "bert-old-names", "xlm-roberta-cls"];

type Top = Vec<(u32, f32)>;

#[derive(Deserialize)]
struct Decoder {
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    tokens: Vec<u32>,
    logprobs: Vec<Option<f32>>,
    top: Vec<Top>,
    greedy: Greedy,
}

#[derive(Deserialize)]
struct Greedy {
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    top: Vec<Top>,
}

/// The alternatives agree: each of the reference's has our log-probability, or is a near tie with what we have.
fn assert_top(found: &[(u32, f32)], expected: &Top, tolerance: f32, place: &str) {
    assert_eq!(found.len(), expected.len(), "{place}");
    for ((token, logprob), (other, reference)) in found.iter().zip(expected) {
        assert!((logprob - reference).abs() <= tolerance, "{place}: {token} {logprob}, reference {other} {reference}");
    }
    for (token, reference) in &expected[..expected.len() - 1] {
        let ours = found.iter().find(|(other, _)| other == token).unwrap_or_else(|| panic!("{place}: no {token}"));
        assert!((ours.1 - reference).abs() <= tolerance, "{place}: {token} {} against {reference}", ours.1);
    }
}

fn assert_generated(found: &Generated, expected: &Prompt, tolerance: f32, place: &str) {
    for (position, (ours, reference)) in found.prompt.iter().zip(&expected.logprobs).enumerate() {
        match (ours, reference) {
            (None, None) => assert_eq!(position, 0, "{place}"),
            (Some(TokenLogprobs { logprob, top }), Some(reference)) => {
                let place = format!("{place}, prompt position {position}");
                assert!((logprob - reference).abs() <= tolerance, "{place}: {logprob} against {reference}");
                assert_top(top, &expected.top[position - 1], tolerance, &place);
            }
            _ => panic!("{place}, prompt position {position}: {ours:?} against {reference:?}"),
        }
    }
    assert_eq!(found.prompt.len(), expected.tokens.len(), "{place}");
    assert_eq!(found.ids(), expected.greedy.tokens, "{place}");
    for (step, sampled) in found.tokens.iter().enumerate() {
        let place = format!("{place}, step {step}");
        let (ours, reference) = (sampled.logprob.unwrap(), expected.greedy.logprobs[step]);
        assert!((ours - reference).abs() <= tolerance, "{place}: {ours} against {reference}");
        assert_top(&sampled.top, &expected.greedy.top[step], tolerance, &place);
    }
}

async fn check_prompt(engine: &EngineHandle, name: &str, prompt: &Prompt, arithmetic: Arithmetic) -> Result<()> {
    let steps = prompt.greedy.tokens.len();
    let found = generate(engine, &prompt.tokens, greedy(engine, 5)?, steps, Some(5)).await?;
    let place = format!("{name}, {arithmetic:?}, prompt of {}", prompt.tokens.len());
    assert_generated(&found, prompt, arithmetic.tolerance(name), &place);
    Ok(())
}

async fn check_decoder(file: &str, name: &str, arithmetic: Arithmetic) -> Result<()> {
    let engine = decoder(&checkpoint(file), &arithmetic.options())?;
    for prompt in golden::<Decoder>(name)?.prompts {
        check_prompt(&engine, file, &prompt, arithmetic).await?;
    }
    Ok(())
}

async fn llama_agrees_with_pytorch(arithmetic: Arithmetic) -> Result<()> {
    for name in LLAMAS {
        check_decoder(name, name, arithmetic).await?;
    }
    Ok(())
}

async fn mixtures_of_experts_agree_with_pytorch(arithmetic: Arithmetic) -> Result<()> {
    for name in MIXTURES {
        check_decoder(name, name, arithmetic).await?;
    }
    Ok(())
}

/// Experts each in a tensor of its own and all in one, as they were and as rounded to 8 bits: what PyTorch makes of the numbers
/// that the file holds.
async fn mixtures_of_experts_in_gguf_agree_with_pytorch(arithmetic: Arithmetic) -> Result<()> {
    for (file, name) in MIXTURE_FILES {
        check_decoder(file, name, arithmetic).await?;
    }
    Ok(())
}

/// A prompt in chunks of three tokens gives what PyTorch gives for the whole, prompt log-probabilities included.
async fn llama_agrees_with_pytorch_in_small_chunks(arithmetic: Arithmetic) -> Result<()> {
    let options = hearth_engine::serve::LoadOptions { token_budget: Some(3), max_sequences: 2, ..arithmetic.options() };
    let engine = decoder(&checkpoint("llama-tied-f32"), &options)?;
    for prompt in golden::<Decoder>("llama-tied-f32")?.prompts {
        check_prompt(&engine, "llama-tied-f32", &prompt, arithmetic).await?;
    }
    Ok(())
}

async fn bert_agrees_with_pytorch(arithmetic: Arithmetic) -> Result<()> {
    for name in BERTS {
        check_bert(&checkpoint(name), name, arithmetic).await?;
    }
    Ok(())
}

/// The same from llama.cpp's converter: its names, its vocabulary, its pooling.
async fn bert_from_gguf_agrees_with_pytorch(arithmetic: Arithmetic) -> Result<()> {
    for name in ["bert-cls", "bert-mean"] {
        check_bert(&checkpoint(&format!("{name}.gguf")), name, arithmetic).await?;
    }
    Ok(())
}

async fn check_bert(model: &LocalModel, name: &str, arithmetic: Arithmetic) -> Result<()> {
    for Embedded { text, ours, reference } in embedded(&encoder(model, &arithmetic.options())?, name).await? {
        let cosine = cosine(&ours, &reference);
        assert!(cosine >= 0.999_99, "{name}: {text:?}: cosine {cosine}");
        for (ours, reference) in ours.iter().zip(&reference) {
            assert!((ours - reference).abs() < 1e-4, "{name}: {text:?}: {ours} against {reference}");
        }
    }
    Ok(())
}

/// The same from the file that `torch.save` writes, in the place of the safetensors.
async fn weights_from_a_pytorch_file_are_those_of_the_safetensors(arithmetic: Arithmetic) -> Result<()> {
    let name = "xlm-roberta-cls";
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("1_Pooling"))?;
    let files = ["config.json", "modules.json", "sentence_bert_config.json", "1_Pooling/config.json", "tokenizer.json"];
    for file in files {
        std::fs::copy(checkpoint(name).path.join(file), folder.path().join(file))?;
    }
    std::fs::copy(checkpoint("xlm-roberta-cls.bin").path, folder.path().join("pytorch_model.bin"))?;
    let model = LocalModel { path: folder.path().to_owned(), ..checkpoint(name) };
    check_bert(&model, name, arithmetic).await?;
    let both = [encoder(&model, &arithmetic.options())?, encoder(&checkpoint(name), &arithmetic.options())?];
    let text = vec![vec![0, 4, 15, 23, 2]];
    assert_eq!(both[0].submit(text.clone())?.await?, both[1].submit(text)?.await?, "to the last bit");
    Ok(())
}
