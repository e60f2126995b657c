//! The plan of one step: which sequence advances by which tokens.

use std::ops::Range;

use crate::ids::{BlockId, SeqId};

/// One sequence's part of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    /// Whose tokens.
    pub id: SeqId,
    /// Positions in the sequence that this step computes; never empty.
    pub positions: Range<usize>,
    /// Whether these are the last tokens left, so that the step yields the logits of the next one.
    pub samples: bool,
}

/// One step of the engine: the advances in batch order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepPlan {
    /// In the order in which they are packed into the batch.
    pub advances: Vec<Advance>,
    /// Blocks to be copied before anything is computed: from where, and to where.
    pub copies: Vec<(BlockId, BlockId)>,
}

impl StepPlan {
    /// Tokens computed by this step.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.advances.iter().map(|advance| advance.positions.len()).sum()
    }
}
