//! The reference: what the vector versions compute, written down plainly.

use super::activations::Strip;
use super::layout::{GROUP, Layout};
use crate::formats::{Format, half_to_f32, scale_and_minimum};
use crate::panel::Target;

/// # Safety
/// As [`super::PackedMatrix::product`].
pub(super) unsafe fn product(layout: Layout, tile: &[u8], strip: &Strip<'_>, (out, columns): (Target, usize)) {
    for t in 0..strip.rows {
        for row in 0..columns {
            // SAFETY: the caller promises that `out` has this row and column.
            unsafe { *out.row(strip.first + t).add(row) = dot(layout, (tile, row), (strip, t)) };
        }
    }
}

/// One row of the tile times one row of the strip.
fn dot(layout: Layout, (tile, row): (&[u8], usize), (strip, t): (&Strip<'_>, usize)) -> f32 {
    let mut sum = 0.0f32;
    let mut block = vec![0; layout.format.block_bytes()];
    for (index, unit) in tile.chunks_exact(layout.unit_bytes()).enumerate() {
        layout.take(unit, row, &mut block);
        for group in 0..layout.groups() {
            let at = (index * layout.groups() + group) * strip.rows + t;
            let (x, packed) = (&strip.values[at * GROUP..][..GROUP], layout.group(unit, group));
            let scales = scales(layout.format, &block, group);
            let part = GROUP / scales.parts;
            for p in 0..scales.parts {
                let mut dot = 0.0f32;
                for (k, &x) in x.iter().enumerate().skip(p * part).take(part) {
                    dot = scales.number(layout.number(packed, row, k)).mul_add(x, dot);
                }
                sum = dot.mul_add(scales.scale[p], sum);
            }
            if let Some(shift) = scales.shift {
                sum = shift.mul_add(strip.sums[at], sum);
            }
        }
    }
    sum
}

/// What the numbers of a group stand for: `(number - offset) * scale + shift`.
struct Scales {
    /// How many parts there are, each with its own scale.
    parts: usize,
    scale: [f32; 2],
    shift: Option<f32>,
    /// `None` where numbers have a sign.
    offset: Option<i32>,
}

impl Scales {
    fn number(&self, stored: u8) -> f32 {
        self.offset.map_or_else(|| i32::from(stored.cast_signed()), |offset| i32::from(stored) - offset) as f32
    }
}

fn scales(format: Format, block: &[u8], group: usize) -> Scales {
    let half = |at: usize| half_to_f32(u16::from_le_bytes([block[at], block[at + 1]]));
    let plain = Scales { parts: 1, scale: [half(0), 0.0], shift: None, offset: Some(8) };
    match format {
        Format::Q4_1 => Scales { shift: Some(half(0).mul_add(8.0, half(2))), ..plain },
        Format::Q4K => {
            let (scale, minimum) = scale_and_minimum(&block[4..16], group);
            let scale = half(0) * f32::from(scale);
            let shift = scale.mul_add(8.0, -(half(2) * f32::from(minimum)));
            Scales { scale: [scale, 0.0], shift: Some(shift), ..plain }
        }
        Format::Q6K => {
            let scale = [0, 1].map(|part| half(208) * f32::from(block[192 + 2 * group + part].cast_signed()));
            Scales { parts: 2, scale, offset: Some(32), ..plain }
        }
        Format::Q8_0 => Scales { offset: None, ..plain },
        _ => plain,
    }
}
