//! Attention: causal over the paged cache for decoders, both ways over packed texts for encoders.

use candle_core::Tensor;
use hearth_kernels::AttentionShape;

use super::backend::Arithmetic;
use super::{Backend, ForwardBatch, PackedTexts, host, tensors};
use crate::error::Error;
use crate::kv::KvType;
use crate::kv::store::LayerCache;

impl Backend {
    /// Checks that the cache can be kept in that type here.
    ///
    /// # Errors
    /// When it cannot, with the types that there are.
    pub fn check_kv_type(&self, kv_type: KvType) -> Result<(), Error> {
        if self.arithmetic() == Arithmetic::Kernels || kv_type != KvType::Q8_0 {
            return Ok(());
        }
        let place = match self.device().is_cpu() {
            true => "the CPU with tensor operations".to_owned(),
            false => format!("the device {:?}", self.device().location()),
        };
        Err(Error::Cache(format!("{kv_type} is not there on {place}, which has f32, f16 and bf16")))
    }

    /// Puts the keys and values of the batch's tokens, each `[tokens, kv_heads * head_dim]`, into their slots, in place.
    ///
    /// # Errors
    /// When a slot lies outside the cache.
    pub fn write_cache(
        &self,
        cache: &LayerCache,
        keys_and_values: [&Tensor; 2],
        batch: &ForwardBatch,
        shape: &AttentionShape,
    ) -> Result<(), Error> {
        match self.arithmetic() {
            Arithmetic::Kernels => host::attention::write_cache(cache, keys_and_values, &batch.slots),
            Arithmetic::Tensors => tensors::attention::write_cache(cache, keys_and_values, batch, shape),
        }
    }

    /// Causal attention of `queries [tokens, heads * head_dim]` over each sequence's own part of the cache.
    ///
    /// # Errors
    /// When shapes or blocks do not fit.
    pub fn paged_attention(
        &self,
        queries: &Tensor,
        cache: &LayerCache,
        batch: &ForwardBatch,
        shape: &AttentionShape,
    ) -> Result<Tensor, Error> {
        match self.arithmetic() {
            Arithmetic::Kernels => host::attention::paged(self.threads(), queries, cache, batch, shape),
            Arithmetic::Tensors => tensors::attention::paged(queries, cache, batch, shape),
        }
    }

    /// Attention of every token to every token of its own text; `qkv` are each `[tokens, heads * head_dim]`.
    ///
    /// # Errors
    /// When shapes or lengths do not fit.
    pub fn packed_attention(
        &self,
        qkv: [&Tensor; 3],
        texts: &PackedTexts,
        shape: &AttentionShape,
    ) -> Result<Tensor, Error> {
        match self.arithmetic() {
            Arithmetic::Kernels => host::attention::packed(self.threads(), qkv, &texts.lengths, shape),
            Arithmetic::Tensors => tensors::attention::packed(qkv, texts, shape),
        }
    }
}
