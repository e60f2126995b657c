//! From a MODEL argument to a running model.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use hearth::control::Hosting;
use hearth::models::Source;
use hearth::providers::Provider;
use hearth::providers::local::LocalProvider;
use hearth_engine::config::HubConfig;
use hearth_engine::device::{self, DeviceChoice};
use hearth_engine::hub::{CacheDirectory, CacheState, Catalogue, LocalModel, ModelLocation, fetch};
use hearth_engine::kv::KvType;
use hearth_engine::serve::{EngineHandle, Footprint, LoadOptions, LoadedModel, Needs, check_memory};
use hearth_engine::weights::QuantScheme;

use super::limits::LimitArguments;
use super::progress::Bar;
use super::terminal::say;

/// How a model is run.
#[derive(Args)]
pub(super) struct LoadArguments {
    /// Where the model runs: auto, cpu or cuda:N
    #[arg(long, default_value_t)]
    device: DeviceChoice,
    /// Quantise the weights of a folder while they are loaded: q4_k_m, q5_k_m, q6_k or q8_0
    #[arg(long, value_name = "SCHEME")]
    quant: Option<QuantScheme>,
    /// Threads of the CPU kernels, 1 to 512 [default: the machine's cores]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=512))]
    threads: Option<u16>,
    /// Size of the key-value cache of each model in MiB [default: four contexts, at most a quarter of the free memory]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    kv_memory: Option<u64>,
    /// Numbers of the key-value cache: f32 (exact), f16 (half the memory; rounds to 11 bits), bf16 (half the memory; rounds
    /// to 8 bits) or q8_0 (a quarter of the memory; 8 bits and a scale for 32 numbers, CPU only)
    #[arg(long, value_name = "TYPE", default_value_t)]
    kv_type: KvType,
    /// Tokens computed in one step: with fewer, running streams pause less while long prompts arrive; with more, prompts may
    /// be faster [default: 128 on the CPU, 512 elsewhere]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    token_budget: Option<u32>,
    /// Memory in MiB that models may take together [default: what the device has free]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    memory: Option<u64>,
    /// Load a model even where the sum of what it needs exceeds the memory that is available
    #[arg(long)]
    overcommit: bool,
    /// Compute every prompt as a whole, whatever was computed before of others that begin alike
    #[arg(long)]
    no_prefix_cache: bool,
}

impl LoadArguments {
    /// The engine's options.
    pub(super) fn options(&self) -> LoadOptions {
        let bytes = |mebibytes: Option<u64>| mebibytes.map(|mebibytes| mebibytes << 20);
        LoadOptions {
            device: self.device,
            quant: self.quant,
            threads: self.threads.map(usize::from),
            memory: bytes(self.memory),
            kv_memory: bytes(self.kv_memory),
            kv_type: self.kv_type,
            overcommit: self.overcommit,
            token_budget: self.token_budget.map(|tokens| tokens as usize),
            prefix_cache: !self.no_prefix_cache,
            ..LoadOptions::default()
        }
    }

