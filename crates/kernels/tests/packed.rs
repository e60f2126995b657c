//! Packed weights: the numbers that were stored, products as good as f32, and the same bits whatever they are computed with.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::cell::Cell;
use std::ops::Range;

use common::{Numbers, all_threads, assert_same, reference};
use hearth_kernels::{Format, KernelError, MatrixView, PackedMatrix, Threads, expand};
use proptest::prelude::*;

const PACKED: [Format; 5] = [Format::Q4_0, Format::Q4_1, Format::Q8_0, Format::Q4K, Format::Q6K];

struct Case {
    rows: usize,
    cols: usize,
    packed: PackedMatrix,
    /// The numbers that it stands for. `[rows, cols]`
    numbers: Vec<f32>,
    /// `[m, cols]`
    x: Vec<f32>,
    bias: Vec<f32>,
}

impl Case {
    fn new(format: Format, [m, rows, cols]: [usize; 3], seed: u64) -> Self {
        let mut random = Numbers::new(seed);
        let bytes = random.blocks(format, rows * cols);
        let view = MatrixView::new(format, rows, cols, &bytes).unwrap();
        let packed = PackedMatrix::pack(&Threads::new(2).unwrap(), &view, |_| {}).unwrap();
        let mut numbers = vec![0.0; rows * cols];
        expand(format, &bytes, &mut numbers).unwrap();
        Self { rows, cols, packed, numbers, x: random.floats(m * cols), bias: random.floats(rows) }
    }

    fn run(&self, threads: &Threads) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.x.len() / self.cols * self.rows];
        self.packed.multiply(threads, &self.x, Some(&self.bias), &mut out).unwrap();
        out
    }

    /// Each product in double precision, and the sum of the sizes of its terms.
    fn exact(&self) -> Vec<(f64, f64)> {
        let mut out = Vec::new();
        for x in self.x.chunks_exact(self.cols) {
            for (w, &bias) in self.numbers.chunks_exact(self.cols).zip(&self.bias) {
                let products = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w));
                out.push((products.clone().sum::<f64>() + f64::from(bias), products.map(f64::abs).sum()));
            }
        }
        out
    }
}

