//! The block table of one sequence: which block holds which of its tokens. No tensors.

use crate::ids::{BlockId, Slot};

/// The blocks of one sequence in token order; token `i` lives in block `i / block_size` at offset `i % block_size`.
#[derive(Debug, Default)]
pub struct BlockTable {
    blocks: Vec<BlockId>,
}

impl BlockTable {
    /// The blocks in token order.
    #[must_use]
    pub fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }

    /// Appends a block that the pool handed out.
    pub fn push(&mut self, block: BlockId) {
        self.blocks.push(block);
    }

    /// Puts another block with the same content in the place of the one at `index`.
    pub fn replace(&mut self, index: usize, block: BlockId) {
        self.blocks[index] = block;
    }

    /// Takes all blocks out, to give them back to the pool.
    pub fn take(&mut self) -> Vec<BlockId> {
        std::mem::take(&mut self.blocks)
    }

    /// The slot of token `position`, or `None` where no block holds it yet.
    #[must_use]
    pub fn slot(&self, position: usize, block_size: usize) -> Option<Slot> {
        let block = self.blocks.get(position / block_size)?;
        Some(block.0 * block_size as u32 + (position % block_size) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_block_times_size_plus_offset() {
        let mut table = BlockTable::default();
        table.push(BlockId(7));
        table.push(BlockId(2));
        assert_eq!(table.slot(0, 16), Some(112));
        assert_eq!(table.slot(15, 16), Some(127));
        assert_eq!(table.slot(16, 16), Some(32));
        assert_eq!(table.slot(32, 16), None);
        table.replace(1, BlockId(4));
        assert_eq!(table.take(), vec![BlockId(7), BlockId(4)]);
        assert_eq!(table.slot(0, 16), None);
    }
}
