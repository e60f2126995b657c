//! Rotary position embedding (Su et al., "RoFormer", 2021): pairs of numbers of a head turn by an angle that grows with the
//! position. How the frequencies come about (scaling for long contexts) is the model's business.

use std::sync::OnceLock;

use crate::elementwise::for_each_chunk;
use crate::error::{KernelError, Result, check_length, check_positive, size};
use crate::isa::for_each_isa;
use crate::threads::Threads;

/// Positions whose angles are computed together, when the first of them is asked for.
const PAGE: usize = 256;

/// The cosines and sines of every position. They are computed a page at a time on first use: a long context costs nothing
/// before it is used, and the values do not depend on when that is.
#[derive(Debug)]
pub struct RotaryTable {
    inverse_frequencies: Box<[f32]>,
    max_positions: usize,
    /// For each position of a page: all cosines, then all sines.
    pages: Box<[OnceLock<Box<[f32]>>]>,
}

impl RotaryTable {
    /// A table for positions below `max_positions`; pair i turns by position * `inverse_frequencies[i]`. The product is
    /// taken in f32, as PyTorch does, and its cosine and sine are those of that f32 to the last bit of an f32.
    ///
    /// # Errors
    /// When there are no frequencies or no positions.
    pub fn new(inverse_frequencies: &[f32], max_positions: usize) -> Result<Self> {
        check_positive("inverse_frequencies", inverse_frequencies.len())?;
        check_positive("max_positions", max_positions)?;
        let pages = (0..max_positions.div_ceil(PAGE)).map(|_| OnceLock::new()).collect();
        Ok(Self { inverse_frequencies: inverse_frequencies.into(), max_positions, pages })
    }

    /// Positions must be below this.
    #[must_use]
    pub fn max_positions(&self) -> usize {
        self.max_positions
    }

    /// How many pairs turn.
    #[must_use]
    pub fn pairs(&self) -> usize {
        self.inverse_frequencies.len()
    }

    /// The cosines and the sines of those positions, each `[positions, pairs]`.
    ///
    /// # Errors
    /// When a position is not in the table.
    pub fn gather(&self, positions: &[u32]) -> Result<(Vec<f32>, Vec<f32>)> {
        self.check(positions)?;
        let count = positions.len() * self.pairs();
        let (mut cosines, mut sines) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for &position in positions {
            let (cosine, sine) = self.at(position as usize);
            cosines.extend_from_slice(cosine);
            sines.extend_from_slice(sine);
        }
        Ok((cosines, sines))
    }

    fn check(&self, positions: &[u32]) -> Result<()> {
        let bound = self.max_positions;
        match positions.iter().find(|&&position| position as usize >= bound) {
            Some(&position) => Err(KernelError::OutOfBounds { argument: "positions", bound, value: position as usize }),
            None => Ok(()),
        }
    }

    /// The cosines and the sines of a position within bounds.
    fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let page = self.pages[position / PAGE].get_or_init(|| self.compute(position / PAGE));
        page[position % PAGE * 2 * self.pairs()..][..2 * self.pairs()].split_at(self.pairs())
    }

    fn compute(&self, page: usize) -> Box<[f32]> {
        let mut values = Vec::with_capacity(PAGE * 2 * self.pairs());
        for position in page * PAGE..(page + 1) * PAGE {
            let angles = self.inverse_frequencies.iter().map(|&frequency| f64::from(frequency * position as f32));
            values.extend(angles.clone().map(|angle| angle.cos() as f32));
            values.extend(angles.map(|angle| angle.sin() as f32));
        }
        values.into()
    }
}

/// Which numbers of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotaryStyle {
    /// Number i with number i + pairs: checkpoints in Hugging Face layout.
    Halves,
    /// Number 2i with number 2i + 1: the original Llama layout, which GGUF files keep for Llama.
    Interleaved,
}

/// How the heads of a tensor turn.
#[derive(Debug, Clone, Copy)]
pub struct Rotary<'a> {
    /// The angles.
    pub table: &'a RotaryTable,
    /// The pairing.
    pub style: RotaryStyle,
    /// Heads of a token.
    pub heads: usize,
    /// Numbers of a head. Where it is more than two for each pair, the rest is left as it is.
    pub head_dim: usize,
}

/// Turns `x` `[tokens, heads, head_dim]` in place, the token i by the angles of `positions[i]`.
///
/// # Errors
/// When `x` has another length, a position is not in the table, or the pairs do not fit a head.
pub fn rotary(threads: &Threads, x: &mut [f32], positions: &[u32], how: &Rotary<'_>) -> Result<()> {
    check_positive("heads", how.heads)?;
    if 2 * how.table.pairs() > how.head_dim {
        let bound = how.head_dim / 2 + 1;
        return Err(KernelError::OutOfBounds {
            argument: "pairs of the rotary table",
            bound,
            value: how.table.pairs(),
        });
    }
    check_length("x", x.len(), size("x", &[positions.len(), how.heads, how.head_dim])?)?;
    how.table.check(positions)?;
    let width = how.heads * how.head_dim;
    let chunk = crate::elementwise::rows_chunk(width);
    for_each_chunk(threads, x, chunk, |first, x| {
        for (x, &position) in x.chunks_exact_mut(width).zip(&positions[first / width..]) {
            let (cos, sin) = how.table.at(position as usize);
            match how.style {
                RotaryStyle::Halves => halves(threads.isa(), x, how.head_dim, cos, sin),
                RotaryStyle::Interleaved => interleaved(threads.isa(), x, how.head_dim, cos, sin),
            }
        }
    });
    Ok(())
}

for_each_isa! {
    fn halves(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) = halves_body;
}

#[inline(always)]
fn halves_body(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
    for head in x.chunks_exact_mut(head_dim) {
        let (first, second) = head[..2 * cos.len()].split_at_mut(cos.len());
        for ((first, second), (&cos, &sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
            (*first, *second) = (*first * cos - *second * sin, *second * cos + *first * sin);
        }
    }
}

for_each_isa! {
    fn interleaved(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) = interleaved_body;
}

#[inline(always)]
fn interleaved_body(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
    for head in x.chunks_exact_mut(head_dim) {
        for (pair, (&cos, &sin)) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos.iter().zip(sin)) {
            *pair = [pair[0] * cos - pair[1] * sin, pair[1] * cos + pair[0] * sin];
        }
    }
}
