//! One matrix of 2048 x 2048 times one token and times 64, in the formats that matter.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hearth_kernels::{Format, MatrixView, Threads, matmul};

const SIZE: usize = 2048;

fn bench(criterion: &mut Criterion) {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let Ok(threads) = Threads::new(count) else { return };
    let mut group = criterion.benchmark_group("matmul");
    group.sample_size(20);
    for format in [Format::Q4_1, Format::Q8_0, Format::Q4K, Format::F32] {
        // The bits do not matter for the time, as long as no scale is infinite or subnormal: 0x2a2a is about 0.048.
        let bytes = vec![0x2a; format.row_bytes(SIZE).unwrap_or(0) * SIZE];
        let Ok(w) = MatrixView::new(format, SIZE, SIZE, &bytes) else { return };
        for m in [1, 64] {
            let x: Vec<f32> = (0..m * SIZE).map(|i| (i % 17) as f32 / 17.0 - 0.5).collect();
            let mut out = vec![0.0; m * SIZE];
            group.throughput(Throughput::Elements((m * SIZE * SIZE) as u64));
            group.bench_function(BenchmarkId::new(format.name(), format!("m={m}")), |bencher| {
                bencher.iter(|| matmul(&threads, black_box(&x), &w, None, &mut out));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
