//! One token against a cache of so many positions, in the formats that caches are kept in, with one thread. Many layers are read in
//! turn, as a model does, so that none is found in the processor's caches.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use hearth_kernels::{AttentionShape, AttentionSpan, Format, KvView, PagedContext, Threads, paged_attention, write_kv};

const LAYERS: usize = 20;
const BLOCK_SIZE: usize = 16;

fn bench(criterion: &mut Criterion) {
    let Ok(threads) = Threads::new(1) else { return };
    let mut group = criterion.benchmark_group("attention");
    group.sample_size(20);
    // Of SmolLM2-135M and of Llama 3 8B.
    for (heads, kv_heads, head_dim) in [(9, 3, 64), (32, 8, 128)] {
        let shape = AttentionShape { heads, kv_heads, head_dim, scale: 0.125 };
        for positions in [512, 4096] {
            let width = kv_heads * head_dim;
            let rows: Vec<f32> = (0..positions * width).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
            let slots: Vec<u32> = (0..positions as u32).collect();
            let blocks: Vec<u32> = (0..positions.div_ceil(BLOCK_SIZE) as u32).collect();
            let (q, mut out) = (vec![0.5; heads * head_dim], vec![0.0; heads * head_dim]);
            for format in [Format::F32, Format::F16, Format::BF16, Format::Q8_0] {
                let mut cache = vec![0; format.row_bytes(width).unwrap_or(0) * positions];
                let Ok(()) = write_kv(&mut cache, format, &rows, &slots, width) else { return };
                let layers = vec![cache; LAYERS];
                let mut layer = 0;
                let name = format!("{heads} heads of {head_dim}, {positions} positions");
                group.bench_function(BenchmarkId::new(format.name(), name), |bencher| {
                    bencher.iter(|| {
                        layer = (layer + 1) % LAYERS;
                        let (keys, values) = (layers[layer].as_slice(), layers[layer].as_slice());
                        let kv = KvView { format, keys, values, block_size: BLOCK_SIZE, kv_heads, head_dim };
                        let span = AttentionSpan { rows: 0..1, first_position: positions - 1, blocks: &blocks };
                        let context = PagedContext { kv, spans: &[span] };
                        paged_attention(&threads, black_box(&q), &context, &shape, &mut out)
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
