//! Activations in 16-bit fixed point: a scale for each 32 numbers of a row, so that no number is off by more than 2^-16 of the
//! largest beside it. What a row becomes depends on that row alone.

use super::layout::GROUP;
use crate::isa::for_each_isa;
use crate::math::ROUND;
use crate::threads::Threads;

/// What is known of a group of a row.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct GroupMeta {
    /// What its integers are multiplied by. NaN where a number is not finite.
    pub(super) scale: f32,
    /// The sum of its integers, times the scale.
    pub(super) sum: f32,
    /// The sums of its first and its second sixteen integers, times -8: what an offset of 8 in the weights adds.
    pub(super) offsets: [i32; 2],
}

/// Some rows side by side: for each group the integers and the meta of every row.
#[derive(Clone, Copy)]
pub(super) struct Strip<'a> {
    /// `[groups, rows, 32]`
    pub(super) integers: &'a [i16],
    /// `[groups, rows]`
    pub(super) meta: &'a [GroupMeta],
    /// The first row, counted among all.
    pub(super) first: usize,
    /// How many rows there are.
    pub(super) rows: usize,
}

/// The buffers of quantised rows, kept from call to call.
#[derive(Debug, Default)]
pub(super) struct Room {
    integers: Vec<i16>,
    meta: Vec<GroupMeta>,
}

impl Room {
    pub(super) const fn new() -> Self {
        Self { integers: Vec::new(), meta: Vec::new() }
    }
}

/// All rows of a call, in strips.
pub(super) struct Activations<'a> {
    strips: Vec<Strip<'a>>,
}

impl<'a> Activations<'a> {
    /// Quantises `x` `[m, cols]`, cut into strips of the given numbers of rows, the largest that fits each time; the last is 1.
    pub(super) fn new(threads: &Threads, x: &[f32], cols: usize, (sizes, room): (&[usize], &'a mut Room)) -> Self {
        let (m, groups) = (x.len() / cols, cols / GROUP);
        if room.meta.len() < m * groups {
            room.integers.resize(m * cols, 0);
            room.meta.resize(m * groups, GroupMeta::default());
        }
        let (mut integers, mut meta) = (&mut room.integers[..m * cols], &mut room.meta[..m * groups]);
        let mut cut = Vec::new();
        let mut first = 0;
        while first < m {
            let rows = sizes.iter().copied().find(|&rows| rows <= m - first).unwrap_or(1);
            let (some, rest) = integers.split_at_mut(rows * cols);
            let (metas, others) = meta.split_at_mut(rows * groups);
            cut.push((first, rows, some, metas));
            (integers, meta, first) = (rest, others, first + rows);
        }
        threads.for_each_chunk(&mut cut, 1, |_, cut| {
            let [(first, rows, integers, meta)] = cut else { return };
            quantize_strip(threads.isa(), &x[*first * cols..][..*rows * cols], cols, integers, meta);
        });
        let strip = |(first, rows, integers, meta): (_, _, &'a mut [i16], &'a mut [GroupMeta])| Strip {
            integers,
            meta,
            first,
            rows,
        };
        Self { strips: cut.into_iter().map(strip).collect() }
    }

    pub(super) fn strips(&self) -> &[Strip<'a>] {
        &self.strips
    }
}

for_each_isa! {
    fn quantize_strip(x: &[f32], cols: usize, integers: &mut [i16], meta: &mut [GroupMeta]) = quantize_rows;
}

#[inline(always)]
fn quantize_rows(x: &[f32], cols: usize, integers: &mut [i16], meta: &mut [GroupMeta]) {
    let rows = x.len() / cols;
    for (row, x) in x.chunks_exact(cols).enumerate() {
        for (group, x) in x.as_chunks::<GROUP>().0.iter().enumerate() {
            let at = group * rows + row;
            meta[at] = quantize_group(x, &mut integers.as_chunks_mut::<GROUP>().0[at]);
        }
    }
}

#[inline(always)]
fn quantize_group(x: &[f32; GROUP], integers: &mut [i16; GROUP]) -> GroupMeta {
    // Compared as integers, sizes stand in order, and what is not finite is above all others.
    let largest = x.iter().fold(0, |largest: u32, x| largest.max(x.to_bits() & 0x7fff_ffff));
    let largest = f32::from_bits(largest);
    let (scale, inverse) = if !largest.is_finite() {
        (f32::NAN, 0.0)
    } else if largest < 1e-30 {
        (0.0, 0.0)
    } else {
        (largest / 32767.0, 32767.0 / largest)
    };
    let mut sums = [0; 2];
    for (half, (x, integers)) in x.as_chunks::<16>().0.iter().zip(integers.as_chunks_mut::<16>().0).enumerate() {
        for (x, integer) in x.iter().zip(integers.iter_mut()) {
            // The nearest integer, which stands in the low bits of the sum.
            *integer = (x * inverse + ROUND).to_bits() as i16;
        }
        sums[half] = integers.iter().map(|&integer| i32::from(integer)).sum::<i32>();
    }
    GroupMeta { scale, sum: scale * (sums[0] + sums[1]) as f32, offsets: sums.map(|sum| -8 * sum) }
}
