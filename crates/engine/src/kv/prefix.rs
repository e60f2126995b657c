//! The prefix index: which full block holds the keys and values of which tokens. It owns a tree of token blocks and
//! knows neither who holds a block nor when one is evicted. No tensors.
//!
//! What a block holds depends on its own tokens and on all before them, so a block is found by walking down from the
//! root, one full block a step. Tokens are compared and not hashed: nothing can collide.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::ids::BlockId;

/// Blocks by their tokens. In order, so that the neighbour of tokens that are not there has the longest common
/// beginning.
type Children = BTreeMap<Arc<[u32]>, BlockId>;

/// One block of the tree.
#[derive(Debug)]
struct Node {
    /// The block before it; `None` for the first of a text.
    parent: Option<BlockId>,
    tokens: Arc<[u32]>,
    children: Children,
}

/// A tree of full blocks, from the first of a text on.
#[derive(Debug)]
pub struct PrefixIndex {
    roots: Children,
    /// By the number of its block.
    nodes: Vec<Option<Node>>,
}

/// What the index has of some tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixMatch {
    /// The full blocks that begin the tokens, in their order.
    pub blocks: Vec<BlockId>,
    /// The block that begins as the tokens go on after those, and for how many tokens, at least 1.
    pub begun: Option<(BlockId, usize)>,
}

impl PrefixIndex {
    /// An empty index over the blocks `0..blocks`.
    #[must_use]
    pub fn new(blocks: usize) -> Self {
        Self { roots: Children::new(), nodes: (0..blocks).map(|_| None).collect() }
    }

    /// Whether the block stands in the tree.
    #[must_use]
    pub fn contains(&self, block: BlockId) -> bool {
        self.node(block).is_some()
    }

    /// The block before this one and its tokens; `None` when it does not stand in the tree.
    #[must_use]
    pub fn entry(&self, block: BlockId) -> Option<(Option<BlockId>, &[u32])> {
        self.node(block).map(|node| (node.parent, &*node.tokens))
    }

    /// The longest beginning of `tokens` that the tree has, in blocks of `block_size`.
    #[must_use]
    pub fn find(&self, tokens: &[u32], block_size: usize) -> PrefixMatch {
        let (mut found, mut children) = (PrefixMatch::default(), &self.roots);
        for chunk in tokens.chunks(block_size) {
            match children.get(chunk).and_then(|block| Some((*block, self.node(*block)?))) {
                Some((block, node)) => {
                    found.blocks.push(block);
                    children = &node.children;
                }
                None => {
                    found.begun = nearest(children, chunk);
                    break;
                }
            }
        }
        found
    }

    /// The block with these tokens after `parent`.
    #[must_use]
    pub fn child(&self, parent: Option<BlockId>, tokens: &[u32]) -> Option<BlockId> {
        self.children(parent)?.get(tokens).copied()
    }

    /// Puts a block into the tree. False, and nothing is changed, where there is no such parent, or it has such a child
    /// already, or the block stands in the tree.
    pub fn insert(&mut self, parent: Option<BlockId>, block: BlockId, tokens: &[u32]) -> bool {
        if self.contains(block) || self.child(parent, tokens).is_some() {
            return false;
        }
        let tokens: Arc<[u32]> = tokens.into();
        let Some(siblings) = self.children_mut(parent) else { return false };
        siblings.insert(Arc::clone(&tokens), block);
        self.nodes[block.0 as usize] = Some(Node { parent, tokens, children: Children::new() });
        true
    }

    /// Takes a block without children out of the tree.
    ///
    /// # Panics
    /// When it has children, which could not be reached any more: the pool evicts a text's last blocks first.
    pub fn remove(&mut self, block: BlockId) {
        let Some(node) = self.nodes[block.0 as usize].take() else { return };
        assert!(node.children.is_empty(), "block {} is evicted before the blocks after it", block.0);
        if let Some(siblings) = self.children_mut(node.parent) {
            siblings.remove(&node.tokens);
        }
    }

    /// Empties the tree.
    pub fn clear(&mut self) {
        self.roots.clear();
        self.nodes.iter_mut().for_each(|node| *node = None);
    }

    /// Checks that every block of the tree can be reached by its tokens, and that no block stands in it twice.
    ///
    /// # Errors
    /// A sentence that names the first block for which that is not so.
    pub fn check(&self) -> Result<(), String> {
        let mut listed = 0;
        for parent in std::iter::once(None).chain((0..self.nodes.len() as u32).map(|block| Some(BlockId(block)))) {
            for (tokens, block) in self.children(parent).into_iter().flatten() {
                listed += 1;
                if self.entry(*block) != Some((parent, tokens)) {
                    return Err(format!("block {} is listed where it does not stand", block.0));
                }
            }
        }
        match self.nodes.iter().flatten().count() {
            present if present == listed => Ok(()),
            present => Err(format!("{present} blocks in the index, of which {listed} can be reached")),
        }
    }

