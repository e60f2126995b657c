//! The paged key-value cache: blocks of token slots ([`block`]), who holds them ([`pool`]), and the tensors behind
//! them ([`store`]). Only `store` knows tensors; the scheduler sees the other two.

pub mod block;
pub mod pool;
pub mod store;

pub use block::BlockTable;
pub use pool::BlockPool;
pub use store::{KvLayout, KvStore};
