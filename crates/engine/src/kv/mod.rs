//! The paged key-value cache: blocks of token slots ([`block`]), who holds them ([`pool`]), which tokens they hold
//! ([`prefix`]), and the tensors behind them ([`store`]). Only `store` knows tensors; the scheduler sees the others.

pub mod block;
pub mod pool;
pub mod prefix;
pub mod store;

pub use block::BlockTable;
pub use pool::BlockPool;
pub use prefix::{PrefixIndex, PrefixMatch};
pub use store::{KvLayout, KvStore};
