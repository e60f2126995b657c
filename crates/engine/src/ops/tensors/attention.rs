//! Attention as gathers, batched products and softmax.
//!
//! Queries, keys and values are read by rows of one head each. A group of sequences gathers its keys and values into
//! `[sequences, key_heads, keys, head_dim]`, padded to the longest; what is padding comes out of the gather as zeros and is masked, so
//! that no other sequence's numbers are ever touched. Scores are f32, and as large as they are: see
//! [`GROUP_ELEMENTS`](super::groups::GROUP_ELEMENTS).

use candle_core::{DType, Device, Tensor};
use candle_nn::ops::softmax_last_dim;
use hearth_kernels::AttentionShape;

use super::cache::CacheWrites;
use super::groups::{GROUP_ELEMENTS, GroupSizes, Piece, group_spans, group_texts};
use super::step::once;
use crate::error::Error;
use crate::kv::store::LayerCache;
use crate::ops::{ForwardBatch, PackedTexts};

/// The index that a gather takes for a row of zeros.
const NOTHING: u32 = u32::MAX;

/// Sequences that attend together.
#[derive(Clone, Debug)]
struct Group {
    sequences: usize,
    key_heads: usize,
    /// Query rows of each sequence.
    rows: usize,
    /// Query heads of a key head.
    shared: usize,
    /// The head rows of the queries, or all as they stand. `[sequences * key_heads * rows * shared]`, u32
    queries: Option<Tensor>,
    /// The head rows of keys and values. `[sequences * key_heads * keys]`, u32
    keys: Tensor,
    /// 0, or minus infinity where a row does not see a key. `[sequences, 1, rows or 1, 1, keys]`
    mask: Tensor,
}

impl Group {
    /// `q`, `k` and `v` as head rows `[.., head_dim]`; the result as the group's queries stand.
    fn attend(&self, [q, k, v]: [&Tensor; 3], scale: f32) -> Result<Tensor, Error> {
        let Self { sequences, key_heads, rows, shared, .. } = *self;
        let (_, head_dim) = q.dims2()?;
        let keys = self.keys.elem_count() / (sequences * key_heads);
        let gather = |x: &Tensor| {
            let chosen = x.index_select(&self.keys, 0)?.to_dtype(DType::F32)?; // as they are kept, else
            chosen.reshape((sequences, key_heads, keys, head_dim))
        };
        let q = match &self.queries {
            Some(index) => q.index_select(index, 0)?,
            None => q.clone(),
        };
        let q = q.reshape((sequences, key_heads, rows * shared, head_dim))?;
        let scores = (q.matmul(&gather(k)?.t()?)? * f64::from(scale))?; // [sequences, key_heads, rows * shared, keys]
        let scores = scores.reshape((sequences, key_heads, rows, shared, keys))?.broadcast_add(&self.mask)?;
        let weights = softmax_last_dim(&scores)?.reshape((sequences, key_heads, rows * shared, keys))?;
        Ok(weights.matmul(&gather(v)?)?.reshape(((), head_dim))?)
    }
}

/// All groups of a step, and how their results go back to the rows of the batch.
#[derive(Clone, Debug)]
struct Groups {
    groups: Vec<Group>,
    /// Where in the groups' results each head row of the batch stands, or all as they stand. `[tokens * heads]`, u32
    results: Option<Tensor>,
}

impl Groups {
    /// `q`, `k` and `v` as head rows; the result as `q`.
    fn attend(&self, qkv: [&Tensor; 3], scale: f32) -> Result<Tensor, Error> {
        let parts: Vec<Tensor> = self.groups.iter().map(|group| group.attend(qkv, scale)).collect::<Result<_, _>>()?;
        let whole = Tensor::cat(&parts, 0)?;
        Ok(match &self.results {
            Some(index) => whole.index_select(index, 0)?,
            None => whole,
        })
    }
}

/// Where the results of a batch's rows stand, group after group.
struct Results {
    index: Vec<u32>,
    heads: usize,
    used: usize,
}

impl Results {
    fn new(tokens: usize, heads: usize) -> Self {
        Self { index: vec![0; tokens * heads], heads, used: 0 }
    }

    /// Notes a sequence of a group: `tokens` are its rows in the batch, and it takes `rows` (its padding included).
    fn sequence(&mut self, tokens: impl Iterator<Item = usize>, rows: usize, shared: usize) {
        for (row, token) in tokens.enumerate() {
            for head in 0..self.heads {
                let (key_head, part) = (head / shared, head % shared);
                let place = self.used + (key_head * rows + row) * shared + part;
                self.index[token * self.heads + head] = place as u32;
            }
        }
        self.used += rows * self.heads;
    }

