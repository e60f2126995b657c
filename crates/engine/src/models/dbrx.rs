//! DBRX: fused and clipped attention, layer normalisation without a shift, and a mixture of many small experts.
//! (Databricks 2024)

use serde_json::Value;

use super::config::{Config, divides};
use super::decoder::{Block, Decoder};
use super::{Architecture, DecoderShape, Model};
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::layers::{
    Attention, AttentionConfig, Embedding, LayerNorm, LayerSource, Linear, MixtureConfig, MixtureOfExperts,
    RopeParameters, stacked_tensors,
};
use crate::ops::{Backend, ExpertTensors, Experts, Orientation, RotaryTable, Selection};

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "dbrx",
    classes: &["DbrxForCausalLM"],
    load: |checkpoint, backend| Ok(Model::Decoder(Box::new(load(checkpoint, backend)?))),
};

/// The epsilon of every norm; no published `config.json` names it.
const EPSILON: f32 = 1e-5;

/// The fields of `config.json` that a DBRX reads.
struct DbrxConfig {
    attention: AttentionConfig,
    mixture: MixtureConfig,
    layers: usize,
    vocab_size: usize,
    context_length: usize,
    epsilon: f32,
    rope: RopeParameters,
}

impl DbrxConfig {
    fn read(checkpoint: &Checkpoint) -> Result<Self, Error> {
        let config = Config(&checkpoint.config);
        let (attention, experts) = (config.inner("attn_config")?, config.inner("ffn_config")?);
        let (width, heads) = (config.size("d_model")?, config.size("n_heads")?);
        let head_dim = divides(("d_model", width), ("n_heads", heads))?;
        divides(("d_model / n_heads", head_dim), ("the rotary pair,", 2))?;
        let kv_heads = attention.size("kv_n_heads")?;
        divides(("n_heads", heads), ("kv_n_heads", kv_heads))?;
        if config.flag("tie_word_embeddings") {
            return Err(Error::config("tie_word_embeddings", "true is not supported for DBRX"));
        }
        let mut rope = RopeParameters::from_config(&checkpoint.config)?;
        rope.theta = attention.optional_positive("rope_theta")?.unwrap_or(rope.theta);
        let clip = attention.optional_positive("clip_qkv")?.map(|bound| bound as f32);
        Ok(Self {
            attention: AttentionConfig { width, heads, kv_heads, head_dim, bias: false, clip },
            mixture: mixture(experts, width)?,
            layers: config.size("n_layers")?,
            vocab_size: config.size("vocab_size")?,
            context_length: config.size("max_seq_len")?,
            epsilon: config.epsilon("layer_norm_eps", EPSILON)?,
            rope,
        })
    }

    fn shape(&self) -> DecoderShape {
        let AttentionConfig { kv_heads, head_dim, .. } = self.attention;
        let (layers, vocab_size, context_length) = (self.layers, self.vocab_size, self.context_length);
        DecoderShape { layers, kv_heads, head_dim, vocab_size, context_length }
    }
}

/// Reads `ffn_config`. The weights of a token's experts are normalised unless the configuration says null.
fn mixture(config: Config<'_>, width: usize) -> Result<MixtureConfig, Error> {
    if let Some(activation) = config.0.get("ffn_act_fn").filter(|value| !value.is_null()) {
        Config(activation).only("name", "silu")?;
    }
    let experts = config.size("moe_num_experts")?;
    let top_k = config.size_up_to("moe_top_k", ("moe_num_experts", experts))?;
    let norm = match config.0.get("moe_normalize_expert_weights") {
        None => Some(1.0),
        Some(Value::Null) => None,
        Some(_) => config.optional_positive("moe_normalize_expert_weights")?.map(|p| p as f32),
    };
    let selection = Selection { top_k, norm };
    Ok(MixtureConfig { width, inner: config.size("ffn_hidden_size")?, experts, selection })
}

/// The experts of one layer, each matrix of all of them in one tensor. The published `w2` lies the other way around than
/// other weights, `[experts * inner, width]`, and is multiplied as it lies; GGUF files have it turned, as `w2.weight`.
fn load_experts(source: &LayerSource<'_>, config: &MixtureConfig) -> Result<Experts, Error> {
    let MixtureConfig { width, inner, experts, .. } = *config;
    let tensors = if source.weights.get(&source.name("w2.weight")).is_some() {
        ExpertTensors {
            gate: stacked_tensors(source, "w1.weight", &[experts, inner, width], experts)?,
            up: stacked_tensors(source, "v1.weight", &[experts, inner, width], experts)?,
            down: stacked_tensors(source, "w2.weight", &[experts, width, inner], experts)?,
            down_orientation: Orientation::OutputsByInputs,
        }
    } else {
        let shape = [experts * inner, width];
        ExpertTensors {
            gate: stacked_tensors(source, "w1", &shape, experts)?,
            up: stacked_tensors(source, "v1", &shape, experts)?,
            down: stacked_tensors(source, "w2", &shape, experts)?,
            down_orientation: Orientation::InputsByOutputs,
        }
    };
    Experts::new(source.backend, tensors)
}

type DbrxBlock = Block<LayerNorm, MixtureOfExperts>;
type Dbrx = Decoder<LayerNorm, MixtureOfExperts>;

fn load_block(
    source: &LayerSource<'_>,
    layer: usize,
    config: &DbrxConfig,
    rotary: RotaryTable,
) -> Result<DbrxBlock, Error> {
    let (around, width) = (source.at("norm_attn_norm"), config.attention.width);
    let experts = load_experts(&source.at("ffn.experts.mlp"), &config.mixture)?;
    Ok(Block {
        attention_norm: LayerNorm::load_without_bias(&around.at("norm_1"), width, config.epsilon)?,
        attention: Attention::load_fused(&around.at("attn"), layer, &config.attention, rotary)?,
        feed_forward_norm: LayerNorm::load_without_bias(&around.at("norm_2"), width, config.epsilon)?,
        feed_forward: MixtureOfExperts::load(&source.at("ffn.router.layer"), experts, &config.mixture)?,
    })
}

fn load(checkpoint: &Checkpoint, backend: &Backend) -> Result<Dbrx, Error> {
    let config = DbrxConfig::read(checkpoint)?;
    let (root, width) = (LayerSource::new(&checkpoint.weights, backend), config.attention.width);
    let model = root.at("transformer");
    let frequencies = config.rope.inverse_frequencies(config.attention.head_dim);
    let rotary = RotaryTable::new(&frequencies, config.context_length, checkpoint.rotary)?;
    let blocks = (0..config.layers)
        .map(|layer| load_block(&model.at("blocks").at(layer), layer, &config, rotary.clone()))
        .collect::<Result<_, _>>()?;
    Ok(Decoder {
        embedding: Embedding::load(&model.at("wte"), config.vocab_size, width)?,
        blocks,
        norm: LayerNorm::load_without_bias(&model.at("norm_f"), width, config.epsilon)?,
        head: Linear::load(&root.at("lm_head"), width, config.vocab_size, false)?,
        shape: config.shape(),
    })
}
