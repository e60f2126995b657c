//! From a model's files to its running thread.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use candle_core::Device;
use hearth_kernels::Threads;

use super::encoder::EncoderWorker;
use super::footprint::{BLOCK_SIZE, Needs, check_memory, layout_of};
use super::handle::Terms;
use super::model_text::model_text;
use super::{Decorator, Departure, EncoderHandle, EngineHandle, EngineLoad, Health, ModelInfo, RerankerHandle};
use crate::checkpoint::Checkpoint;
use crate::device::{self, DeviceChoice, OpenDevice};
use crate::error::Error;
use crate::hub::LocalModel;
use crate::kv::{BlockPool, KvLayout, KvStore, KvType};
use crate::models::{Architecture, DecoderModel, EncoderModel, Model};
use crate::ops::Backend;
use crate::run::Runner;
use crate::schedule::{Scheduler, SchedulerConfig};
use crate::text::ModelText;
use crate::text::tool_calls::{TOOL_FORMATS, ToolFormat};
use crate::weights::QuantScheme;

/// Tokens of a decoder's step on the CPU, whose kernels are as fast with so many as with more.
const CPU_TOKENS: usize = 128;
/// Tokens of a step where more at a time are faster: on a device, and for texts that are never cut.
pub(super) const DEVICE_TOKENS: usize = 512;

/// How a model is loaded and run.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where it runs.
    pub device: DeviceChoice,
    /// Whether the CPU computes as other devices do, with the tensor library's operations, and not with its kernels. It
    /// is slower by far: for tests of what runs on those devices.
    pub tensor_operations: bool,
    /// What the weights are quantised to when they are loaded; by default they are used as they are stored.
    pub quant: Option<QuantScheme>,
    /// Threads of the CPU kernels; the machine's cores by default.
    pub threads: Option<usize>,
    /// Bytes that the model may take in all; by default what its device has free.
    pub memory: Option<u64>,
    /// A model that needs more is loaded all the same.
    pub overcommit: bool,
    /// Bytes of the key-value cache; by default enough for four full contexts, at most a quarter of the memory.
    pub kv_memory: Option<u64>,
    /// In which numbers the cache is kept.
    pub kv_type: KvType,
    /// Sequences that run at the same time.
    pub max_sequences: usize,
    /// Requests that may wait besides.
    pub queue: usize,
    /// Tokens computed in one step. A prompt longer than this is computed in chunks, which running streams wait for. By default
    /// 128 for a decoder on the CPU, and 512 otherwise.
    pub token_budget: Option<usize>,
    /// Whether a prompt begins from what was computed for others that begin alike.
    pub prefix_cache: bool,
    /// How long a step may take, after the first, before the model counts as stalled; any time without one.
    pub step_timeout: Option<Duration>,
    /// What its numbers are called by in the metrics; the model's name by default.
    pub label: Option<String>,
    /// What is put around the model.
    pub decorate: Option<Decorator>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        let (device, max_sequences, queue) = (DeviceChoice::Auto, 64, 256);
        let (tensor_operations, quant, threads, token_budget) = (false, None, None, None);
        let (memory, overcommit, kv_memory) = (None, false, None);
        Self {
            device,
            tensor_operations,
            quant,
            threads,
            memory,
            overcommit,
            kv_memory,
            kv_type: KvType::default(),
            max_sequences,
            queue,
            token_budget,
            prefix_cache: true,
            step_timeout: Some(Duration::from_secs(120)),
            label: None,
            decorate: None,
        }
    }
}

impl LoadOptions {
    /// Tokens of a decoder's step: one at least for each sequence that runs.
    fn decoder_tokens(&self, device: &Device) -> usize {
        let usual = if device.is_cpu() { CPU_TOKENS } else { DEVICE_TOKENS };
        self.token_budget.unwrap_or(usual).max(self.max_sequences)
    }

    /// On what terms model `name` takes requests.
    fn terms(&self, name: &str) -> Terms {
        Terms {
            limit: self.max_sequences.max(1) + self.queue,
            step_timeout: self.step_timeout,
            label: self.label.clone().unwrap_or_else(|| name.to_owned()),
        }
    }
}

