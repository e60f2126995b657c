//! Row by row: norms, activations, rotary positions.

use candle_core::Tensor;
use hearth_kernels::{Affine, Rotary, Threads};

use super::slice::host;
use crate::error::Error;

pub(in crate::ops) fn rms_norm(threads: &Threads, x: &Tensor, weight: &[f32], epsilon: f32) -> Result<Tensor, Error> {
    let mut out = vec![0.0; x.elem_count()];
    hearth_kernels::rms_norm(threads, host(x)?.elements()?, weight, epsilon, &mut out)?;
    Ok(Tensor::from_vec(out, x.shape(), x.device())?)
}

pub(in crate::ops) fn layer_norm(
    threads: &Threads,
    x: &Tensor,
    affine: &Affine<'_>,
    epsilon: f32,
) -> Result<Tensor, Error> {
    let mut out = vec![0.0; x.elem_count()];
    hearth_kernels::layer_norm(threads, host(x)?.elements()?, affine, epsilon, &mut out)?;
    Ok(Tensor::from_vec(out, x.shape(), x.device())?)
}

pub(in crate::ops) fn silu_mul(threads: &Threads, gate: &Tensor, up: &Tensor) -> Result<Tensor, Error> {
    let mut out = vec![0.0; gate.elem_count()];
    hearth_kernels::silu_mul(threads, host(gate)?.elements()?, host(up)?.elements()?, &mut out)?;
    Ok(Tensor::from_vec(out, gate.shape(), gate.device())?)
}

pub(in crate::ops) fn gelu(threads: &Threads, x: &Tensor) -> Result<Tensor, Error> {
    let mut out = host(x)?.elements()?.to_vec();
    hearth_kernels::gelu_erf(threads, &mut out);
    Ok(Tensor::from_vec(out, x.shape(), x.device())?)
}

pub(in crate::ops) fn rotate(
    threads: &Threads,
    x: &Tensor,
    positions: &[u32],
    how: &Rotary<'_>,
) -> Result<Tensor, Error> {
    let mut out = host(x)?.elements()?.to_vec();
    hearth_kernels::rotary(threads, &mut out, positions, how)?;
    Ok(Tensor::from_vec(out, x.shape(), x.device())?)
}
