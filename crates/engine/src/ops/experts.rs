//! A layer's experts: which ones a token goes to, and each expert's product for all of its tokens at once.
//!
//! On the CPU the routing is made where it is used, in host memory. Layers see a [`Routing`] without its contents, so that on a
//! device it can stay there.

use std::ops::Range;

use candle_core::Tensor;
use hearth_kernels::softmax_rows;

use super::host::host;
use super::{Backend, Matrix};
use crate::error::Error;

/// How a router's scores become a choice.
#[derive(Clone, Copy, Debug)]
pub struct Selection {
    /// Experts of a token.
    pub top_k: usize,
    /// The p of the p-norm that a token's weights are divided by; `None` leaves them as the softmax gave them.
    pub norm: Option<f32>,
}

/// The experts of each token and their weights, `top_k` a token, best first.
#[derive(Clone, Debug)]
pub struct Routing {
    choices: Vec<Choice>,
    top_k: usize,
}

/// One expert of one token.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Choice {
    expert: usize,
    weight: f32,
}

/// The matrices of one expert: `down(silu(gate(x)) * up(x))`.
pub struct Expert {
    /// `[inner, width]`
    pub gate: Matrix,
    /// `[inner, width]`
    pub up: Matrix,
    /// From `inner` to `width`.
    pub down: Matrix,
}

impl Backend {
    /// The best experts of each token by `logits [tokens, experts]`: softmax over all, then the `top_k` likeliest. Of equals the
    /// lower index is taken, where PyTorch's `topk` leaves it open.
    ///
    /// # Errors
    /// When `logits` has another number of dimensions.
    pub fn route(&self, logits: &Tensor, selection: Selection) -> Result<Routing, Error> {
        let (_, experts) = logits.dims2()?;
        let mut probabilities = host(logits)?.elements()?.to_vec();
        softmax_rows(self.threads(), &mut probabilities, experts)?;
        let top_k = selection.top_k.min(experts);
        let choices = probabilities.chunks_exact(experts).flat_map(|row| choose(row, top_k, selection.norm)).collect();
        Ok(Routing { choices, top_k })
    }

    /// The weighted sum of what its experts make of each row of `x [tokens, width]`.
    ///
    /// Tokens are sorted by expert, and an expert's weights are read once for all of them. A token's experts are added in
    /// the order of their indices, so that its sum does not depend on the tokens beside it.
    ///
    /// # Errors
    /// When `x` has another width than the experts, or another number of rows than the routing.
    pub fn mix_experts(&self, x: &Tensor, routing: &Routing, experts: &[Expert]) -> Result<Tensor, Error> {
        let (tokens, width) = x.dims2()?;
        let (x_host, sorted) = (host(x)?, routing.by_expert(experts.len()));
        let x_rows = x_host.elements()?;
        let mut out = vec![0.0; tokens * width]; // [tokens, width]
        for (expert, assigned) in experts.iter().zip(sorted.groups()).filter(|(_, assigned)| !assigned.is_empty()) {
            let rows: Vec<f32> = assigned.iter().flat_map(|one| &x_rows[span(one.token, width)]).copied().collect();
            let rows = Tensor::from_vec(rows, (assigned.len(), width), x.device())?; // [assigned, width]
            let mixed = self.expert(&rows, expert)?;
            for (one, row) in assigned.iter().zip(host(&mixed)?.elements()?.chunks_exact(width)) {
                let sums = &mut out[span(one.token, width)];
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += one.weight * value);
            }
        }
        Ok(Tensor::from_vec(out, (tokens, width), x.device())?)
    }

    /// One expert: `[m, width]` to `[m, width]`.
    fn expert(&self, x: &Tensor, expert: &Expert) -> Result<Tensor, Error> {
        let gated = self.silu_mul(&expert.gate.multiply(x, None)?, &expert.up.multiply(x, None)?)?; // [m, inner]
        expert.down.multiply(&gated, None)
    }
}

