//! Attention: over a paged cache for decoders, over packed sequences for encoders. Both are the same arithmetic (`attend`),
//! which walks the positions in order, so a token's result does not depend on how the tokens were batched or chunked.

mod attend;
mod cache;
mod kept;
mod packed;
mod paged;

pub use cache::{KvView, write_kv};
pub use packed::{PackedSequences, packed_attention};
pub use paged::{AttentionSpan, PagedContext, paged_attention};

use crate::error::{KernelError, Result, check_positive};

/// The sizes of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of the keys and values; each serves `heads / kv_heads` neighbouring heads of the queries.
    pub kv_heads: usize,
    /// Numbers of a head.
    pub head_dim: usize,
    /// What the products of queries and keys are multiplied by, usually 1 / sqrt(head_dim).
    pub scale: f32,
}

impl AttentionShape {
    fn check(&self) -> Result<()> {
        check_positive("heads", self.heads)?;
        check_positive("kv_heads", self.kv_heads)?;
        check_positive("head_dim", self.head_dim)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(KernelError::NotMultiple { argument: "heads", multiple_of: self.kv_heads, actual: self.heads });
        }
        Ok(())
    }

    /// Query heads that share a head of keys.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Numbers of a token in the queries and the output.
    fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Numbers of a token in the keys and the values.
    fn key_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}
