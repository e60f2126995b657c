//! What all decoders have in common: pre-normalised blocks of attention and a feed-forward part between an embedding and
//! a head. An architecture says what its norms and feed-forward parts are, and how they are loaded.

use candle_core::{DType, Device, Tensor};

use super::{DecoderModel, DecoderShape};
use crate::error::Error;
use crate::kv::KvStore;
use crate::layers::{Attention, Embedding, Linear, RowLayer};
use crate::ops::ForwardBatch;

/// `x + attention(norm(x))`, then `x + feed_forward(norm(x))`.
pub(super) struct Block<N, F> {
    pub(super) attention_norm: N,
    pub(super) attention: Attention,
    pub(super) feed_forward_norm: N,
    pub(super) feed_forward: F,
}

impl<N: RowLayer, F: RowLayer> Block<N, F> {
    fn forward(&self, x: &Tensor, batch: &ForwardBatch, kv: &mut KvStore) -> Result<Tensor, Error> {
        let x = (x + self.attention.forward(&self.attention_norm.forward(x)?, batch, kv)?)?;
        Ok((&x + self.feed_forward.forward(&self.feed_forward_norm.forward(&x)?)?)?) // [tokens, width]
    }
}

/// A whole decoder.
pub(super) struct Decoder<N, F> {
    pub(super) embedding: Embedding,
    pub(super) blocks: Vec<Block<N, F>>,
    pub(super) norm: N,
    pub(super) head: Linear,
    pub(super) shape: DecoderShape,
}

impl<N: RowLayer, F: RowLayer> DecoderModel for Decoder<N, F> {
    fn shape(&self) -> DecoderShape {
        self.shape
    }

    fn forward(&self, batch: &ForwardBatch, kv: &mut KvStore) -> Result<Tensor, Error> {
        let mut x = self.embedding.forward(&batch.tokens)?; // [tokens, width]
        for block in &self.blocks {
            x = block.forward(&x, batch, kv)?;
        }
        if batch.logit_rows.is_empty() {
            // In host memory: a device has no tensors without elements.
            return Ok(Tensor::zeros((0, self.shape.vocab_size), DType::F32, &Device::Cpu)?);
        }
        let rows = Tensor::new(&batch.logit_rows[..], x.device())?;
        let x = self.norm.forward(&x.index_select(&rows, 0)?)?; // [logit_rows, width]
        self.head.forward(&x) // [logit_rows, vocab_size]
    }
}
