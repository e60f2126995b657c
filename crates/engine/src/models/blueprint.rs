//! What a model will be, from its configuration alone: the sizes that its memory depends on, and every tensor of its
//! checkpoint as it is published.

use super::{DecoderShape, EncoderShape};
use crate::layers::AttentionConfig;

/// A model that need not be there.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// The sizes that the engine around it needs.
    pub shape: Shape,
    /// Numbers in f32 that one token takes while a block computes it.
    pub numbers_per_token: usize,
    /// The tensors, by the names of the published checkpoint.
    pub tensors: Vec<TensorShape>,
}

/// The sizes of a model of either kind.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Of one that generates.
    Decoder(DecoderShape),
    /// Of one that embeds.
    Encoder(EncoderShape),
}

/// A tensor without its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorShape {
    /// As the checkpoint calls it.
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
}

impl Blueprint {
    /// Numbers in all tensors.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.shape.iter().map(|&size| size as u64).product::<u64>()).sum()
    }
}

/// Gathers tensors below a place in the checkpoint.
#[derive(Default)]
pub(super) struct TensorList {
    pub(super) tensors: Vec<TensorShape>,
}

impl TensorList {
    /// A tensor that is called so in full.
    pub(super) fn add(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.tensors.push(TensorShape { name: name.into(), shape: shape.to_vec() });
    }

    /// `NAME.weight`.
    pub(super) fn weight(&mut self, name: &str, shape: &[usize]) {
        self.add(format!("{name}.weight"), shape);
    }

    /// `NAME.weight` and a bias as long as it has rows.
    pub(super) fn biased(&mut self, name: &str, shape: &[usize]) {
        self.with_bias(name, shape, true);
    }

    /// `NAME.weight`, and a bias as long as it has rows where there is one.
    pub(super) fn with_bias(&mut self, name: &str, shape: &[usize], bias: bool) {
        self.weight(name, shape);
        if bias {
            self.add(format!("{name}.bias"), &shape[..1]);
        }
    }
}

/// Numbers that a token takes in attention and a feed-forward part of so many inner numbers: what stands beside each other
/// at the widest place, counted generously.
pub(super) fn numbers_per_token(attention: &AttentionConfig, inner: usize) -> usize {
    let AttentionConfig { width, heads, kv_heads, head_dim, .. } = *attention;
    4 * width + (2 * heads * head_dim + 2 * kv_heads * head_dim).max(3 * inner)
}