/// A running model.
#[derive(Clone)]
pub enum LoadedModel {
    /// Generates text.
    Decoder(EngineHandle),
    /// Embeds texts.
    Encoder(EncoderHandle),
    /// Scores pairs of texts.
    Reranker(RerankerHandle),
}

impl LoadedModel {
    /// Everything it knows about text.
    #[must_use]
    pub fn text(&self) -> &Arc<ModelText> {
        match self {
            Self::Decoder(handle) => handle.text(),
            Self::Encoder(handle) => handle.text(),
            Self::Reranker(handle) => handle.text(),
        }
    }

    /// The end of its thread, which comes after the last handle.
    #[must_use]
    pub fn departure(&self) -> Departure {
        match self {
            Self::Decoder(handle) => handle.departure(),
            Self::Encoder(handle) => handle.departure(),
            Self::Reranker(handle) => handle.departure(),
        }
    }

    /// What is known of it.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        match self {
            Self::Decoder(handle) => handle.info(),
            Self::Encoder(handle) => handle.info(),
            Self::Reranker(handle) => handle.info(),
        }
    }

    /// Whether it answers.
    #[must_use]
    pub fn health(&self) -> Health {
        match self {
            Self::Decoder(handle) => handle.health(),
            Self::Encoder(handle) => handle.health(),
            Self::Reranker(handle) => handle.health(),
        }
    }

    /// What it is doing now.
    #[must_use]
    pub fn load(&self) -> EngineLoad {
        match self {
            Self::Decoder(handle) => handle.load(),
            Self::Encoder(handle) => handle.load(),
            Self::Reranker(handle) => handle.load(),
        }
    }
}

/// Opens a model and starts its thread. Blocks until the model can answer.
///
/// # Errors
/// When its files are missing or broken, it is not supported, or it does not fit into memory.
pub fn load(model: &LocalModel, options: &LoadOptions) -> Result<LoadedModel, Error> {
    let tool_format = tool_format(model)?;
    let device = open_device(options.device)?;
    let checkpoint = Checkpoint::open(&model.path)?;
    let architecture = Architecture::of(&checkpoint.config)?;
    let needs = Needs::of_checkpoint(&model.name, &checkpoint)?;
    let memory = match options.memory {
        Some(memory) => memory,
        None => device::memory(&device)?.available,
    };
    check_memory(std::slice::from_ref(&needs), options, memory)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = Threads::new(options.threads.unwrap_or(cores))?;
    let threads = Arc::new(threads);
    let backend = match options.tensor_operations {
        true => Backend::with_tensor_operations(device, threads),
        false => Backend::new(device, threads),
    };
    if let Some((layout, _)) = needs.layout(options.kv_type) {
        layout.check()?;
        backend.check_kv_type(options.kv_type)?;
    }
    let checkpoint = match options.quant {
        Some(scheme) => checkpoint.quantized(scheme, backend.threads())?,
        None => checkpoint,
    };
    let info = ModelInfo {
        name: model.name.clone(),
        architecture: architecture.name.to_owned(),
        context_length: 0,
        vocab_size: 0,
        dimensions: None,
        weight_bytes: checkpoint.weights.total_bytes(),
        created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    };
    let model = (architecture.load)(&checkpoint, &backend)?;
    let model = match &options.decorate {
        Some(decorator) => decorator.apply(model),
        None => model,
    };
    match model {
        Model::Decoder(decoder) => {
            let cache = needs.cache_bytes(options, memory);
            start_decoder(
                Loaded { model: decoder, info, checkpoint: &checkpoint, tool_format },
                &backend,
                cache,
                options,
            )
        }
        Model::Encoder(encoder) => {
            let info = ModelInfo { dimensions: Some(encoder.shape().dimensions), ..info };
            Ok(LoadedModel::Encoder(start_encoder(encoder, info, &checkpoint, &backend, options)?))
        }
        Model::Reranker(reranker) => {
            let encoder = start_encoder(reranker, info, &checkpoint, &backend, options)?;
            Ok(LoadedModel::Reranker(RerankerHandle::new(encoder)?))
        }
    }
}

