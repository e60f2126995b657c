//! The pool of cache blocks: hands out free ones, counts who holds each, keeps the content of those that nobody holds
//! for as long as there is room, and can prove that none is lost. No tensors.

use std::collections::BTreeMap;

use super::prefix::{PrefixIndex, PrefixMatch};
use crate::ids::BlockId;

/// All blocks of one model's cache. A block is empty, or held by some tables, or cached: held by none, and still
/// found by its tokens.
///
/// A block that is written stands in one table alone; what is shared is full and stays as it is. A table holds a block
/// only together with all blocks before it, and gives them back last block first. So no block is cached longer than the
/// one before it, and the one that has been cached longest has none after it that would be lost with it.
#[derive(Debug)]
pub struct BlockPool {
    /// The most recently emptied is handed out first.
    empty: Vec<BlockId>,
    /// By the number of the block.
    states: Vec<BlockState>,
    index: PrefixIndex,
    /// The blocks that are in the index and in no table, by the time they were given back.
    cached: BTreeMap<u64, BlockId>,
    /// Counts the blocks that became cached.
    clock: u64,
    block_size: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct BlockState {
    /// Tables that hold it.
    holders: usize,
    /// When it was last given back, if it is cached.
    released: u64,
}

impl BlockPool {
    /// A pool of `blocks` empty blocks of `block_size` token slots each.
    #[must_use]
    pub fn new(blocks: usize, block_size: usize) -> Self {
        Self {
            empty: (0..blocks as u32).rev().map(BlockId).collect(),
            states: vec![BlockState::default(); blocks],
            index: PrefixIndex::new(blocks),
            cached: BTreeMap::new(),
            clock: 0,
            block_size,
        }
    }

    /// Token slots in a block.
    #[must_use]
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// Blocks in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.states.len()
    }

    /// Blocks that can be handed out now, the cached ones among them.
    #[must_use]
    pub fn free(&self) -> usize {
        self.empty.len() + self.cached.len()
    }

    /// Blocks that no table holds and that are kept for their content.
    #[must_use]
    pub fn cached(&self) -> usize {
        self.cached.len()
    }

    /// Blocks that some table holds.
    #[must_use]
    pub fn used(&self) -> usize {
        self.total() - self.free()
    }

    /// Tables that hold a block.
    #[must_use]
    pub fn holders(&self, block: BlockId) -> usize {
        self.states[block.0 as usize].holders
    }