    /// Whether everything stands where it came from.
    fn in_order(&self) -> bool {
        self.used == self.index.len() && self.index.iter().enumerate().all(|(index, place)| index == *place as usize)
    }

    fn upload(self, device: &Device) -> Result<Option<Tensor>, Error> {
        match self.in_order() {
            true => Ok(None),
            false => Ok(Some(Tensor::new(self.index, device)?)),
        }
    }
}

/// The head rows of token rows: `rows [sequences, rows]` to `[sequences, key_heads, rows, shared]`, u32.
fn head_rows(rows: &Tensor, key_heads: usize, shared: usize) -> Result<Tensor, Error> {
    let (sequences, count) = rows.dims2()?;
    let heads = Tensor::arange(0_u32, (key_heads * shared) as u32, rows.device())?;
    let first = (rows.reshape((sequences, 1, count, 1))? * (key_heads * shared) as f64)?;
    Ok(first.broadcast_add(&heads.reshape((1, key_heads, 1, shared))?)?)
}

/// 0 where `seen` is 1, minus infinity where it is 0.
fn mask(seen: &Tensor) -> Result<Tensor, Error> {
    let fill = |value: f32| Tensor::full(value, (), seen.device())?.broadcast_as(seen.shape());
    Ok(seen.where_cond(&fill(0.0)?, &fill(f32::NEG_INFINITY)?)?)
}

/// The key index of `rows [sequences, keys]` for one head after the other, with [`NOTHING`] from each sequence's
/// `length [sequences, 1]` on. `[sequences * key_heads * keys]`
fn key_index(rows: &Tensor, lengths: &Tensor, key_heads: usize) -> Result<Tensor, Error> {
    let (sequences, keys) = rows.dims2()?;
    let shape = (sequences, key_heads, keys);
    let index = head_rows(rows, key_heads, 1)?.reshape(shape)?;
    let position = Tensor::arange(0_u32, keys as u32, rows.device())?.unsqueeze(0)?; // [1, keys]
    let present = position.broadcast_lt(lengths)?.unsqueeze(1)?.broadcast_as(shape)?;
    let nothing = Tensor::full(NOTHING, (), rows.device())?.broadcast_as(shape)?;
    Ok(present.where_cond(&index, &nothing)?.flatten_all()?)
}

/// Causal attention over the paged cache.
#[derive(Clone, Debug)]
pub(in crate::ops) struct PagedPlan {
    groups: Groups,
    writes: CacheWrites,
}

/// The sizes that a plan is made for.
#[derive(Clone, Copy, Debug)]
struct PagedSizes {
    heads: usize,
    key_heads: usize,
    head_dim: usize,
    block_size: usize,
    limit: usize,
}

impl PagedPlan {
    fn new(batch: &ForwardBatch, sizes: &PagedSizes, device: &Device) -> Result<Self, Error> {
        let PagedSizes { heads, key_heads, head_dim, block_size, limit } = *sizes;
        let (tokens, key_width) = (batch.slots.len(), key_heads * head_dim);
        let pieces = group_spans(&batch.spans, block_size, &GroupSizes { heads, key_width, limit });
        let mut results = Results::new(tokens, heads);
        for piece in pieces.iter().flatten() {
            results.sequence(piece.rows.clone(), piece.rows.len(), heads / key_heads);
        }
        // Where one group's results stand as the batch does, so do its queries.
        let in_order = pieces.len() == 1 && results.in_order();
        let groups = pieces.iter().map(|pieces| paged_group(pieces, sizes, in_order, device));
        let groups = groups.collect::<Result<_, _>>()?;
        let groups = Groups { groups, results: results.upload(device)? };
        Ok(Self { groups, writes: CacheWrites::new(batch, block_size, key_width, device)? })
    }
}