/// The format of calls on a model's card.
fn tool_format(model: &LocalModel) -> Result<Option<&'static ToolFormat>, Error> {
    let Some(name) = model.card.as_ref().and_then(|card| card.tool_format.as_deref()) else { return Ok(None) };
    let known = || TOOL_FORMATS.iter().map(|format| format.name).collect::<Vec<_>>().join(", ");
    let found = ToolFormat::named(name);
    found.map(Some).ok_or_else(|| Error::config("tool_format", format!("must be one of {}, not {name}", known())))
}

fn open_device(choice: DeviceChoice) -> Result<Device, Error> {
    let OpenDevice { device, fallback } = device::open(choice)?;
    if let Some(reason) = fallback {
        tracing::warn!("running on the CPU, not on CUDA: {reason}");
    }
    Ok(device)
}

/// A decoder that is to be started, and where it is from.
struct Loaded<'a> {
    model: Box<dyn DecoderModel>,
    info: ModelInfo,
    checkpoint: &'a Checkpoint,
    tool_format: Option<&'static ToolFormat>,
}

/// Starts a decoder with a cache of so many bytes.
fn start_decoder(
    loaded: Loaded<'_>,
    backend: &Backend,
    cache: u64,
    options: &LoadOptions,
) -> Result<LoadedModel, Error> {
    let Loaded { model, info, checkpoint, tool_format } = loaded;
    let shape = model.shape();
    let layout = layout_of(&shape, options.kv_type);
    let blocks = cache_blocks(&layout, cache)?;
    // A sequence never grows past what the whole cache can hold, so that it can always run to its end.
    let context_length = shape.context_length.min(blocks * BLOCK_SIZE);
    if context_length < shape.context_length {
        let (full, model) = (shape.context_length, &info.name);
        tracing::warn!(model, context_length, full, "the key-value cache is too small for the model's whole context");
    }
    let info = ModelInfo { context_length, vocab_size: shape.vocab_size, ..info };
    let config = SchedulerConfig {
        token_budget: options.decoder_tokens(backend.device()),
        max_sequences: options.max_sequences.max(1),
        prefix_cache: options.prefix_cache,
    };
    let scheduler = Scheduler::new(config, BlockPool::new(blocks, BLOCK_SIZE));
    let runner = Runner::new(model, KvStore::new(layout, blocks, backend.device())?);
    let text = Arc::new(model_text(checkpoint, tool_format)?);
    backend.synchronize()?; // another thread takes it over
    let terms = options.terms(&info.name);
    Ok(LoadedModel::Decoder(EngineHandle::start(info, text, scheduler, runner, terms)?))
}

fn start_encoder(
    model: Box<dyn EncoderModel>,
    info: ModelInfo,
    checkpoint: &Checkpoint,
    backend: &Backend,
    options: &LoadOptions,
) -> Result<EncoderHandle, Error> {
    let shape = model.shape();
    let info = ModelInfo { context_length: shape.context_length, vocab_size: shape.vocab_size, ..info };
    let text = Arc::new(model_text(checkpoint, None)?);
    backend.synchronize()?; // another thread takes it over
    let worker = EncoderWorker::new(model, options.token_budget.unwrap_or(DEVICE_TOKENS));
    let terms = options.terms(&info.name);
    EncoderHandle::start(info, text, worker, terms)
}

/// How many blocks the cache gets from so many bytes.
fn cache_blocks(layout: &KvLayout, bytes: u64) -> Result<usize, Error> {
    match usize::try_from(bytes / layout.block_bytes()) {
        Ok(0) | Err(_) => {
            let needed = layout.block_bytes();
            Err(Error::Cache(format!("one block of {} tokens needs {needed} bytes, not {bytes}", layout.block_size)))
        }
        // Slots are numbered in 32 bits.
        Ok(blocks) => Ok(blocks.min(u32::MAX as usize / layout.block_size)),
    }
}
