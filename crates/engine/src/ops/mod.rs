//! What runs where. Layers call these operations on tensors; each picks the implementation of the backend's device
//! (today: the CPU kernels). Nothing above this module knows which it was.

mod activation;
mod attention;
mod backend;
mod batch;
mod experts;
mod host;
mod matrix;
mod norm;
mod rotary;

pub use backend::Backend;
pub use batch::{ForwardBatch, PackedTexts, Span};
pub use experts::{Expert, Routing, Selection};
pub use hearth_kernels::{AttentionShape, RotaryStyle};
pub use matrix::{Matrix, Orientation};
pub use norm::LayerNormWeights;
pub use rotary::RotaryTable;
