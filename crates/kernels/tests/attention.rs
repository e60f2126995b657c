//! Attention: right, and each token's result the same bits however the tokens were batched, chunked or shared among threads.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::ops::Range;

use common::{Numbers, all_threads, assert_close, assert_same, reference};
use hearth_kernels::{
    AttentionShape, AttentionSpan, Format, KernelError, KvView, PackedSequences, PagedContext, Threads, expand,
    packed_attention, paged_attention, quantize, write_kv,
};
use proptest::prelude::*;

const SHAPES: [AttentionShape; 4] = [
    AttentionShape { heads: 6, kv_heads: 2, head_dim: 64, scale: 0.125 },
    AttentionShape { heads: 3, kv_heads: 3, head_dim: 32, scale: 0.2 },
    AttentionShape { heads: 4, kv_heads: 1, head_dim: 21, scale: 0.25 },
    AttentionShape { heads: 1, kv_heads: 1, head_dim: 5, scale: 1.0 },
];

/// Sequences with their queries, keys and values.
struct Sequences {
    shape: AttentionShape,
    lengths: Vec<usize>,
    q: Vec<Vec<f32>>,
    k: Vec<Vec<f32>>,
    v: Vec<Vec<f32>>,
}

impl Sequences {
    fn new(shape: AttentionShape, lengths: &[usize], seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        let mut rows = |width: usize| -> Vec<Vec<f32>> {
            lengths.iter().map(|length| numbers.floats(length * width).iter().map(|x| x * 2.0).collect()).collect()
        };
        let (queries, keys) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        Self { shape, lengths: lengths.to_vec(), q: rows(queries), k: rows(keys), v: rows(keys) }
    }

    /// The same with keys and values as `format` keeps them.
    fn kept(&self, format: Format) -> Self {
        let kept = |rows: &Vec<f32>| {
            let (mut bytes, mut out) = (vec![0; format.row_bytes(rows.len()).unwrap()], vec![0.0; rows.len()]);
            quantize(format, rows, &mut bytes).unwrap();
            expand(format, &bytes, &mut out).unwrap();
            out
        };
        let all = |rows: &[Vec<f32>]| rows.iter().map(kept).collect();
        Self { shape: self.shape, lengths: self.lengths.clone(), q: self.q.clone(), k: all(&self.k), v: all(&self.v) }
    }

    /// In double precision, token by token.
    fn exact(&self, sequence: usize, causal: bool) -> Vec<f64> {
        let AttentionShape { heads, kv_heads, head_dim, scale } = self.shape;
        let length = self.lengths[sequence];
        let mut out = Vec::new();
        for (row, q) in self.q[sequence].chunks_exact(head_dim).enumerate() {
            let (token, head) = (row / heads, row % heads / (heads / kv_heads));
            let visible = if causal { token + 1 } else { length };
            let at = |position: usize| (position * kv_heads + head) * head_dim;
            let weights: Vec<f64> = (0..visible)
                .map(|p| {
                    let k = &self.k[sequence][at(p)..][..head_dim];
                    let dot: f64 = q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
                    (dot * f64::from(scale)).exp()
                })
                .collect();
            let total: f64 = weights.iter().sum();
            for d in 0..head_dim {
                let sum: f64 =
                    weights.iter().enumerate().map(|(p, w)| w * f64::from(self.v[sequence][at(p) + d])).sum();
                out.push(sum / total);
            }
        }
        out
    }
}

/// How caches are kept, with heads that are whole blocks of it.
fn formats(shape: &AttentionShape) -> Vec<Format> {
    let formats = [Format::F32, Format::F16, Format::BF16, Format::Q8_0];
    formats.into_iter().filter(|format| shape.head_dim.is_multiple_of(format.block_len())).collect()
}

/// A paged cache that holds whole sequences in shuffled blocks.
struct Cache {
    format: Format,
    block_size: usize,
    keys: Vec<u8>,
    values: Vec<u8>,
    tables: Vec<Vec<u32>>,
}

