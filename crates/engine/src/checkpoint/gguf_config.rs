//! A GGUF file's metadata as the `config.json` of the same model. Keys as in the GGUF specification.

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
        other => Err(Error::Architecture { name: other.to_owned(), supported: "llama and bert in GGUF".to_owned() }),
    }
}

/// How an encoder's sentence vector is made. The files do not say whether it is scaled to length 1: it is, as llama.cpp
/// does by default and as every published model of this kind wants.
///
/// # Errors
/// A pooling that is not supported.
pub(super) fn sentence(gguf: &Gguf) -> Result<SentenceConfig, Error> {
    let key = "bert.pooling_type";
    let metadata = gguf.metadata();
    if !metadata.contains(key) {
        return Ok(SentenceConfig::default());
    }
    let pooling = match metadata.u32(key)? {
        1 => Pooling::Mean,
        2 => Pooling::Cls,
        other => return Err(Error::config(key, format!("{other} is not supported; 1 (mean) and 2 (cls) are"))),
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

fn llama(gguf: &Gguf, metadata: &GgufMetadata) -> Result<Value, WeightsError> {
    let heads = metadata.u32("llama.attention.head_count")?;
    let optional = |key: &str| metadata.contains(key).then(|| metadata.u32(key)).transpose();
    let vocab_size = match optional("llama.vocab_size")? {
        Some(size) => size as usize,
        None => metadata.strings("tokenizer.ggml.tokens")?.len(),
    };
    let rope_theta = match metadata.contains("llama.rope.freq_base") {
        true => metadata.f32("llama.rope.freq_base")?,
        false => 10_000.0,
    };
    let tied = !gguf.tensors().iter().any(|tensor| tensor.name == "output.weight");
    let epsilon = metadata.f32("llama.attention.layer_norm_rms_epsilon")?;
    Ok(json!({
        "model_type": "llama",
        "hidden_size": metadata.u32("llama.embedding_length")?,
        "intermediate_size": metadata.u32("llama.feed_forward_length")?,
        "num_hidden_layers": metadata.u32("llama.block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": optional("llama.attention.head_count_kv")?.unwrap_or(heads),
        "head_dim": optional("llama.rope.dimension_count")?,
        "vocab_size": vocab_size,
        "max_position_embeddings": metadata.u32("llama.context_length")?,
        "rms_norm_eps": epsilon,
        "rope_theta": rope_theta,
        "rope_scaling": rope_scaling(metadata)?,
        "tie_word_embeddings": tied,
        "eos_token_id": end_tokens(metadata)?,
    }))
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

fn end_tokens(metadata: &GgufMetadata) -> Result<Vec<u32>, WeightsError> {
    ["eos", "eot", "eom"]
        .iter()
        .map(|name| format!("tokenizer.ggml.{name}_token_id"))
        .filter(|key| metadata.contains(key))
        .map(|key| metadata.u32(&key))
        .collect()
}
