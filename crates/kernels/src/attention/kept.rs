//! Keys or values as they are kept: read as floats where they lie, or expanded a segment and a head at a time.

use crate::formats::{Format, as_f32, expand_rows};
use crate::isa::Isa;
use crate::panel::Rows;

/// Keys or values in the format they are kept in.
#[derive(Clone, Copy)]
pub(super) enum Kept<'a> {
    /// Used where they lie.
    Floats(&'a [f32]),
    /// Blocks of a format, which have to be expanded first. No block reaches over a head.
    Blocks(Format, &'a [u8]),
}

/// Rows of one head: their number and width, and how many numbers there are from the start of each to that of the next.
#[derive(Clone, Copy)]
pub(super) struct HeadRows {
    /// Where the first starts, in numbers.
    pub(super) offset: usize,
    pub(super) count: usize,
    pub(super) width: usize,
    pub(super) stride: usize,
}

impl<'a> Kept<'a> {
    /// Bytes of a format; floats that the machine can read as they lie are not expanded.
    pub(super) fn new(format: Format, bytes: &'a [u8]) -> Self {
        match as_f32(bytes) {
            Some(floats) if format == Format::F32 => Self::Floats(floats),
            _ => Self::Blocks(format, bytes),
        }
    }

    /// Whether [`Self::rows`] wants room to expand.
    pub(super) fn expands(self) -> bool {
        matches!(self, Self::Blocks(..))
    }

    /// The rows as floats; `room` takes them where they have to be expanded, and has `count * width` numbers then.
    pub(super) fn rows<'b>(self, isa: Isa, rows: HeadRows, room: &'b mut [f32]) -> Rows<'b>
    where
        'a: 'b,
    {
        let HeadRows { offset, count, width, stride } = rows;
        match self {
            Self::Floats(floats) => Rows::new(&floats[offset..], [count, width], stride),
            Self::Blocks(format, bytes) => {
                let in_bytes = |numbers: usize| numbers / format.block_len() * format.block_bytes();
                let room = &mut room[..count * width];
                expand_rows(isa, format, &bytes[in_bytes(offset)..], in_bytes(stride), (width, room));
                Rows::dense(room, count, width)
            }
        }
    }
}