fn sizes() -> impl Strategy<Value = (Format, usize, usize, usize)> {
    (prop::sample::select(PACKED.to_vec()), 0usize..30, 1usize..50, 1usize..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_instruction_set_and_thread_count_gives_the_bits_of_the_reference(
        (format, m, rows, blocks) in sizes(),
        seed: u64,
    ) {
        let case = Case::new(format, [m, rows, blocks * format.block_len()], seed);
        let expected = case.run(&reference());
        for (i, (found, (exact, size))) in expected.iter().zip(case.exact()).enumerate() {
            let error = (f64::from(*found) - exact).abs();
            prop_assert!(error <= 2e-6 * (1.0 + size), "{format} element {i}: {found}, not {exact}");
        }
        for threads in all_threads() {
            assert_same(&case.run(&threads), &expected, &format!("{threads:?} {format} {m}x{rows}x{}", case.cols));
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours((format, m, rows, blocks) in sizes(), seed: u64) {
        let case = Case::new(format, [m, rows, blocks * format.block_len()], seed);
        for threads in all_threads() {
            let together = case.run(&threads);
            for (x, together) in case.x.chunks_exact(case.cols).zip(together.chunks_exact(rows)) {
                let mut alone = vec![f32::NAN; rows];
                case.packed.multiply(&threads, x, Some(&case.bias), &mut alone).unwrap();
                assert_same(&alone, together, &format!("{threads:?} {format}"));
            }
        }
    }

    #[test]
    fn gathered_rows_are_what_was_stored((format, _, rows, blocks) in sizes(), seed: u64) {
        let case = Case::new(format, [0, rows, blocks * format.block_len()], seed);
        let ids: Vec<u32> = (0..rows as u32).rev().collect();
        let mut out = vec![f32::NAN; rows * case.cols];
        case.packed.gather(&ids, &mut out).unwrap();
        for (out, id) in out.chunks_exact(case.cols).zip(ids) {
            assert_same(out, &case.numbers[id as usize * case.cols..][..case.cols], format.name());
        }
    }
}

/// Large enough that many jobs run.
#[test]
fn large_products_are_the_same_for_any_number_of_threads() {
    for format in PACKED {
        for m in [1, 2, 7, 33] {
            let case = Case::new(format, [m, 1030, 768], 7 + m as u64);
            let expected = case.run(&Threads::new(1).unwrap());
            for threads in all_threads() {
                assert_same(&case.run(&threads), &expected, &format!("{threads:?} {format} m={m}"));
            }
        }
    }
}

/// The size of activations does not matter.
#[test]
fn small_and_large_activations_are_as_precise() {
    for format in PACKED {
        for scale in [1e-25f32, 1e-3, 1e4, 1e25] {
            let mut case = Case::new(format, [3, 20, 256], 5);
            case.x.iter_mut().for_each(|x| *x *= scale);
            case.bias.fill(0.0);
            let exact: Vec<f64> = case.exact().into_iter().map(|(exact, _)| exact).collect();
            let largest = exact.iter().fold(0.0f64, |most, x| most.max(x.abs()));
            for (found, exact) in case.run(&Threads::new(1).unwrap()).into_iter().zip(exact) {
                assert!((f64::from(found) - exact).abs() <= 2e-6 * largest, "{format} {scale}: {found}, not {exact}");
            }
        }
    }
}

#[test]
fn zeros_give_zero_and_what_is_not_finite_spoils_its_own_row_alone() {
    for format in PACKED {
        for spoiled in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut case = Case::new(format, [3, 20, 256], 9);
            case.bias.fill(0.0);
            case.x[..256].fill(0.0);
            case.x[256 + 77] = spoiled;
            for threads in all_threads() {
                let out = case.run(&threads);
                assert!(out[..20].iter().all(|out| *out == 0.0), "{format}");
                assert!(out[20..40].iter().all(|out| !out.is_finite()), "{format} {spoiled}");
                assert!(out[40..].iter().all(|out| out.is_finite()), "{format}");
            }
        }
    }
}

#[test]
fn wrong_arguments_are_refused_by_name() {
    let (case, threads) = (Case::new(Format::Q8_0, [2, 3, 64], 1), Threads::new(1).unwrap());
    let error = case.packed.multiply(&threads, &case.x[1..], None, &mut [0.0; 6]).unwrap_err();
    assert_eq!(error, KernelError::NotMultiple { argument: "x", multiple_of: 64, actual: 127 });
    let error = case.packed.multiply(&threads, &case.x, None, &mut [0.0; 5]).unwrap_err();
    assert_eq!(error, KernelError::Length { argument: "out", expected: 6, actual: 5 });
    let error = case.packed.multiply(&threads, &case.x, Some(&[0.0]), &mut [0.0; 6]).unwrap_err();
    assert_eq!(error.to_string(), "bias: expected 3 elements, got 1");
    let error = case.packed.gather(&[2, 3], &mut [0.0; 128]).unwrap_err();
    assert_eq!(error.to_string(), "ids: 3 is not below 3");
    let bytes = vec![0; 3 * 64 * 4];
    assert!(PackedMatrix::pack(&threads, &MatrixView::new(Format::F32, 3, 64, &bytes).unwrap(), |_| {}).is_none());
}

/// Large enough for several slabs.
#[test]
fn every_byte_is_done_with_once_and_in_order() {
    let (rows, cols) = (9000, 1024);
    let bytes = vec![0; Format::Q8_0.row_bytes(cols).unwrap() * rows];
    let view = MatrixView::new(Format::Q8_0, rows, cols, &bytes).unwrap();
    let (end, calls) = (Cell::new(0), Cell::new(0));
    let done = |range: Range<usize>| {
        assert_eq!(range.start, end.replace(range.end));
        calls.set(calls.get() + 1);
    };
    assert!(PackedMatrix::pack(&Threads::new(2).unwrap(), &view, done).is_some());
    assert_eq!(end.get(), bytes.len());
    assert!(calls.get() > 1);
}
