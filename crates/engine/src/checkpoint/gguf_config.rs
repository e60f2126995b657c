//! A GGUF file's metadata as the `config.json` of the same model. Keys as in the GGUF specification.

use hearth_kernels::RotaryStyle;
use serde_json::{Map, Value, json};

use super::{Pooling, SentenceConfig};
use crate::error::Error;
use crate::weights::{Gguf, GgufMetadata, WeightsError};

/// The `config.json` that the file's metadata describes.
///
/// # Errors
/// An architecture without a translation, or a key that is missing or of another type.
pub(super) fn config(gguf: &Gguf) -> Result<Value, Error> {
    let metadata = gguf.metadata();
    match metadata.string("general.architecture")? {
        "llama" => Ok(llama(gguf, metadata)?),
        "bert" => Ok(bert(metadata)?),
        "dbrx" => Ok(dbrx(metadata)?),
        other => {
            Err(Error::Architecture { name: other.to_owned(), supported: "llama, dbrx and bert in GGUF".to_owned() })
        }
    }
}

/// How an encoder's sentence vector is made: without a word on it from the mean, as without `modules.json`. The files do
/// not say whether it is scaled to length 1: it is, as llama.cpp does by default and as every published model of this
/// kind wants.
///
/// # Errors
/// A pooling that is not supported.
pub(super) fn sentence(gguf: &Gguf) -> Result<SentenceConfig, Error> {
    let key = "bert.pooling_type";
    let pooling = match gguf.metadata().optional(key, GgufMetadata::u32)? {
        None | Some(1) => Pooling::Mean,
        Some(2) => Pooling::Cls,
        Some(other) => return Err(Error::config(key, format!("{other} is not supported; 1 (mean) and 2 (cls) are"))),
    };
    Ok(SentenceConfig { pooling, normalize: true, max_length: None })
}

fn bert(metadata: &GgufMetadata) -> Result<Value, WeightsError> {
    let token_types = metadata.optional("tokenizer.ggml.token_type_count", GgufMetadata::u32)?;
    Ok(json!({
        "model_type": "bert",
        "hidden_size": metadata.u32("bert.embedding_length")?,
        "intermediate_size": metadata.u32("bert.feed_forward_length")?,
        "num_hidden_layers": metadata.u32("bert.block_count")?,
        "num_attention_heads": metadata.u32("bert.attention.head_count")?,
        "vocab_size": metadata.strings("tokenizer.ggml.tokens")?.len(),
        "max_position_embeddings": metadata.u32("bert.context_length")?,
        "type_vocab_size": token_types,
        "layer_norm_eps": metadata.f32("bert.attention.layer_norm_epsilon")?,
    }))
}

/// How the file pairs the rows of queries and keys for rotation: llama.cpp turns those of Llamas so that neighbours rotate
/// together, and leaves those of other architectures as they are.
///
/// # Errors
/// The architecture is not named.
pub(super) fn rotary_style(gguf: &Gguf) -> Result<RotaryStyle, Error> {
    Ok(match gguf.metadata().string("general.architecture")? {
        "llama" => RotaryStyle::Interleaved,
        _ => RotaryStyle::Halves,
    })
}

