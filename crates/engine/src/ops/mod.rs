//! What runs where. Layers call these operations on tensors; each picks the implementation of the backend's arithmetic: the CPU
//! kernels ([`host`]), or the tensor library's operations on any device ([`tensors`]). Nothing above this module knows which
//! it was.

mod activation;
mod attention;
mod backend;
mod batch;
mod experts;
mod host;
mod matrix;
mod norm;
mod rotary;
mod tensors;
#[cfg(test)]
mod tests;
mod vector;

pub use backend::Backend;
pub use batch::{ForwardBatch, PackedTexts, Span};
pub use experts::{ExpertTensors, Experts, Routing, Selection};
pub use hearth_kernels::{AttentionShape, RotaryStyle};
pub use matrix::{Matrix, Orientation, Table};
pub use norm::LayerNormWeights;
pub use rotary::RotaryTable;
pub use vector::Vector;
