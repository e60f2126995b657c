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

    /// How many stretches those are.
    pub(super) fn stretches(&self) -> usize {
        self.positions().div_ceil(STRETCH)
    }
}

/// Positions that are summed together. A softmax over more is that of each stretch, brought to the largest score of all, stretch
/// after stretch: where one ends does not depend on how tokens were batched, so neither does the result.
pub(super) const STRETCH: usize = 512;

/// What one stretch, or the stretches so far, make of the queries of a job. Query i is head `i % group` of token `i / group`.
struct Part<'a> {
    /// Values times weights. `[queries, head_dim]`
    sums: &'a mut [f32],
    /// The sum of the weights of each.
    totals: &'a mut [f32],
    /// The largest score of each, which has the weight one.
    largest: &'a mut [f32],
}

impl<'a> Part<'a> {
    fn new(numbers: &'a mut [f32], queries: usize) -> Self {
        let (ends, sums) = numbers.split_at_mut(2 * queries);
        let (totals, largest) = ends.split_at_mut(queries);
        Self { sums, totals, largest }
    }

    /// Takes in the next stretch for the queries that see some of it.
    fn merge(&mut self, isa: Isa, next: &Part<'_>, sees: impl Fn(usize) -> bool) {
        let head_dim = self.sums.len() / self.totals.len();
        for i in (0..self.totals.len()).filter(|&i| sees(i)) {
            let largest = if next.largest[i] > self.largest[i] { next.largest[i] } else { self.largest[i] };
            let [old, new] = [self.largest[i], next.largest[i]].map(|one| math::exp(one - largest));
            self.largest[i] = largest;
            self.totals[i] = self.totals[i] * old + next.totals[i] * new;
            let at = i * head_dim..(i + 1) * head_dim;
            mix_scaled(isa, &mut self.sums[at.clone()], old, &next.sums[at], new);
        }
    }
}

/// The buffers of a job.
struct Buffers<'a> {
    /// `[queries, head_dim]`
    q: &'a mut [f32],
    /// `[queries, positions of the stretch]`
    scores: &'a mut [f32],
    /// Keys or values of a segment, where they have to be expanded; else empty. `[longest, head_dim]`
    room: &'a mut [f32],
}

