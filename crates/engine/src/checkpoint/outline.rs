//! What the rules of quantisation need to know of a model, from its configuration.

use hearth_kernels::Threads;
use serde_json::Value;

use super::Checkpoint;
use crate::error::Error;
use crate::weights::{ModelOutline, QuantScheme};

/// `model_type` of `config.json`, and the name of the same architecture in GGUF files.
const ARCHITECTURES: [(&str, &str); 5] =
    [("llama", "llama"), ("mixtral", "llama"), ("dbrx", "dbrx"), ("bert", "bert"), ("xlm-roberta", "bert")];

/// Layers, experts and the like of a `config.json`.
///
/// # Errors
/// When the architecture has no name in GGUF files, or the configuration has no number of layers.
pub fn outline(config: &Value) -> Result<ModelOutline, Error> {
    let size = |pointers: &[&str]| {
        let found = pointers.iter().find_map(|pointer| config.pointer(pointer)?.as_u64());
        found.and_then(|size| usize::try_from(size).ok())
    };
    let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or("(none given)");
    let architecture = ARCHITECTURES.iter().find(|(name, _)| *name == model_type);
    let &(_, architecture) = architecture.ok_or_else(|| Error::Architecture {
        name: model_type.to_owned(),
        supported: ARCHITECTURES.map(|(name, _)| name).join(", "),
    })?;
    Ok(ModelOutline {
        architecture,
        layers: size(&["/num_hidden_layers", "/n_layers"])
            .ok_or_else(|| Error::config("num_hidden_layers", "is missing"))?,
        experts: size(&["/num_local_experts", "/ffn_config/moe_num_experts"]).unwrap_or(0),
        tied: config.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false),
    })
}

impl Checkpoint {
    /// Layers, experts and the like.
    ///
    /// # Errors
    /// As [`outline`].
    pub fn outline(&self) -> Result<ModelOutline, Error> {
        outline(&self.config)
    }

    /// The same model with its weights in memory as `scheme` stores them. What is kept of the files is no more than their
    /// names.
    ///
    /// # Errors
    /// As [`Checkpoint::outline`]; when a tensor is quantised already, or a number in it cannot be.
    pub fn quantized(self, scheme: QuantScheme, threads: &Threads) -> Result<Self, Error> {
        let weights = self.weights.quantized(scheme, self.outline()?, threads)?;
        Ok(Self { weights, ..self })
    }
}
