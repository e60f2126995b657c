//! The block formats weights are stored in, as the GGUF file format defines them
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>), their exact expansion to f32, and the
//! way back.
//! It knows bytes, not files or matrices.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod float;
mod k_quants;
mod legacy;
mod quantize;
mod rows;

use std::fmt;

use crate::error::{KernelError, Result, check_length};
use crate::isa::{Isa, for_each_isa};

pub(crate) use float::{as_f32, half_to_f32};
pub(crate) use k_quants::scale_and_minimum;
pub(crate) use quantize::{check_values, quantize_blocks};
pub use quantize::{quantize, quantize_with};
pub(crate) use rows::expand_rows;

/// How the numbers of a row are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an IEEE single.
    BF16,
    /// 4 bits, one scale for 32.
    Q4_0,
    /// 4 bits, one scale and one minimum for 32.
    Q4_1,
    /// 5 bits, one scale for 32.
    Q5_0,
    /// 5 bits, one scale and one minimum for 32.
    Q5_1,
    /// 8 bits, one scale for 32.
    Q8_0,
    /// 2 bits, 4-bit scales and minima for 16, in blocks of 256.
    Q2K,
    /// 3 bits, 6-bit scales for 16, in blocks of 256.
    Q3K,
    /// 4 bits, 6-bit scales and minima for 32, in blocks of 256.
    Q4K,
    /// 5 bits, 6-bit scales and minima for 32, in blocks of 256.
    Q5K,
    /// 6 bits, 8-bit scales for 16, in blocks of 256.
    Q6K,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 13] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// How many numbers a block holds.
    #[must_use]
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => legacy::BLOCK,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => k_quants::BLOCK,
        }
    }

    /// How many bytes a block takes.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => legacy::Q4_0_BYTES,
            Self::Q4_1 => legacy::Q4_1_BYTES,
            Self::Q5_0 => legacy::Q5_0_BYTES,
            Self::Q5_1 => legacy::Q5_1_BYTES,
            Self::Q8_0 => legacy::Q8_0_BYTES,
            Self::Q2K => k_quants::Q2K_BYTES,
            Self::Q3K => k_quants::Q3K_BYTES,
            Self::Q4K => k_quants::Q4K_BYTES,
            Self::Q5K => k_quants::Q5K_BYTES,
            Self::Q6K => k_quants::Q6K_BYTES,
        }
    }

    /// How many bytes a row of `cols` numbers takes; `None` when `cols` is no whole number of blocks or the size
    /// overflows.
    #[must_use]
    pub const fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_len()) {
            return None;
        }
        (cols / self.block_len()).checked_mul(self.block_bytes())
    }

    /// The name this format has in ggml.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Writes the numbers that `bytes` stand for to `out`, exactly as ggml defines them. `bytes` need no alignment.
///
/// # Errors
/// When `out` is no whole number of blocks, or `bytes` is not as long as those blocks are.
pub fn expand(format: Format, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    expand_with(Isa::best(), format, bytes, out)
}

/// As [`expand`], with the instructions chosen; the bits are the same.
///
/// # Errors
/// As [`expand`].
pub fn expand_with(isa: Isa, format: Format, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    let expected = format.row_bytes(out.len()).ok_or(KernelError::NotMultiple {
        argument: "out",
        multiple_of: format.block_len(),
        actual: out.len(),
    })?;
    check_length("bytes", bytes.len(), expected)?;
    expand_blocks(isa, format, bytes, out);
    Ok(())
}

/// Expands whole blocks; what is not a whole block on either side is left alone.
#[expect(unsafe_code, reason = "a function compiled for an instruction set is called after that set was detected")]
pub(crate) fn expand_blocks(isa: Isa, format: Format, bytes: &[u8], out: &mut [f32]) {
    // SAFETY: every level but the scalar one has AVX2, and exists only where the instructions do.
    #[cfg(target_arch = "x86_64")]
    if isa != Isa::SCALAR && unsafe { avx2::expand(format, bytes, out) } {
        return;
    }
    expand_plain(isa, format, bytes, out);
}

for_each_isa! {
    fn expand_plain(format: Format, bytes: &[u8], out: &mut [f32]) = expand_any;
}

#[inline(always)]
fn expand_any(format: Format, bytes: &[u8], out: &mut [f32]) {
    match format {
        Format::F32 => float::f32(bytes, out),
        Format::F16 => float::f16(bytes, out),
        Format::BF16 => float::bf16(bytes, out),
        Format::Q4_0 => legacy::q4_0(bytes, out),
        Format::Q4_1 => legacy::q4_1(bytes, out),
        Format::Q5_0 => legacy::q5_0(bytes, out),
        Format::Q5_1 => legacy::q5_1(bytes, out),
        Format::Q8_0 => legacy::q8_0(bytes, out),
        Format::Q2K => k_quants::q2k(bytes, out),
        Format::Q3K => k_quants::q3k(bytes, out),
        Format::Q4K => k_quants::q4k(bytes, out),
        Format::Q5K => k_quants::q5k(bytes, out),
        Format::Q6K => k_quants::q6k(bytes, out),
    }
}
