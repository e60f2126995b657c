//! The tokens still in the race for one draw: cutting them down, and drawing one.
//!
//! Tokens have one total order, best first: higher logit, then lower id. Every truncation is a cut in that order. Owns the
//! buffers of a draw; must not know why a cut is made.

use std::cmp::Ordering;

use crate::softmax;

/// Tokens summed as one step when a draw walks over a whole vocabulary.
const BLOCK: usize = 1024;

/// A token and its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The token's id.
    pub token: u32,
    /// Its logit after whatever ran before.
    pub logit: f32,
}

impl Candidate {
    /// Best first: by falling logit, equal logits by rising id.
    #[must_use]
    pub fn order(&self, other: &Self) -> Ordering {
        // Adding 0 makes -0 and 0 the same number, as they are the same probability.
        (other.logit + 0.0).total_cmp(&(self.logit + 0.0)).then(self.token.cmp(&other.token))
    }

    fn is_cut_by(&self, last: &Self) -> bool {
        !(self.logit > last.logit || (self.logit == last.logit && self.token <= last.token))
    }
}

/// Buffers of a draw, kept between steps so that a step allocates nothing once they have grown.
#[derive(Clone, Debug, Default)]
pub(crate) struct DrawBuffers {
    /// What is left after the first cut, by ascending token.
    kept: Vec<Candidate>,
    /// Working space of a truncation.
    pub(crate) selection: Vec<Candidate>,
    block_sums: Vec<f64>,
}

/// The candidates of one draw: a whole row of logits until the first cut, a list from then on. At least one is left always.
#[derive(Debug)]
pub struct Candidates<'a> {
    logits: &'a [f32], // [vocabulary]
    max: f32,
    buffers: &'a mut DrawBuffers,
    narrowed: bool,
}

impl<'a> Candidates<'a> {
    /// All tokens whose logit is above minus infinity; `None` when there are none. The logits must hold no NaN.
    pub(crate) fn new(logits: &'a [f32], buffers: &'a mut DrawBuffers) -> Option<Self> {
        let max = softmax::maximum(logits);
        (max > f32::NEG_INFINITY).then_some(Self { logits, max, buffers, narrowed: false })
    }

    /// The best candidate's logit. Cuts never change it.
    #[must_use]
    pub fn max_logit(&self) -> f32 {
        self.max
    }

    /// No fewer than there are candidates.
    #[must_use]
    pub fn count_bound(&self) -> usize {
        if self.narrowed { self.buffers.kept.len() } else { self.logits.len() }
    }

    /// Sum of `exp(logit - max)` over the candidates, at least 1.
    #[must_use]
    pub fn total_weight(&self) -> f64 {
        if self.narrowed {
            weight_of(&self.buffers.kept, self.max)
        } else {
            softmax::sum_of_weights(self.logits, self.max)
        }
    }

    /// Every candidate whose logit is above `floor`, by ascending token. Each visit returns the floor for the rest.
    pub fn visit_above(&self, mut floor: f32, mut visit: impl FnMut(Candidate) -> f32) {
        if !self.narrowed {
            softmax::visit_above(self.logits, floor, |token, logit| visit(Candidate { token, logit }));
            return;
        }
        for &candidate in &self.buffers.kept {
            if candidate.logit > floor {
                floor = visit(candidate);
            }
        }
    }

    /// Gives each truncation the candidates and working space, then applies its cut.
    pub(crate) fn truncate(&mut self, truncation: &dyn crate::Truncation) {
        let mut selection = std::mem::take(&mut self.buffers.selection);
        let cut = truncation.last_kept(self, &mut selection);
        self.buffers.selection = selection;
        if let Some(last) = cut {
            self.keep_up_to(last);
        }
    }

    /// Drops every candidate that comes after `last` in the order.
    fn keep_up_to(&mut self, last: Candidate) {
        let mut kept = std::mem::take(&mut self.buffers.kept);
        if self.narrowed {
            kept.retain(|candidate| !candidate.is_cut_by(&last));
        } else {
            kept.clear();
            let floor = last.logit.next_down();
            self.visit_above(floor, |candidate| {
                if !candidate.is_cut_by(&last) {
                    kept.push(candidate);
                }
                floor
            });
        }
        self.buffers.kept = kept;
        self.narrowed = true;
    }

    /// The candidate at `uniform` (in [0, 1)) of the cumulative distribution over ascending tokens: the first at which the sum
    /// of weights exceeds `uniform` times the whole. Sums are f64. A whole row is summed in blocks of 1024 tokens first, and
    /// then within the block that holds the point. Where rounding leaves the point past the end of its block, the block's last
    /// token of any weight is taken.
    #[must_use]
    pub(crate) fn draw(self, uniform: f64) -> u32 {
        if self.narrowed {
            let total = weight_of(&self.buffers.kept, self.max);
            return walk(self.buffers.kept.iter().copied(), self.max, uniform * total);
        }
        let sums = &mut self.buffers.block_sums;
        sums.clear();
        sums.extend(self.logits.chunks(BLOCK).map(|block| softmax::sum_of_weights(block, self.max)));
        let point = uniform * sums.iter().fold(0.0, |sum, part| sum + part);
        let (mut chosen, mut before, mut through) = (0, 0.0, 0.0);
        for (index, &sum) in sums.iter().enumerate() {
            if sum > 0.0 {
                (chosen, before) = (index, through);
                through += sum;
                if through > point {
                    break;
                }
            }
        }
        let first = chosen * BLOCK;
        let block = &self.logits[first..self.logits.len().min(first + BLOCK)];
        let tokens = (0_u32..).skip(first).zip(block);
        walk(tokens.map(|(token, &logit)| Candidate { token, logit }), self.max, point - before)
    }
}

