//! What runs next: sequences in arrival order, a token budget a step, blocks from the pool. No tensors, no text.
//!
//! Prefill and decode are one path: each step advances each chosen sequence by a number of tokens. A sequence whose
//! every token has been computed gets a new one from the sampler.

mod plan;
mod scheduler;
mod sequence;
#[cfg(test)]
mod tests;

pub use plan::{Advance, StepPlan};
pub use scheduler::{PrefixCounts, Scheduler, SchedulerConfig};
pub use sequence::Sequence;
