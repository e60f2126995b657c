//! Llama: pre-normalised blocks of grouped-query attention and a gated feed-forward network. (Touvron et al. 2023,
//! Grattafiori et al. 2024)

use super::config::{Config, divides};
use super::decoder::{Block, Decoder};
use super::{Architecture, DecoderShape, Model};
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::layers::{Attention, AttentionConfig, Embedding, GatedMlp, LayerSource, Linear, RmsNorm, RopeParameters};
use crate::ops::{Backend, RotaryTable};

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "llama",
    classes: &["LlamaForCausalLM"],
    load: |checkpoint, backend| Ok(Model::Decoder(Box::new(load(checkpoint, backend)?))),
};

/// The fields of `config.json` that a Llama reads, and the models that are a Llama in all but a part.
pub(super) struct LlamaConfig {
    pub(super) attention: AttentionConfig,
    pub(super) inner: usize,
    pub(super) layers: usize,
    pub(super) vocab_size: usize,
    pub(super) context_length: usize,
    pub(super) epsilon: f32,
    rope: RopeParameters,
    pub(super) tied: bool,
    mlp_bias: bool,
}

impl LlamaConfig {
    pub(super) fn read(checkpoint: &Checkpoint) -> Result<Self, Error> {
        let config = Config(&checkpoint.config);
        config.only("hidden_act", "silu")?;
        let (width, heads) = (config.size("hidden_size")?, config.size("num_attention_heads")?);
        let kv_heads = config.optional_size("num_key_value_heads")?.unwrap_or(heads);
        divides(("num_attention_heads", heads), ("num_key_value_heads", kv_heads))?;
        let head_dim = match config.optional_size("head_dim")? {
            Some(head_dim) => head_dim,
            None => divides(("hidden_size", width), ("num_attention_heads", heads))?,
        };
        divides(("head_dim", head_dim), ("the rotary pair,", 2))?;
        if let Some(rotary_dim) = config.optional_size("rotary_dim")?.filter(|rotary_dim| *rotary_dim != head_dim) {
            let reason = format!("{rotary_dim} of the {head_dim} elements of a head; only all of them is supported");
            return Err(Error::config("rotary_dim", reason));
        }
        Ok(Self {
            attention: AttentionConfig {
                width,
                heads,
                kv_heads,
                head_dim,
                bias: config.flag("attention_bias"),
                clip: None,
            },
            inner: config.size("intermediate_size")?,
            layers: config.size("num_hidden_layers")?,
            vocab_size: config.size("vocab_size")?,
            context_length: config.optional_size("max_position_embeddings")?.unwrap_or(2048),
            epsilon: config.epsilon("rms_norm_eps", 1e-6)?,
            rope: RopeParameters::from_config(&checkpoint.config)?,
            tied: config.flag("tie_word_embeddings"),
            mlp_bias: config.flag("mlp_bias"),
        })
    }

    /// The rotary table; GGUF files carry Llama 3's scaling as a tensor of divisors, `rope_freqs.weight`.
    pub(super) fn rotary(&self, checkpoint: &Checkpoint) -> Result<RotaryTable, Error> {
        let mut frequencies = self.rope.inverse_frequencies(self.attention.head_dim);
        if checkpoint.weights.get("rope_freqs.weight").is_some() {
            let divisors = checkpoint.weights.vector("rope_freqs.weight", frequencies.len())?;
            frequencies.iter_mut().zip(divisors).for_each(|(frequency, divisor)| *frequency /= divisor);
        }
        RotaryTable::new(&frequencies, self.context_length, checkpoint.rotary)
    }

    /// What the engine around the model needs to know.
    pub(super) fn shape(&self) -> DecoderShape {
        let AttentionConfig { kv_heads, head_dim, .. } = self.attention;
        let (layers, vocab_size, context_length) = (self.layers, self.vocab_size, self.context_length);
        DecoderShape { layers, kv_heads, head_dim, vocab_size, context_length }
    }
}

type LlamaBlock = Block<RmsNorm, GatedMlp>;
type Llama = Decoder<RmsNorm, GatedMlp>;

fn load_block(
    source: &LayerSource<'_>,
    layer: usize,
    config: &LlamaConfig,
    rotary: RotaryTable,
) -> Result<LlamaBlock, Error> {
    let width = config.attention.width;
    Ok(Block {
        attention_norm: RmsNorm::load(&source.at("input_layernorm"), width, config.epsilon)?,
        attention: Attention::load(&source.at("self_attn"), layer, &config.attention, rotary)?,
        feed_forward_norm: RmsNorm::load(&source.at("post_attention_layernorm"), width, config.epsilon)?,
        feed_forward: GatedMlp::load(&source.at("mlp"), width, config.inner, config.mlp_bias)?,
    })
}

fn load(checkpoint: &Checkpoint, backend: &Backend) -> Result<Llama, Error> {
    let config = LlamaConfig::read(checkpoint)?;
    let (root, width) = (LayerSource::new(&checkpoint.weights, backend), config.attention.width);
    let model = root.at("model");
    let rotary = config.rotary(checkpoint)?;
    let embedding = Embedding::load(&model.at("embed_tokens"), config.vocab_size, width)?;
    let blocks = (0..config.layers)
        .map(|layer| load_block(&model.at("layers").at(layer), layer, &config, rotary.clone()))
        .collect::<Result<_, _>>()?;
    let head = match config.tied {
        true => Linear::from_matrix(embedding.matrix()?),
        false => Linear::load(&root.at("lm_head"), width, config.vocab_size, false)?,
    };
    Ok(Decoder {
        embedding,
        blocks,
        norm: RmsNorm::load(&model.at("norm"), width, config.epsilon)?,
        head,
        shape: config.shape(),
    })
}