    /// Threads that the kernels will use.
    pub(super) fn thread_count(&self) -> usize {
        self.threads.map(usize::from).unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

/// Gets a model onto the disk.
///
/// # Errors
/// When the name means nothing or no source has it.
pub(super) fn get(model: &str) -> Result<LocalModel> {
    let location = ModelLocation::resolve(model, &Catalogue::embedded()?)?;
    Ok(fetch(&location, &HubConfig::from_environment(), &mut Bar::default())?)
}

/// What a model needs, before it is fetched: from its files where they are on this disk, otherwise from its card. `None` for
/// a model of the hub that has neither.
///
/// # Errors
/// When the name means nothing, or the files are broken.
fn needs(model: &str) -> Result<Option<Needs>> {
    let location = ModelLocation::resolve(model, &Catalogue::embedded()?)?;
    let name = location.name();
    let of_files = |path| Needs::of_files(&name, path).with_context(|| format!("cannot load {model}"));
    match &location {
        ModelLocation::Folder(path) | ModelLocation::GgufFile(path) => of_files(path).map(Some),
        ModelLocation::Hub(_) => Ok(None),
        ModelLocation::Catalogue(card) => {
            let cache = CacheDirectory::new(&HubConfig::from_environment().cache);
            let CacheState::Complete(manifest) = cache.state(&card.name) else { return Ok(Needs::of_card(card)?) };
            let folder = cache.folder(&card.name);
            of_files(&manifest.gguf().map_or(folder.clone(), |file| folder.join(file.as_str()))).map(Some)
        }
    }
}

/// Refuses models that do not fit into the device's memory beside each other, before any of them is fetched, and gives each
/// its share of the memory in bytes: what it needs, and an equal part of what is left. What is not known yet
/// is looked at when it is loaded, and has no share.
///
/// # Errors
/// When they do not fit; when one cannot be found or read.
pub(super) fn shares(models: &[&str], options: &LoadOptions) -> Result<Vec<Option<u64>>> {
    let needs = models.iter().map(|model| needs(model)).collect::<Result<Vec<_>>>()?;
    let known: Vec<Needs> = needs.iter().flatten().cloned().collect();
    let available = free_memory(options)?;
    let sum = check_memory(&known, options, available)?;
    let spare = available.saturating_sub(sum.total()) / models.len().max(1) as u64;
    let share = |needs: &Needs| needs.footprint(options).total().saturating_add(spare);
    Ok(needs.iter().map(|needs| needs.as_ref().map(share)).collect())
}

/// Bytes that models may take together: what the options say, otherwise what their device has free.
///
/// # Errors
/// When the device cannot be used, or does not say.
pub(super) fn free_memory(options: &LoadOptions) -> Result<u64> {
    let device = device::open(options.device)?.device;
    options.memory.map_or_else(|| Ok(device::memory(&device)?.available), Ok)
}

/// Gets a model and starts it, unless it is known beforehand that it does not fit into memory.
///
/// # Errors
/// When it does not fit, or cannot be had or loaded.
pub(super) fn load(model: &str, options: &LoadOptions) -> Result<LoadedModel> {
    shares(&[model], options)?;
    load_within(model, options)
}

/// Gets a model and starts it within the memory that the options give it.
///
/// # Errors
/// When it cannot be had or loaded.
pub(super) fn load_within(model: &str, options: &LoadOptions) -> Result<LoadedModel> {
    let local = get(model)?;
    hearth_engine::serve::load(&local, options).with_context(|| format!("cannot load {model}"))
}

/// A MODEL argument as something that can be hosted.
pub(super) struct ModelArgument {
    endpoint: String,
    model: String,
    name: String,
    key: String,
    options: LoadOptions,
    /// Bytes that the model is offered at most, however much is free.
    share: Option<u64>,
}

impl ModelArgument {
    /// The model of that argument for an endpoint, within its share of the memory.
    ///
    /// # Errors
    /// When the name means nothing.
    pub(super) fn new(endpoint: String, model: String, options: LoadOptions, share: Option<u64>) -> Result<Self> {
        let location = ModelLocation::resolve(&model, &Catalogue::embedded()?)?;
        let (name, key) = (location.name(), key(&location));
        Ok(Self { endpoint, model, name, key, options, share })
    }

    /// What it stands for, whichever of its names it was called by.
    pub(super) fn key(&self) -> String {
        self.key.clone()
    }
}

/// One spelling for each model, whichever of its names it is called by.
fn key(location: &ModelLocation) -> String {
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string();
    match location {
        ModelLocation::Catalogue(card) => card.name.clone(),
        ModelLocation::Folder(path) | ModelLocation::GgufFile(path) => whole(path),
        ModelLocation::Hub(repository) => format!("{repository:?}"),
    }
}

impl Source for ModelArgument {
    fn model_name(&self) -> &str {
        &self.name
    }

    fn footprint(&self, offered: u64) -> Result<Footprint, String> {
        let needs = || {
            let local = get(&self.model)?;
            anyhow::Ok(Needs::of_files(&local.name, &local.path)?)
        };
        let needs = needs().map_err(|error| format!("{error:#}"))?;
        Ok(needs.footprint_within(&self.options, self.share.map_or(offered, |share| share.min(offered))))
    }

    fn load(&self, granted: Footprint) -> Result<Arc<dyn Provider>, String> {
        let (memory, cache) = (Some(granted.total()), Some(granted.cache).filter(|cache| *cache > 0));
        let options = LoadOptions { memory, kv_memory: cache, ..self.options.clone() };
        let loaded = load_within(&self.model, &options).map_err(|error| format!("{error:#}"))?;
        let info = loaded.info();
        say(format_args!("{}: {} ({} tokens of context)", self.endpoint, info.architecture, info.context_length));
        Ok(Arc::new(LocalProvider::new(loaded)))
    }
}

/// The models of endpoints that the control plane makes: what an entity names is what `--model` takes, or
/// `system.ai.` and the name of a model of the catalogue with `_` for `-`.
pub(super) struct ModelArguments {
    limits: LimitArguments,
    options: LoadOptions,
}

impl ModelArguments {
    /// Models that are loaded like those of the command line.
    pub(super) fn new(limits: LimitArguments, options: LoadOptions) -> Self {
        Self { limits, options }
    }
}

impl Hosting for ModelArguments {
    fn find(&self, entity_name: &str) -> Result<(String, Arc<dyn Source>), String> {
        let model = match entity_name.strip_prefix("system.ai.") {
            Some(name) => name.replace('_', "-"),
            None => entity_name.to_owned(),
        };
        let location = ModelLocation::resolve(&model, &Catalogue::embedded().map_err(|error| error.to_string())?);
        let name = location.map_err(|error| error.to_string())?.name();
        let options = self.limits.options(&name, self.options.clone());
        let source = ModelArgument::new(name, model.clone(), options, None).map_err(|error| error.to_string())?;
        Ok((source.key(), Arc::new(source)))
    }
}

/// Gets and starts a model that generates text.
///
/// # Errors
/// When it cannot be had or loaded, or embeds.
pub(super) fn load_decoder(model: &str, options: &LoadOptions) -> Result<EngineHandle> {
    match load(model, options)? {
        LoadedModel::Decoder(handle) => Ok(handle),
        LoadedModel::Encoder(_) => bail!("{model} embeds texts and does not generate: use `hearth embed {model} ...`"),
        LoadedModel::Reranker(_) => bail!("{model} ranks documents and does not generate: use `hearth serve`"),
    }
}
