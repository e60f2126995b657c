//! From numbers to blocks: for each format the blocks that ggml's reference quantisers make of the same numbers, byte for
//! byte. It knows one row at a time, not matrices, and no data about which numbers matter more (an importance matrix).
//!
//! The choices of scales, the order of the sums and the way to round are part of that equality, and are described where they
//! are made. Source: <https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c>.

mod k_quants;
mod legacy;
mod search;

use half::{bf16, f16};

use super::Format;
use crate::error::{KernelError, Result, check_length};
use crate::isa::{Isa, for_each_isa};

/// Writes the blocks that stand for `values` to `out`.
///
/// # Errors
/// When `values` is no whole number of blocks, when `out` is not as long as those blocks are, or when a value is not finite
/// or larger than the format's scales can be: nothing above 65504, the largest half, is taken by any but F32 and BF16.
pub fn quantize(format: Format, values: &[f32], out: &mut [u8]) -> Result<()> {
    quantize_with(Isa::best(), format, values, out)
}

/// As [`quantize`], with the instructions chosen; the bytes are the same.
///
/// # Errors
/// As [`quantize`].
pub fn quantize_with(isa: Isa, format: Format, values: &[f32], out: &mut [u8]) -> Result<()> {
    let expected = format.row_bytes(values.len()).ok_or(KernelError::NotMultiple {
        argument: "values",
        multiple_of: format.block_len(),
        actual: values.len(),
    })?;
    check_length("out", out.len(), expected)?;
    check_values(format, values, 0)?;
    quantize_blocks(isa, format, values, out);
    Ok(())
}

/// Refuses what `format` cannot hold; the index in the error counts from `first`.
pub(crate) fn check_values(format: Format, values: &[f32], first: usize) -> Result<()> {
    let limit = match format {
        Format::F32 => f32::MAX,
        Format::BF16 => bf16::MAX.to_f32(),
        _ => f16::MAX.to_f32(),
    };
    // A NaN is not within the limit either.
    match values.iter().position(|value| !matches!(value.abs().partial_cmp(&limit), Some(order) if order.is_le())) {
        None => Ok(()),
        Some(index) => {
            let value = values[index].to_string();
            Err(KernelError::NotRepresentable {
                index: first + index,
                value,
                format: format.name(),
                limit: limit.to_string(),
            })
        }
    }
}

for_each_isa! {
    /// Quantises whole blocks of checked values.
    pub(crate) fn quantize_blocks(format: Format, values: &[f32], out: &mut [u8]) = quantize_any;
}

#[inline(always)]
fn quantize_any(format: Format, values: &[f32], out: &mut [u8]) {
    match format {
        Format::F32 => each(values, out, f32::to_le_bytes),
        Format::F16 => each(values, out, |value| f16::from_f32(value).to_le_bytes()),
        Format::BF16 => each(values, out, |value| bf16::from_f32(value).to_le_bytes()),
        Format::Q4_0 => legacy::q4_0(values, out),
        Format::Q4_1 => legacy::q4_1(values, out),
        Format::Q5_0 => legacy::q5_0(values, out),
        Format::Q5_1 => legacy::q5_1(values, out),
        Format::Q8_0 => legacy::q8_0(values, out),
        Format::Q2K => k_quants::q2k(values, out),
        Format::Q3K => k_quants::q3k(values, out),
        Format::Q4K => k_quants::q4k(values, out),
        Format::Q5K => k_quants::q5k(values, out),
        Format::Q6K => k_quants::q6k(values, out),
    }
}

#[inline(always)]
fn each<const N: usize>(values: &[f32], out: &mut [u8], bytes: impl Fn(f32) -> [u8; N]) {
    for (&value, out) in values.iter().zip(out.as_chunks_mut::<N>().0) {
        *out = bytes(value);
    }
}

/// Stores `value` as a half at `block[at..at + 2]` and gives what it stands for there.
#[inline(always)]
fn put_half<const N: usize>(block: &mut [u8; N], at: usize, value: f32) -> f32 {
    let half = f16::from_f32(value);
    block[at..at + 2].copy_from_slice(&half.to_le_bytes());
    super::float::half_to_f32(half.to_bits())
}
