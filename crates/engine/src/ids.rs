//! Identifiers of the engine. Plain numbers with a type of their own, so that a block cannot be taken for a slot.

/// One sequence in an engine, unique for the engine's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqId(pub u64);

/// One block of the key-value cache: a fixed number of token slots in every layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// The place of one token in the cache: `block * block_size + offset`.
pub type Slot = u32;
