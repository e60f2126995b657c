//! What the whole-system tests share: the checkpoints and goldens of the repository, models that are loaded once a
//! test program, and the counting of what could not be tested because something is absent.

mod faults;
mod postgres;
mod process;
mod promises;
mod providers;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use hearth_engine::config::HubConfig;
use hearth_engine::device::DeviceChoice;
use hearth_engine::hub::{CacheDirectory, CacheState, LocalModel};
use hearth_engine::serve::{
    EncoderHandle, EngineHandle, EngineLoad, FinishReason, GenerationEvent, GenerationRequest, LoadOptions,
    LoadedModel, RerankerHandle, load,
};
use hearth_engine::text::{SpecialTokens, TypedText};
use hearth_sampler::{Sampled, SamplingParams, SamplingRequest, TokenLogprobs};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

pub use faults::{Fault, Faults};
pub use postgres::Postgres;
pub use process::ServerProcess;
pub use promises::{assert_same, prompt, sampled};
pub use providers::{ProviderStubs, STUB_KEY, STUB_TOKEN, StubRequest};

/// The folder of the goldens.
#[must_use]
pub fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens")
}

/// Reads a golden file, `NAME.json`.
///
/// # Errors
/// When it is not there or has another shape.
pub fn golden<T: DeserializeOwned>(name: &str) -> Result<T> {
    let path = goldens().join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// Options of a test: CPU, two threads, a cache of its own size.
#[must_use]
pub fn options() -> LoadOptions {
    let (device, threads) = (DeviceChoice::Cpu, Some(2));
    LoadOptions { device, threads, kv_memory: Some(64 << 20), ..LoadOptions::default() }
}

/// What computes in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// The CPU kernels.
    Kernels,
    /// The tensor library's operations, which are what a GPU runs: on the device that `HEARTH_TEST_DEVICE` names, or on
    /// the CPU.
    Tensors,
}

impl Arithmetic {
    /// As [`options`], computing so.
    ///
    /// # Panics
    /// When `HEARTH_TEST_DEVICE` is no device.
    #[must_use]
    pub fn options(self) -> LoadOptions {
        let device = std::env::var("HEARTH_TEST_DEVICE").map_or(DeviceChoice::Cpu, |name| name.parse().unwrap());
        match self {
            Self::Kernels => options(),
            Self::Tensors => LoadOptions { device, tensor_operations: true, ..options() },
        }
    }

    /// How far a log-probability of that checkpoint may lie from the reference's: with bf16 weights, tensor operations keep 16 of
    /// an activation's 24 bits.
    #[must_use]
    pub fn tolerance(self, checkpoint: &str) -> f32 {
        match self {
            Self::Tensors if checkpoint.contains("bf16") => 2e-3,
            _ => 1e-4,
        }
    }

    /// How far the same request's log-probabilities may lie apart in different company: with the kernels, not a bit.
    #[must_use]
    pub fn spread(self, checkpoint: &str) -> f32 {
        match self {
            Self::Kernels => 0.0,
            Self::Tensors => self.tolerance(checkpoint),
        }
    }
}

/// Makes two tests of each function, `kernels::NAME` and `tensors::NAME`, that give it the [`Arithmetic`].
#[macro_export]
macro_rules! with_each_arithmetic {
    ($($name:ident,)+) => {
        mod kernels {
            $(
                #[tokio::test]
                async fn $name() -> anyhow::Result<()> {
                    super::$name(hearth_tests::Arithmetic::Kernels).await
                }
            )+
        }
        mod tensors {
            $(
                #[tokio::test]
                async fn $name() -> anyhow::Result<()> {
                    super::$name(hearth_tests::Arithmetic::Tensors).await
                }
            )+
        }
    };
}

/// The tiny checkpoint `NAME` of the goldens.
#[must_use]
pub fn checkpoint(name: &str) -> LocalModel {
    LocalModel { name: name.to_owned(), path: goldens().join("checkpoints").join(name), card: None }
}

/// A copy of the tiny checkpoint `NAME`, one of a single file of weights, whose context has room for long prompts.
///
/// # Errors
/// When it cannot be copied.
pub fn with_room(name: &str) -> Result<TempDir> {
    let (from, to) = (checkpoint(name).path, tempfile::tempdir()?);
    for file in ["generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(from.join(file), to.path().join(file))?;
    }
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(from.join("config.json"))?)?;
    config["max_position_embeddings"] = serde_json::json!(4096);
    std::fs::write(to.path().join("config.json"), config.to_string())?;
    Ok(to)
}