    fn node(&self, block: BlockId) -> Option<&Node> {
        self.nodes.get(block.0 as usize)?.as_ref()
    }

    fn children(&self, parent: Option<BlockId>) -> Option<&Children> {
        match parent {
            Some(parent) => self.node(parent).map(|node| &node.children),
            None => Some(&self.roots),
        }
    }

    fn children_mut(&mut self, parent: Option<BlockId>) -> Option<&mut Children> {
        match parent {
            Some(parent) => self.nodes.get_mut(parent.0 as usize)?.as_mut().map(|node| &mut node.children),
            None => Some(&mut self.roots),
        }
    }
}

/// The block that shares the longest beginning with `tokens`, and its length; `None` when none shares a token. In
/// lexicographic order that is the last before them or the first after.
fn nearest(children: &Children, tokens: &[u32]) -> Option<(BlockId, usize)> {
    let before = children.range::<[u32], _>((Bound::Unbounded, Bound::Excluded(tokens))).next_back();
    let after = children.range::<[u32], _>((Bound::Included(tokens), Bound::Unbounded)).next();
    let common = |other: &[u32]| tokens.iter().zip(other).take_while(|(a, b)| a == b).count();
    let shared = [before, after].into_iter().flatten().map(|(other, block)| (*block, common(other)));
    shared.max_by_key(|(_, length)| *length).filter(|(_, length)| *length > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(blocks: &[u32], begun: Option<(u32, usize)>) -> PrefixMatch {
        let blocks = blocks.iter().copied().map(BlockId).collect();
        PrefixMatch { blocks, begun: begun.map(|(block, length)| (BlockId(block), length)) }
    }

    #[test]
    fn a_block_is_found_after_the_blocks_before_it_alone() {
        let mut index = PrefixIndex::new(8);
        assert!(index.insert(None, BlockId(3), &[1, 2]));
        assert!(index.insert(Some(BlockId(3)), BlockId(5), &[7, 8]));
        assert!(index.insert(None, BlockId(1), &[7, 9]));
        assert!(!index.insert(None, BlockId(0), &[1, 2]), "it is there already");
        assert!(!index.insert(Some(BlockId(4)), BlockId(0), &[1, 2]), "there is no such parent");
        assert_eq!(index.find(&[1, 2, 7, 8, 4], 2), found(&[3, 5], None));
        assert_eq!(index.find(&[1, 2, 7, 4], 2), found(&[3], Some((5, 1))));
        assert_eq!(index.find(&[1, 2, 7], 2), found(&[3], Some((5, 1))));
        assert_eq!(index.find(&[7, 8], 2), found(&[], Some((1, 1))), "not the one after 1 and 2");
        assert_eq!(index.find(&[2, 1], 2), found(&[], None));
        assert_eq!(index.check(), Ok(()));
        index.remove(BlockId(5));
        index.remove(BlockId(3));
        assert_eq!(index.find(&[1, 2, 7, 8], 2), found(&[], None));
        assert_eq!(index.check(), Ok(()));
    }

    #[test]
    #[should_panic(expected = "block 0 is evicted before the blocks after it")]
    fn a_block_with_others_after_it_stays() {
        let mut index = PrefixIndex::new(2);
        index.insert(None, BlockId(0), &[1]);
        index.insert(Some(BlockId(0)), BlockId(1), &[1]);
        index.remove(BlockId(0));
    }

    proptest! {
        /// What is found is what a search through all entered texts finds.
        #[test]
        fn the_longest_beginning_is_found(
            texts in prop::collection::vec(prop::collection::vec(0..3u32, 0..14), 0..12),
            wanted in prop::collection::vec(0..3u32, 0..14),
        ) {
            let (mut index, mut next) = (PrefixIndex::new(64), 0);
            for text in &texts {
                let mut parent = None;
                for chunk in text.chunks_exact(3) {
                    let block = index.child(parent, chunk).unwrap_or_else(|| {
                        next += 1;
                        assert!(index.insert(parent, BlockId(next - 1), chunk));
                        BlockId(next - 1)
                    });
                    parent = Some(block);
                }
            }
            prop_assert_eq!(index.check(), Ok(()));
            let whole = texts.iter().map(|text| &text[..text.len() / 3 * 3]);
            let common = |text: &[u32]| wanted.iter().zip(text).take_while(|(a, b)| a == b).count();
            let longest = whole.map(common).max().unwrap_or(0);
            let found = index.find(&wanted, 3);
            prop_assert_eq!(found.blocks.len() * 3 + found.begun.map_or(0, |(_, length)| length), longest);
            let begun = found.begun.map(|(block, _)| block);
            for (number, block) in found.blocks.iter().copied().chain(begun).enumerate() {
                let (parent, tokens) = index.entry(block).unwrap();
                prop_assert_eq!(parent, number.checked_sub(1).map(|before| found.blocks[before]));
                let here = &wanted[number * 3..longest.min(number * 3 + 3)];
                prop_assert_eq!(here, &tokens[..here.len()]);
            }
        }
    }
}