    /// Blocks needed to hold `tokens` tokens.
    #[must_use]
    pub fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_size)
    }

    /// The longest beginning of `tokens` whose keys and values are there. Nothing is held by finding it.
    #[must_use]
    pub fn find(&self, tokens: &[u32]) -> PrefixMatch {
        self.index.find(tokens, self.block_size)
    }

    /// Hands out a block, at need the one that has been cached longest, or `None` when every block is held.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let block = self.empty.pop().or_else(|| {
            let (_, block) = self.cached.pop_first()?;
            self.index.remove(block);
            Some(block)
        })?;
        self.states[block.0 as usize].holders = 1;
        Some(block)
    }

    /// Holds a block that was found, once more.
    pub fn hold(&mut self, block: BlockId) {
        let state = &mut self.states[block.0 as usize];
        if state.holders == 0 {
            self.cached.remove(&state.released);
        }
        state.holders += 1;
    }

    /// Takes back a table's blocks, which are given in token order. Those in the index stay there until their room is
    /// needed.
    ///
    /// # Panics
    /// When a block is returned that is not held: two tables took it for their own, and the cache's content can no
    /// longer be trusted. The worker turns the panic into a failed step.
    pub fn release(&mut self, blocks: impl IntoIterator<Item = BlockId, IntoIter: DoubleEndedIterator>) {
        for block in blocks.into_iter().rev() {
            let state = &mut self.states[block.0 as usize];
            assert!(state.holders > 0, "block {} is returned twice", block.0);
            state.holders -= 1;
            if state.holders > 0 {
                continue;
            }
            if self.index.contains(block) {
                self.clock += 1;
                state.released = self.clock;
                self.cached.insert(self.clock, block);
            } else {
                self.empty.push(block);
            }
        }
    }

    /// Makes a full block that a table holds known by its tokens, after the block before it. Returns the block that the
    /// table is to hold from now on: where another has the same content already, that one, and this one is given back.
    ///
    /// After a block that is not known itself, nothing is entered.
    pub fn enter(&mut self, before: Option<BlockId>, block: BlockId, tokens: &[u32]) -> BlockId {
        match self.index.child(before, tokens) {
            Some(same) if same != block => {
                self.hold(same);
                self.release([block]);
                same
            }
            _ => {
                self.index.insert(before, block, tokens);
                block
            }
        }
    }

    /// Makes every block unknown. Tables keep what they hold.
    pub fn forget(&mut self) {
        self.index.clear();
        self.empty.extend(std::mem::take(&mut self.cached).into_values());
    }

    /// Whether the block is in the index: the block before it and its tokens.
    #[must_use]
    pub fn entry(&self, block: BlockId) -> Option<(Option<BlockId>, &[u32])> {
        self.index.entry(block)
    }

    /// Checks that each block is empty, cached or held by just as many of `tables` as it counts, and that index and
    /// cached blocks agree.
    ///
    /// # Errors
    /// A sentence that names the first block that is lost, counted wrongly, or in two states.
    pub fn check<'a>(&self, tables: impl IntoIterator<Item = &'a [BlockId]>) -> Result<(), String> {
        self.index.check()?;
        let mut standing = vec![0; self.total()];
        tables.into_iter().flatten().for_each(|block| standing[block.0 as usize] += 1);
        let mut places = vec![0; self.total()];
        self.empty.iter().chain(self.cached.values()).for_each(|block| places[block.0 as usize] += 1);
        for (number, state) in self.states.iter().enumerate() {
            let (block, standing) = (BlockId(number as u32), standing[number]);
            if standing != state.holders {
                return Err(format!("block {number}: in {standing} tables, held by {}", state.holders));
            }
            if places[number] != usize::from(standing == 0) {
                return Err(format!("block {number}: in {standing} tables, and {} times free", places[number]));
            }
            let cached = self.cached.get(&state.released) == Some(&block);
            if standing == 0 && cached != self.index.contains(block) {
                return Err(format!("block {number}: cached {cached}, in the index {}", !cached));
            }
        }
        self.check_order()
    }

    /// No block is held without the one before it, or cached longer than that.
    fn check_order(&self) -> Result<(), String> {
        for number in 0..self.total() as u32 {
            let Some((Some(before), _)) = self.index.entry(BlockId(number)) else { continue };
            let (own, parent) = (self.states[number as usize], self.states[before.0 as usize]);
            let in_order = match (own.holders, parent.holders) {
                (0, 0) => own.released < parent.released,
                (own, parent) => own <= parent,
            };
            if !in_order {
                return Err(format!("block {number} would outlive block {} before it", before.0));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pool: &mut BlockPool, tokens: &[u32]) -> Vec<BlockId> {
        let mut table: Vec<BlockId> = Vec::new();
        for chunk in tokens.chunks(pool.block_size()) {
            let block = pool.allocate().unwrap();
            table.push(pool.enter(table.last().copied(), block, chunk));
        }
        table
    }

    #[test]
    fn every_block_is_handed_out_once() {
        let mut pool = BlockPool::new(3, 4);
        let blocks: Vec<_> = std::iter::from_fn(|| pool.allocate()).collect();
        assert_eq!(blocks, vec![BlockId(0), BlockId(1), BlockId(2)]);
        assert_eq!(pool.check([&blocks[..2], &blocks[2..]]), Ok(()));
        assert!(pool.check([&blocks[..2]]).is_err(), "a lost block is found");
        assert!(pool.check([&blocks[..], &blocks[..1]]).is_err(), "a block that is held too often is found");
        pool.release(blocks);
        assert_eq!((pool.free(), pool.cached(), pool.used()), (3, 0, 0));
        assert_eq!(pool.check([]), Ok(()));
    }

    #[test]
    #[should_panic(expected = "block 0 is returned twice")]
    fn a_double_return_is_noticed() {
        let mut pool = BlockPool::new(1, 4);
        let block = pool.allocate().unwrap();
        pool.release([block, block]);
    }

    #[test]
    fn what_was_given_back_first_goes_first_and_from_its_end() {
        let mut pool = BlockPool::new(5, 2);
        let (first, second) = (text(&mut pool, &[1, 2, 3, 4, 5, 6]), text(&mut pool, &[7, 8, 9, 9]));
        pool.release(first.clone());
        pool.release(second.clone());
        assert_eq!((pool.free(), pool.cached(), pool.used()), (5, 5, 0));
        assert_eq!(pool.find(&[1, 2, 3, 4, 0]).blocks, first[..2]);
        let mut taken = vec![pool.allocate().unwrap()];
        assert_eq!(pool.find(&[1, 2, 3, 4, 5, 6]).blocks, first[..2], "its end is gone");
        pool.hold(first[0]); // in use again
        pool.hold(first[1]);
        taken.extend([pool.allocate().unwrap(), pool.allocate().unwrap()]);
        assert_eq!(pool.allocate(), None);
        assert_eq!(taken, [first[2], second[1], second[0]]);
        assert_eq!(pool.check([&taken[..], &first[..2]]), Ok(()));
        pool.release(taken);
        pool.release(first[..2].iter().copied());
        assert_eq!((pool.free(), pool.cached()), (5, 2));
    }

    #[test]
    fn the_same_content_is_kept_once() {
        let mut pool = BlockPool::new(8, 2);
        let (first, second) = (text(&mut pool, &[1, 2, 3, 4]), text(&mut pool, &[1, 2, 3, 5]));
        assert_eq!(first[0], second[0]);
        assert_ne!(first[1], second[1]);
        assert_eq!((pool.used(), pool.holders(first[0])), (3, 2));
        assert_eq!(pool.check([&first[..], &second[..]]), Ok(()));
        pool.release(first.clone());
        assert_eq!((pool.used(), pool.cached()), (2, 1));
        assert_eq!(pool.check([&second[..]]), Ok(()));
    }

    #[test]
    fn what_is_forgotten_is_not_found_and_not_lost() {
        let mut pool = BlockPool::new(8, 2);
        let (first, second) = (text(&mut pool, &[1, 2, 3, 4]), text(&mut pool, &[1, 2, 3, 5]));
        pool.release(first);
        pool.forget();
        assert_eq!(pool.find(&[1, 2, 3, 5]), PrefixMatch::default());
        assert_eq!((pool.used(), pool.cached(), pool.free()), (2, 0, 6));
        let more = pool.allocate().unwrap();
        assert_eq!(pool.enter(Some(second[1]), more, &[6, 7]), more, "after a forgotten block");
        assert_eq!(pool.entry(more), None, "it could not be reached");
        pool.release(second.into_iter().chain([more]));
        assert_eq!(pool.check([]), Ok(()));
        assert_eq!(pool.free(), 8);
    }
}