/// A model of the catalogue that is on this disk; `None`, and counted, when it is not.
#[must_use]
pub fn real_model(name: &str) -> Option<LocalModel> {
    let cache = CacheDirectory::new(&HubConfig::from_environment().cache);
    let folder = cache.folder(name);
    match cache.state(name) {
        CacheState::Complete(manifest) => {
            let path = manifest.gguf().map_or(folder.clone(), |file| folder.join(file.as_str()));
            Some(LocalModel { name: name.to_owned(), path, card: None })
        }
        CacheState::Absent | CacheState::Damaged(_) => {
            absent(&format!("the weights of {name}: `hearth pull {name}` fetches them"));
            None
        }
    }
}

/// A program of llama.cpp that was built where `scripts/bench-llama-cpp` builds; `None`, and counted, when it is not there.
#[must_use]
pub fn llama_cpp_program(name: &str) -> Option<PathBuf> {
    let program = HubConfig::from_environment().cache.join("llama.cpp/build/bin").join(name);
    let found = program.is_file();
    if !found {
        further(&format!("llama.cpp's {name}: build it in the folder that `scripts/bench-llama-cpp` makes"));
    }
    found.then_some(program)
}

/// A folder of llama.cpp's source that `scripts/bench-llama-cpp` unpacks; `None`, and counted, when it is not there.
#[must_use]
pub fn llama_cpp_folder(name: &str) -> Option<PathBuf> {
    let folder = HubConfig::from_environment().cache.join("llama.cpp/vendor/llama.cpp").join(name);
    let found = folder.is_dir();
    if !found {
        further(&format!("llama.cpp's {name}: `scripts/bench-llama-cpp` unpacks its source"));
    }
    found.then_some(folder)
}

/// Says that a test cannot run for want of something, and counts it for the end of the suite.
pub fn absent(what: &str) {
    println!("absent: {what}");
    let Some(list) = std::env::var_os("HEARTH_ABSENT_LIST") else { return };
    let file = OpenOptions::new().create(true).append(true).open(list);
    if let Err(error) = file.and_then(|mut file| writeln!(file, "{what}")) {
        println!("and cannot be counted: {error}");
    }
}

/// Says that a comparison with material that the suite does not fetch by itself is left out, and counts it apart: it
/// goes further than what is asked of every machine.
pub fn further(what: &str) {
    absent(&format!("(further) {what}"));
}

/// Loads a decoder.
///
/// # Errors
/// When it cannot be loaded, or is an encoder.
pub fn decoder(model: &LocalModel, options: &LoadOptions) -> Result<EngineHandle> {
    match load(model, options)? {
        LoadedModel::Decoder(handle) => Ok(handle),
        LoadedModel::Encoder(_) | LoadedModel::Reranker(_) => bail!("{} is no decoder", model.name),
    }
}

/// Loads an encoder.
///
/// # Errors
/// When it cannot be loaded, or is a decoder.
pub fn encoder(model: &LocalModel, options: &LoadOptions) -> Result<EncoderHandle> {
    match load(model, options)? {
        LoadedModel::Encoder(handle) => Ok(handle),
        LoadedModel::Decoder(_) | LoadedModel::Reranker(_) => bail!("{} is no encoder of texts", model.name),
    }
}

/// Loads a reranker.
///
/// # Errors
/// When it cannot be loaded, or is something else.
pub fn reranker(model: &LocalModel, options: &LoadOptions) -> Result<RerankerHandle> {
    match load(model, options)? {
        LoadedModel::Reranker(handle) => Ok(handle),
        LoadedModel::Decoder(_) | LoadedModel::Encoder(_) => bail!("{} is no reranker", model.name),
    }
}

/// Checked parameters: greedy, with the `top` likeliest alternatives of each token, to `max_tokens` whatever comes.
///
/// # Errors
/// When `top` is out of range.
pub fn greedy(engine: &EngineHandle, top: u8) -> Result<SamplingParams> {
    let request =
        SamplingRequest { temperature: 0.0, logprobs: Some(top), ignore_eos: true, ..SamplingRequest::default() };
    Ok(request.check(engine.info().vocab_size, 0)?)
}

/// Waits until a model has nothing in hand and holds nothing.
///
/// # Errors
/// When it is still busy after a time that is long for any machine.
pub async fn wait_until_idle(load: impl Fn() -> EngineLoad) -> Result<()> {
    let begun = Instant::now();
    while (load().running, load().waiting, load().blocks_used) != (0, 0, 0) {
        ensure!(begun.elapsed() < Duration::from_secs(20), "still busy: {:?}", load());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// Everything one request gave.
#[derive(Debug)]
pub struct Generated {
    /// Tokens of the prompt that were found in the cache.
    pub cached: usize,
    /// Of the prompt's tokens, when they were asked for.
    pub prompt: Vec<Option<TokenLogprobs>>,
    /// In order.
    pub tokens: Vec<Sampled>,
    /// Why it ended.
    pub reason: FinishReason,
}

impl Generated {
    /// The ids of the generated tokens.
    #[must_use]
    pub fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|sampled| sampled.token).collect()
    }
}

