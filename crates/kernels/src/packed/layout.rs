//! How a row of blocks becomes a column of a tile, and back. A tile is sixteen rows; a unit of it is one block of each of them, and
//! takes as many bytes as those blocks.
//!
//! A unit begins with the scales: each of their bytes or halves for row 0, then for row 1, and so on. Behind them stand the numbers,
//! a group of 32 after the other:
//!
//! - of 4 bits: four times sixteen 32-bit lanes, one a row. Part c has in the nibbles j of a lane the numbers 8c + j.
//! - of 8 bits: 32 times sixteen bytes, one a row.
//! - of 6 bits: the low four bits as above, then twice sixteen 32-bit lanes of upper bits. Part c has in the bits 2f and 2f + 1 of a
//!   lane those of the number 16c + f.

use crate::formats::Format;

/// Rows of a tile.
pub(super) const ROWS: usize = 16;
/// Numbers of a group.
pub(super) const GROUP: usize = 32;

/// How the numbers of a group are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Four,
    Six,
    Eight,
}

/// Elements of the header of a block: where they begin in it, how many bytes each has, how many there are.
struct Field(usize, usize, usize);

/// What there is to know of a format that is packed.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) format: Format,
    width: Width,
    fields: &'static [Field],
    /// Where the numbers of a unit begin.
    pub(super) header_bytes: usize,
    /// Bytes of the numbers of a group.
    pub(super) group_bytes: usize,
}

impl Layout {
    /// The layout of a format, where it is one of those that are packed.
    pub(super) fn of(format: Format) -> Option<Self> {
        let (width, fields): (_, &[Field]) = match format {
            Format::Q4_0 => (Width::Four, &[Field(0, 2, 1)]),
            Format::Q4_1 => (Width::Four, &[Field(0, 2, 2)]),
            Format::Q8_0 => (Width::Eight, &[Field(0, 2, 1)]),
            Format::Q4K => (Width::Four, &[Field(0, 2, 2), Field(4, 1, 12)]),
            Format::Q6K => (Width::Six, &[Field(208, 2, 1), Field(192, 1, 16)]),
            _ => return None,
        };
        let header_bytes = fields.iter().map(|Field(_, size, count)| ROWS * size * count).sum();
        let bits = match width {
            Width::Four => 4,
            Width::Six => 6,
            Width::Eight => 8,
        };
        Some(Self { format, width, fields, header_bytes, group_bytes: ROWS * GROUP * bits / 8 })
    }

    /// Bytes of a unit.
    pub(super) fn unit_bytes(self) -> usize {
        ROWS * self.format.block_bytes()
    }

    /// Groups of a unit.
    pub(super) fn groups(self) -> usize {
        self.format.block_len() / GROUP
    }

    /// Calls `copy` with the place in a block and in a unit, and the length, of each element of the header of row `row`.
    fn each_element(self, row: usize, mut copy: impl FnMut(usize, usize, usize)) {
        let mut start = 0;
        for &Field(at, size, count) in self.fields {
            for element in 0..count {
                copy(at + element * size, start + (element * ROWS + row) * size, size);
            }
            start += ROWS * size * count;
        }
    }

    /// Puts a block into a unit.
    pub(super) fn put(self, block: &[u8], row: usize, unit: &mut [u8]) {
        self.each_element(row, |from, to, size| unit[to..to + size].copy_from_slice(&block[from..from + size]));
        let (header, bytes) = (self.header_bytes, self.group_bytes);
        for (group, packed) in unit[header..].chunks_exact_mut(bytes).enumerate() {
            self.put_numbers(&numbers_of(self.format, block, group), row, packed);
        }
    }

    /// The block of a row of a unit.
    pub(super) fn take(self, unit: &[u8], row: usize, block: &mut [u8]) {
        block.fill(0);
        self.each_element(row, |to, from, size| block[to..to + size].copy_from_slice(&unit[from..from + size]));
        for group in 0..self.groups() {
            let packed = self.group(unit, group);
            let numbers = std::array::from_fn(|k| self.number(packed, row, k));
            set_numbers(self.format, block, group, &numbers);
        }
    }

