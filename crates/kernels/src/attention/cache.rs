//! The layout of the paged cache and writing to it. Which slots are whose is the caller's business.

use crate::error::{KernelError, Result, check_length, check_positive, size, whole_rows};

/// The cache of one layer. A slot is `block * block_size + offset in the block`.
#[derive(Debug, Clone, Copy)]
pub struct KvView<'a> {
    /// `[blocks, block_size, kv_heads, head_dim]`
    pub keys: &'a [f32],
    /// `[blocks, block_size, kv_heads, head_dim]`
    pub values: &'a [f32],
    /// Positions in a block.
    pub block_size: usize,
    /// Heads of a position.
    pub kv_heads: usize,
    /// Numbers of a head.
    pub head_dim: usize,
}

impl KvView<'_> {
    /// How many blocks there are, once keys and values are found to be whole blocks.
    pub(super) fn blocks(&self) -> Result<usize> {
        check_positive("block_size", self.block_size)?;
        check_length("values", self.values.len(), self.keys.len())?;
        let block = size("block_size", &[self.block_size, self.kv_heads, self.head_dim])?;
        whole_rows("keys", self.keys.len(), block)
    }
}

/// Copies row i of `new` `[tokens, width]` to slot `slots[i]` of `cache` `[slots, width]`; width is `kv_heads * head_dim`.
/// Called once for the keys and once for the values.
///
/// # Errors
/// When `cache` or `new` is no whole number of rows, there is not one slot for each row, or a slot is out of bounds or given twice.
pub fn write_kv(cache: &mut [f32], new: &[f32], slots: &[u32], width: usize) -> Result<()> {
    let bound = whole_rows("cache", cache.len(), width)?;
    check_length("new", new.len(), size("new", &[slots.len(), width])?)?;
    if let Some(&slot) = slots.iter().find(|&&slot| slot as usize >= bound) {
        return Err(KernelError::OutOfBounds { argument: "slots", bound, value: slot as usize });
    }
    check_distinct(slots)?;
    for (&slot, row) in slots.iter().zip(new.chunks_exact(width)) {
        cache[slot as usize * width..][..width].copy_from_slice(row);
    }
    Ok(())
}

fn check_distinct(slots: &[u32]) -> Result<()> {
    if slots.is_sorted_by(|a, b| a < b) {
        return Ok(());
    }
    let mut sorted = slots.to_vec();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(KernelError::Duplicate { argument: "slots", value: pair[0] as usize }),
        None => Ok(()),
    }
}
