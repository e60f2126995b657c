//! One step: build the batch of a plan, run the model over it, hand back the logits.

mod batch;
mod runner;

pub use batch::LogitRows;
pub use runner::{LOGIT_ROWS, Logits, Runner};
