//! BERT: post-normalised blocks of two-way attention, and as a sentence encoder a pooling and a unit length. (Devlin et
//! al. 2019, Reimers and Gurevych 2019)

use candle_core::{D, Tensor};

use super::config::{Config, divides};
use super::{Architecture, EncoderModel, EncoderShape, Model};
use crate::checkpoint::{Checkpoint, Pooling, SentenceConfig};
use crate::error::Error;
use crate::layers::{Embedding, LayerNorm, LayerSource, Linear, RowLayer};
use crate::ops::{AttentionShape, Backend, PackedTexts};

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "bert",
    classes: &["BertModel", "BertForMaskedLM"],
    load: |checkpoint, backend| {
        let config = BertConfig::read(checkpoint, Positions::FromZero)?;
        Ok(Model::Encoder(Box::new(SentenceEncoder::load(checkpoint, backend, &config, "bert")?)))
    },
};

/// How the positions of a text's tokens are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Positions {
    /// 0, 1, 2, ...
    FromZero,
    /// From one past the padding token's id, which is the position of padding.
    AfterPadding(u32),
}

impl Positions {
    /// How many rows of the table no text uses.
    fn unused(self) -> usize {
        match self {
            Self::FromZero => 0,
            Self::AfterPadding(padding) => padding as usize + 1,
        }
    }

    /// The position of each token. `[tokens]`
    fn of(self, texts: &PackedTexts) -> Vec<u32> {
        let Self::AfterPadding(padding) = self else { return texts.positions() };
        let mut positions = Vec::with_capacity(texts.tokens.len());
        let mut start = 0;
        for length in &texts.lengths {
            let mut last = padding;
            for token in &texts.tokens[start..start + length] {
                let counts = *token != padding;
                last += u32::from(counts);
                positions.push(if counts { last } else { padding });
            }
            start += length;
        }
        positions
    }
}

/// The fields of `config.json` that a BERT reads. What may be absent has the defaults of the reference implementation.
pub(super) struct BertConfig {
    width: usize,
    heads: usize,
    inner: usize,
    layers: usize,
    vocab_size: usize,
    positions: usize,
    numbering: Positions,
    token_types: usize,
    epsilon: f32,
}

impl BertConfig {
    /// A BERT's.
    ///
    /// # Errors
    /// The field that is missing or not supported.
    pub(super) fn read(checkpoint: &Checkpoint, numbering: Positions) -> Result<Self, Error> {
        let config = Config(&checkpoint.config);
        config.only("hidden_act", "gelu")?;
        config.only("position_embedding_type", "absolute")?;
        Ok(Self {
            width: config.size("hidden_size")?,
            heads: config.size("num_attention_heads")?,
            inner: config.size("intermediate_size")?,
            layers: config.size("num_hidden_layers")?,
            vocab_size: config.size("vocab_size")?,
            positions: config.optional_size("max_position_embeddings")?.unwrap_or(512),
            numbering,
            token_types: config.optional_size("type_vocab_size")?.unwrap_or(2),
            epsilon: config.epsilon("layer_norm_eps", 1e-12)?,
        })
    }

    /// Elements of a token's vector.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    fn attention_shape(&self) -> Result<AttentionShape, Error> {
        let head_dim = divides(("hidden_size", self.width), ("num_attention_heads", self.heads))?;
        let scale = 1.0 / (head_dim as f32).sqrt();
        Ok(AttentionShape { heads: self.heads, kv_heads: self.heads, head_dim, scale })
    }
}

/// Word, position and type embeddings, summed and normalised.
struct Embeddings {
    words: Embedding,
    positions: Embedding,
    numbering: Positions,
    types: Embedding,
    /// There is one type, which every token has: XLM-RoBERTa's tokenizers number the texts of a pair all the same.
    one_type: bool,
    norm: LayerNorm,
}

impl Embeddings {
    fn load(source: &LayerSource<'_>, config: &BertConfig) -> Result<Self, Error> {
        let width = config.width;
        Ok(Self {
            words: Embedding::load(&source.at("word_embeddings"), config.vocab_size, width)?,
            positions: Embedding::load(&source.at("position_embeddings"), config.positions, width)?,
            numbering: config.numbering,
            types: Embedding::load(&source.at("token_type_embeddings"), config.token_types, width)?,
            one_type: config.token_types == 1,
            norm: LayerNorm::load(&source.at("LayerNorm"), width, config.epsilon)?,
        })
    }

    fn forward(&self, texts: &PackedTexts) -> Result<Tensor, Error> {
        let types = match self.one_type {
            true => self.types.forward(&[0])?,          // [1, width]
            false => self.types.forward(&texts.types)?, // [tokens, width]
        };
        let words = self.words.forward(&texts.tokens)?.broadcast_add(&types)?;
        self.norm.forward(&(words + self.positions.forward(&self.numbering.of(texts))?)?) // [tokens, width]
    }
}

struct Block {
    backend: Backend,
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
    shape: AttentionShape,
}

