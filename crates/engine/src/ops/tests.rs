//! Both arithmetics on the same numbers: what the kernels compute, tensor operations compute.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use hearth_kernels::{Format, Threads, quantize};

use super::{
    AttentionShape, Backend, ExpertTensors, Experts, ForwardBatch, LayerNormWeights, Matrix, Orientation, PackedTexts,
    RotaryStyle, RotaryTable, Selection, Span, Table, Vector,
};
use crate::kv::{KvLayout, KvStore, KvType};
use crate::weights::{WeightMap, WeightTensor};

fn backends() -> [Backend; 2] {
    let threads = Arc::new(Threads::new(2).unwrap());
    [Backend::new(Device::Cpu, Arc::clone(&threads)), Backend::with_tensor_operations(Device::Cpu, threads)]
}

/// Within -1..1, the same on every run, others for another `seed`.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn rows(shape: (usize, usize), seed: u64) -> Tensor {
    Tensor::from_vec(noise(shape.0 * shape.1, seed), shape, &Device::Cpu).unwrap()
}

fn stored(format: Format, [rows, cols]: [usize; 2], seed: u64) -> WeightTensor {
    let mut bytes = vec![0; rows * format.row_bytes(cols).unwrap()];
    quantize(format, &noise(rows * cols, seed), &mut bytes).unwrap();
    // One byte into a map, where nothing is aligned.
    let shifted = WeightMap::from_bytes("noise", [&[0], &bytes[..]].concat()).whole();
    let bytes = shifted.part(1..shifted.len()).unwrap();
    WeightTensor { name: "noise".to_owned(), format, shape: vec![rows, cols], bytes }
}

#[track_caller]
fn assert_near([a, b]: [Tensor; 2], tolerance: f32, what: &str) {
    assert_eq!(a.dims(), b.dims(), "{what}");
    let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (index, (a, b)) in values(&a).into_iter().zip(values(&b)).enumerate() {
        assert!((a - b).abs() <= tolerance * a.abs().max(1.0), "{what}, element {index}: {a} and {b}");
    }
}

#[test]
fn rows_are_normalised_and_activated_alike() {
    let (x, up) = (rows((5, 48), 1), rows((5, 48), 2));
    let each = |compute: &dyn Fn(&Backend) -> Tensor| backends().map(|backend| compute(&backend));
    let vector = |backend: &Backend, seed| Vector::new(backend, noise(48, seed)).unwrap();
    assert_near(each(&|backend| backend.rms_norm(&x, &vector(backend, 3), 1e-5).unwrap()), 1e-6, "rms");
    for bias in [None, Some(4)] {
        let norm = |backend: &Backend| {
            let bias = bias.map(|seed| vector(backend, seed));
            backend.layer_norm(&x, &LayerNormWeights { weight: vector(backend, 3), bias }, 1e-5).unwrap()
        };
        assert_near(each(&norm), 1e-5, "layer norm");
    }
    assert_near(each(&|backend| backend.silu_mul(&x, &up).unwrap()), 1e-6, "silu");
    assert_near(each(&|backend| backend.gelu(&(&x * 3.0).unwrap()).unwrap()), 1e-6, "gelu");
    assert_near(each(&|backend| backend.clip(&x, 0.25).unwrap()), 0.0, "clip");
}

#[test]
fn weights_of_every_format_multiply_alike() {
    for format in Format::ALL {
        // bf16 keeps 16 bits of an activation: 1 in 65536 of the sum of the magnitudes.
        let tolerance = if format == Format::BF16 { 1e-3 } else { 2e-5 };
        let products = backends().map(|backend| {
            let matrix = Matrix::new(&backend, stored(format, [40, 512], 7)).unwrap();
            let bias = Vector::new(&backend, noise(40, 8)).unwrap();
            matrix.multiply(&rows((9, 512), 9), Some(&bias)).unwrap()
        });
        assert_near(products, tolerance, format.name());
        let tied = backends().map(|backend| {
            let table = Table::new(&backend, stored(format, [40, 512], 7)).unwrap();
            let looked_up = table.gather(&[3, 39, 0]).unwrap();
            table.matrix().unwrap().multiply(&looked_up, None).unwrap()
        });
        assert_near(tied, tolerance, format.name());
    }
}

#[test]
fn heads_rotate_alike() {
    let batch = ForwardBatch { positions: vec![0, 5, 900, 5], ..ForwardBatch::default() };
    for style in [RotaryStyle::Halves, RotaryStyle::Interleaved] {
        let frequencies: Vec<f32> = (0..8).map(|pair| 0.6_f32.powi(pair)).collect();
        let table = RotaryTable::new(&frequencies, 1000, style).unwrap();
        let rotated = backends().map(|backend| backend.rotate(&rows((4, 48), 5), 16, &batch, &table).unwrap());
        assert_near(rotated, 1e-6, &format!("{style:?}"));
        let beyond = ForwardBatch { positions: vec![1000; 4], ..ForwardBatch::default() };
        for backend in backends() {
            assert!(backend.rotate(&rows((4, 48), 5), 16, &beyond, &table).is_err());
        }
    }
}

