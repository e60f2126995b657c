//! Quantised weights rearranged once, so that products read them as they lie: tiles of sixteen interleaved rows (the module
//! `layout`), each lane of a register a row.
//!
//! The order of every sum is fixed. The 32 numbers of a group (16 with a format that has a scale for so many), as the integers they
//! are stored as less the format's offset, are multiplied by the activations in order, each product fused into a sum that begins with
//! zero; that times the scale is fused into the sum of the row, and then, where the format has minima, the minimum plus the offset
//! times the scale, times the sum of the group's activations. So a result depends on its own row alone, whatever computes it.

#![expect(unsafe_code, reason = "jobs write disjoint columns of one output")]

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod layout;
mod scalar;

use std::cell::Cell;
use std::fmt;
use std::ops::Range;

use self::activations::{Activations, Room, Strip};
use self::layout::{Layout, ROWS};
use crate::error::{KernelError, Result, check_length, size, whole_rows};
use crate::formats::{Format, expand_blocks};
use crate::isa::{Isa, Level};
use crate::matmul::add_bias;
use crate::matrix::MatrixView;
use crate::panel::Target;
use crate::threads::Threads;

/// Jobs for each thread: few enough that starting them is nothing, and enough that all threads end together.
const JOBS_A_THREAD: usize = 8;
/// Bytes of weights that are worth a job.
const JOB_BYTES: usize = 8 * 1024;

/// Bytes that are packed before the caller is told that they are.
const SLAB_BYTES: usize = 4 << 20;

/// A line of the processor's cache.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

// SAFETY: bytes without padding, for which every pattern is valid.
unsafe impl bytemuck::Zeroable for Line {}
// SAFETY: as above.
unsafe impl bytemuck::Pod for Line {}

/// A quantised matrix `[rows, cols]` in tiles. It takes as many bytes as it is stored in, but for the last tile's missing rows.
pub struct PackedMatrix {
    layout: Layout,
    rows: usize,
    cols: usize,
    lines: Vec<Line>,
}

impl fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackedMatrix({} {}x{})", self.layout.format, self.rows, self.cols)
    }
}

impl PackedMatrix {
    /// Rearranges `w`, and tells `done` which of its bytes are not needed any more, some at a time; `None` for a format that is not
    /// packed.
    #[must_use]
    pub fn pack(threads: &Threads, w: &MatrixView<'_>, done: impl Fn(Range<usize>)) -> Option<Self> {
        let layout = Layout::of(w.format())?;
        let (rows, cols) = (w.rows(), w.cols());
        let tile = cols / layout.format.block_len() * layout.unit_bytes();
        let bytes = rows.div_ceil(ROWS) * tile;
        let mut lines = vec![Line([0; 64]); bytes.div_ceil(64)];
        let packed = &mut bytemuck::cast_slice_mut::<Line, u8>(&mut lines)[..bytes];
        let slab = SLAB_BYTES.div_ceil(tile);
        for (slab_index, packed) in packed.chunks_mut(slab * tile).enumerate() {
            let first = slab_index * slab * ROWS;
            threads.for_each_chunk(packed, tile, |index, tile| {
                let first = first + index * ROWS;
                for row in first..rows.min(first + ROWS) {
                    let blocks = w.row_range(row, 1).chunks_exact(layout.format.block_bytes());
                    for (block, unit) in blocks.zip(tile.chunks_exact_mut(layout.unit_bytes())) {
                        layout.put(block, row - first, unit);
                    }
                }
            });
            let row_bytes = w.bytes().len() / rows;
            done(first * row_bytes..rows.min(first + slab * ROWS) * row_bytes);
        }
        Some(Self { layout, rows, cols, lines })
    }

    /// How the numbers were stored.
    #[must_use]
    pub fn format(&self) -> Format {
        self.layout.format
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many numbers a row has.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    fn tile_bytes(&self) -> usize {
        self.cols / self.layout.format.block_len() * self.layout.unit_bytes()
    }

    fn tiles(&self, first: usize, count: usize) -> Tiles<'_> {
        let tile_bytes = self.tile_bytes();
        let bytes = &bytemuck::cast_slice(&self.lines)[first * tile_bytes..][..count * tile_bytes];
        Tiles { bytes, tile_bytes, count, expanded: std::ptr::null() }
    }

    /// `out` `[m, rows]` = `x` `[m, cols]` · `self`ᵀ (+ `bias` `[rows]`), for any m.
    ///
    /// A row of `out` depends on its own row of `x` alone, to the bit: the order of its sum is told in this module.
    ///
    /// # Errors
    /// When `x` is no whole number of rows, or `out` or `bias` has another length.
    pub fn multiply(&self, threads: &Threads, x: &[f32], bias: Option<&[f32]>, out: &mut [f32]) -> Result<()> {
        let m = whole_rows("x", x.len(), self.cols)?;
        check_length("out", out.len(), size("out", &[m, self.rows])?)?;
        if let Some(bias) = bias {
            check_length("bias", bias.len(), self.rows)?;
        }
        if m == 0 || self.rows == 0 {
            return Ok(());
        }
        let mut room = ROOM.take();
        let activations = Activations::new(threads, x, self.cols, (strip_rows(threads.isa()), &mut room));
        let target = Target::new(out, self.rows);
        let tiles = self.rows.div_ceil(ROWS);
        let together = tiles_together(threads.isa());
        let fair = tiles.div_ceil(JOBS_A_THREAD * threads.count());
        let job_tiles = fair.max(JOB_BYTES.div_ceil(self.tile_bytes() * m)).next_multiple_of(together);
        threads.for_each(tiles.div_ceil(job_tiles), |job| {
            let end = tiles.min((job + 1) * job_tiles);
            for tile in (job * job_tiles..end).step_by(together) {
                let columns = (together * ROWS).min(self.rows - tile * ROWS);
                let some = self.tiles(tile, together.min(end - tile));
                let out = (target.at_column(tile * ROWS), columns);
                // SAFETY: these columns of `out` exist in every row and belong to this job alone.
                unsafe { self.product(threads.isa(), some, activations.strips(), out) };
            }
        });
        ROOM.set(room);
        add_bias(bias, out);
        Ok(())
    }

