//! What a GGUF file says about a Llama besides its vocabulary. Keys: the GGUF specification, section LLM.

use std::path::Path;

use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::layers::{RopeParameters, RopeType};
use crate::weights::{GgufValue, GgufWriter, QuantScheme};

/// The present layouts of the blocks.
const QUANTIZATION_VERSION: u32 = 2;

/// The sizes of a Llama that its file tells.
pub(super) struct LlamaOutline {
    pub vocab_size: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    width: u32,
    inner: u32,
    layers: u32,
    context_length: u32,
    epsilon: f32,
    rope: RopeParameters,
}

impl LlamaOutline {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// When the model is no Llama, or a size is missing or absurd.
    pub(super) fn read(checkpoint: &Checkpoint) -> Result<Self, Error> {
        let config = &checkpoint.config;
        let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or("(none given)");
        if model_type != "llama" {
            let supported = "llama (others can be quantised when they are loaded)".to_owned();
            return Err(Error::Architecture { name: model_type.to_owned(), supported });
        }
        let size = |field: &str| match config.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64().and_then(|size| u32::try_from(size).ok()).filter(|size| *size > 0) {
                Some(size) => Ok(Some(size)),
                None => Err(Error::config(field, format!("must be between 1 and {}, not {value}", u32::MAX))),
            },
        };
        let required = |field: &str| size(field)?.ok_or_else(|| Error::config(field, "is missing"));
        let (width, heads) = (required("hidden_size")?, required("num_attention_heads")?);
        let epsilon = config.get("rms_norm_eps").and_then(Value::as_f64);
        let head_dim = size("head_dim")?.unwrap_or(width / heads);
        if head_dim == 0 || head_dim % 2 != 0 {
            return Err(Error::config("head_dim", format!("must be even and positive, not {head_dim}")));
        }
        Ok(Self {
            vocab_size: required("vocab_size")?,
            heads,
            kv_heads: size("num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            width,
            inner: required("intermediate_size")?,
            layers: required("num_hidden_layers")?,
            context_length: required("max_position_embeddings")?,
            epsilon: epsilon.ok_or_else(|| Error::config("rms_norm_eps", "is missing"))? as f32,
            rope: RopeParameters::from_config(config)?,
        })
    }

    /// What the plain rotary frequencies are divided by, `[head_dim / 2]`, where that is no single number.
    pub(super) fn rope_divisors(&self) -> Option<Vec<f32>> {
        let RopeType::Llama3 { .. } = self.rope.rope_type else { return None };
        let plain = RopeParameters { rope_type: RopeType::Default, ..self.rope };
        let frequencies = |rope: RopeParameters| rope.inverse_frequencies(self.head_dim as usize);
        Some(frequencies(plain).iter().zip(frequencies(self.rope)).map(|(plain, scaled)| plain / scaled).collect())
    }
}

/// Adds the keys of the model.
pub(super) fn describe(writer: &mut GgufWriter, checkpoint: &Checkpoint, llama: &LlamaOutline, scheme: QuantScheme) {
    let path: &Path = checkpoint.weights.path();
    let name = path.file_name().map_or_else(|| "llama".into(), |name| name.to_string_lossy());
    writer.key("general.architecture", GgufValue::Text("llama".to_owned()));
    writer.key("general.name", GgufValue::Text(name.into_owned()));
    writer.key("general.type", GgufValue::Text("model".to_owned()));
    for (key, value) in [
        ("general.file_type", scheme.file_type()),
        ("general.quantization_version", QUANTIZATION_VERSION),
        ("llama.vocab_size", llama.vocab_size),
        ("llama.context_length", llama.context_length),
        ("llama.embedding_length", llama.width),
        ("llama.block_count", llama.layers),
        ("llama.feed_forward_length", llama.inner),
        ("llama.rope.dimension_count", llama.head_dim),
        ("llama.attention.head_count", llama.heads),
        ("llama.attention.head_count_kv", llama.kv_heads),
        ("llama.attention.key_length", llama.head_dim),
        ("llama.attention.value_length", llama.head_dim),
    ] {
        writer.key(key, GgufValue::U32(value));
    }
    writer.key("llama.attention.layer_norm_rms_epsilon", GgufValue::F32(llama.epsilon));
    writer.key("llama.rope.freq_base", GgufValue::F32(llama.rope.theta as f32));
    if let RopeType::Linear { factor } = llama.rope.rope_type {
        writer.key("llama.rope.scaling.type", GgufValue::Text("linear".to_owned()));
        writer.key("llama.rope.scaling.factor", GgufValue::F32(factor as f32));
    }
}
