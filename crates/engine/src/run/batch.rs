//! From a plan to the packed batch that a model is given.

use std::ops::Range;

use crate::error::Error;
use crate::ids::SeqId;
use crate::ops::{ForwardBatch, Span};
use crate::schedule::{Scheduler, StepPlan};

/// Whose logits stand where in the result of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogitRows {
    /// For each advance of the plan, its rows of the logits: one for each position that was asked for.
    pub rows: Vec<Range<usize>>,
}

/// Packs the plan's tokens. `first_logit` says from which position on a sequence wants logits besides its last one
/// (for the log-probabilities of its prompt); `None` means the last one alone.
///
/// # Errors
/// When a sequence of the plan is unknown or has no block for a position: scheduler and plan disagree.
pub(super) fn build(
    plan: &StepPlan,
    scheduler: &Scheduler,
    first_logit: impl Fn(SeqId) -> Option<usize>,
) -> Result<(ForwardBatch, LogitRows), Error> {
    let block_size = scheduler.pool().block_size();
    let (mut batch, mut logits) = (ForwardBatch::default(), LogitRows::default());
    for advance in &plan.advances {
        let disagree = || Error::Step(format!("sequence {} is planned without its blocks", advance.id.0));
        let sequence = scheduler.get(advance.id).ok_or_else(disagree)?;
        let (positions, start) = (advance.positions.clone(), batch.tokens.len());
        batch.tokens.extend_from_slice(sequence.tokens().get(positions.clone()).ok_or_else(disagree)?);
        for position in positions.clone() {
            batch.positions.push(position as u32);
            batch.slots.push(sequence.table().slot(position, block_size).ok_or_else(disagree)?);
        }
        let blocks = positions.end.div_ceil(block_size);
        let held = sequence.table().blocks().get(..blocks).ok_or_else(disagree)?;
        batch.spans.push(Span {
            rows: start..batch.tokens.len(),
            first_position: positions.start,
            blocks: held.iter().map(|block| block.0).collect(),
        });
        let last = if advance.samples { positions.end - 1 } else { positions.end };
        let wanted = first_logit(advance.id).unwrap_or(last).clamp(positions.start, last);
        let first_row = batch.logit_rows.len();
        batch.logit_rows.extend((wanted..positions.end).map(|position| (start + position - positions.start) as u32));
        logits.rows.push(first_row..batch.logit_rows.len());
    }
    Ok((batch, logits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::BlockPool;
    use crate::schedule::{SchedulerConfig, Sequence};

    #[test]
    fn rows_slots_and_logits_line_up() {
        let config = SchedulerConfig { token_budget: 7, max_sequences: 2, prefix_cache: true };
        let mut scheduler = Scheduler::new(config, BlockPool::new(8, 4));
        scheduler.add(Sequence::new(SeqId(1), vec![10, 11, 12]));
        scheduler.add(Sequence::new(SeqId(2), vec![20, 21, 22, 23, 24, 25]));
        let plan = scheduler.plan();
        let (batch, logits) = build(&plan, &scheduler, |id| (id == SeqId(2)).then_some(1)).unwrap();
        assert_eq!(batch.tokens, [10, 11, 12, 20, 21, 22, 23]);
        assert_eq!(batch.positions, [0, 1, 2, 0, 1, 2, 3]);
        assert_eq!(batch.slots, [0, 1, 2, 4, 5, 6, 7]);
        assert_eq!(batch.spans[1].rows, 3..7);
        assert_eq!(batch.logit_rows, [2, 4, 5, 6], "the first samples, the second wants logits from position 1 on");
        assert_eq!(logits.rows, [0..1, 1..4]);
        plan.advances.iter().for_each(|advance| scheduler.commit(advance, advance.samples.then_some(13)));
        let plan = scheduler.plan();
        let (batch, logits) = build(&plan, &scheduler, |_| None).unwrap();
        assert_eq!(batch.tokens, [13, 24, 25]);
        assert_eq!(batch.slots, [3, 8, 9], "token 4 of the second lies in its second block");
        assert_eq!(logits.rows, [0..1, 1..2]);
    }
}
