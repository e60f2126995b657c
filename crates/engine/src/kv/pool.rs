//! The pool of cache blocks: hands out free ones, takes them back, and can prove that none is lost. No tensors.

use crate::ids::BlockId;

/// All blocks of one model's cache. A block is either free or held by exactly one table.
///
/// The most recently returned block is handed out first, so that memory that was never touched stays untouched.
#[derive(Debug)]
pub struct BlockPool {
    free: Vec<BlockId>,
    held: Vec<bool>,
    block_size: usize,
}

impl BlockPool {
    /// A pool of `blocks` free blocks of `block_size` token slots each.
    #[must_use]
    pub fn new(blocks: usize, block_size: usize) -> Self {
        let free = (0..blocks as u32).rev().map(BlockId).collect();
        Self { free, held: vec![false; blocks], block_size }
    }

    /// Token slots in a block.
    #[must_use]
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Blocks in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.held.len()
    }

    /// Blocks that may be handed out now.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Blocks needed to hold `tokens` tokens.
    #[must_use]
    pub fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_size)
    }

    /// Hands out a block, or `None` when every block is held.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let block = self.free.pop()?;
        self.held[block.0 as usize] = true;
        Some(block)
    }

    /// Takes blocks back.
    ///
    /// # Panics
    /// When a block is returned that is not held: two tables shared it, and the cache's content can no longer be
    /// trusted. The worker turns the panic into a failed step.
    pub fn release(&mut self, blocks: impl IntoIterator<Item = BlockId>) {
        for block in blocks {
            let held = &mut self.held[block.0 as usize];
            assert!(*held, "block {} is returned twice", block.0);
            *held = false;
            self.free.push(block);
        }
    }

    /// Checks that `tables` together hold exactly the blocks that are not free, each once.
    ///
    /// # Errors
    /// A sentence that names the first block that is lost, shared or free while in use.
    pub fn check<'a>(&self, tables: impl IntoIterator<Item = &'a [BlockId]>) -> Result<(), String> {
        let mut seen = vec![false; self.held.len()];
        for block in tables.into_iter().flatten() {
            let index = block.0 as usize;
            if std::mem::replace(&mut seen[index], true) {
                return Err(format!("block {index} stands in two tables"));
            }
        }
        for (index, (seen, held)) in seen.iter().zip(&self.held).enumerate() {
            if seen != held {
                return Err(format!("block {index}: in a table {seen}, held {held}"));
            }
        }
        let held = self.held.iter().filter(|held| **held).count();
        match held + self.free.len() == self.held.len() {
            true => Ok(()),
            false => Err(format!("{held} blocks held and {} free of {}", self.free.len(), self.held.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_handed_out_once() {
        let mut pool = BlockPool::new(3, 4);
        let blocks: Vec<_> = std::iter::from_fn(|| pool.allocate()).collect();
        assert_eq!(blocks, vec![BlockId(0), BlockId(1), BlockId(2)]);
        assert_eq!(pool.check([&blocks[..2], &blocks[2..]]), Ok(()));
        assert!(pool.check([&blocks[..2]]).is_err(), "a lost block is found");
        assert!(pool.check([&blocks[..], &blocks[..1]]).is_err(), "a shared block is found");
        pool.release(blocks);
        assert_eq!(pool.free(), 3);
        assert_eq!(pool.check([]), Ok(()));
    }

    #[test]
    #[should_panic(expected = "block 0 is returned twice")]
    fn a_double_return_is_noticed() {
        let mut pool = BlockPool::new(1, 4);
        let block = pool.allocate().unwrap();
        pool.release([block, block]);
    }
}
