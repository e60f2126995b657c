//! The arithmetic of attention for some tokens and one head of keys. It sees segments of positions, not block tables.

#![expect(unsafe_code, reason = "jobs write disjoint parts of one output")]

use std::ops::Range;

use super::AttentionShape;
use super::kept::{HeadRows, Kept};
use crate::isa::{Isa, for_each_isa};
use crate::math;
use crate::panel::{Rows, Target, dot_products, weighted_sums};
use crate::threads::with_scratch;

/// Consecutive positions that lie one after another in memory.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    /// Where the first position's token starts in the keys and values.
    pub(super) offset: usize,
    /// How many positions there are.
    pub(super) count: usize,
}

/// What all jobs of a call share.
#[derive(Clone, Copy)]
pub(super) struct Tensors<'a> {
    pub(super) isa: Isa,
    pub(super) shape: AttentionShape,
    /// `[tokens, heads, head_dim]`
    pub(super) q: &'a [f32],
    pub(super) keys: Kept<'a>,
    pub(super) values: Kept<'a>,
    /// Most positions of a segment.
    pub(super) longest: usize,
    /// `[tokens, heads, head_dim]`
    pub(super) out: Target,
}

/// Some tokens of one sequence against one head of its keys.
pub(super) struct Job {
    /// Rows of q and out.
    pub(super) tokens: Range<usize>,
    /// The head of the keys and values.
    pub(super) kv_head: usize,
    /// How many positions the first token sees.
    pub(super) visible: usize,
    /// How many more each next token sees: 1 when causal, 0 when every token sees all.
    pub(super) step: usize,
}

impl Job {
    /// How many positions the token `index` of the job sees.
    fn visible_to(&self, index: usize) -> usize {
        self.visible + index * self.step
    }

    /// How many positions the last token sees.
    pub(super) fn positions(&self) -> usize {
        self.visible_to(self.tokens.len() - 1)
    }
}

/// The buffers of a job. Query i is head `i % group` of token `i / group`.
struct Buffers<'a> {
    /// `[queries, head_dim]`
    q: &'a mut [f32],
    /// `[queries, positions]`
    scores: &'a mut [f32],
    /// `[queries, head_dim]`
    sums: &'a mut [f32],
    /// `[queries]`
    totals: &'a mut [f32],
    /// Keys or values of a segment, where they have to be expanded; else empty. `[longest, head_dim]`
    room: &'a mut [f32],
}

