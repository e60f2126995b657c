//! The architectures. A model is given a batch and, if it is a decoder, the cache; it knows no request, no sampler and
//! no policy. Adding an architecture is one file here and one line in [`ARCHITECTURES`].

mod bert;
mod config;
mod dbrx;
mod decoder;
mod llama;
mod mixtral;
mod reranker;
mod xlm_roberta;

use candle_core::Tensor;
use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::kv::KvStore;
use crate::ops::{Backend, ForwardBatch, PackedTexts};

/// The sizes of a decoder that the engine around it needs.
#[derive(Clone, Copy, Debug)]
pub struct DecoderShape {
    /// Layers that keep keys and values.
    pub layers: usize,
    /// Key-value heads of a layer.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Tokens of the vocabulary: the width of the logits.
    pub vocab_size: usize,
    /// Most positions of a sequence.
    pub context_length: usize,
}

/// A model that predicts the next token.
pub trait DecoderModel: Send + Sync {
    /// Its sizes.
    fn shape(&self) -> DecoderShape;

    /// Computes the batch's tokens: their keys and values go into the cache, and the logits of `batch.logit_rows` are
    /// returned as `[logit_rows, vocab_size]` in f32.
    ///
    /// A row's numbers depend on its own sequence alone, never on what else is in the batch or how it was cut: to the last bit with
    /// the CPU kernels, within the rounding of f32 on other devices.
    ///
    /// # Errors
    /// When the batch does not fit the model or the cache.
    fn forward(&self, batch: &ForwardBatch, kv: &mut KvStore) -> Result<Tensor, Error>;
}

/// The sizes of an encoder that the engine around it needs.
#[derive(Clone, Copy, Debug)]
pub struct EncoderShape {
    /// Elements of an embedding; 1 for a reranker.
    pub dimensions: usize,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Most tokens of a text.
    pub context_length: usize,
}

/// A model that turns a text into one vector, or a pair of texts into one score.
pub trait EncoderModel: Send + Sync {
    /// Its sizes.
    fn shape(&self) -> EncoderShape;

    /// The embeddings of the packed texts, or the scores of the packed pairs as logits: `[texts, dimensions]` in f32.
    ///
    /// # Errors
    /// When the texts do not fit the model.
    fn forward(&self, texts: &PackedTexts) -> Result<Tensor, Error>;
}

/// A loaded model of any kind.
pub enum Model {
    /// Predicts tokens.
    Decoder(Box<dyn DecoderModel>),
    /// Embeds texts.
    Encoder(Box<dyn EncoderModel>),
    /// Scores pairs of texts.
    Reranker(Box<dyn EncoderModel>),
}

/// One architecture: how checkpoints name it, and how it is loaded.
pub struct Architecture {
    /// `model_type` of `config.json`, and `general.architecture` of GGUF.
    pub name: &'static str,
    /// The entries of `architectures` in `config.json` that it loads.
    pub classes: &'static [&'static str],
    /// Builds the model on a backend.
    pub load: fn(&Checkpoint, &Backend) -> Result<Model, Error>,
}

/// Every architecture there is.
pub const ARCHITECTURES: &[Architecture] = &[
    llama::ARCHITECTURE,
    mixtral::ARCHITECTURE,
    dbrx::ARCHITECTURE,
    bert::ARCHITECTURE,
    xlm_roberta::ARCHITECTURE,
    reranker::BERT,
    reranker::XLM_ROBERTA,
];

impl Architecture {
    /// The architecture of a checkpoint, by the class its configuration names, or by its `model_type` where it names
    /// none.
    ///
    /// # Errors
    /// When it is not one of [`ARCHITECTURES`].
    pub fn of(checkpoint: &Checkpoint) -> Result<&'static Self, Error> {
        let class = checkpoint.config.pointer("/architectures/0").and_then(Value::as_str);
        let model_type = checkpoint.config.get("model_type").and_then(Value::as_str);
        let found = ARCHITECTURES.iter().find(|architecture| match class {
            Some(class) => architecture.classes.contains(&class),
            None => Some(architecture.name) == model_type,
        });
        found.ok_or_else(|| Error::Architecture {
            name: class.or(model_type).unwrap_or("(none given)").to_owned(),
            supported: ARCHITECTURES.iter().flat_map(|one| one.classes).copied().collect::<Vec<_>>().join(", "),
        })
    }
}
