//! Routing in host memory, and each expert's product for all of its tokens at once.

use std::ops::Range;

use candle_core::Tensor;
use hearth_kernels::{Threads, softmax_rows};

use super::HostMatrix;
use super::rows::silu_mul;
use super::slice::host;
use crate::error::Error;
use crate::ops::Selection;

/// The experts of each token and their weights, `top_k` a token, best first.
#[derive(Clone, Debug)]
pub(in crate::ops) struct HostRouting {
    choices: Vec<Choice>,
    top_k: usize,
}

/// One expert of one token.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Choice {
    expert: usize,
    weight: f32,
}

/// The matrices of one expert.
pub(in crate::ops) struct HostExpert {
    /// From `width` to `inner`.
    pub(in crate::ops) gate: HostMatrix,
    /// From `width` to `inner`.
    pub(in crate::ops) up: HostMatrix,
    /// From `inner` to `width`.
    pub(in crate::ops) down: HostMatrix,
}

impl HostExpert {
    /// `down(silu(gate(x)) * up(x))`: `[m, width]` to `[m, width]`.
    fn forward(&self, threads: &Threads, x: &Tensor) -> Result<Tensor, Error> {
        let (gate, up) = (self.gate.multiply(threads, x, None)?, self.up.multiply(threads, x, None)?);
        let gated = silu_mul(threads, &gate, &up)?; // [m, inner]
        self.down.multiply(threads, &gated, None)
    }
}

/// Softmax over all experts, then the likeliest of each token.
pub(in crate::ops) fn route(threads: &Threads, logits: &Tensor, selection: Selection) -> Result<HostRouting, Error> {
    let (_, experts) = logits.dims2()?;
    let mut probabilities = host(logits)?.elements()?.to_vec();
    softmax_rows(threads, &mut probabilities, experts)?;
    let top_k = selection.top_k.min(experts);
    let choices = probabilities.chunks_exact(experts).flat_map(|row| choose(row, top_k, selection.norm)).collect();
    Ok(HostRouting { choices, top_k })
}

/// The weighted sums of `experts` over `x [tokens, width]`.
pub(in crate::ops) fn mix(
    threads: &Threads,
    x: &Tensor,
    routing: &HostRouting,
    experts: &[HostExpert],
) -> Result<Tensor, Error> {
    let (tokens, width) = x.dims2()?;
    let (x_host, sorted) = (host(x)?, routing.by_expert(experts.len()));
    let x_rows = x_host.elements()?;
    let mut out = vec![0.0; tokens * width]; // [tokens, width]
    for (expert, assigned) in experts.iter().zip(sorted.groups()).filter(|(_, assigned)| !assigned.is_empty()) {
        let rows: Vec<f32> = assigned.iter().flat_map(|one| &x_rows[span(one.token, width)]).copied().collect();
        let rows = Tensor::from_vec(rows, (assigned.len(), width), x.device())?; // [assigned, width]
        let mixed = expert.forward(threads, &rows)?;
        for (one, row) in assigned.iter().zip(host(&mixed)?.elements()?.chunks_exact(width)) {
            let sums = &mut out[span(one.token, width)];
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += one.weight * value);
        }
    }
    Ok(Tensor::from_vec(out, (tokens, width), x.device())?)
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

impl HostRouting {
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
    use candle_core::Device;

    use super::*;

    fn routed(logits: &[f32], experts: usize, selection: Selection) -> HostRouting {
        let logits = Tensor::from_slice(logits, (logits.len() / experts, experts), &Device::Cpu).unwrap();
        route(&Threads::new(1).unwrap(), &logits, selection).unwrap()
    }

    #[test]
    fn the_likeliest_are_chosen_and_equals_by_their_index() {
        let routing = routed(&[1.0, 3.0, 1.0, 2.0, 0.0, 0.0, 0.0, 0.0], 4, Selection { top_k: 3, norm: None });
        let experts: Vec<usize> = routing.choices.iter().map(|choice| choice.expert).collect();
        assert_eq!(experts, [1, 3, 0, 0, 1, 2]);
        assert!(routing.choices[3..].iter().all(|choice| choice.weight == 0.25));
    }

    #[test]
    fn weights_have_the_norm_that_is_asked_for() {
        for p in [1.0, 2.0, 3.0_f32] {
            let routing = routed(&[0.5, -1.0, 2.0, 0.25], 4, Selection { top_k: 2, norm: Some(p) });
            let length: f32 = routing.choices.iter().map(|choice| choice.weight.powf(p)).sum();
            assert!((length - 1.0).abs() < 1e-6, "{p}: {length}");
            let ratio = routing.choices[0].weight / routing.choices[1].weight;
            assert!((ratio - 1.5_f32.exp()).abs() < 1e-5, "{ratio}");
        }
    }

    #[test]
    fn every_choice_is_found_again_under_its_expert() {
        let logits = [3.0, 2.0, 1.0, 1.0, 2.0, 3.0, 3.0, 1.0, 2.0];
        let sorted = routed(&logits, 3, Selection { top_k: 2, norm: None }).by_expert(3);
        let tokens: Vec<Vec<usize>> =
            sorted.groups().map(|group| group.iter().map(|one| one.token).collect()).collect();
        assert_eq!(tokens, [vec![0, 2], vec![0, 1], vec![1, 2]]);
    }
}
