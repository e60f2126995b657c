//! A layer's experts: which ones a token goes to, and what they make of it.
//!
//! Layers see a [`Routing`] without its contents: on a device it stays there, and no step waits for it.

use candle_core::Tensor;

use super::host::HostMatrix;
use super::host::experts::{HostExpert, HostRouting, mix, route};
use super::tensors::experts::{DeviceExperts, DeviceRouting};
use super::vector::other_backend;
use super::{Backend, Orientation, backend::Arithmetic};
use crate::error::Error;
use crate::weights::WeightTensor;

/// How a router's scores become a choice.
#[derive(Clone, Copy, Debug)]
pub struct Selection {
    /// Experts of a token.
    pub top_k: usize,
    /// The p of the p-norm that a token's weights are divided by; `None` leaves them as the softmax gave them.
    pub norm: Option<f32>,
}

/// The experts of each token and their weights, `top_k` a token.
#[derive(Clone, Debug)]
pub struct Routing(Routed);

#[derive(Clone, Debug)]
enum Routed {
    Host(HostRouting),
    Device(DeviceRouting),
}

/// The stored matrices of a layer's experts, `down(silu(gate(x)) * up(x))`, each list as long as there are experts.
pub struct ExpertTensors {
    /// Each `[inner, width]`.
    pub gate: Vec<WeightTensor>,
    /// Each `[inner, width]`.
    pub up: Vec<WeightTensor>,
    /// Each from `inner` to `width`.
    pub down: Vec<WeightTensor>,
    /// How `down` is stored.
    pub down_orientation: Orientation,
}

/// The experts of one layer on a backend.
pub struct Experts {
    backend: Backend,
    weights: ExpertWeights,
}

enum ExpertWeights {
    Host(Vec<HostExpert>),
    Uploaded(DeviceExperts),
}

impl Experts {
    /// Takes the experts to the backend: for the kernels each of their matrices is one by itself, for a device they are uploaded one by one.
    ///
    /// # Errors
    /// When a tensor has not two dimensions, or the device no memory for it.
    pub fn new(backend: &Backend, tensors: ExpertTensors) -> Result<Self, Error> {
        let weights = match backend.arithmetic() {
            Arithmetic::Kernels => ExpertWeights::Host(host_experts(backend, tensors)?),
            Arithmetic::Tensors => ExpertWeights::Uploaded(DeviceExperts::upload(backend.device(), &tensors)?),
        };
        Ok(Self { backend: backend.clone(), weights })
    }

    /// The weighted sum of what its experts make of each row of `x [tokens, width]`.
    ///
    /// With the kernels, tokens are sorted by expert and an expert's weights are read once for all of them; a token's experts
    /// are added in the order of their indices, so that its sum does not depend on the tokens beside it. What a device does, and
    /// what it costs, depends on the weights' format.
    ///
    /// # Errors
    /// When `x` has another width than the experts, or another number of rows than the routing.
    pub fn mix(&self, x: &Tensor, routing: &Routing) -> Result<Tensor, Error> {
        match (&self.weights, &routing.0) {
            (ExpertWeights::Host(experts), Routed::Host(routing)) => mix(self.backend.threads(), x, routing, experts),
            (ExpertWeights::Uploaded(experts), Routed::Device(routing)) => experts.mix(x, routing),
            _ => Err(other_backend("a mixture of experts", "the routing of another backend")),
        }
    }
}

/// Each expert with its three matrices.
fn host_experts(backend: &Backend, tensors: ExpertTensors) -> Result<Vec<HostExpert>, Error> {
    let ExpertTensors { gate, up, down, down_orientation } = tensors;
    let matrices = gate.into_iter().zip(up).zip(down);
    matrices
        .map(|((gate, up), down)| {
            let matrix = |tensor, orientation| HostMatrix::new(backend.threads(), tensor, orientation);
            let (plain, other) = (Orientation::OutputsByInputs, down_orientation);
            Ok(HostExpert { gate: matrix(gate, plain)?, up: matrix(up, plain)?, down: matrix(down, other)? })
        })
        .collect()
}

impl Backend {
    /// The best experts of each token by `logits [tokens, experts]`: softmax over all, then the `top_k` likeliest. Of equals the
    /// CPU takes the lower index, where PyTorch's `topk` and CUDA devices leave it open.
    ///
    /// # Errors
    /// When `logits` has another number of dimensions.
    pub fn route(&self, logits: &Tensor, selection: Selection) -> Result<Routing, Error> {
        Ok(Routing(match self.arithmetic() {
            Arithmetic::Kernels => Routed::Host(route(self.threads(), logits, selection)?),
            Arithmetic::Tensors => Routed::Device(DeviceRouting::new(logits, selection)?),
        }))
    }
}