fn llama(gguf: &Gguf, metadata: &GgufMetadata) -> Result<Value, WeightsError> {
    let heads = metadata.u32("llama.attention.head_count")?;
    let optional = |key: &str| metadata.optional(key, GgufMetadata::u32);
    // Mixtral has the same name in GGUF files as the Llama it is made of.
    let experts = optional("llama.expert_count")?.filter(|count| *count > 0);
    let has = |name: &str| gguf.tensors().iter().any(|tensor| tensor.name == name);
    let width = metadata.u32("llama.embedding_length")?;
    let epsilon = metadata.f32("llama.attention.layer_norm_rms_epsilon")?;
    let head_dim = optional("llama.attention.key_length")?.or(width.checked_div(heads));
    Ok(json!({
        "model_type": if experts.is_some() { "mixtral" } else { "llama" },
        "hidden_size": width,
        "intermediate_size": metadata.u32("llama.feed_forward_length")?,
        "num_hidden_layers": metadata.u32("llama.block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": optional("llama.attention.head_count_kv")?.unwrap_or(heads),
        "head_dim": head_dim,
        "rotary_dim": optional("llama.rope.dimension_count")?,
        "attention_bias": has("blk.0.attn_q.bias") || has("blk.0.attn_output.bias"),
        "mlp_bias": has("blk.0.ffn_up.bias") || has("blk.0.ffn_down.bias"),
        "num_local_experts": experts,
        "num_experts_per_tok": optional("llama.expert_used_count")?,
        "vocab_size": vocab_size(metadata, "llama.vocab_size")?,
        "max_position_embeddings": metadata.u32("llama.context_length")?,
        "rms_norm_eps": epsilon,
        "rope_theta": rope_theta(metadata, "llama.rope.freq_base")?,
        "rope_scaling": rope_scaling(metadata)?,
        "tie_word_embeddings": !has("output.weight"),
        "eos_token_id": end_tokens(metadata)?,
    }))
}

fn dbrx(metadata: &GgufMetadata) -> Result<Value, WeightsError> {
    let heads = metadata.u32("dbrx.attention.head_count")?;
    let optional = |key: &str| metadata.optional(key, GgufMetadata::u32);
    Ok(json!({
        "model_type": "dbrx",
        "d_model": metadata.u32("dbrx.embedding_length")?,
        "n_layers": metadata.u32("dbrx.block_count")?,
        "n_heads": heads,
        "max_seq_len": metadata.u32("dbrx.context_length")?,
        "vocab_size": vocab_size(metadata, "dbrx.vocab_size")?,
        "layer_norm_eps": metadata.f32("dbrx.attention.layer_norm_epsilon")?,
        "attn_config": {
            "kv_n_heads": optional("dbrx.attention.head_count_kv")?.unwrap_or(heads),
            "clip_qkv": metadata.optional("dbrx.attention.clamp_kqv", GgufMetadata::f32)?,
            "rope_theta": rope_theta(metadata, "dbrx.rope.freq_base")?,
        },
        "ffn_config": {
            "ffn_hidden_size": metadata.u32("dbrx.feed_forward_length")?,
            "moe_num_experts": metadata.u32("dbrx.expert_count")?,
            "moe_top_k": metadata.u32("dbrx.expert_used_count")?,
        },
        "eos_token_id": end_tokens(metadata)?,
    }))
}

fn vocab_size(metadata: &GgufMetadata, key: &str) -> Result<usize, WeightsError> {
    match metadata.optional(key, GgufMetadata::u32)? {
        Some(size) => Ok(size as usize),
        None => Ok(metadata.strings("tokenizer.ggml.tokens")?.len()),
    }
}

fn rope_theta(metadata: &GgufMetadata, key: &str) -> Result<f32, WeightsError> {
    Ok(metadata.optional(key, GgufMetadata::f32)?.unwrap_or(10_000.0))
}

/// Linear scaling, in its present and its older key. Llama 3's comes as a tensor and needs no key.
fn rope_scaling(metadata: &GgufMetadata) -> Result<Value, WeightsError> {
    let mut scaling = Map::new();
    if metadata.contains("llama.rope.scale_linear") {
        scaling.insert("rope_type".to_owned(), json!("linear"));
        scaling.insert("factor".to_owned(), json!(metadata.f32("llama.rope.scale_linear")?));
    }
    if metadata.contains("llama.rope.scaling.type") {
        let kind = metadata.string("llama.rope.scaling.type")?;
        if kind == "none" {
            return Ok(Value::Null);
        }
        scaling.insert("rope_type".to_owned(), json!(kind));
        if metadata.contains("llama.rope.scaling.factor") {
            scaling.insert("factor".to_owned(), json!(metadata.f32("llama.rope.scaling.factor")?));
        }
    }
    Ok(if scaling.is_empty() { Value::Null } else { Value::Object(scaling) })
}

/// The texts of control tokens that end an answer even where no key says so: older files of chat models name only the
/// end of a document.
const END_TEXTS: [&str; 7] =
    ["<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<|end_of_text|>", "<|endoftext|>", "<end_of_turn>"];

/// `tokenizer.ggml.token_type` of control tokens.
const CONTROL: i32 = 3;

fn end_tokens(metadata: &GgufMetadata) -> Result<Vec<u32>, WeightsError> {
    let keys = ["eos", "eot", "eom"].map(|name| format!("tokenizer.ggml.{name}_token_id"));
    let named = keys.iter().filter(|key| metadata.contains(key)).map(|key| metadata.u32(key));
    let mut tokens = named.collect::<Result<Vec<u32>, _>>()?;
    let texts = metadata.optional("tokenizer.ggml.tokens", GgufMetadata::strings)?.unwrap_or_default();
    let types = metadata.optional("tokenizer.ggml.token_type", GgufMetadata::i32s)?.unwrap_or_default();
    for (id, (text, token_type)) in texts.iter().zip(types).enumerate() {
        if token_type == CONTROL && END_TEXTS.contains(&text.as_str()) {
            tokens.push(id as u32);
        }
    }
    Ok(tokens)
}