/// Runs one request to its end.
///
/// # Errors
/// When it is refused or fails.
pub async fn generate(
    engine: &EngineHandle,
    prompt: &[u32],
    params: SamplingParams,
    max_tokens: usize,
    prompt_logprobs: Option<u8>,
) -> Result<Generated> {
    let request = GenerationRequest::check(prompt.to_vec(), params, max_tokens, prompt_logprobs, engine.info())?;
    let mut stream = engine.submit(request)?;
    let (mut cached, mut prompt, mut tokens) = (0, Vec::new(), Vec::new());
    while let Some(event) = stream.next().await {
        match event? {
            GenerationEvent::Admitted { cached_tokens } => cached = cached_tokens,
            GenerationEvent::Prompt(logprobs) => prompt = logprobs,
            GenerationEvent::Token(sampled) => tokens.push(sampled),
            GenerationEvent::Finished(reason) => return Ok(Generated { cached, prompt, tokens, reason }),
        }
    }
    bail!("the stream ended without an end")
}

/// A text of a golden with its embedding by us and by the reference.
#[derive(Debug)]
pub struct Embedded {
    /// The text.
    pub text: String,
    /// `[dimensions]`
    pub ours: Vec<f32>,
    /// `[dimensions]`
    pub reference: Vec<f32>,
}

/// Embeds the texts of the golden `name`, after checking that they are cut into the reference's tokens.
///
/// # Errors
/// When the golden cannot be read, a text has other tokens, or the encoder fails.
pub async fn embedded(encoder: &EncoderHandle, name: &str) -> Result<Vec<Embedded>> {
    #[derive(Deserialize)]
    struct Golden {
        inputs: Vec<Input>,
    }
    #[derive(Deserialize)]
    struct Input {
        text: String,
        tokens: Vec<u32>,
        embedding: Vec<f32>,
    }
    let inputs = golden::<Golden>(name)?.inputs;
    for Input { text, tokens, .. } in &inputs {
        let found = encoder.tokenizer().encode(text, SpecialTokens::Add)?;
        ensure!(found == *tokens, "{name}: {text:?}: tokens {found:?}, the reference has {tokens:?}");
    }
    let ours = encoder.submit(inputs.iter().map(|input| input.tokens.clone()).collect())?.await?;
    ensure!(ours.len() == inputs.len(), "{name}: {} embeddings of {} texts", ours.len(), inputs.len());
    let pairs = inputs.into_iter().zip(ours);
    Ok(pairs.map(|(input, ours)| Embedded { text: input.text, ours, reference: input.embedding }).collect())
}

/// A pair of texts of a golden with its score by us and by the reference, as logits.
#[derive(Debug)]
pub struct Scored {
    /// The first text of the pair.
    pub query: String,
    /// The second.
    pub document: String,
    /// By us.
    pub ours: f32,
    /// By the reference.
    pub reference: f32,
}

/// Scores the pairs of the golden `name`, after checking that they are put together of the reference's tokens.
///
/// # Errors
/// When the golden cannot be read, a pair has other tokens or types, or the reranker fails.
pub async fn scored(reranker: &RerankerHandle, name: &str) -> Result<Vec<Scored>> {
    #[derive(Deserialize)]
    struct Golden {
        pairs: Vec<Pair>,
    }
    #[derive(Deserialize)]
    struct Pair {
        query: String,
        document: String,
        tokens: Vec<u32>,
        types: Vec<u32>,
        score: f32,
    }
    let golden = golden::<Golden>(name)?.pairs;
    let mut pairs = Vec::with_capacity(golden.len());
    for Pair { query, document, tokens, types, .. } in &golden {
        let encode = |text: &str| reranker.tokenizer().encode(text, SpecialTokens::Omit);
        let found = reranker.template().join(&encode(query)?, &encode(document)?);
        let second = types.iter().position(|kind| *kind == 1).unwrap_or(types.len());
        let expected = TypedText { tokens: tokens.clone(), second };
        ensure!(found == expected, "{name}: {query:?}, {document:?}: {found:?}, the reference has {expected:?}");
        pairs.push(found);
    }
    reranker.check(&pairs)?;
    let ours = reranker.submit(pairs)?.await?;
    ensure!(ours.len() == golden.len(), "{name}: {} scores of {} pairs", ours.len(), golden.len());
    let scored = golden.into_iter().zip(ours);
    let scored =
        scored.map(|(Pair { query, document, score, .. }, ours)| Scored { query, document, ours, reference: score });
    Ok(scored.collect())
}

/// The cosine of the angle between two vectors, in f64.
#[must_use]
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