/// Where a row of `width` elements stands.
fn span(row: usize, width: usize) -> Range<usize> {
    row * width..(row + 1) * width
}

/// The best of one token.
fn choose(probabilities: &[f32], top_k: usize, norm: Option<f32>) -> Vec<Choice> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a])); // stable: equals stay in order
    order.truncate(top_k);
    let scale = match norm {
        Some(p) => order.iter().map(|&expert| probabilities[expert].powf(p)).sum::<f32>().powf(1.0 / p),
        None => 1.0,
    };
    order.into_iter().map(|expert| Choice { expert, weight: probabilities[expert] / scale }).collect()
}

/// One token of an expert.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Assigned {
    token: usize,
    weight: f32,
}

/// The choices of all tokens, expert after expert, and within an expert in the order of the tokens.
struct SortedChoices {
    assigned: Vec<Assigned>,
    /// Where each expert's begin, and the end. `[experts + 1]`
    starts: Vec<usize>,
}

impl SortedChoices {
    fn groups(&self) -> impl Iterator<Item = &[Assigned]> {
        self.starts.windows(2).map(|ends| &self.assigned[ends[0]..ends[1]])
    }
}

impl Routing {
    /// Sorts by counting.
    fn by_expert(&self, experts: usize) -> SortedChoices {
        let mut starts = vec![0; experts + 1];
        self.choices.iter().for_each(|choice| starts[choice.expert + 1] += 1);
        for expert in 0..experts {
            starts[expert + 1] += starts[expert];
        }
        let mut next = starts.clone();
        let mut assigned = vec![Assigned { token: 0, weight: 0.0 }; self.choices.len()];
        for (index, choice) in self.choices.iter().enumerate() {
            assigned[next[choice.expert]] = Assigned { token: index / self.top_k, weight: choice.weight };
            next[choice.expert] += 1;
        }
        SortedChoices { assigned, starts }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::Device;
    use hearth_kernels::Threads;

    use super::*;

    fn route(logits: &[f32], experts: usize, selection: Selection) -> Routing {
        let backend = Backend::new(Device::Cpu, Arc::new(Threads::new(1).unwrap()));
        let logits = Tensor::from_slice(logits, (logits.len() / experts, experts), &Device::Cpu).unwrap();
        backend.route(&logits, selection).unwrap()
    }

    #[test]
    fn the_likeliest_are_chosen_and_equals_by_their_index() {
        let routing = route(&[1.0, 3.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0], 4, Selection { top_k: 3, norm: None });
        let experts: Vec<usize> = routing.choices.iter().map(|choice| choice.expert).collect();
        assert_eq!(experts, [1, 3, 0, 0, 1, 2]);
        assert!(routing.choices[3..].iter().all(|choice| choice.weight == 0.25));
    }

    #[test]
    fn weights_have_the_norm_that_is_asked_for() {
        for p in [1.0, 2.0, 3.0_f32] {
            let routing = route(&[0.5, -1.0, 2.0, 0.25], 4, Selection { top_k: 2, norm: Some(p) });
            let length: f32 = routing.choices.iter().map(|choice| choice.weight.powf(p)).sum();
            assert!((length - 1.0).abs() < 1e-6, "{p}: {length}");
            let ratio = routing.choices[0].weight / routing.choices[1].weight;
            assert!((ratio - 1.5_f32.exp()).abs() < 1e-5, "{ratio}");
        }
    }

    #[test]
    fn every_choice_is_found_again_under_its_expert() {
        let logits = [3.0, 2.0, 1.0, 1.0, 2.0, 3.0, 3.0, 1.0, 2.0];
        let sorted = route(&logits, 3, Selection { top_k: 2, norm: None }).by_expert(3);
        let tokens: Vec<Vec<usize>> =
            sorted.groups().map(|group| group.iter().map(|one| one.token).collect()).collect();
        assert_eq!(tokens, [vec![0, 2], vec![0, 1], vec![1, 2]]);
    }
}