impl Tensors<'_> {
    /// Computes the rows `job.tokens` of the heads served by `job.kv_head`, from the segments of ranges of positions.
    ///
    /// # Safety
    /// No other thread may touch that part of `out` meanwhile, and `out` must have it.
    pub(super) unsafe fn attend<S: Iterator<Item = Segment> + Clone>(
        &self,
        job: &Job,
        segments: impl Fn(Range<usize>) -> S,
    ) {
        let length = self.part_length(job);
        with_scratch(2 * length, |parts| {
            let (all, one) = parts.split_at_mut(length);
            self.attend_stretch(job, 0, &segments, all);
            for stretch in 1..job.stretches() {
                self.attend_stretch(job, stretch, &segments, one);
                self.merge(job, stretch, all, one);
            }
            // SAFETY: the caller's promise.
            unsafe { self.store(job, all) };
        });
    }

    /// Computes one stretch of a job, into a part of [`Self::part_length`].
    pub(super) fn attend_stretch<S: Iterator<Item = Segment> + Clone>(
        &self,
        job: &Job,
        stretch: usize,
        segments: &impl Fn(Range<usize>) -> S,
        part: &mut [f32],
    ) {
        let (head_dim, queries) = (self.shape.head_dim, self.queries(job));
        let positions = stretch * STRETCH..job.positions().min((stretch + 1) * STRETCH);
        let expands = self.keys.expands() || self.values.expands();
        let room = if expands { self.longest * head_dim } else { 0 };
        with_scratch(queries * (head_dim + positions.len()) + room, |scratch| {
            let (room, scratch) = scratch.split_at_mut(room);
            let (q, scores) = scratch.split_at_mut(queries * head_dim);
            let (mut buffers, mut part) = (Buffers { q, scores, room }, Part::new(part, queries));
            self.copy_queries(job, buffers.q);
            let seen = Seen { job, positions: positions.clone() };
            self.score(&seen, segments(positions.clone()), &mut buffers);
            for i in 0..queries {
                let visible = seen.visible_to(i / self.shape.group());
                let scores = &mut buffers.scores[i * positions.len()..][..visible];
                (part.largest[i], part.totals[i]) = softmax_weights(self.isa, scores, self.shape.scale);
            }
            self.mix(&seen, segments(positions), &mut buffers, &mut part);
        });
    }

    /// Computes what [`Self::attend`] does from the parts of all stretches, one after another.
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn finish(&self, job: &Job, parts: &mut [f32]) {
        let (all, others) = parts.split_at_mut(self.part_length(job));
        for (index, one) in others.chunks_exact_mut(self.part_length(job)).enumerate() {
            self.merge(job, index + 1, all, one);
        }
        // SAFETY: the caller's promise.
        unsafe { self.store(job, all) };
    }

    /// Numbers of a part.
    pub(super) fn part_length(&self, job: &Job) -> usize {
        self.queries(job) * (self.shape.head_dim + 2)
    }

    fn queries(&self, job: &Job) -> usize {
        job.tokens.len() * self.shape.group()
    }

    fn merge(&self, job: &Job, stretch: usize, all: &mut [f32], next: &mut [f32]) {
        let (queries, group) = (self.queries(job), self.shape.group());
        let next = Part::new(next, queries);
        Part::new(all, queries).merge(self.isa, &next, |i| job.visible_to(i / group) > stretch * STRETCH);
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
    fn score(&self, seen: &Seen<'_>, segments: impl Iterator<Item = Segment>, buffers: &mut Buffers<'_>) {
        let (queries, positions) = (self.queries(seen.job), seen.positions.len());
        let scores = Target::new(buffers.scores, positions);
        let mut first = 0;
        for segment in segments {
            let keys = self.keys.rows(self.isa, self.head_rows(seen.job, segment), buffers.room);
            let q = Rows::dense(buffers.q, queries, self.shape.head_dim);
            assert!(first + segment.count <= positions, "segments end with the last position");
            // SAFETY: `scores` has `positions` columns for each query and is borrowed by this function alone.
            unsafe { dot_products(self.isa, &keys, &q, scores.at_column(first)) };
            first += segment.count;
        }
    }

    /// The sums of the values, weighted by the scores, position after position.
    fn mix(
        &self,
        seen: &Seen<'_>,
        segments: impl Iterator<Item = Segment>,
        buffers: &mut Buffers<'_>,
        part: &mut Part<'_>,
    ) {
        let (group, tokens) = (self.shape.group(), seen.job.tokens.len());
        part.sums.fill(0.0);
        let mut first = 0;
        for segment in segments {
            let end = first + segment.count;
            let values = self.values.rows(self.isa, self.head_rows(seen.job, segment), buffers.room);
            // What the first token sees, all see; the rest is for each token by itself.
            let common = end.min(seen.visible_to(0));
            if first < common {
                self.mix_range(seen, [0, tokens * group], (first, first..common, &values), (buffers.scores, part.sums));
            }
            for token in 1..tokens {
                let rest = first.max(seen.visible_to(0))..end.min(seen.visible_to(token));
                if !rest.is_empty() {
                    self.mix_range(seen, [token * group, group], (first, rest, &values), (buffers.scores, part.sums));
                }
            }
            first = end;
        }
    }

    /// Adds the positions `range` of the `values` of a segment that starts at position `first` to `count` queries from `query`.
    fn mix_range(
        &self,
        seen: &Seen<'_>,
        [query, count]: [usize; 2],
        (first, range, values): (usize, Range<usize>, &Rows<'_>),
        (scores, sums): (&[f32], &mut [f32]),
    ) {
        let (head_dim, positions) = (self.shape.head_dim, seen.positions.len());
        let values = values.part(range.start - first..range.end - first);
        let factors = &scores[query * positions + range.start..];
        let factors = Rows::new(factors, [count, range.len()], positions);
        let sums = Target::new(&mut sums[query * head_dim..][..count * head_dim], head_dim);
        // SAFETY: the slice just taken has `count` rows of `head_dim` and is borrowed by this function alone.
        unsafe { weighted_sums(self.isa, &factors, &values, sums) };
    }

    /// # Safety
    /// As [`Self::attend`].
    unsafe fn store(&self, job: &Job, part: &mut [f32]) {
        let (head_dim, part) = (self.shape.head_dim, Part::new(part, self.queries(job)));
        for (i, (sums, total)) in part.sums.chunks_exact(head_dim).zip(&*part.totals).enumerate() {
            // SAFETY: the caller promises that this part of `out` exists and is this job's alone.
            let out =
                unsafe { std::slice::from_raw_parts_mut(self.out.start.add(self.query_offset(job, i)), head_dim) };
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sum / total;
            }
        }
    }
}

/// A job and the positions of the stretch that is computed.
struct Seen<'a> {
    job: &'a Job,
    positions: Range<usize>,
}

impl Seen<'_> {
    /// How many of these positions the token `index` of the job sees.
    fn visible_to(&self, index: usize) -> usize {
        self.job.visible_to(index).saturating_sub(self.positions.start).min(self.positions.len())
    }
}

for_each_isa! {
    fn softmax_weights(scores: &mut [f32], scale: f32) -> (f32, f32) = math::softmax_weights;
}

for_each_isa! {
    fn mix_scaled(sums: &mut [f32], old: f32, others: &[f32], new: f32) = mix_scaled_body;
}

#[inline(always)]
fn mix_scaled_body(sums: &mut [f32], old: f32, others: &[f32], new: f32) {
    sums.iter_mut().zip(others).for_each(|(sum, other)| *sum = *sum * old + other * new);
}
