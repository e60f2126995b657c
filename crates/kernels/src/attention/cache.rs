//! The layout of the paged cache and writing to it. Which slots are whose is the caller's business.

use half::{bf16, f16};

use crate::error::{KernelError, Result, check_length, check_positive, size, whole_rows};
use crate::formats::{Format, quantize_blocks};
use crate::isa::Isa;
use crate::threads::with_scratch;

/// The cache of one layer, kept in `format`. A slot is `block * block_size + offset in the block`.
#[derive(Debug, Clone, Copy)]
pub struct KvView<'a> {
    /// How the numbers are kept; `head_dim` is a whole number of its blocks.
    pub format: Format,
    /// `[blocks, block_size, kv_heads, head_dim]`, as bytes of the format.
    pub keys: &'a [u8],
    /// `[blocks, block_size, kv_heads, head_dim]`, as bytes of the format.
    pub values: &'a [u8],
    /// Positions in a block.
    pub block_size: usize,
    /// Heads of a position.
    pub kv_heads: usize,
    /// Numbers of a head.
    pub head_dim: usize,
}

impl KvView<'_> {
    /// How many blocks there are, once keys and values are found to be whole blocks.
    pub(super) fn blocks(&self) -> Result<usize> {
        check_positive("block_size", self.block_size)?;
        check_length("values", self.values.len(), self.keys.len())?;
        let head = row_bytes("head_dim", self.format, self.head_dim)?;
        let block = size("block_size", &[self.block_size, self.kv_heads, head])?;
        whole_rows("keys", self.keys.len(), block)
    }
}

/// Bytes of `numbers` numbers that have to be whole blocks.
fn row_bytes(argument: &'static str, format: Format, numbers: usize) -> Result<usize> {
    let multiple_of = format.block_len();
    format.row_bytes(numbers).ok_or(KernelError::NotMultiple { argument, multiple_of, actual: numbers })
}

/// Writes row i of `new` `[tokens, width]` to slot `slots[i]` of `cache` `[slots, width]`, which is bytes of `format`; width is
/// `kv_heads * head_dim`. Called once for the keys and once for the values.
///
/// Halves and bf16 are rounded to the nearest, ties to even; blocks are those of [`crate::quantize`]. A number that is too large
/// for the format becomes its largest one: an infinity among the keys would turn every later token of its sequence into no
/// number at all, and a key so large decides its softmax alone either way.
///
/// # Errors
/// When `width` is no whole number of the format's blocks, `cache` or `new` is no whole number of rows, there is not one slot
/// for each row, or a slot is out of bounds or given twice.
pub fn write_kv(cache: &mut [u8], format: Format, new: &[f32], slots: &[u32], width: usize) -> Result<()> {
    let bytes = row_bytes("width", format, width)?;
    let bound = whole_rows("cache", cache.len(), bytes)?;
    check_length("new", new.len(), size("new", &[slots.len(), width])?)?;
    if let Some(&slot) = slots.iter().find(|&&slot| slot as usize >= bound) {
        return Err(KernelError::OutOfBounds { argument: "slots", bound, value: slot as usize });
    }
    check_distinct(slots)?;
    with_scratch(width, |room| {
        for (&slot, row) in slots.iter().zip(new.chunks_exact(width)) {
            let out = &mut cache[slot as usize * bytes..][..bytes];
            match largest(format) {
                None => quantize_blocks(Isa::best(), format, row, out),
                Some(largest) => {
                    room.iter_mut().zip(row).for_each(|(room, number)| *room = number.clamp(-largest, largest));
                    quantize_blocks(Isa::best(), format, room, out);
                }
            }
        }
    });
    Ok(())
}

/// The largest number that a format narrower than f32 is given.
fn largest(format: Format) -> Option<f32> {
    match format {
        Format::F32 => None,
        Format::BF16 => Some(bf16::MAX.to_f32()),
        _ => Some(f16::MAX.to_f32()),
    }
}

fn check_distinct(slots: &[u32]) -> Result<()> {
    if slots.is_sorted_by(|a, b| a < b) {
        return Ok(());
    }
    let mut sorted = slots.to_vec();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(KernelError::Duplicate { argument: "slots", value: pair[0] as usize }),
        None => Ok(()),
    }
}
