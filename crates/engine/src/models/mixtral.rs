//! Mixtral: a Llama whose feed-forward network is a mixture of experts. (Jiang et al. 2024)

use super::config::Config;
use super::decoder::{Block, Decoder};
use super::llama::LlamaConfig;
use super::{Architecture, Model};
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::layers::{
    Attention, Embedding, LayerSource, Linear, MixtureConfig, MixtureOfExperts, RmsNorm, stacked_tensors,
};
use crate::ops::{Backend, ExpertTensors, Experts, Orientation, RotaryTable, Selection};
use crate::weights::WeightTensor;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "mixtral",
    classes: &["MixtralForCausalLM"],
    load: |checkpoint, backend| Ok(Model::Decoder(Box::new(load(checkpoint, backend)?))),
};

/// The fields of `config.json` that a Mixtral reads.
struct MixtralConfig {
    llama: LlamaConfig,
    mixture: MixtureConfig,
}

impl MixtralConfig {
    fn read(checkpoint: &Checkpoint) -> Result<Self, Error> {
        let (config, llama) = (Config(&checkpoint.config), LlamaConfig::read(checkpoint)?);
        // What a Llama takes where these are absent is not what a Mixtral takes; every published one has them.
        for field in ["num_key_value_heads", "max_position_embeddings", "rms_norm_eps"] {
            config.present(&[field])?;
        }
        config.present(&["rope_theta", "rope_parameters"])?;
        let window = config.optional_size("sliding_window")?;
        if let Some(window) = window.filter(|window| *window < llama.context_length) {
            let reason =
                format!("{window} is shorter than the context of {}; that is not supported", llama.context_length);
            return Err(Error::config("sliding_window", reason));
        }
        let experts = config.size("num_local_experts")?;
        let top_k = config.size_up_to("num_experts_per_tok", ("num_local_experts", experts))?;
        let (width, inner) = (llama.attention.width, llama.inner);
        let mixture = MixtureConfig { width, inner, experts, selection: Selection { top_k, norm: Some(1.0) } };
        Ok(Self { llama, mixture })
    }
}

/// The experts of one layer, in any of the layouts that checkpoints have: one tensor an expert and matrix (the hub, older
/// GGUF files), all experts of a matrix in one tensor (GGUF), and gate and up of all experts in one (`transformers` 5).
fn load_experts(layer: &LayerSource<'_>, config: &MixtureConfig) -> Result<Experts, Error> {
    let MixtureConfig { width, inner, experts, .. } = *config;
    let down_orientation = Orientation::OutputsByInputs;
    let has = |source: &LayerSource<'_>, name: &str| source.weights.get(&source.name(name)).is_some();
    let merged = layer.at("mlp.experts");
    if has(&merged, "gate_up_proj") {
        let halves = stacked_tensors(&merged, "gate_up_proj", &[experts, 2 * inner, width], 2 * experts)?;
        let (gate, up): (Vec<_>, Vec<_>) = halves.into_iter().enumerate().partition(|(half, _)| half % 2 == 0);
        let tensors = |halves: Vec<(usize, WeightTensor)>| halves.into_iter().map(|(_, tensor)| tensor).collect();
        let down = stacked_tensors(&merged, "down_proj", &[experts, width, inner], experts)?;
        let tensors = ExpertTensors { gate: tensors(gate), up: tensors(up), down, down_orientation };
        return Experts::new(layer.backend, tensors);
    }
    let source = layer.at("block_sparse_moe.experts");
    let all = |name: &str, [rows, cols]: [usize; 2]| match has(&source, &format!("{name}.weight")) {
        true => stacked_tensors(&source, &format!("{name}.weight"), &[experts, rows, cols], experts),
        false => {
            let one = |expert| {
                let name = source.at(expert).name(format!("{name}.weight"));
                Ok(source.weights.tensor(&name, &[rows, cols])?)
            };
            (0..experts).map(one).collect()
        }
    };
    let (gate, up, down) = (all("w1", [inner, width])?, all("w3", [inner, width])?, all("w2", [width, inner])?);
    Experts::new(layer.backend, ExpertTensors { gate, up, down, down_orientation })
}

/// The place of the router: `transformers` 5 calls it otherwise in the layout it keeps in memory.
fn router<'a>(layer: &LayerSource<'a>) -> LayerSource<'a> {
    let merged = layer.at("mlp.gate");
    match layer.weights.get(&merged.name("weight")) {
        Some(_) => merged,
        None => layer.at("block_sparse_moe.gate"),
    }
}

type MixtralBlock = Block<RmsNorm, MixtureOfExperts>;
type Mixtral = Decoder<RmsNorm, MixtureOfExperts>;

fn load_block(
    source: &LayerSource<'_>,
    layer: usize,
    config: &MixtralConfig,
    rotary: RotaryTable,
) -> Result<MixtralBlock, Error> {
    let (attention, epsilon) = (&config.llama.attention, config.llama.epsilon);
    let experts = load_experts(source, &config.mixture)?;
    Ok(Block {
        attention_norm: RmsNorm::load(&source.at("input_layernorm"), attention.width, epsilon)?,
        attention: Attention::load(&source.at("self_attn"), layer, attention, rotary)?,
        feed_forward_norm: RmsNorm::load(&source.at("post_attention_layernorm"), attention.width, epsilon)?,
        feed_forward: MixtureOfExperts::load(&router(source), experts, &config.mixture)?,
    })
}

fn load(checkpoint: &Checkpoint, backend: &Backend) -> Result<Mixtral, Error> {
    let config = MixtralConfig::read(checkpoint)?;
    let (root, width) = (LayerSource::new(&checkpoint.weights, backend), config.llama.attention.width);
    let (model, vocab_size) = (root.at("model"), config.llama.vocab_size);
    let rotary = config.llama.rotary(checkpoint)?;
    let embedding = Embedding::load(&model.at("embed_tokens"), vocab_size, width)?;
    let blocks = (0..config.llama.layers)
        .map(|layer| load_block(&model.at("layers").at(layer), layer, &config, rotary.clone()))
        .collect::<Result<_, _>>()?;
    let head = match config.llama.tied {
        true => Linear::from_matrix(embedding.matrix()?),
        false => Linear::load(&root.at("lm_head"), width, vocab_size, false)?,
    };
    let norm = RmsNorm::load(&model.at("norm"), width, config.llama.epsilon)?;
    Ok(Decoder { embedding, blocks, norm, head, shape: config.llama.shape() })
}
