//! Products of a model's size: many matrices read in turn, as a step does, so that none is found in the processor's caches. For each
//! format and instruction set the weights as they are stored, and packed, against one row and against many.
//!
//!     cargo bench -p hearth-kernels --bench matmul [-- THREADS [FORMAT]]
//!
//! Prints gigabytes of weights a second for one row, and billions of operations a second for many. `bandwidth` is what reading alone
//! reaches.

#![allow(clippy::print_stdout, reason = "a measurement is printed")]

use std::hint::black_box;
use std::time::Instant;

use hearth_kernels::{Format, Isa, MatrixView, PackedMatrix, Result, Threads, matmul};

/// Of a layer of SmolLM2-135M: its gate, its down projection the other way around, and its queries.
const SHAPES: [[usize; 2]; 3] = [[1536, 576], [576, 1536], [576, 576]];
const LAYERS: usize = 30;
const MANY: usize = 128;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = words.first().and_then(|word| word.parse().ok()).unwrap_or(cores);
    println!("{count} threads, bandwidth {:.1} GB/s", bandwidth(count));
    for format in [Format::Q4_0, Format::Q4_1, Format::Q4K, Format::Q6K, Format::Q8_0] {
        if words.get(1).is_some_and(|word| word != format.name()) {
            continue;
        }
        for isa in Isa::available().into_iter().skip(1) {
            let threads = Threads::with_isa(count, isa)?;
            measure(&threads, format)?;
        }
    }
    Ok(())
}

/// Columns that the format has blocks for.
fn shape([rows, cols]: [usize; 2], format: Format) -> [usize; 2] {
    [rows, cols.next_multiple_of(format.block_len())]
}

fn measure(threads: &Threads, format: Format) -> Result<()> {
    let mut stored = Vec::new();
    for _ in 0..LAYERS {
        for [rows, cols] in SHAPES.map(|one| shape(one, format)) {
            // The bits do not matter for the time, as long as no scale is infinite or subnormal: 0x2a2a is about 0.048.
            stored.push((rows, cols, vec![0x2a_u8; format.row_bytes(cols).unwrap_or(0) * rows]));
        }
    }
    let mut packed = Vec::new();
    let bytes: usize = stored.iter().map(|(_, _, bytes)| bytes.len()).sum();
    let numbers: usize = stored.iter().map(|(rows, cols, _)| rows * cols).sum();
    for (rows, cols, bytes) in &stored {
        packed.extend(PackedMatrix::pack(threads, &MatrixView::new(format, *rows, *cols, bytes)?, |_| {}));
    }
    print!("{format:5} {:11}", threads.isa().to_string());
    for m in [1, 4, 16, MANY] {
        let x: Vec<f32> = (0..m * 2048).map(|i| (i % 17) as f32 / 17.0 - 0.5).collect();
        let mut out = vec![0.0; m * 2048];
        let plain = seconds(|| {
            stored.iter().try_for_each(|(rows, cols, bytes)| {
                let view = MatrixView::new(format, *rows, *cols, bytes)?;
                matmul(threads, black_box(&x[..m * cols]), &view, None, &mut out[..m * rows])
            })
        })?;
        let tiled = seconds(|| {
            packed
                .iter()
                .try_for_each(|w| w.multiply(threads, black_box(&x[..m * w.cols()]), None, &mut out[..m * w.rows()]))
        })?;
        let speed = |seconds: f64| match m {
            1 => format!("{:5.1} GB/s", bytes as f64 / seconds / 1e9),
            _ => format!("{:4.0} GOP/s", 2.0 * (m * numbers) as f64 / seconds / 1e9),
        };
        print!("  m={m}: {} -> {} ({:.2}x)", speed(plain), speed(tiled), plain / tiled);
    }
    println!();
    Ok(())
}

/// The least of some runs, after one that warms up.
fn seconds(mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut least = f64::INFINITY;
    let begun = Instant::now();
    for round in 0..20 {
        let start = Instant::now();
        run()?;
        if round > 0 {
            least = least.min(start.elapsed().as_secs_f64());
        }
        if begun.elapsed().as_secs() >= 2 && round > 1 {
            break;
        }
    }
    Ok(least)
}

/// Gigabytes a second that so many threads read together.
fn bandwidth(threads: usize) -> f64 {
    let words = vec![1_u64; threads << 24];
    let mut best = 0.0_f64;
    for _ in 0..5 {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in words.chunks(1 << 24) {
                scope.spawn(move || {
                    black_box(
                        part.as_chunks::<16>()
                            .0
                            .iter()
                            .fold([0_u64; 16], |sums, words| std::array::from_fn(|i| sums[i].wrapping_add(words[i]))),
                    )
                });
            }
        });
        best = best.max(words.len() as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9);
    }
    best
}
