//! A GGUF file's metadata as the `config.json` of the same model. Keys as in the GGUF specification (`llama.*`).

use serde_json::{Map, Value, json};

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
        other => Err(Error::Architecture { name: other.to_owned(), supported: "llama in GGUF".to_owned() }),
    }
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
    let has = |name: &str| gguf.tensors().iter().any(|tensor| tensor.name == name);
    let width = metadata.u32("llama.embedding_length")?;
    let epsilon = metadata.f32("llama.attention.layer_norm_rms_epsilon")?;
    let head_dim = optional("llama.attention.key_length")?.or(width.checked_div(heads));
    Ok(json!({
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": metadata.u32("llama.feed_forward_length")?,
        "num_hidden_layers": metadata.u32("llama.block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": optional("llama.attention.head_count_kv")?.unwrap_or(heads),
        "head_dim": head_dim,
        "rotary_dim": optional("llama.rope.dimension_count")?,
        "attention_bias": has("blk.0.attn_q.bias") || has("blk.0.attn_output.bias"),
        "mlp_bias": has("blk.0.ffn_up.bias") || has("blk.0.ffn_down.bias"),
        "vocab_size": vocab_size,
        "max_position_embeddings": metadata.u32("llama.context_length")?,
        "rms_norm_eps": epsilon,
        "rope_theta": rope_theta,
        "rope_scaling": rope_scaling(metadata)?,
        "tie_word_embeddings": !has("output.weight"),
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
