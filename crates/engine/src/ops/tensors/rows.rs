//! Row by row: norms, activations, rotary positions.

use candle_core::Tensor;
use candle_nn::rotary_emb::{rope, rope_i};
use hearth_kernels::{RotaryStyle, RotaryTable};

use super::step::once;
use crate::error::Error;
use crate::ops::ForwardBatch;

pub(in crate::ops) fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f32) -> Result<Tensor, Error> {
    Ok(candle_nn::ops::rms_norm(&x.contiguous()?, weight, epsilon)?)
}

pub(in crate::ops) fn layer_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    epsilon: f32,
) -> Result<Tensor, Error> {
    // The operation wants a shift. Zeros are one small fill, where the formula without it would be ten operations.
    let bias = bias.map_or_else(|| weight.zeros_like(), |bias| Ok(bias.clone()))?;
    Ok(candle_nn::ops::layer_norm(&x.contiguous()?, weight, &bias, epsilon)?)
}

pub(in crate::ops) fn silu_mul(gate: &Tensor, up: &Tensor) -> Result<Tensor, Error> {
    Ok((gate.silu()? * up)?)
}

pub(in crate::ops) fn gelu(x: &Tensor) -> Result<Tensor, Error> {
    Ok(x.gelu_erf()?)
}

/// The cosines and sines of a step's positions, each `[tokens, 1, pairs]`.
#[derive(Clone, Debug)]
pub(in crate::ops) struct Angles {
    cosines: Tensor,
    sines: Tensor,
}

/// Rotates each head of `x [tokens, heads * head_dim]`; all of a head's elements turn.
///
/// The angles are the kernels', computed on the host in higher precision than a device has: a step's rows of them are uploaded once
/// and serve all layers.
pub(in crate::ops) fn rotate(
    x: &Tensor,
    head_dim: usize,
    batch: &ForwardBatch,
    (table, style): (&RotaryTable, RotaryStyle),
) -> Result<Tensor, Error> {
    let angles = once(&batch.device.angles, || {
        let (cosines, sines) = table.gather(&batch.positions)?;
        let shape = (batch.positions.len(), 1, table.pairs());
        let upload = |values| Tensor::from_vec(values, shape, x.device());
        Ok(Angles { cosines: upload(cosines)?, sines: upload(sines)? })
    })?;
    let (tokens, width) = x.dims2()?;
    // Every token a batch of its own with one position: that is how each gets the angles of its own.
    let heads = x.reshape((tokens, width / head_dim, 1, head_dim))?;
    let turn = match style {
        RotaryStyle::Halves => rope,
        RotaryStyle::Interleaved => rope_i,
    };
    Ok(turn(&heads, &angles.cosines, &angles.sines)?.reshape((tokens, width))?)
}