    fn put_numbers(self, numbers: &[u8; GROUP], row: usize, packed: &mut [u8]) {
        if self.width == Width::Eight {
            return numbers.iter().enumerate().for_each(|(k, &number)| packed[k * ROWS + row] = number);
        }
        let mut put =
            |part: usize, lane: u32| packed[(part * ROWS + row) * 4..][..4].copy_from_slice(&lane.to_le_bytes());
        for (part, eight) in numbers.as_chunks::<8>().0.iter().enumerate() {
            put(part, (0..8).fold(0, |lane, j| lane | u32::from(eight[j] & 15) << (4 * j)));
        }
        if self.width == Width::Six {
            for (part, sixteen) in numbers.as_chunks::<16>().0.iter().enumerate() {
                put(4 + part, (0..16).fold(0, |lane, f| lane | u32::from(sixteen[f] >> 4) << (2 * f)));
            }
        }
    }

    /// The number k of a row in a group, as it was stored.
    pub(super) fn number(self, packed: &[u8], row: usize, k: usize) -> u8 {
        let nibble = || (packed[(k / 8 * ROWS + row) * 4 + k % 8 / 2] >> (4 * (k % 2))) & 15;
        match self.width {
            Width::Eight => packed[k * ROWS + row],
            Width::Four => nibble(),
            Width::Six => {
                let upper = packed[((4 + k / 16) * ROWS + row) * 4 + k % 16 / 4] >> (2 * (k % 4));
                nibble() | (upper & 3) << 4
            }
        }
    }

    /// The bytes of a group of a unit.
    pub(super) fn group(self, unit: &[u8], group: usize) -> &[u8] {
        &unit[self.header_bytes + group * self.group_bytes..][..self.group_bytes]
    }
}

/// The numbers of a group of a block, as the format stores them.
fn numbers_of(format: Format, block: &[u8], group: usize) -> [u8; GROUP] {
    let mut numbers = [0; GROUP];
    match format {
        Format::Q8_0 => numbers.copy_from_slice(&block[2..]),
        Format::Q6K => {
            for (k, number) in numbers.iter_mut().enumerate() {
                let ((low, low_shift), (high, high_shift)) = q6k_places(group, k);
                *number = ((block[low] >> low_shift) & 15) | ((block[high] >> high_shift) & 3) << 4;
            }
        }
        format => {
            for (k, number) in numbers.iter_mut().enumerate() {
                let (at, shift) = stored_nibble(format, group, k);
                *number = (block[at] >> shift) & 15;
            }
        }
    }
    numbers
}

/// The way back; the bits of the numbers are zero in `block`.
fn set_numbers(format: Format, block: &mut [u8], group: usize, numbers: &[u8; GROUP]) {
    for (k, &number) in numbers.iter().enumerate() {
        match format {
            Format::Q8_0 => block[2 + k] = number,
            Format::Q6K => {
                let ((low, low_shift), (high, high_shift)) = q6k_places(group, k);
                block[low] |= (number & 15) << low_shift;
                block[high] |= (number >> 4) << high_shift;
            }
            format => {
                let (at, shift) = stored_nibble(format, group, k);
                block[at] |= number << shift;
            }
        }
    }
}

/// Where a block has its 4-bit numbers; the formats are told in `formats`.
fn stored_nibble(format: Format, group: usize, k: usize) -> (usize, u32) {
    match format {
        Format::Q4K => (16 + group / 2 * 32 + k, 4 * (group % 2) as u32),
        format => (format.block_bytes() - 16 + k % 16, 4 * (k / 16) as u32),
    }
}

/// Where a block of Q6_K has the low and the upper bits of a number.
fn q6k_places(group: usize, k: usize) -> ((usize, u32), (usize, u32)) {
    let (half, quarter) = (group / 4, group % 4);
    let low = (64 * half + 32 * (quarter % 2) + k, 4 * (quarter / 2) as u32);
    (low, (128 + 32 * half + k, 2 * quarter as u32))
}
