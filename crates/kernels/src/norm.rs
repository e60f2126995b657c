//! Normalisation of rows. The statistics of a row are summed in double precision in one order.

use crate::elementwise::{for_each_chunk, rows_chunk};
use crate::error::{Result, check_length, whole_rows};
use crate::isa::for_each_isa;
use crate::math::sum_of;
use crate::threads::Threads;

/// `out` = `x` / sqrt(mean of `x`² over the row + `eps`) * `weight`, for `x` and `out` `[m, n]` with n the length of `weight`.
///
/// # Errors
/// When `x` is no whole number of rows or `out` has another length.
pub fn rms_norm(threads: &Threads, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> Result<()> {
    whole_rows("x", x.len(), weight.len())?;
    check_length("out", out.len(), x.len())?;
    for_each_chunk(threads, out, rows_chunk(weight.len()), |first, out| {
        let x = &x[first..first + out.len()];
        rms_norm_slice(threads.isa(), x, weight, eps, out);
    });
    Ok(())
}

/// What a layer norm has learned: a factor and possibly an addend for each of the n numbers of a row.
#[derive(Debug, Clone, Copy)]
pub struct Affine<'a> {
    /// `[n]`
    pub weight: &'a [f32],
    /// `[n]`
    pub bias: Option<&'a [f32]>,
}

/// `out` = (`x` - mean) / sqrt(variance + `eps`) * weight (+ bias), for `x` and `out` `[m, n]`.
///
/// # Errors
/// When `x` is no whole number of rows, or `out` or the bias has another length.
pub fn layer_norm(threads: &Threads, x: &[f32], affine: &Affine<'_>, eps: f32, out: &mut [f32]) -> Result<()> {
    let width = affine.weight.len();
    whole_rows("x", x.len(), width)?;
    check_length("out", out.len(), x.len())?;
    if let Some(bias) = affine.bias {
        check_length("bias", bias.len(), width)?;
    }
    for_each_chunk(threads, out, rows_chunk(width), |first, out| {
        let x = &x[first..first + out.len()];
        layer_norm_slice(threads.isa(), x, affine, eps, out);
    });
    Ok(())
}

for_each_isa! {
    fn rms_norm_slice(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) = rms_norm_body;
}

#[inline(always)]
fn rms_norm_body(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let n = weight.len();
    for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
        let mean_square = sum_of(x, |x| x * x) / n as f64;
        let inverse = (1.0 / (mean_square + f64::from(eps)).sqrt()) as f32;
        for ((out, &x), &weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * inverse * weight;
        }
    }
}

for_each_isa! {
    fn layer_norm_slice(x: &[f32], affine: &Affine<'_>, eps: f32, out: &mut [f32]) = layer_norm_body;
}

#[inline(always)]
fn layer_norm_body(x: &[f32], affine: &Affine<'_>, eps: f32, out: &mut [f32]) {
    let n = affine.weight.len();
    for (x, out) in x.chunks_exact(n).zip(out.chunks_exact_mut(n)) {
        let mean = sum_of(x, |x| x) / n as f64;
        let variance = sum_of(x, |x| (x - mean) * (x - mean)) / n as f64;
        let (mean, inverse) = (mean as f32, (1.0 / (variance + f64::from(eps)).sqrt()) as f32);
        for ((out, &x), &weight) in out.iter_mut().zip(x).zip(affine.weight) {
            *out = (x - mean) * inverse * weight;
        }
        if let Some(bias) = affine.bias {
            out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
        }
    }
}