impl Tensors<'_> {
    /// Computes the rows `job.tokens` of the heads served by `job.kv_head`.
    ///
    /// # Safety
    /// No other thread may touch that part of `out` meanwhile, and `out` must have it.
    pub(super) unsafe fn attend(&self, job: &Job, segments: impl Iterator<Item = Segment> + Clone) {
        let head_dim = self.shape.head_dim;
        let queries = job.tokens.len() * self.shape.group();
        let positions = job.positions();
        let expands = self.keys.expands() || self.values.expands();
        let room = if expands { self.longest * head_dim } else { 0 };
        with_scratch(queries * (2 * head_dim + positions + 1) + room, |scratch| {
            let (room, scratch) = scratch.split_at_mut(room);
            let (q, scratch) = scratch.split_at_mut(queries * head_dim);
            let (sums, scratch) = scratch.split_at_mut(queries * head_dim);
            let (totals, scores) = scratch.split_at_mut(queries);
            let mut buffers = Buffers { q, scores, sums, totals, room };
            self.copy_queries(job, buffers.q);
            self.score(job, segments.clone(), &mut buffers);
            for i in 0..queries {
                let visible = job.visible_to(i / self.shape.group());
                let scores = &mut buffers.scores[i * positions..][..visible];
                buffers.totals[i] = softmax_weights(self.isa, scores, self.shape.scale);
            }
            self.mix(job, segments, &mut buffers);
            // SAFETY: the caller's promise.
            unsafe { self.store(job, &buffers) };
        });
    }

    /// Where the query `index` of a job stands in q and out.
    fn query_offset(&self, job: &Job, index: usize) -> usize {
        let group = self.shape.group();
        let token = job.tokens.start + index / group;
        (token * self.shape.heads + job.kv_head * group + index % group) * self.shape.head_dim
    }

    fn copy_queries(&self, job: &Job, out: &mut [f32]) {
        let head_dim = self.shape.head_dim;
        for (i, out) in out.chunks_exact_mut(head_dim).enumerate() {
            out.copy_from_slice(&self.q[self.query_offset(job, i)..][..head_dim]);
        }
    }

    /// Where the rows of the job's head are in a segment of the keys or values.
    fn head_rows(&self, job: &Job, segment: Segment) -> HeadRows {
        let (width, stride) = (self.shape.head_dim, self.shape.key_width());
        HeadRows { offset: segment.offset + job.kv_head * width, count: segment.count, width, stride }
    }

    /// Query times key for all queries and positions; what a query may not see is computed too, and then not used.
    fn score(&self, job: &Job, segments: impl Iterator<Item = Segment>, buffers: &mut Buffers<'_>) {
        let (queries, positions) = (buffers.totals.len(), job.positions());
        let scores = Target::new(buffers.scores, positions);
        let mut first = 0;
        for segment in segments {
            let keys = self.keys.rows(self.isa, self.head_rows(job, segment), buffers.room);
            let q = Rows::dense(buffers.q, queries, self.shape.head_dim);
            assert!(first + segment.count <= positions, "segments end with the last visible position");
            // SAFETY: `scores` has `positions` columns for each query and is borrowed by this function alone.
            unsafe { dot_products(self.isa, &keys, &q, scores.at_column(first)) };
            first += segment.count;
        }
    }

    /// The sums of the values, weighted by the scores, position after position.
    fn mix(&self, job: &Job, segments: impl Iterator<Item = Segment>, buffers: &mut Buffers<'_>) {
        let group = self.shape.group();
        let Buffers { scores, sums, totals, room, .. } = buffers;
        sums.fill(0.0);
        let mut first = 0;
        for segment in segments {
            let end = first + segment.count;
            let values = self.values.rows(self.isa, self.head_rows(job, segment), room);
            // What the first token sees, all see; the rest is for each token by itself.
            let common = end.min(job.visible);
            if first < common {
                self.mix_range(job, [0, totals.len()], (first, first..common, &values), (scores, sums));
            }
            for token in 1..job.tokens.len() {
                let rest = first.max(job.visible)..end.min(job.visible_to(token));
                if !rest.is_empty() {
                    self.mix_range(job, [token * group, group], (first, rest, &values), (scores, sums));
                }
            }
            first = end;
        }
    }

    /// Adds the positions `range` of the `values` of a segment that starts at position `first` to `count` queries from `query`.
    fn mix_range(
        &self,
        job: &Job,
        [query, count]: [usize; 2],
        (first, range, values): (usize, Range<usize>, &Rows<'_>),
        (scores, sums): (&[f32], &mut [f32]),
    ) {
        let (head_dim, positions) = (self.shape.head_dim, job.positions());
        let values = values.part(range.start - first..range.end - first);
        let factors = &scores[query * positions + range.start..];
        let factors = Rows::new(factors, [count, range.len()], positions);
        let sums = Target::new(&mut sums[query * head_dim..][..count * head_dim], head_dim);
        // SAFETY: the slice just taken has `count` rows of `head_dim` and is borrowed by this function alone.
        unsafe { weighted_sums(self.isa, &factors, &values, sums) };
    }

    /// # Safety
    /// As [`Self::attend`].
    unsafe fn store(&self, job: &Job, buffers: &Buffers<'_>) {
        let head_dim = self.shape.head_dim;
        for (i, (sums, total)) in buffers.sums.chunks_exact(head_dim).zip(&*buffers.totals).enumerate() {
            // SAFETY: the caller promises that this part of `out` exists and is this job's alone.
            let out =
                unsafe { std::slice::from_raw_parts_mut(self.out.start.add(self.query_offset(job, i)), head_dim) };
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sum / total;
            }
        }
    }
}

for_each_isa! {
    fn softmax_weights(scores: &mut [f32], scale: f32) -> f32 = math::softmax_weights;
}
