//! The paged key-value cache: blocks of token slots ([`block`]), who holds them ([`pool`]), which tokens they hold
//! ([`prefix`]), in which numbers they are kept ([`kv_type`]), and the tensors behind them ([`store`]). Only `store` knows
//! tensors; the scheduler sees the first three.

pub mod block;
pub mod kv_type;
pub mod pool;
pub mod prefix;
pub mod store;

pub use block::BlockTable;
pub use kv_type::KvType;
pub use pool::BlockPool;
pub use prefix::{PrefixIndex, PrefixMatch};
pub use store::{KvLayout, KvStore};
