//! The arithmetic of models on a CPU: functions over slices, and the block formats weights are stored in.
//!
//! This crate knows numbers and where they lie. It must not know models, files, requests, or tensors with a type of their own.
//!
//! - [`Format`], [`expand`]: how weights are stored, and what they stand for.
//! - [`quantize`], [`store_as`]: numbers and matrices into another format, as ggml stores them.
//! - [`PackedMatrix`]: quantised weights rearranged once for products, and those products.
//! - [`MatrixView`], [`matmul`], [`combine_rows`], [`gather_rows`]: products with weights as they are stored, which are expanded to f32 a few
//!   rows at a time. In neither are activations rounded to anything coarser than f32.
//! - [`paged_attention`], [`packed_attention`], [`write_kv`]: attention of decoders and encoders.
//! - [`rms_norm`], [`layer_norm`], [`rotary`], [`silu_mul`], [`gelu_erf`], [`gelu_tanh`], [`add`], [`softmax_rows`]: the rest of a layer.
//! - [`Threads`], [`Isa`]: what it runs on.
//! - `cuda`, with the feature of that name: the CUDA libraries, found at run time; `wide_product`: products of 16-bit factors there.
//!
//! # What a number depends on
//! Every sum is taken in one fixed order, told in the modules `panel` and `packed`. The result for a token depends on that token (and, in attention,
//! on its sequence) alone: not on the other rows of a call, on how a prompt was cut into chunks, on the number of threads, or on the
//! instruction set. All of these are tested bit for bit.

mod attention;
mod combine;
#[cfg(feature = "cuda")]
pub mod cuda;
mod elementwise;
mod error;
mod formats;
mod isa;
mod math;
mod matmul;
mod matrix;
mod norm;
mod packed;
mod panel;
mod pool;
mod rotary;
mod store;
mod threads;
#[cfg(feature = "cuda")]
pub mod wide_product;

pub use attention::{
    AttentionShape, AttentionSpan, KvView, PackedSequences, PagedContext, packed_attention, paged_attention, write_kv,
};
pub use combine::combine_rows;
pub use elementwise::{add, gelu_erf, gelu_tanh, silu_mul, softmax_rows};
pub use error::{KernelError, Result};
pub use formats::{Format, expand, expand_with, quantize, quantize_with};
pub use isa::Isa;
pub use matmul::matmul;
pub use matrix::{MatrixView, gather_rows};
pub use norm::{Affine, layer_norm, rms_norm};
pub use packed::PackedMatrix;
pub use rotary::{Rotary, RotaryStyle, RotaryTable, rotary};
pub use store::store_as;
pub use threads::Threads;