    /// Writes the first `columns` products of some tiles with each row of the strips.
    ///
    /// # Safety
    /// `out` must be valid for writes of `columns` floats in each row, and nothing else may touch those meanwhile.
    unsafe fn product(&self, isa: Isa, tiles: Tiles<'_>, strips: &[Strip<'_>], out: (Target, usize)) {
        let (layout, groups) = (self.layout, self.cols / layout::GROUP);
        for strip in strips {
            assert!(strip.values.len() == strip.rows * self.cols && strip.sums.len() == strip.rows * groups);
        }
        // SAFETY: the caller's promise is passed on, an `Isa` of a level exists only where its instructions do, and tiles and strips
        // are as long as the number of groups says.
        match isa.level() {
            Level::Scalar => unsafe {
                tiles.each(1, out, |tile, out| {
                    strips.iter().for_each(|strip| scalar::product(layout, tile.bytes, strip, out));
                });
            },
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { avx2::product(layout, tiles, strips, out) },
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { avx512::product(layout, tiles, strips, out) },
        }
    }

    /// Copies the rows `ids`, expanded, to `out` `[ids.len(), cols]`: exactly the numbers that were stored.
    ///
    /// # Errors
    /// When an id is not below `rows` or `out` has another length.
    pub fn gather(&self, ids: &[u32], out: &mut [f32]) -> Result<()> {
        check_length("out", out.len(), size("out", &[ids.len(), self.cols])?)?;
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.rows) {
            return Err(KernelError::OutOfBounds { argument: "ids", bound: self.rows, value: id as usize });
        }
        let (isa, format) = (Isa::best(), self.layout.format);
        let mut block = vec![0; format.block_bytes()];
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(self.cols)) {
            let units = self.tiles(id as usize / ROWS, 1).bytes.chunks_exact(self.layout.unit_bytes());
            for (unit, out) in units.zip(out.chunks_exact_mut(format.block_len())) {
                self.layout.take(unit, id as usize % ROWS, &mut block);
                expand_blocks(isa, format, &block, out);
            }
        }
        Ok(())
    }
}

/// Some tiles, one after the other.
#[derive(Clone, Copy)]
struct Tiles<'a> {
    bytes: &'a [u8],
    tile_bytes: usize,
    count: usize,
    /// Their numbers as floats, where they have been expanded.
    expanded: *const f32,
}

impl Tiles<'_> {
    /// Where the first begins.
    fn start(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    /// Numbers of a tile.
    fn numbers(&self, layout: Layout) -> usize {
        self.tile_bytes / layout.unit_bytes() * layout.groups() * layout::GROUP * ROWS
    }

    /// Calls `product` with so many tiles at a time, the last time perhaps with fewer, and the columns that are theirs.
    fn each(self, count: usize, (out, columns): (Target, usize), mut product: impl FnMut(Self, (Target, usize))) {
        for (index, bytes) in self.bytes.chunks(count * self.tile_bytes).enumerate() {
            let (first, count) = (index * count * ROWS, bytes.len() / self.tile_bytes);
            product(Self { bytes, count, ..self }, (out.at_column(first), (count * ROWS).min(columns - first)));
        }
    }
}

/// The formats as numbers, for functions that are compiled once for each of them.
const Q4_0: u8 = 0;
const Q4_1: u8 = 1;
const Q8_0: u8 = 2;
const Q4K: u8 = 3;
const Q6K: u8 = 4;

/// Runs the expression with the constant of the format.
macro_rules! with_format {
    ($format:expr, $name:ident => $run:expr) => {{
        use crate::formats::Format;
        macro_rules! run {
            ($constant:expr) => {{
                const $name: u8 = $constant;
                $run
            }};
        }
        match $format {
            Format::Q4_0 => run!(crate::packed::Q4_0),
            Format::Q4_1 => run!(crate::packed::Q4_1),
            Format::Q4K => run!(crate::packed::Q4K),
            Format::Q6K => run!(crate::packed::Q6K),
            _ => run!(crate::packed::Q8_0),
        }
    }};
}
use with_format;

/// Into how many rows at a time activations are cut, the most first: as many sums as the registers hold.
fn strip_rows(isa: Isa) -> &'static [usize] {
    match isa.level() {
        Level::Scalar => &[1],
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::STRIP_ROWS,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::STRIP_ROWS,
    }
}

/// How many tiles are handed out together.
fn tiles_together(isa: Isa) -> usize {
    match isa.level() {
        Level::Scalar => 1,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::TILES,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::TILES,
    }
}

thread_local! {
    static ROOM: Cell<Room> = const { Cell::new(Room::new()) };
}