/// Sequences of so many tokens before and in a step, in blocks of 4 that lie anywhere: the step's tokens, or those before.
fn batch_of(sequences: &[(usize, usize)], before: bool) -> ForwardBatch {
    let (mut batch, mut used) = (ForwardBatch::default(), 0);
    for &(start, count) in sequences {
        let positions = if before { 0..start } else { start..start + count };
        let all = (used..used + (start + count).div_ceil(4)).map(|block| block * 37 % 101);
        let blocks: Vec<u32> = all.map(|block| block as u32).collect();
        used += blocks.len();
        let first_row = batch.slots.len();
        batch.slots.extend(positions.clone().map(|position| blocks[position / 4] * 4 + position as u32 % 4));
        if !positions.is_empty() {
            let blocks = blocks[..positions.end.div_ceil(4)].to_vec();
            batch.spans.push(Span { rows: first_row..batch.slots.len(), first_position: positions.start, blocks });
        }
    }
    batch
}

#[test]
fn sequences_attend_to_the_paged_cache_alike() {
    for kv_type in [KvType::F32, KvType::F16, KvType::Bf16] {
        for (heads, sequences) in [
            (4, vec![(0, 1), (9, 1), (30, 1), (3, 1)]),
            (2, vec![(0, 7)]),
            (6, vec![(5, 1), (0, 12), (7, 1), (11, 3), (2, 1)]),
        ] {
            let mixed = backends().map(|backend| attend(&backend, kv_type, heads, &sequences, 1.0));
            // Both round to the nearest number of the type, the same one.
            assert_near(mixed, 1e-5, &format!("{kv_type}, {sequences:?}"));
        }
    }
}

/// A number that no half holds is the largest half, in both arithmetics, and no infinity.
#[test]
fn numbers_beyond_the_halves_are_cut_alike() {
    let mixed = backends().map(|backend| attend(&backend, KvType::F16, 2, &[(3, 2), (0, 4)], 1e6));
    let largest = mixed[0].abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert!((65_000.0..=65_505.0).contains(&largest), "{largest}");
    assert_near(mixed.map(|mixed| (mixed / 65_504.0).unwrap()), 1e-5, "cut");
}

/// What sequences of so many tokens before and in a step see in a cache, with keys and values of about `size`.
fn attend(backend: &Backend, kv_type: KvType, heads: usize, sequences: &[(usize, usize)], size: f64) -> Tensor {
    let (kv_heads, head_dim) = (2, 8);
    let layout = KvLayout { layers: 1, kv_heads, head_dim, block_size: 4, kv_type };
    let shape = AttentionShape { heads, kv_heads, head_dim, scale: 0.4 / size as f32 };
    let (earlier, batch) = (batch_of(sequences, true), batch_of(sequences, false));
    let kv = KvStore::new(layout, 101, &Device::Cpu).unwrap();
    let cache = kv.layer(0);
    // What other sequences left behind must not be seen, not even as something that is no number.
    let left = Tensor::full(f32::NAN, cache.keys.shape(), &Device::Cpu).unwrap();
    let left = left.to_dtype(cache.keys.dtype()).unwrap();
    cache.keys.slice_set(&left, 0, 0).unwrap();
    cache.values.slice_set(&left, 0, 0).unwrap();
    for (batch, seed) in [(&earlier, 21), (&batch, 23)].into_iter().filter(|(batch, _)| !batch.slots.is_empty()) {
        let new = |seed| (rows((batch.slots.len(), kv_heads * head_dim), seed) * size).unwrap();
        backend.write_cache(cache, [&new(seed), &new(seed + 1)], batch, &shape).unwrap();
    }
    let queries = rows((batch.slots.len(), heads * head_dim), 25);
    backend.paged_attention(&queries, cache, &batch, &shape).unwrap()
}

#[test]
fn texts_attend_alike() {
    let shape = AttentionShape { heads: 3, kv_heads: 3, head_dim: 8, scale: 0.4 };
    let lengths = [5, 1, 33, 7, 8, 2];
    let tokens: usize = lengths.iter().sum();
    let (q, k, v) = (rows((tokens, 24), 31), rows((tokens, 24), 32), rows((tokens, 24), 33));
    let mixed = backends().map(|backend| {
        let texts = PackedTexts { lengths: lengths.to_vec(), ..PackedTexts::default() };
        backend.packed_attention([&q, &k, &v], &texts, &shape).unwrap()
    });
    assert_near(mixed, 1e-5, "packed");
}

#[test]
fn experts_mix_alike() {
    let (width, inner, experts) = (64, 96, 5);
    for (format, tolerance) in [(Format::F32, 1e-4), (Format::F16, 1e-4), (Format::BF16, 1e-3), (Format::Q8_0, 1e-4)] {
        for orientation in [Orientation::OutputsByInputs, Orientation::InputsByOutputs] {
            for (tokens, norm) in [(1, Some(1.0)), (2, None), (9, Some(2.0))] {
                let x = rows((tokens, width), 41);
                let logits = rows((tokens, experts), 42);
                let mixed = backends().map(|backend| {
                    let all = |shape: [usize; 2], seed: u64| {
                        (0..experts as u64).map(|expert| stored(format, shape, seed + expert)).collect()
                    };
                    let down_shape = match orientation {
                        Orientation::OutputsByInputs => [width, inner],
                        Orientation::InputsByOutputs => [inner, width],
                    };
                    let tensors = ExpertTensors {
                        gate: all([inner, width], 50),
                        up: all([inner, width], 60),
                        down: all(down_shape, 70),
                        down_orientation: orientation,
                    };
                    let layer = Experts::new(&backend, tensors).unwrap();
                    let routing = backend.route(&logits, Selection { top_k: 2, norm }).unwrap();
                    layer.mix(&x, &routing).unwrap()
                });
                assert_near(mixed, tolerance, &format!("{format}, {orientation:?}, {tokens} tokens, norm {norm:?}"));
            }
        }
    }
}