/// Uploads one group: its blocks and positions, from which the device makes the rest.
fn paged_group(pieces: &[Piece<'_>], sizes: &PagedSizes, in_order: bool, device: &Device) -> Result<Group, Error> {
    let PagedSizes { heads, key_heads, block_size, .. } = *sizes;
    let (sequences, shared) = (pieces.len(), heads / key_heads);
    let rows = pieces.first().map_or(0, |piece| piece.rows.len());
    let blocks = pieces.iter().map(|piece| piece.blocks.len()).max().unwrap_or(0);
    let padded = |piece: &Piece<'_>| {
        let missing = blocks - piece.blocks.len();
        piece.blocks.iter().copied().chain(std::iter::repeat_n(0, missing)).collect::<Vec<u32>>()
    };
    let table: Vec<u32> = pieces.iter().flat_map(padded).collect();
    let table = Tensor::from_vec(table, (sequences, blocks, 1), device)?;
    let offsets = Tensor::arange(0_u32, block_size as u32, device)?.reshape((1, 1, block_size))?;
    let slots = (table * block_size as f64)?.broadcast_add(&offsets)?.reshape((sequences, blocks * block_size))?;
    let lengths: Vec<u32> = pieces.iter().map(|piece| piece.last_position() as u32 + 1).collect();
    let keys = key_index(&slots, &Tensor::from_vec(lengths, (sequences, 1), device)?, key_heads)?;

    let positions = pieces.iter().flat_map(|piece| piece.first_position as u32..=piece.last_position() as u32);
    let positions = Tensor::from_vec(positions.collect::<Vec<u32>>(), (sequences, 1, rows, 1, 1), device)?;
    let key_positions = Tensor::arange(0_u32, (blocks * block_size) as u32, device)?;
    let key_positions = key_positions.reshape((1, 1, 1, 1, blocks * block_size))?;
    let mask = mask(&key_positions.broadcast_le(&positions)?)?;

    let queries = match in_order {
        true => None,
        false => {
            let tokens = pieces.iter().flat_map(|piece| piece.rows.start as u32..piece.rows.end as u32);
            let tokens = Tensor::from_vec(tokens.collect::<Vec<u32>>(), (sequences, rows), device)?;
            Some(head_rows(&tokens, key_heads, shared)?.flatten_all()?)
        }
    };
    Ok(Group { sequences, key_heads, rows, shared, queries, keys, mask })
}

/// Puts keys and values, each `[tokens, key_width]`, into their slots, in place.
pub(in crate::ops) fn write_cache(
    cache: &LayerCache,
    [keys, values]: [&Tensor; 2],
    batch: &ForwardBatch,
    shape: &AttentionShape,
) -> Result<(), Error> {
    let plan = paged_plan(cache, batch, shape)?;
    plan.writes.write(&cache.keys, keys)?;
    plan.writes.write(&cache.values, values)
}

/// Attention of `queries [tokens, heads * head_dim]` to the cache.
pub(in crate::ops) fn paged(
    queries: &Tensor,
    cache: &LayerCache,
    batch: &ForwardBatch,
    shape: &AttentionShape,
) -> Result<Tensor, Error> {
    let plan = paged_plan(cache, batch, shape)?;
    let head_rows = |x: &Tensor| x.reshape(((), shape.head_dim));
    let (q, k, v) = (head_rows(queries)?, head_rows(&cache.keys)?, head_rows(&cache.values)?);
    Ok(plan.groups.attend([&q, &k, &v], shape.scale)?.reshape(queries.shape())?)
}

fn paged_plan<'a>(cache: &LayerCache, batch: &'a ForwardBatch, shape: &AttentionShape) -> Result<&'a PagedPlan, Error> {
    once(&batch.device.paged, || {
        let (_, block_size, key_heads, head_dim) = cache.keys.dims4()?;
        let sizes = PagedSizes { heads: shape.heads, key_heads, head_dim, block_size, limit: GROUP_ELEMENTS };
        PagedPlan::new(batch, &sizes, cache.keys.device())
    })
}

/// Two-way attention within packed texts.
#[derive(Clone, Debug)]
pub(in crate::ops) struct PackedPlan(Groups);

impl PackedPlan {
    fn new(lengths: &[usize], sizes: &GroupSizes, device: &Device) -> Result<Self, Error> {
        let starts: Vec<usize> =
            lengths.iter().scan(0, |next, length| Some(std::mem::replace(next, *next + length))).collect();
        let mut results = Results::new(lengths.iter().sum(), sizes.heads);
        let mut groups = Vec::new();
        for texts in group_texts(lengths, sizes) {
            let longest = texts.iter().map(|text| lengths[*text]).max().unwrap_or(0);
            for &text in &texts {
                results.sequence(starts[text]..starts[text] + lengths[text], longest, 1);
            }
            let own: Vec<(usize, usize)> = texts.iter().map(|text| (starts[*text], lengths[*text])).collect();
            groups.push(packed_group(&own, longest, sizes.heads, device)?);
        }
        Ok(Self(Groups { groups, results: results.upload(device)? }))
    }
}