impl Block {
    fn load(source: &LayerSource<'_>, config: &BertConfig) -> Result<Self, Error> {
        let (width, inner, epsilon) = (config.width, config.inner, config.epsilon);
        let (attention, output) = (source.at("attention.self"), source.at("attention.output"));
        Ok(Self {
            backend: source.backend.clone(),
            query: Linear::load(&attention.at("query"), width, width, true)?,
            key: Linear::load(&attention.at("key"), width, width, true)?,
            value: Linear::load(&attention.at("value"), width, width, true)?,
            attention_output: Linear::load(&output.at("dense"), width, width, true)?,
            attention_norm: LayerNorm::load(&output.at("LayerNorm"), width, epsilon)?,
            intermediate: Linear::load(&source.at("intermediate.dense"), width, inner, true)?,
            output: Linear::load(&source.at("output.dense"), inner, width, true)?,
            output_norm: LayerNorm::load(&source.at("output.LayerNorm"), width, epsilon)?,
            shape: config.attention_shape()?,
        })
    }

    fn forward(&self, x: &Tensor, texts: &PackedTexts) -> Result<Tensor, Error> {
        let (query, key, value) = (self.query.forward(x)?, self.key.forward(x)?, self.value.forward(x)?);
        let mixed = self.backend.packed_attention([&query, &key, &value], texts, &self.shape)?;
        let x = self.attention_norm.forward(&(self.attention_output.forward(&mixed)? + x)?)?;
        let inner = self.backend.gelu(&self.intermediate.forward(&x)?)?; // [tokens, inner]
        self.output_norm.forward(&(self.output.forward(&inner)? + x)?) // [tokens, width]
    }
}

/// Embeddings and blocks: everything below the heads.
pub(super) struct Bert {
    embeddings: Embeddings,
    blocks: Vec<Block>,
    shape: EncoderShape,
}

impl Bert {
    /// Loads the blocks. Checkpoints saved from a task model keep them below `inner`.
    ///
    /// # Errors
    /// When a tensor is missing or misshapen, or there is no position for a text.
    pub(super) fn load(
        checkpoint: &Checkpoint,
        backend: &Backend,
        config: &BertConfig,
        inner: &str,
    ) -> Result<Self, Error> {
        let weights = checkpoint.weights.strip_prefix(&format!("{inner}."));
        let root = LayerSource::new(&weights, backend);
        let usable = config.positions.saturating_sub(config.numbering.unused());
        if usable == 0 {
            return Err(Error::config("max_position_embeddings", format!("{} leaves no position", config.positions)));
        }
        let blocks = (0..config.layers)
            .map(|layer| Block::load(&root.at("encoder.layer").at(layer), config))
            .collect::<Result<_, _>>()?;
        let context_length = checkpoint.sentence.max_length.map_or(usable, |length| length.min(usable));
        Ok(Self {
            embeddings: Embeddings::load(&root.at("embeddings"), config)?,
            blocks,
            shape: EncoderShape { dimensions: config.width, vocab_size: config.vocab_size, context_length },
        })
    }

    /// Its sizes, with a token's vector as the embedding.
    pub(super) fn shape(&self) -> EncoderShape {
        self.shape
    }

    /// The vector of each token. `[tokens, width]`
    ///
    /// # Errors
    /// When the texts do not fit the model.
    pub(super) fn forward(&self, texts: &PackedTexts) -> Result<Tensor, Error> {
        let mut x = self.embeddings.forward(texts)?;
        for block in &self.blocks {
            x = block.forward(&x, texts)?;
        }
        Ok(x)
    }
}

/// The vectors of each text's first token: `[tokens, width]` to `[texts, width]`.
///
/// # Errors
/// The tensor library's.
pub(super) fn first_tokens(x: &Tensor, texts: &PackedTexts) -> Result<Tensor, Error> {
    let starts = texts.lengths.iter().scan(0, |start, length| Some(std::mem::replace(start, *start + length)));
    let rows = starts.map(|start| x.narrow(0, start, 1)).collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::cat(&rows, 0)?)
}

/// A BERT whose answer is a sentence vector.
pub(super) struct SentenceEncoder {
    bert: Bert,
    sentence: SentenceConfig,
}

impl SentenceEncoder {
    /// Loads an encoder, as [`Bert::load`].
    ///
    /// # Errors
    /// As [`Bert::load`].
    pub(super) fn load(
        checkpoint: &Checkpoint,
        backend: &Backend,
        config: &BertConfig,
        inner: &str,
    ) -> Result<Self, Error> {
        let bert = Bert::load(checkpoint, backend, config, inner)?;
        Ok(Self { bert, sentence: checkpoint.sentence.clone() })
    }

    /// One row a text: `[tokens, width]` to `[texts, width]`.
    fn pool(&self, x: &Tensor, texts: &PackedTexts) -> Result<Tensor, Error> {
        if self.sentence.pooling == Pooling::Cls {
            return first_tokens(x, texts);
        }
        let mut start = 0;
        let mut rows = Vec::with_capacity(texts.lengths.len());
        for length in &texts.lengths {
            rows.push(x.narrow(0, start, *length)?.mean_keepdim(0)?);
            start += length;
        }
        Ok(Tensor::cat(&rows, 0)?)
    }
}

impl EncoderModel for SentenceEncoder {
    fn shape(&self) -> EncoderShape {
        self.bert.shape()
    }

    fn forward(&self, texts: &PackedTexts) -> Result<Tensor, Error> {
        let x = self.bert.forward(texts)?; // [tokens, width]
        let pooled = self.pool(&x, texts)?; // [texts, width]
        if !self.sentence.normalize {
            return Ok(pooled);
        }
        let length = pooled.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(1e-12)?; // [texts, 1]
        Ok(pooled.broadcast_div(&length)?)
    }
}
