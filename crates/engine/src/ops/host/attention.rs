//! Attention where the cache and the texts lie, without a copy of either.

use candle_core::{CpuStorage, InplaceOp2, Layout, Tensor};
use hearth_kernels::{
    AttentionShape, AttentionSpan, KvView, PackedSequences, PagedContext, Threads, packed_attention, paged_attention,
    write_kv,
};

use super::slice::{bytes_mut, contiguous, host};
use crate::error::Error;
use crate::kv::KvType;
use crate::kv::store::LayerCache;
use crate::ops::ForwardBatch;

/// Writes rows of keys or values into their slots, in place.
struct WriteSlots<'a> {
    slots: &'a [u32],
    kv_type: KvType,
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
        let width = rows.len() / self.slots.len().max(1);
        write_kv(bytes_mut(cache)?, self.kv_type.format(), rows, self.slots, width).map_err(candle_core::Error::wrap)
    }
}

pub(in crate::ops) fn write_cache(
    cache: &LayerCache,
    [keys, values]: [&Tensor; 2],
    slots: &[u32],
) -> Result<(), Error> {
    let write = WriteSlots { slots, kv_type: cache.kv_type };
    cache.keys.inplace_op2(keys, &write)?;
    cache.values.inplace_op2(values, &write)?;
    Ok(())
}

pub(in crate::ops) fn paged(
    threads: &Threads,
    queries: &Tensor,
    cache: &LayerCache,
    batch: &ForwardBatch,
    shape: &AttentionShape,
) -> Result<Tensor, Error> {
    let (_, block_size, kv_heads, _) = cache.keys.dims4()?;
    let (keys, values) = (host(&cache.keys)?, host(&cache.values)?);
    let kv = KvView {
        format: cache.kv_type.format(),
        keys: keys.bytes()?,
        values: values.bytes()?,
        block_size,
        kv_heads,
        head_dim: shape.head_dim,
    };
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
    paged_attention(threads, host(queries)?.elements()?, &context, shape, &mut out)?;
    Ok(Tensor::from_vec(out, queries.shape(), queries.device())?)
}

pub(in crate::ops) fn packed(
    threads: &Threads,
    [q, k, v]: [&Tensor; 3],
    lengths: &[usize],
    shape: &AttentionShape,
) -> Result<Tensor, Error> {
    let (q_host, k_host, v_host) = (host(q)?, host(k)?, host(v)?);
    let mut out = vec![0.0; q.elem_count()]; // [tokens, heads * head_dim]
    let sequences = PackedSequences { q: q_host.elements()?, k: k_host.elements()?, v: v_host.elements()?, lengths };
    packed_attention(threads, &sequences, shape, &mut out)?;
    Ok(Tensor::from_vec(out, q.shape(), q.device())?)
}
