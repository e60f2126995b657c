//! Attention: causal over the paged cache for decoders, both ways over packed texts for encoders.

use candle_core::{CpuStorage, InplaceOp2, Layout, Tensor};
use hearth_kernels::{
    AttentionShape, AttentionSpan, KvView, PackedSequences, PagedContext, packed_attention, paged_attention, write_kv,
};

use super::host::{contiguous, host};
use super::{Backend, ForwardBatch, PackedTexts};
use crate::error::Error;
use crate::kv::store::LayerCache;

/// Writes rows of keys or values into their slots, in place.
struct WriteSlots<'a> {
    slots: &'a [u32],
}

impl InplaceOp2 for WriteSlots<'_> {
    fn name(&self) -> &'static str {
        "write-slots"
    }

    fn cpu_fwd(
        &self,
        cache: &mut CpuStorage,
        _: &Layout,
        rows: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<()> {
        let rows = contiguous(rows, layout)?;
        let CpuStorage::F32(cache) = cache else {
            return Err(candle_core::Error::Msg("the cache is kept in f32".to_owned()));
        };
        let width = rows.len() / self.slots.len().max(1);
        write_kv(cache, rows, self.slots, width).map_err(candle_core::Error::wrap)
    }
}

impl Backend {
    /// Puts the keys and values of the batch's tokens, each `[tokens, kv_heads * head_dim]`, into their slots.
    ///
    /// # Errors
    /// When a slot lies outside the cache.
    pub fn write_cache(
        &self,
        cache: &LayerCache,
        keys: &Tensor,
        values: &Tensor,
        batch: &ForwardBatch,
    ) -> Result<(), Error> {
        let write = WriteSlots { slots: &batch.slots };
        cache.keys.inplace_op2(keys, &write)?;
        cache.values.inplace_op2(values, &write)?;
        Ok(())
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
        let (_, block_size, kv_heads, head_dim) = cache.keys.dims4()?;
        let (keys, values) = (host(&cache.keys)?, host(&cache.values)?);
        let kv = KvView { keys: keys.elements()?, values: values.elements()?, block_size, kv_heads, head_dim };
        let spans: Vec<AttentionSpan<'_>> = batch
            .spans
            .iter()
            .map(|span| AttentionSpan {
                rows: span.rows.clone(),
                first_position: span.first_position,
                blocks: &span.blocks,
            })
            .collect();
        let mut out = vec![0.0; queries.elem_count()]; // [tokens, heads * head_dim]
        let context = PagedContext { kv, spans: &spans };
        paged_attention(self.threads(), host(queries)?.elements()?, &context, shape, &mut out)?;
        Ok(Tensor::from_vec(out, queries.shape(), queries.device())?)
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
        let [q, k, v] = qkv;
        let (q_host, k_host, v_host) = (host(q)?, host(k)?, host(v)?);
        let mut out = vec![0.0; q.elem_count()]; // [tokens, heads * head_dim]
        let sequences = PackedSequences {
            q: q_host.elements()?,
            k: k_host.elements()?,
            v: v_host.elements()?,
            lengths: &texts.lengths,
        };
        packed_attention(self.threads(), &sequences, shape, &mut out)?;
        Ok(Tensor::from_vec(out, q.shape(), q.device())?)
    }
}
