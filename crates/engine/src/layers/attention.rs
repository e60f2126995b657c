//! Causal self-attention with grouped queries, rotary positions and the paged cache.

use candle_core::Tensor;

use super::{LayerSource, Linear};
use crate::error::Error;
use crate::kv::KvStore;
use crate::ops::{AttentionShape, Backend, ForwardBatch, RotaryTable};

/// The sizes of one attention layer.
#[derive(Clone, Copy, Debug)]
pub struct AttentionConfig {
    /// Width of the residual stream.
    pub width: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Whether the four projections have a bias.
    pub bias: bool,
}

impl AttentionConfig {
    fn shape(&self) -> AttentionShape {
        let scale = 1.0 / (self.head_dim as f32).sqrt();
        AttentionShape { heads: self.heads, kv_heads: self.kv_heads, head_dim: self.head_dim, scale }
    }
}

/// Grouped-query attention. (Ainslie et al. 2023)
pub struct Attention {
    backend: Backend,
    layer: usize,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    rotary: RotaryTable,
    shape: AttentionShape,
}

impl Attention {
    /// Loads `q_proj`, `k_proj`, `v_proj` and `o_proj` from this place; `layer` is its number in the cache.
    ///
    /// # Errors
    /// When a tensor is missing or misshapen.
    pub fn load(
        source: &LayerSource<'_>,
        layer: usize,
        config: &AttentionConfig,
        rotary: RotaryTable,
    ) -> Result<Self, Error> {
        let (width, inner, kv_inner) =
            (config.width, config.heads * config.head_dim, config.kv_heads * config.head_dim);
        Ok(Self {
            backend: source.backend.clone(),
            layer,
            query: Linear::load(&source.at("q_proj"), width, inner, config.bias)?,
            key: Linear::load(&source.at("k_proj"), width, kv_inner, config.bias)?,
            value: Linear::load(&source.at("v_proj"), width, kv_inner, config.bias)?,
            output: Linear::load(&source.at("o_proj"), inner, width, config.bias)?,
            rotary,
            shape: config.shape(),
        })
    }

    /// `[tokens, width]` to `[tokens, width]`; the tokens' keys and values are in the cache afterwards.
    ///
    /// # Errors
    /// When shapes, positions or slots do not fit.
    pub fn forward(&self, x: &Tensor, batch: &ForwardBatch, kv: &mut KvStore) -> Result<Tensor, Error> {
        let (backend, head_dim) = (&self.backend, self.shape.head_dim);
        let query = backend.rotate(&self.query.forward(x)?, head_dim, &batch.positions, &self.rotary)?;
        let key = backend.rotate(&self.key.forward(x)?, head_dim, &batch.positions, &self.rotary)?;
        let cache = kv.layer(self.layer);
        backend.write_cache(cache, &key, &self.value.forward(x)?, batch)?;
        let mixed = backend.paged_attention(&query, cache, batch, &self.shape)?; // [tokens, heads * head_dim]
        self.output.forward(&mixed)
    }
}