impl Cache {
    fn new(sequences: &Sequences, format: Format, block_size: usize, seed: u64) -> Self {
        let needed: Vec<usize> = sequences.lengths.iter().map(|length| length.div_ceil(block_size)).collect();
        let blocks = needed.iter().sum::<usize>() + 2;
        let mut numbers = Numbers::new(seed);
        let mut free: Vec<u32> = (0..blocks as u32).collect();
        free.sort_by_cached_key(|_| numbers.bits());
        let width = sequences.shape.kv_heads * sequences.shape.head_dim;
        // What was never written must not be used, not even times zero: in each of these formats ones stand for no number, as
        // a scale too.
        let empty = vec![0xff; blocks * block_size * format.row_bytes(width).unwrap()];
        let mut cache = Self { format, block_size, keys: empty.clone(), values: empty, tables: Vec::new() };
        for (sequence, needed) in needed.iter().enumerate() {
            let table = free.split_off(free.len() - needed);
            let slots: Vec<u32> = (0..sequences.lengths[sequence])
                .map(|p| table[p / block_size] * block_size as u32 + (p % block_size) as u32)
                .collect();
            write_kv(&mut cache.keys, format, &sequences.k[sequence], &slots, width).unwrap();
            write_kv(&mut cache.values, format, &sequences.v[sequence], &slots, width).unwrap();
            cache.tables.push(table);
        }
        cache
    }

    fn view(&self, shape: &AttentionShape) -> KvView<'_> {
        KvView {
            format: self.format,
            keys: &self.keys,
            values: &self.values,
            block_size: self.block_size,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
        }
    }

    /// Attention of the given ranges of tokens of sequences, all in one call.
    fn run(&self, threads: &Threads, sequences: &Sequences, parts: &[(usize, Range<usize>)]) -> Vec<f32> {
        let width = sequences.shape.heads * sequences.shape.head_dim;
        let (mut q, mut spans) = (Vec::new(), Vec::new());
        for (sequence, tokens) in parts {
            let row = q.len() / width;
            q.extend_from_slice(&sequences.q[*sequence][tokens.start * width..tokens.end * width]);
            spans.push(AttentionSpan {
                rows: row..row + tokens.len(),
                first_position: tokens.start,
                blocks: &self.tables[*sequence],
            });
        }
        let mut out = vec![f32::NAN; q.len()];
        let context = PagedContext { kv: self.view(&sequences.shape), spans: &spans };
        paged_attention(threads, &q, &context, &sequences.shape, &mut out).unwrap();
        out
    }
}

