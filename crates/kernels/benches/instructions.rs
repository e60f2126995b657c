//! One kernel a few times, with one thread: what `scripts/count-instructions` counts the instructions of.
//!
//!     instructions NAME REPEATS

#![allow(clippy::print_stdout, reason = "the names are printed")]

use std::hint::black_box;

use hearth_kernels::{
    AttentionShape, AttentionSpan, Format, KvView, MatrixView, PackedMatrix, PagedContext, Result, Threads,
    paged_attention, rms_norm, write_kv,
};

const SIZE: usize = 512;
const NAMES: [&str; 9] = [
    "multiply 1 Q4_0",
    "multiply 1 Q4_1",
    "multiply 1 Q4_K",
    "multiply 1 Q6_K",
    "multiply 1 Q8_0",
    "multiply 4 Q4_1",
    "multiply 32 Q4_1",
    "attend 2048",
    "norm 576",
];

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let Some(name) = words.first() else {
        NAMES.iter().for_each(|name| println!("{name}"));
        return Ok(());
    };
    let repeats = words.get(1).and_then(|word| word.parse().ok()).unwrap_or(1);
    let threads = Threads::new(1)?;
    match name.split(' ').collect::<Vec<_>>()[..] {
        ["multiply", m, format] => multiply(&threads, (m.parse().unwrap_or(1), format), repeats),
        ["attend", positions] => attend(&threads, positions.parse().unwrap_or(1), repeats),
        _ => norm(&threads, repeats),
    }
}

fn multiply(threads: &Threads, (m, format): (usize, &str), repeats: usize) -> Result<()> {
    let format = Format::ALL.into_iter().find(|one| one.name() == format).unwrap_or(Format::Q4_1);
    let bytes = vec![0x2a; format.row_bytes(SIZE).unwrap_or(0) * SIZE];
    let view = MatrixView::new(format, SIZE, SIZE, &bytes)?;
    let Some(packed) = PackedMatrix::pack(threads, &view, |_| {}) else { return Ok(()) };
    let (x, mut out) = (vec![0.5; m * SIZE], vec![0.0; m * SIZE]);
    for _ in 0..repeats {
        packed.multiply(threads, black_box(&x), None, &mut out)?;
    }
    Ok(())
}

fn attend(threads: &Threads, positions: usize, repeats: usize) -> Result<()> {
    let shape = AttentionShape { heads: 9, kv_heads: 3, head_dim: 64, scale: 0.125 };
    let (width, format) = (shape.kv_heads * shape.head_dim, Format::F32);
    let mut cache = vec![0; format.row_bytes(width).unwrap_or(0) * positions];
    let slots: Vec<u32> = (0..positions as u32).collect();
    write_kv(&mut cache, format, &vec![0.25; positions * width], &slots, width)?;
    let blocks: Vec<u32> = (0..positions.div_ceil(16) as u32).collect();
    let (q, mut out) = (vec![0.5; shape.heads * shape.head_dim], vec![0.0; shape.heads * shape.head_dim]);
    for _ in 0..repeats {
        let kv = KvView { format, keys: &cache, values: &cache, block_size: 16, kv_heads: 3, head_dim: 64 };
        let span = AttentionSpan { rows: 0..1, first_position: positions - 1, blocks: &blocks };
        paged_attention(threads, black_box(&q), &PagedContext { kv, spans: &[span] }, &shape, &mut out)?;
    }
    Ok(())
}

fn norm(threads: &Threads, repeats: usize) -> Result<()> {
    let (x, weight, mut out) = (vec![0.5; 576], vec![1.0; 576], vec![0.0; 576]);
    for _ in 0..repeats {
        rms_norm(threads, black_box(&x), &weight, 1e-5, &mut out)?;
    }
    Ok(())
}