/// The first candidate at which the cumulative weight exceeds `point`, else the last of any weight.
fn walk(candidates: impl Iterator<Item = Candidate>, max: f32, point: f64) -> u32 {
    let mut sum = 0.0;
    let mut chosen = 0;
    for candidate in candidates {
        let weight = softmax::weight(candidate.logit, max);
        if weight > 0.0 {
            chosen = candidate.token;
            sum += f64::from(weight);
            if sum > point {
                break;
            }
        }
    }
    chosen
}

/// Sum of `exp(logit - max)` from first to last.
pub(crate) fn weight_of(candidates: &[Candidate], max: f32) -> f64 {
    candidates
        .iter()
        .map(|candidate| f64::from(softmax::weight(candidate.logit, max)))
        .fold(0.0, |sum, part| sum + part)
}

/// The best `count` of a stream of candidates that comes by ascending token, in one pass and about `2 * count` of memory.
#[derive(Debug)]
pub(crate) struct BestOf<'a> {
    count: usize,
    /// A candidate not above this cannot be among the best: `count` earlier ones are at least as good.
    bar: f32,
    best: &'a mut Vec<Candidate>,
}

impl<'a> BestOf<'a> {
    /// `count` is at least 1; the buffer is cleared.
    pub(crate) fn new(count: usize, best: &'a mut Vec<Candidate>) -> Self {
        best.clear();
        Self { count, bar: f32::NEG_INFINITY, best }
    }

    /// Takes a candidate above the bar and returns the bar for the next.
    pub(crate) fn admit(&mut self, candidate: Candidate) -> f32 {
        self.best.push(candidate);
        if self.best.len() >= self.count.saturating_mul(2).max(64) {
            if let Some(last) = self.select() {
                self.bar = last.logit;
            }
            self.best.truncate(self.count);
        }
        self.bar
    }

    /// The worst of the best, or `None` when fewer than `count` were offered.
    pub(crate) fn last(mut self) -> Option<Candidate> {
        self.select()
    }

    fn select(&mut self) -> Option<Candidate> {
        let index = self.count.checked_sub(1).filter(|&index| index < self.best.len())?;
        Some(*self.best.select_nth_unstable_by(index, Candidate::order).1)
    }

    /// Leaves the buffer holding the best, best first.
    pub(crate) fn sort(self) {
        self.best.sort_unstable_by(Candidate::order);
        self.best.truncate(self.count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn draw(logits: &[f32], uniform: f64) -> u32 {
        Candidates::new(logits, &mut DrawBuffers::default()).expect("something to draw").draw(uniform)
    }

    fn draw_narrowed(logits: &[f32], uniform: f64) -> u32 {
        let mut buffers = DrawBuffers::default();
        let mut candidates = Candidates::new(logits, &mut buffers).expect("something to draw");
        candidates.keep_up_to(Candidate { token: u32::MAX, logit: f32::MIN });
        candidates.draw(uniform)
    }

    #[test]
    fn a_draw_takes_the_token_whose_share_holds_the_point() {
        let equal = [0.0_f32; 4];
        for (uniform, token) in [(0.0, 0), (0.249, 0), (0.25, 1), (0.5, 2), (0.75, 3), (0.999_999, 3)] {
            assert_eq!((draw(&equal, uniform), draw_narrowed(&equal, uniform)), (token, token));
        }
    }

    #[test]
    fn a_token_of_no_weight_is_never_drawn() {
        let mut logits = vec![f32::NEG_INFINITY; 5000];
        logits[2100] = 1.0;
        logits[4500] = -200.0;
        for uniform in [0.0, 0.5, 1.0 - f64::EPSILON / 2.0, 1.0] {
            assert_eq!((draw(&logits, uniform), draw_narrowed(&logits, uniform)), (2100, 2100));
        }
    }

    proptest! {
        #[test]
        fn a_draw_agrees_with_the_plain_cumulative_sum(
            logits in prop::collection::vec(-20.0_f32..5.0, 1..5000),
            uniform in 0.0_f64..1.0,
        ) {
            let max = softmax::maximum(&logits);
            let weights: Vec<f64> = logits.iter().map(|&l| f64::from(l - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            for token in [draw(&logits, uniform), draw_narrowed(&logits, uniform)] {
                let before: f64 = weights[..token as usize].iter().sum();
                let through = before + weights[token as usize];
                prop_assert!(before / total - 1e-6 <= uniform && uniform <= through / total + 1e-6);
            }
        }

        #[test]
        fn the_best_of_many_are_the_head_of_the_sorted_list(
            logits in prop::collection::vec((-6_i8..6).prop_map(f32::from), 0..400),
            count in 1_usize..120,
        ) {
            let all: Vec<Candidate> = (0..).zip(logits).map(|(token, logit)| Candidate { token, logit }).collect();
            let mut sorted = all.clone();
            sorted.sort_by(Candidate::order);
            let mut buffer = Vec::new();
            let offer_all = |best: &mut BestOf<'_>| {
                let mut bar = f32::NEG_INFINITY;
                for &candidate in &all {
                    if candidate.logit > bar {
                        bar = best.admit(candidate);
                    }
                }
            };
            let mut best = BestOf::new(count, &mut buffer);
            offer_all(&mut best);
            prop_assert_eq!(best.last(), sorted.get(count - 1).copied());
            let mut best = BestOf::new(count, &mut buffer);
            offer_all(&mut best);
            best.sort();
            sorted.truncate(count);
            prop_assert_eq!(buffer, sorted);
        }
    }
}
