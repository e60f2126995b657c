//! What a GGUF file says about a model besides its vocabulary. Keys: the GGUF specification, section LLM, and what llama.cpp's
//! converter adds for encoders.

use serde_json::Value;

use crate::checkpoint::{Checkpoint, Pooling};
use crate::error::Error;
use crate::layers::{RopeParameters, RopeType};
use crate::weights::GgufValue;

/// What is told of a model.
pub(super) struct Description {
    /// `general.architecture`, and what the keys begin with.
    pub(super) architecture: &'static str,
    /// Tokens of the model's table.
    pub(super) vocab_size: u32,
    /// The keys without the architecture in front.
    pub(super) keys: Vec<(&'static str, GgufValue)>,
    /// Kinds of token, for encoders.
    pub(super) token_types: Option<u32>,
    /// The heads whose rows are put into another order.
    pub(super) rotation: Option<Rotation>,
    /// What the plain rotary frequencies are divided by, `[head_dim / 2]`, where that is no single number.
    pub(super) rope_divisors: Option<Vec<f32>>,
}

/// The heads of queries and keys.
#[derive(Clone, Copy)]
pub(super) struct Rotation {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

/// A `config.json`, or an object in it.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a Value);

impl Fields<'_> {
    fn optional(self, field: &str) -> Result<Option<u32>, Error> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64().and_then(|size| u32::try_from(size).ok()).filter(|size| *size > 0) {
                Some(size) => Ok(Some(size)),
                None => Err(Error::config(field, format!("must be between 1 and {}, not {value}", u32::MAX))),
            },
        }
    }

    fn size(self, field: &str) -> Result<u32, Error> {
        self.optional(field)?.ok_or_else(|| Error::config(field, "is missing"))
    }

    /// Keys of these names with the sizes of these fields.
    fn sizes<const N: usize>(self, pairs: [(&'static str, &str); N]) -> Result<Vec<(&'static str, GgufValue)>, Error> {
        pairs.into_iter().map(|(key, field)| Ok((key, GgufValue::U32(self.size(field)?)))).collect()
    }

    fn number(self, field: &str) -> Result<f32, Error> {
        let number = self.0.get(field).and_then(Value::as_f64);
        Ok(number.ok_or_else(|| Error::config(field, "is missing, or no number"))? as f32)
    }
}

impl Description {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// When there is no such architecture in GGUF files, or a size is missing or absurd.
    pub(super) fn read(checkpoint: &Checkpoint) -> Result<Self, Error> {
        match checkpoint.config.get("model_type").and_then(Value::as_str) {
            Some("llama" | "mixtral") => llama(&checkpoint.config),
            Some("dbrx") => dbrx(&checkpoint.config),
            Some("bert") => bert(checkpoint),
            other => {
                let supported =
                    "llama, mixtral, dbrx and bert (others can be quantised when they are loaded)".to_owned();
                Err(Error::Architecture { name: other.unwrap_or("(none given)").to_owned(), supported })
            }
        }
    }
}

fn llama(config: &Value) -> Result<Description, Error> {
    let (fields, rope) = (Fields(config), RopeParameters::from_config(config)?);
    let heads = fields.size("num_attention_heads")?;
    let kv_heads = fields.optional("num_key_value_heads")?.unwrap_or(heads);
    let head_dim = fields.optional("head_dim")?.unwrap_or(fields.size("hidden_size")? / heads);
    if head_dim == 0 || head_dim % 2 != 0 {
        return Err(Error::config("head_dim", format!("must be even and positive, not {head_dim}")));
    }
    let mut keys = fields.sizes([
        ("vocab_size", "vocab_size"),
        ("context_length", "max_position_embeddings"),
        ("embedding_length", "hidden_size"),
        ("block_count", "num_hidden_layers"),
        ("feed_forward_length", "intermediate_size"),
        ("attention.head_count", "num_attention_heads"),
    ])?;
    keys.extend([
        ("attention.head_count_kv", GgufValue::U32(kv_heads)),
        ("rope.dimension_count", GgufValue::U32(head_dim)),
        ("attention.key_length", GgufValue::U32(head_dim)),
        ("attention.value_length", GgufValue::U32(head_dim)),
        ("attention.layer_norm_rms_epsilon", GgufValue::F32(fields.number("rms_norm_eps")?)),
        ("rope.freq_base", GgufValue::F32(rope.theta as f32)),
    ]);
    if config.get("model_type").is_some_and(|kind| kind == "mixtral") {
        keys.extend(
            fields.sizes([("expert_count", "num_local_experts"), ("expert_used_count", "num_experts_per_tok")])?,
        );
    }
    if let RopeType::Linear { factor } = rope.rope_type {
        keys.push(("rope.scaling.type", GgufValue::Text("linear".to_owned())));
        keys.push(("rope.scaling.factor", GgufValue::F32(factor as f32)));
    }
    let [heads, kv_heads, head_dim] = [heads, kv_heads, head_dim].map(|size| size as usize);
    Ok(Description {
        architecture: "llama",
        vocab_size: fields.size("vocab_size")?,
        keys,
        token_types: None,
        rotation: Some(Rotation { heads, kv_heads, head_dim }),
        rope_divisors: rope_divisors(rope, head_dim),
    })
}

fn rope_divisors(rope: RopeParameters, head_dim: usize) -> Option<Vec<f32>> {
    let RopeType::Llama3 { .. } = rope.rope_type else { return None };
    let plain = RopeParameters { rope_type: RopeType::Default, ..rope };
    let frequencies = |rope: RopeParameters| rope.inverse_frequencies(head_dim);
    Some(frequencies(plain).iter().zip(frequencies(rope)).map(|(plain, scaled)| plain / scaled).collect())
}

fn dbrx(config: &Value) -> Result<Description, Error> {
    let inner = |field: &str| {
        let value = config.get(field).filter(|value| value.is_object());
        value.map(Fields).ok_or_else(|| Error::config(field, "is missing, or no object"))
    };
    let (fields, attention, experts) = (Fields(config), inner("attn_config")?, inner("ffn_config")?);
    // Readers of these files take the sum of a token's weights as 1.
    if let Some(norm) = experts.0.get("moe_normalize_expert_weights").filter(|norm| norm.as_f64() != Some(1.0)) {
        let reason = format!("{norm} cannot be told by a GGUF file; 1 can");
        return Err(Error::config("moe_normalize_expert_weights", reason));
    }
    let theta = match attention.0.get("rope_theta") {
        Some(theta) => theta.as_f64().ok_or_else(|| Error::config("rope_theta", "must be a number"))?,
        None => RopeParameters::from_config(config)?.theta,
    };
    let epsilon = if config.get("layer_norm_eps").is_some() { fields.number("layer_norm_eps")? } else { 1e-5 };
    let mut keys = fields.sizes([
        ("vocab_size", "vocab_size"),
        ("context_length", "max_seq_len"),
        ("embedding_length", "d_model"),
        ("block_count", "n_layers"),
        ("attention.head_count", "n_heads"),
    ])?;
    keys.extend(attention.sizes([("attention.head_count_kv", "kv_n_heads")])?);
    keys.extend(experts.sizes([
        ("feed_forward_length", "ffn_hidden_size"),
        ("expert_count", "moe_num_experts"),
        ("expert_used_count", "moe_top_k"),
    ])?);
    keys.extend([
        ("attention.layer_norm_epsilon", GgufValue::F32(epsilon)),
        ("attention.clamp_kqv", GgufValue::F32(attention.number("clip_qkv")?)),
        ("rope.freq_base", GgufValue::F32(theta as f32)),
    ]);
    let vocab_size = fields.size("vocab_size")?;
    Ok(Description { architecture: "dbrx", vocab_size, keys, token_types: None, rotation: None, rope_divisors: None })
}

fn bert(checkpoint: &Checkpoint) -> Result<Description, Error> {
    let fields = Fields(&checkpoint.config);
    let mut keys = fields.sizes([
        ("embedding_length", "hidden_size"),
        ("block_count", "num_hidden_layers"),
        ("feed_forward_length", "intermediate_size"),
        ("attention.head_count", "num_attention_heads"),
    ])?;
    // What may be absent has the defaults of the reference implementation.
    let context_length = fields.optional("max_position_embeddings")?.unwrap_or(512);
    let pooling = match checkpoint.sentence.pooling {
        Pooling::Mean => 1,
        Pooling::Cls => 2,
    };
    let epsilon =
        if checkpoint.config.get("layer_norm_eps").is_some() { fields.number("layer_norm_eps")? } else { 1e-12 };
    keys.extend([
        ("context_length", GgufValue::U32(context_length)),
        ("attention.layer_norm_epsilon", GgufValue::F32(epsilon)),
        ("attention.causal", GgufValue::Bool(false)),
        ("pooling_type", GgufValue::U32(pooling)),
    ]);
    Ok(Description {
        architecture: "bert",
        vocab_size: fields.size("vocab_size")?,
        keys,
        token_types: Some(fields.optional("type_vocab_size")?.unwrap_or(2)),
        rotation: None,
        rope_divisors: None,
    })
}
