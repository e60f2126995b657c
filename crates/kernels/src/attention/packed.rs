//! Attention in both directions over sequences that stand one after another, as encoders need it.

#![expect(unsafe_code, reason = "jobs write disjoint parts of one output")]

use super::AttentionShape;
use std::ops::Range;

use super::attend::{Job, Segment, Tensors};
use super::kept::Kept;
use crate::error::{Result, check_length, size, whole_rows};
use crate::panel::Target;
use crate::threads::Threads;

/// Queries a job takes together.
const QUERIES: usize = 24;
/// Positions whose keys are read together: they stay in the first-level cache for all queries of the job.
const SEGMENT: usize = 64;

/// Sequences packed without padding.
#[derive(Debug, Clone, Copy)]
pub struct PackedSequences<'a> {
    /// `[tokens, heads, head_dim]`
    pub q: &'a [f32],
    /// `[tokens, kv_heads, head_dim]`
    pub k: &'a [f32],
    /// `[tokens, kv_heads, head_dim]`
    pub v: &'a [f32],
    /// The lengths of the sequences, which add up to the tokens.
    pub lengths: &'a [usize],
}

/// `out` `[tokens, heads, head_dim]` = attention of every token to all tokens of its own sequence.
///
/// A row of `out` depends on its own sequence alone, to the bit.
///
/// # Errors
/// When the shape is empty or its heads do not divide, a slice has the wrong length, or the lengths do not add up to the tokens.
pub fn packed_attention(
    threads: &Threads,
    sequences: &PackedSequences<'_>,
    shape: &AttentionShape,
    out: &mut [f32],
) -> Result<()> {
    shape.check()?;
    let tokens = whole_rows("q", sequences.q.len(), shape.query_width())?;
    check_length("k", sequences.k.len(), size("k", &[tokens, shape.key_width()])?)?;
    check_length("v", sequences.v.len(), sequences.k.len())?;
    check_length("out", out.len(), sequences.q.len())?;
    let total = sequences.lengths.iter().fold(0usize, |total, &length| total.saturating_add(length));
    check_length("sum of the lengths", total, tokens)?;
    let tensors = Tensors {
        isa: threads.isa(),
        shape: *shape,
        q: sequences.q,
        keys: Kept::Floats(sequences.k),
        values: Kept::Floats(sequences.v),
        longest: SEGMENT,
        out: Target::new(out, shape.query_width()),
    };
    let jobs = jobs(sequences.lengths, shape);
    threads.for_each(jobs.len(), |index| {
        let (first_token, job) = &jobs[index];
        // SAFETY: the rows are within `out`, and no two jobs have the same rows and head.
        unsafe { tensors.attend(job, |positions| segments(*first_token, positions, shape.key_width())) };
    });
    Ok(())
}

/// Cuts the sequences into jobs, each with the first token of its sequence.
fn jobs(lengths: &[usize], shape: &AttentionShape) -> Vec<(usize, Job)> {
    let mut jobs = Vec::new();
    let take = (QUERIES / shape.group()).max(1);
    let mut first = 0;
    for &length in lengths {
        for start in (first..first + length).step_by(take) {
            let tokens = start..(first + length).min(start + take);
            for kv_head in 0..shape.kv_heads {
                jobs.push((first, Job { tokens: tokens.clone(), kv_head, visible: length, step: 0 }));
            }
        }
        first += length;
    }
    jobs
}

/// The tokens `positions` of the sequence that begins with `first_token`.
fn segments(first_token: usize, positions: Range<usize>, width: usize) -> impl Iterator<Item = Segment> + Clone {
    let end = positions.end;
    let segment =
        move |start: usize| Segment { offset: (first_token + start) * width, count: SEGMENT.min(end - start) };
    positions.step_by(SEGMENT).map(segment)
}
