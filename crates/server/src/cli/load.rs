//! From a MODEL argument to a running model.

use anyhow::{Context, Result, bail};
use clap::Args;
use hearth_engine::config::HubConfig;
use hearth_engine::device::DeviceChoice;
use hearth_engine::hub::{Catalogue, LocalModel, ModelLocation, fetch};
use hearth_engine::serve::{EngineHandle, LoadOptions, LoadedModel};
use hearth_engine::weights::QuantScheme;

use super::progress::Bar;

/// How a model is run.
#[derive(Args)]
pub(super) struct LoadArguments {
    /// Where the model runs: auto, cpu or cuda:N
    #[arg(long, default_value_t)]
    device: DeviceChoice,
    /// Quantise the weights while they are loaded, from safetensors: q4_k_m, q5_k_m, q6_k or q8_0
    #[arg(long, value_name = "SCHEME")]
    quant: Option<QuantScheme>,
    /// Threads of the CPU kernels, 1 to 512 [default: the machine's cores]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=512))]
    threads: Option<u16>,
    /// Size of the key-value cache of each model in MiB [default: four contexts, at most a quarter of the free memory]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    kv_memory: Option<u64>,
}

impl LoadArguments {
    /// The engine's options.
    pub(super) fn options(&self) -> LoadOptions {
        let kv_memory = self.kv_memory.map(|mebibytes| mebibytes << 20);
        LoadOptions {
            device: self.device,
            quant: self.quant,
            threads: self.threads.map(usize::from),
            kv_memory,
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

/// Gets a model and starts it.
///
/// # Errors
/// When it cannot be had or loaded.
pub(super) fn load(model: &str, options: &LoadOptions) -> Result<LoadedModel> {
    let local = get(model)?;
    hearth_engine::serve::load(&local, options).with_context(|| format!("cannot load {model}"))
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