/// Uploads one group of texts, each by its first row and its length.
fn packed_group(texts: &[(usize, usize)], longest: usize, heads: usize, device: &Device) -> Result<Group, Error> {
    let sequences = texts.len();
    let rows =
        texts.iter().flat_map(|(start, length)| (0..longest).map(move |row| (start + row.min(length - 1)) as u32));
    let rows = Tensor::from_vec(rows.collect::<Vec<u32>>(), (sequences, longest), device)?;
    let lengths: Vec<u32> = texts.iter().map(|(_, length)| *length as u32).collect();
    let lengths = Tensor::from_vec(lengths, (sequences, 1), device)?;
    let keys = key_index(&rows, &lengths, heads)?;
    let positions = Tensor::arange(0_u32, longest as u32, device)?.reshape((1, longest))?;
    let seen = positions.broadcast_lt(&lengths)?.reshape((sequences, 1, 1, 1, longest))?;
    Ok(Group {
        sequences,
        key_heads: heads,
        rows: longest,
        shared: 1,
        queries: Some(keys.clone()),
        keys,
        mask: mask(&seen)?,
    })
}

/// Attention of every token to every token of its own text; `qkv` are each `[tokens, heads * head_dim]`.
pub(in crate::ops) fn packed(
    [q, k, v]: [&Tensor; 3],
    texts: &PackedTexts,
    shape: &AttentionShape,
) -> Result<Tensor, Error> {
    let plan = once(&texts.device.packed, || {
        let sizes = GroupSizes { heads: shape.heads, key_width: shape.heads * shape.head_dim, limit: GROUP_ELEMENTS };
        PackedPlan::new(&texts.lengths, &sizes, q.device())
    })?;
    let head_rows = |x: &Tensor| x.reshape(((), shape.head_dim));
    let (q_rows, k_rows, v_rows) = (head_rows(q)?, head_rows(k)?, head_rows(v)?);
    Ok(plan.0.attend([&q_rows, &k_rows, &v_rows], shape.scale)?.reshape(q.shape())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Span;

    fn rows(count: usize) -> Tensor {
        Tensor::randn(0_f32, 1.0, (count, 8), &Device::Cpu).unwrap()
    }

    fn furthest(a: &Tensor, b: &Tensor) -> f32 {
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn small_groups_give_what_large_ones_give() {
        let sequences = [(9, 1), (0, 21), (40, 1), (2, 1), (13, 6)];
        let mut batch = ForwardBatch::default();
        for (number, (before, now)) in sequences.into_iter().enumerate() {
            let start = batch.slots.len();
            let blocks: Vec<u32> =
                (0..(before + now as usize).div_ceil(4)).map(|block| (number * 12 + block) as u32).collect();
            batch.slots.extend(0..now);
            batch.spans.push(Span { rows: start..start + now as usize, first_position: before, blocks });
        }
        let sizes = PagedSizes { heads: 4, key_heads: 2, head_dim: 8, block_size: 4, limit: GROUP_ELEMENTS };
        let (q, k, v) = (rows(30 * 4), rows(60 * 4 * 2), rows(60 * 4 * 2));
        let attend = |limit| {
            let plan = PagedPlan::new(&batch, &PagedSizes { limit, ..sizes }, &Device::Cpu).unwrap();
            (plan.groups.groups.len(), plan.groups.attend([&q, &k, &v], 0.3).unwrap())
        };
        let ((few, whole), (many, parts)) = (attend(GROUP_ELEMENTS), attend(500));
        assert!(few == 3 && many > 6, "{few} and {many} groups");
        assert!(furthest(&whole, &parts) < 1e-6);
    }

    #[test]
    fn texts_in_small_groups_give_what_they_give_in_large_ones() {
        let lengths = [3, 4, 9, 1, 4, 3, 12];
        let (q, k, v) = (rows(36 * 2), rows(36 * 2), rows(36 * 2));
        let attend = |limit| {
            let sizes = GroupSizes { heads: 2, key_width: 16, limit };
            let plan = PackedPlan::new(&lengths, &sizes, &Device::Cpu).unwrap();
            (plan.0.groups.len(), plan.0.attend([&q, &k, &v], 0.3).unwrap())
        };
        let ((few, whole), (many, parts)) = (attend(GROUP_ELEMENTS), attend(64));
        assert!(few == 3 && many > 5, "{few} and {many} groups");
        assert!(furthest(&whole, &parts) < 1e-6);
    }
}
