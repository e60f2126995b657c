//! What is done to each number by itself, and softmax over rows.

use crate::error::{Result, check_length, whole_rows};
use crate::isa::for_each_isa;
use crate::math;
use crate::threads::Threads;

/// Numbers a job takes: enough that starting it is a small part of the work.
const CHUNK: usize = 16 * 1024;

/// `out` = silu(`gate`) * `up`, the gated activation of Llama-style layers.
///
/// # Errors
/// When the lengths differ.
pub fn silu_mul(threads: &Threads, gate: &[f32], up: &[f32], out: &mut [f32]) -> Result<()> {
    check_length("up", up.len(), gate.len())?;
    check_length("out", out.len(), gate.len())?;
    for_each_chunk(threads, out, CHUNK, |first, out| {
        let range = first..first + out.len();
        silu_mul_slice(threads.isa(), &gate[range.clone()], &up[range], out);
    });
    Ok(())
}

/// `x` = `x` Φ(`x`), in place: the exact form, PyTorch's default. Within 1e-6.
pub fn gelu_erf(threads: &Threads, x: &mut [f32]) {
    for_each_chunk(threads, x, CHUNK, |_, x| gelu_erf_slice(threads.isa(), x));
}

/// The approximation of [`gelu_erf`] by a hyperbolic tangent, in place.
pub fn gelu_tanh(threads: &Threads, x: &mut [f32]) {
    for_each_chunk(threads, x, CHUNK, |_, x| gelu_tanh_slice(threads.isa(), x));
}

/// `a` += `b`.
///
/// # Errors
/// When the lengths differ.
pub fn add(threads: &Threads, a: &mut [f32], b: &[f32]) -> Result<()> {
    check_length("b", b.len(), a.len())?;
    for_each_chunk(threads, a, CHUNK, |first, a| {
        let length = a.len();
        add_slice(threads.isa(), a, &b[first..first + length]);
    });
    Ok(())
}

/// Each row of `x` `[m, width]` becomes e^x divided by the sum of e^x over the row. Entries of minus infinity become zero;
/// a row of nothing else becomes NaN.
///
/// # Errors
/// When `x` is no whole number of rows.
pub fn softmax_rows(threads: &Threads, x: &mut [f32], width: usize) -> Result<()> {
    whole_rows("x", x.len(), width)?;
    for_each_chunk(threads, x, rows_chunk(width), |_, x| softmax_slice(threads.isa(), x, width));
    Ok(())
}

/// A chunk of about the usual size that is a whole number of rows.
pub(crate) fn rows_chunk(width: usize) -> usize {
    (CHUNK / width).max(1) * width
}

/// Cuts `out` into chunks and hands each, with the index of its first number, to `work`.
pub(crate) fn for_each_chunk(
    threads: &Threads,
    out: &mut [f32],
    chunk: usize,
    work: impl Fn(usize, &mut [f32]) + Send + Sync,
) {
    threads.for_each_chunk(out, chunk, |index, out| work(index * chunk, out));
}

for_each_isa! {
    fn silu_mul_slice(gate: &[f32], up: &[f32], out: &mut [f32]) = silu_mul_body;
}

#[inline(always)]
fn silu_mul_body(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
        *out = math::silu(gate) * up;
    }
}

for_each_isa! {
    fn gelu_erf_slice(x: &mut [f32]) = gelu_erf_body;
}

#[inline(always)]
fn gelu_erf_body(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = math::gelu_erf(*x));
}

for_each_isa! {
    fn gelu_tanh_slice(x: &mut [f32]) = gelu_tanh_body;
}

#[inline(always)]
fn gelu_tanh_body(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = math::gelu_tanh(*x));
}

for_each_isa! {
    fn add_slice(a: &mut [f32], b: &[f32]) = add_body;
}

#[inline(always)]
fn add_body(a: &mut [f32], b: &[f32]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
}

for_each_isa! {
    fn softmax_slice(x: &mut [f32], width: usize) = softmax_body;
}

#[inline(always)]
fn softmax_body(x: &mut [f32], width: usize) {
    for row in x.chunks_exact_mut(width) {
        let (_, sum) = math::softmax_weights(row, 1.0);
        row.iter_mut().for_each(|x| *x /= sum);
    }
}
