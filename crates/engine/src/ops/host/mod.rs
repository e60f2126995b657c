//! The operations on tensors in host memory: their slices, handed to the CPU kernels.
//!
//! Every sum is taken in one order, whatever else is in the batch; see the kernels. Must not know where a choice between this and
//! [`super::tensors`] comes from.

pub(super) mod attention;
pub(super) mod experts;
mod matrix;
pub(super) mod rows;
mod slice;

pub(super) use matrix::{HostMatrix, MappedMatrix};
