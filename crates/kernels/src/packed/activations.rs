//! Activations as products read them: some rows side by side, 32 numbers of each after those of the one before.

use super::layout::GROUP;
use crate::isa::for_each_isa;
use crate::threads::Threads;

/// Some rows side by side.
#[derive(Clone, Copy)]
pub(super) struct Strip<'a> {
    /// `[groups, rows, 32]`
    pub(super) values: &'a [f32],
    /// The sum of each group of each row. `[groups, rows]`
    pub(super) sums: &'a [f32],
    /// The first row, counted among all.
    pub(super) first: usize,
    /// How many rows there are.
    pub(super) rows: usize,
}

/// The buffers of such rows, kept from call to call.
#[derive(Debug, Default)]
pub(super) struct Room {
    values: Vec<f32>,
    sums: Vec<f32>,
}

impl Room {
    pub(super) const fn new() -> Self {
        Self { values: Vec::new(), sums: Vec::new() }
    }
}

/// All rows of a call, in strips.
pub(super) struct Activations<'a> {
    strips: Vec<Strip<'a>>,
}

impl<'a> Activations<'a> {
    /// Takes in `x` `[m, cols]`, cut into strips of the given numbers of rows, the largest that fits each time; the last is 1.
    pub(super) fn new(threads: &Threads, x: &[f32], cols: usize, (sizes, room): (&[usize], &'a mut Room)) -> Self {
        let (m, groups) = (x.len() / cols, cols / GROUP);
        if room.sums.len() < m * groups {
            room.values.resize(m * cols, 0.0);
            room.sums.resize(m * groups, 0.0);
        }
        let (mut values, mut sums) = (&mut room.values[..m * cols], &mut room.sums[..m * groups]);
        let mut cut = Vec::new();
        let mut first = 0;
        while first < m {
            let rows = sizes.iter().copied().find(|&rows| rows <= m - first).unwrap_or(1);
            let (some, rest) = values.split_at_mut(rows * cols);
            let (totals, others) = sums.split_at_mut(rows * groups);
            cut.push((first, rows, some, totals));
            (values, sums, first) = (rest, others, first + rows);
        }
        threads.for_each_chunk(&mut cut, 1, |_, cut| {
            let [(first, rows, values, sums)] = cut else { return };
            fill(threads.isa(), &x[*first * cols..][..*rows * cols], cols, values, sums);
        });
        let strip =
            |(first, rows, values, sums): (_, _, &'a mut [f32], &'a mut [f32])| Strip { values, sums, first, rows };
        Self { strips: cut.into_iter().map(strip).collect() }
    }

    pub(super) fn strips(&self) -> &[Strip<'a>] {
        &self.strips
    }
}

for_each_isa! {
    fn fill(x: &[f32], cols: usize, values: &mut [f32], sums: &mut [f32]) = fill_rows;
}

#[inline(always)]
fn fill_rows(x: &[f32], cols: usize, values: &mut [f32], sums: &mut [f32]) {
    let rows = x.len() / cols;
    for (row, x) in x.chunks_exact(cols).enumerate() {
        for (group, x) in x.as_chunks::<GROUP>().0.iter().enumerate() {
            let at = group * rows + row;
            values.as_chunks_mut::<GROUP>().0[at] = *x;
            sums[at] = sum(x);
        }
    }
}

/// Numbers 16 apart are added, then 8 apart, 4 apart, 2 apart, 1 apart.
#[inline(always)]
fn sum(x: &[f32; GROUP]) -> f32 {
    let mut sums = *x;
    for apart in [16, 8, 4, 2, 1] {
        for l in 0..apart {
            sums[l] += sums[l + apart];
        }
    }
    sums[0]
}
