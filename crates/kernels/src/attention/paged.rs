//! Causal attention over a paged cache.

#![expect(unsafe_code, reason = "jobs write disjoint parts of one output")]

use std::ops::Range;

use super::attend::{Job, Segment, Tensors};
use super::kept::Kept;
use super::{AttentionShape, KvView};
use crate::error::{KernelError, Result, check_length, whole_rows};
use crate::panel::Target;
use crate::threads::Threads;

/// Queries (tokens times heads of a group) that a job takes together: they share each read of keys and values.
const QUERIES: usize = 24;
/// Jobs for each thread from which on no job is cut into stretches.
const JOBS_A_THREAD: usize = 4;

/// The tokens of one sequence in a batch.
#[derive(Debug, Clone)]
pub struct AttentionSpan<'a> {
    /// Rows of q and out that are this sequence's.
    pub rows: Range<usize>,
    /// The position of the first of them; the others follow.
    pub first_position: usize,
    /// The blocks of the sequence in order; at least as many as its positions need.
    pub blocks: &'a [u32],
}

/// What the queries attend to.
#[derive(Debug, Clone, Copy)]
pub struct PagedContext<'a> {
    /// The cache, in which the tokens of the batch already stand.
    pub kv: KvView<'a>,
    /// The sequences, in the order of their rows, without gaps.
    pub spans: &'a [AttentionSpan<'a>],
}

/// `out` `[tokens, heads, head_dim]` = attention of `q` `[tokens, heads, head_dim]`. The token at position p of its sequence
/// sees the positions 0..=p of that sequence.
///
/// A row of `out` depends on its own query and sequence alone, to the bit. What the cache keeps in fewer bits than f32 is expanded
/// exactly, a block and a head at a time, and then summed as floats are.
///
/// # Errors
/// When the shape is empty or its heads do not divide, a slice has the wrong length, a head is no whole
/// number of the format's blocks, the spans do not cover the rows in order,
/// a span has fewer blocks than positions, or a block is not in the cache.
pub fn paged_attention(
    threads: &Threads,
    q: &[f32],
    context: &PagedContext<'_>,
    shape: &AttentionShape,
    out: &mut [f32],
) -> Result<()> {
    shape.check()?;
    let tokens = whole_rows("q", q.len(), shape.query_width())?;
    check_length("out", out.len(), q.len())?;
    check_context(context, shape, tokens)?;
    let kv = &context.kv;
    let tensors = Tensors {
        isa: threads.isa(),
        shape: *shape,
        q,
        keys: Kept::new(kv.format, kv.keys),
        values: Kept::new(kv.format, kv.values),
        longest: kv.block_size,
        out: Target::new(out, shape.query_width()),
    };
    let jobs = jobs(context.spans, shape);
    let (block_size, width) = (kv.block_size, shape.key_width());
    if jobs.len() < JOBS_A_THREAD * threads.count() && jobs.iter().any(|(_, job)| job.stretches() > 1) {
        in_stretches(threads, &tensors, &jobs, [block_size, width]);
        return Ok(());
    }
    threads.for_each(jobs.len(), |index| {
        let (span, job) = &jobs[index];
        // SAFETY: the rows are within `out`, and no two jobs have the same rows and head.
        unsafe { tensors.attend(job, |positions| segments(span.blocks, positions, [block_size, width])) };
    });
    Ok(())
}

/// Computes few long jobs a stretch at a time. The result is the same: a stretch is summed as it would be within its job.
fn in_stretches(threads: &Threads, tensors: &Tensors<'_>, jobs: &[(&AttentionSpan<'_>, Job)], layout: [usize; 2]) {
    let length = |job: &Job| job.stretches() * tensors.part_length(job);
    let mut parts = vec![0.0; jobs.iter().map(|(_, job)| length(job)).sum()];
    let mut pieces = Vec::new();
    let mut rest = &mut parts[..];
    for (span, job) in jobs {
        for stretch in 0..job.stretches() {
            let (part, others) = rest.split_at_mut(tensors.part_length(job));
            pieces.push((*span, job, stretch, part));
            rest = others;
        }
    }
    threads.for_each_chunk(&mut pieces, 1, |_, piece| {
        let [(span, job, stretch, part)] = piece else { return };
        tensors.attend_stretch(job, *stretch, &|positions| segments(span.blocks, positions, layout), part);
    });
    let mut rest = &mut parts[..];
    for (_, job) in jobs {
        let (all, others) = rest.split_at_mut(length(job));
        // SAFETY: the rows are within `out`, and no two jobs have the same rows and head.
        unsafe { tensors.finish(job, all) };
        rest = others;
    }
}

fn check_context(context: &PagedContext<'_>, shape: &AttentionShape, tokens: usize) -> Result<()> {
    let kv = &context.kv;
    check_length("kv.kv_heads", kv.kv_heads, shape.kv_heads)?;
    check_length("kv.head_dim", kv.head_dim, shape.head_dim)?;
    let bound = kv.blocks()?;
    let mut next = 0;
    for span in context.spans {
        if span.rows.start != next || span.rows.end < next {
            return Err(KernelError::SpanOrder { expected: next, actual: span.rows.start });
        }
        next = span.rows.end;
        let positions = span
            .first_position
            .checked_add(span.rows.len())
            .ok_or(KernelError::Overflow { argument: "span.first_position" })?;
        let room = span.blocks.len().saturating_mul(kv.block_size);
        if positions > room {
            return Err(KernelError::OutOfBounds {
                argument: "positions of a span (in its blocks)",
                bound: room,
                value: positions - 1,
            });
        }
        if let Some(&block) = span.blocks.iter().find(|&&block| block as usize >= bound) {
            return Err(KernelError::OutOfBounds { argument: "span.blocks", bound, value: block as usize });
        }
    }
    check_length("rows of the spans", next, tokens)
}

/// Cuts the spans into jobs.
fn jobs<'a>(spans: &'a [AttentionSpan<'a>], shape: &AttentionShape) -> Vec<(&'a AttentionSpan<'a>, Job)> {
    let mut jobs = Vec::new();
    for span in spans {
        let take = (QUERIES / shape.group()).max(1);
        for start in span.rows.clone().step_by(take) {
            let tokens = start..span.rows.end.min(start + take);
            let visible = span.first_position + (start - span.rows.start) + 1;
            for kv_head in 0..shape.kv_heads {
                jobs.push((span, Job { tokens: tokens.clone(), kv_head, visible, step: 1 }));
            }
        }
    }
    jobs
}

/// The positions `positions` of a sequence, block after block.
fn segments(
    blocks: &[u32],
    positions: Range<usize>,
    [block_size, width]: [usize; 2],
) -> impl Iterator<Item = Segment> + Clone {
    (positions.start / block_size..positions.end.div_ceil(block_size)).map(move |index| {
        let first = index * block_size;
        let (start, end) = (positions.start.max(first), positions.end.min(first + block_size));
        Segment { offset: (blocks[index] as usize * block_size + start - first) * width, count: end - start }
    })
}