/// Right for what the cache stands for, and the same bits for all threads, instructions, batches and chunks.
fn check_paged(sequences: &Sequences, cache: &Cache, chunk: usize) {
    let (lengths, format) = (&sequences.lengths, cache.format);
    let whole: Vec<_> = lengths.iter().enumerate().map(|(i, &length)| (i, 0..length)).collect();
    let expected = cache.run(&reference(), sequences, &whole);
    let kept = sequences.kept(format);
    let exact: Vec<f64> = (0..lengths.len()).flat_map(|i| kept.exact(i, true)).collect();
    assert_close(&expected, &exact, 3e-6, &format!("{format} reference"));
    for threads in all_threads() {
        let together = cache.run(&threads, sequences, &whole);
        assert_same(&together, &expected, &format!("{format} {threads:?} together"));
        let mut chunked = Vec::new();
        for (sequence, &length) in lengths.iter().enumerate() {
            for start in (0..length).step_by(chunk) {
                let part = (sequence, start..length.min(start + chunk));
                chunked.extend(cache.run(&threads, sequences, &[part]));
            }
        }
        assert_same(&chunked, &expected, &format!("{format} {threads:?} alone in chunks of {chunk}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn paged_attention_is_right_and_independent(
        shape in prop::sample::select(SHAPES.to_vec()),
        lengths in prop::collection::vec(1usize..50, 1..4),
        block_size in 1usize..20,
        chunk in 1usize..17,
        seed: u64,
    ) {
        let sequences = Sequences::new(shape, &lengths, seed);
        for format in formats(&shape) {
            check_paged(&sequences, &Cache::new(&sequences, format, block_size, seed ^ 1), chunk);
        }
    }

    #[test]
    fn packed_attention_is_right_and_independent(
        shape in prop::sample::select(SHAPES.to_vec()),
        lengths in prop::collection::vec(0usize..100, 0..4),
        seed: u64,
    ) {
        let sequences = Sequences::new(shape, &lengths, seed);
        let run = |threads: &Threads, which: &[usize]| {
            let pack = |rows: &[Vec<f32>]| which.iter().flat_map(|&i| rows[i].clone()).collect::<Vec<f32>>();
            let (q, k, v) = (pack(&sequences.q), pack(&sequences.k), pack(&sequences.v));
            let lengths: Vec<usize> = which.iter().map(|&i| lengths[i]).collect();
            let mut out = vec![f32::NAN; q.len()];
            let packed = PackedSequences { q: &q, k: &k, v: &v, lengths: &lengths };
            packed_attention(threads, &packed, &shape, &mut out).unwrap();
            out
        };
        let all: Vec<usize> = (0..lengths.len()).collect();
        let expected = run(&reference(), &all);
        let exact: Vec<f64> = all.iter().flat_map(|&i| sequences.exact(i, false)).collect();
        assert_close(&expected, &exact, 3e-6, "reference");
        for threads in all_threads() {
            assert_same(&run(&threads, &all), &expected, &format!("{threads:?} together"));
            let alone: Vec<f32> = all.iter().flat_map(|&i| run(&threads, &[i])).collect();
            assert_same(&alone, &expected, &format!("{threads:?} alone"));
        }
    }
}

/// Over several stretches, whole and a few tokens at a time, in blocks that do not divide a stretch.
#[test]
fn a_context_of_several_stretches_is_right_and_independent() {
    let shape = AttentionShape { heads: 2, kv_heads: 1, head_dim: 8, scale: 0.3 };
    let sequences = Sequences::new(shape, &[1300, 530], 11);
    for chunk in [50, 200] {
        check_paged(&sequences, &Cache::new(&sequences, Format::F32, 24, 12), chunk);
    }
}

/// Long enough that one thread would have all the work.
#[test]
fn a_long_context_decodes_as_it_prefills() {
    let shape = AttentionShape { heads: 2, kv_heads: 1, head_dim: 16, scale: 0.25 };
    let length = 20_000;
    let sequences = Sequences::new(shape, &[length], 5);
    let cache = Cache::new(&sequences, Format::F16, 16, 6);
    let threads = Threads::new(2).unwrap();
    let chunk = cache.run(&threads, &sequences, &[(0, length - 20..length)]);
    let width = shape.heads * shape.head_dim;
    for (row, token) in chunk.chunks_exact(width).zip(length - 20..length) {
        assert_same(&cache.run(&threads, &sequences, &[(0, token..token + 1)]), row, "one token");
    }
}

#[test]
fn wrong_contexts_are_refused_by_name() {
    let shape = AttentionShape { heads: 2, kv_heads: 1, head_dim: 4, scale: 0.5 };
    let threads = Threads::new(1).unwrap();
    let cache = vec![0; 3 * 8 * 4 * 4]; // 3 blocks of 8
    let kv = KvView { format: Format::F32, keys: &cache, values: &cache, block_size: 8, kv_heads: 1, head_dim: 4 };
    let run = |kv: KvView<'_>, span: AttentionSpan<'_>| {
        let context = PagedContext { kv, spans: &[span] };
        paged_attention(&threads, &[0.0; 16], &context, &shape, &mut [0.0; 16])
    };
    let span = |rows, first_position, blocks| AttentionSpan { rows, first_position, blocks };
    assert_eq!(run(kv, span(0..2, 6, &[0])), Ok(()));
    let error = run(kv, span(0..2, 7, &[0])).unwrap_err();
    assert_eq!(error.to_string(), "positions of a span (in its blocks): 8 is not below 8");
    let error = run(kv, span(0..2, 0, &[3])).unwrap_err();
    assert_eq!(error, KernelError::OutOfBounds { argument: "span.blocks", bound: 3, value: 3 });
    assert_eq!(run(kv, span(1..2, 0, &[0])), Err(KernelError::SpanOrder { expected: 0, actual: 1 }));
    assert!(matches!(run(kv, span(0..1, 0, &[0])), Err(KernelError::Length { expected: 2, actual: 1, .. })));
    assert!(run(kv, span(0..2, usize::MAX, &[0])).is_err());
    assert!(run(KvView { block_size: 0, ..kv }, span(0..2, 0, &[0])).is_err());
    assert!(run(KvView { kv_heads: 2, ..kv }, span(0..2, 0, &[0])).is_err());
    assert!(run(KvView { values: &cache[4..], ..kv }, span(0..2, 0, &[0])).is_err());
    let error = run(KvView { format: Format::Q8_0, ..kv }, span(0..2, 0, &[0])).unwrap_err();
    assert_eq!(error, KernelError::NotMultiple { argument: "head_dim", multiple_of: 32, actual: 4 });
    let odd = AttentionShape { heads: 3, kv_heads: 2, ..shape };
    let packed = PackedSequences { q: &[0.0; 12], k: &[0.0; 8], v: &[0.0; 8], lengths: &[1] };
    let error = packed_attention(&threads, &packed, &odd, &mut [0.0; 12]).unwrap_err();
    assert_eq!(error, KernelError::NotMultiple { argument: "heads", multiple_of: 2, actual: 3 });
    let even = AttentionShape { heads: 3, kv_heads: 1, ..shape };
    let packed = PackedSequences { q: &[0.0; 12], k: &[0.0; 4], v: &[0.0; 4], lengths: &[2] };
    assert!(packed_attention(&threads, &packed, &even, &mut [0.0; 12]).is_err());
}

#[test]
fn slots_are_checked() {
    let mut cache = [0; 6 * 4];
    let floats = |cache: &[u8]| -> Vec<f32> {
        let mut out = vec![0.0; 6];
        expand(Format::F32, cache, &mut out).unwrap();
        out
    };
    write_kv(&mut cache, Format::F32, &[1.0, 2.0, 3.0, 4.0], &[2, 0], 2).unwrap();
    assert_eq!(floats(&cache), [3.0, 4.0, 0.0, 0.0, 1.0, 2.0]);
    let error = write_kv(&mut cache, Format::F32, &[0.0; 4], &[1, 1], 2).unwrap_err();
    assert_eq!(error, KernelError::Duplicate { argument: "slots", value: 1 });
    let error = write_kv(&mut cache, Format::F32, &[0.0; 4], &[1, 3], 2).unwrap_err();
    assert_eq!(error, KernelError::OutOfBounds { argument: "slots", bound: 3, value: 3 });
    assert!(write_kv(&mut cache, Format::F32, &[0.0; 3], &[1, 2], 2).is_err());
    assert!(write_kv(&mut cache, Format::F32, &[], &[], 0).is_err());
    let error = write_kv(&mut cache, Format::Q8_0, &[0.0; 2], &[1], 2).unwrap_err();
    assert_eq!(error, KernelError::NotMultiple { argument: "width", multiple_of: 32, actual: 2 });
    assert_eq!(floats(&cache), [3.0, 4.0, 0.0, 0.0, 1.0, 2.0], "nothing was written");
}

/// No infinity gets into a cache, where it would make every later token of its sequence no number.
#[test]
fn numbers_are_rounded_to_even_and_cut_to_the_largest() {
    let written = |format: Format, numbers: &[f32]| {
        let mut row = numbers.to_vec();
        row.resize(32, 0.0);
        let (mut cache, mut out) = (vec![0; format.row_bytes(32).unwrap()], vec![0.0; 32]);
        write_kv(&mut cache, format, &row, &[0], 32).unwrap();
        expand(format, &cache, &mut out).unwrap();
        out.truncate(numbers.len());
        out
    };
    let ulp = 1.0 / 1024.0;
    let ties = [1.0 + 0.5 * ulp, 1.0 + 1.5 * ulp, -1.0 - 0.5 * ulp, 1.0 + 0.51 * ulp];
    assert_eq!(written(Format::F16, &ties), [1.0, 1.0 + 2.0 * ulp, -1.0, 1.0 + ulp]);
    let ulp = 1.0 / 128.0;
    let ties = [1.0 + 0.5 * ulp, 1.0 + 1.5 * ulp, -1.0 - 0.5 * ulp, 1.0 + 0.51 * ulp];
    assert_eq!(written(Format::BF16, &ties), [1.0, 1.0 + 2.0 * ulp, -1.0, 1.0 + ulp]);
    let large = [65_504.0, 65_520.0, 1e30, -1e30, f32::INFINITY];
    assert_eq!(written(Format::F16, &large), [65_504.0, 65_504.0, 65_504.0, -65_504.0, 65_504.0]);
    assert!(written(Format::BF16, &[f32::MAX, f32::NEG_INFINITY]).iter().all(|number| number.is_finite()));
    let quantized = written(Format::Q8_0, &[f32::INFINITY, -1e30, 65_504.0]);
    assert!(quantized.iter().all(|number| (number.abs() - 65_504.0).abs() < 40.0), "{quantized:?}");
}
