//! Causal self-attention with grouped queries, rotary positions and the paged cache.

use candle_core::Tensor;

use super::{LayerSource, Linear};
use crate::error::Error;
use crate::kv::KvStore;
use crate::ops::{AttentionShape, Backend, ForwardBatch, Matrix, RotaryTable};

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
    /// The largest magnitude that queries, keys and values keep, where the model limits it.
    pub clip: Option<f32>,
}

impl AttentionConfig {
    fn shape(&self) -> AttentionShape {
        let scale = 1.0 / (self.head_dim as f32).sqrt();
        AttentionShape { heads: self.heads, kv_heads: self.kv_heads, head_dim: self.head_dim, scale }
    }

    /// The widths of queries, keys and values.
    fn outputs(&self) -> [usize; 3] {
        [self.heads, self.kv_heads, self.kv_heads].map(|heads| heads * self.head_dim)
    }
}

/// Queries, keys and values of a token.
struct InputProjections {
    query: Linear,
    key: Linear,
    value: Linear,
}

impl InputProjections {
    /// `q_proj`, `k_proj` and `v_proj`.
    fn load(source: &LayerSource<'_>, config: &AttentionConfig) -> Result<Self, Error> {
        let ([queries, keys, values], width) = (config.outputs(), config.width);
        Ok(Self {
            query: Linear::load(&source.at("q_proj"), width, queries, config.bias)?,
            key: Linear::load(&source.at("k_proj"), width, keys, config.bias)?,
            value: Linear::load(&source.at("v_proj"), width, values, config.bias)?,
        })
    }

    /// One tensor `Wqkv` with the rows of the three below each other; each keeps its own part, where it lies.
    fn load_fused(source: &LayerSource<'_>, config: &AttentionConfig) -> Result<Self, Error> {
        let outputs = config.outputs();
        let shape = [outputs.iter().sum(), config.width];
        let tensor = source.weights.tensor(&source.name("Wqkv.weight"), &shape)?;
        let mut parts = tensor.split_rows(&outputs)?.into_iter().map(|part| Matrix::new(source.backend, part));
        let mut next = || parts.next().unwrap_or_else(|| Err(Error::config("Wqkv", "has fewer than three parts")));
        Ok(Self {
            query: Linear::from_matrix(next()?),
            key: Linear::from_matrix(next()?),
            value: Linear::from_matrix(next()?),
        })
    }
}

/// Grouped-query attention. (Ainslie et al. 2023)
pub struct Attention {
    backend: Backend,
    layer: usize,
    inputs: InputProjections,
    output: Linear,
    rotary: RotaryTable,
    shape: AttentionShape,
    clip: Option<f32>,
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
        let inputs = InputProjections::load(source, config)?;
        let output = Linear::load(&source.at("o_proj"), config.outputs()[0], config.width, config.bias)?;
        let (backend, clip) = (source.backend.clone(), config.clip);
        Ok(Self { backend, layer, inputs, output, rotary, shape: config.shape(), clip })
    }

    /// As [`Attention::load`], from the fused `Wqkv` and `out_proj`, which have no bias.
    ///
    /// # Errors
    /// When a tensor is missing or misshapen.
    pub fn load_fused(
        source: &LayerSource<'_>,
        layer: usize,
        config: &AttentionConfig,
        rotary: RotaryTable,
    ) -> Result<Self, Error> {
        let inputs = InputProjections::load_fused(source, config)?;
        let output = Linear::load(&source.at("out_proj"), config.outputs()[0], config.width, false)?;
        let (backend, clip) = (source.backend.clone(), config.clip);
        Ok(Self { backend, layer, inputs, output, rotary, shape: config.shape(), clip })
    }

    /// `[tokens, width]` to `[tokens, width]`; the tokens' keys and values are in the cache afterwards.
    ///
    /// # Errors
    /// When shapes, positions or slots do not fit.
    pub fn forward(&self, x: &Tensor, batch: &ForwardBatch, kv: &mut KvStore) -> Result<Tensor, Error> {
        let (backend, head_dim) = (&self.backend, self.shape.head_dim);
        let query = backend.rotate(&self.project(&self.inputs.query, x)?, head_dim, batch, &self.rotary)?;
        let key = backend.rotate(&self.project(&self.inputs.key, x)?, head_dim, batch, &self.rotary)?;
        let cache = kv.layer(self.layer);
        let value = self.project(&self.inputs.value, x)?;
        backend.write_cache(cache, [&key, &value], batch, &self.shape)?;
        let mixed = backend.paged_attention(&query, cache, batch, &self.shape)?; // [tokens, heads * head_dim]
        self.output.forward(&mixed)
    }

    fn project(&self, projection: &Linear, x: &Tensor) -> Result<Tensor, Error> {
        let projected = projection.forward(x)?;
        match self.clip {
            Some(bound) => self.backend.clip(&projected, bound),
            None => Ok(projected),
        }
    }
}
