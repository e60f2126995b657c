//! Products: right, the same bits whatever they are computed with, and independent of their neighbours.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Numbers, all_threads, assert_close, assert_same, reference};
use hearth_kernels::{Format, KernelError, MatrixView, Threads, combine_rows, expand, gather_rows, matmul};
use proptest::prelude::*;

struct Case {
    format: Format,
    m: usize,
    rows: usize,
    cols: usize,
    bytes: Vec<u8>,
    x: Vec<f32>,
    bias: Vec<f32>,
}

impl Case {
    fn new(format: Format, [m, rows, cols]: [usize; 3], seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        let bytes = numbers.blocks(format, rows * cols);
        Self { format, m, rows, cols, bytes, x: numbers.floats(m * cols), bias: numbers.floats(rows) }
    }

    fn view(&self) -> MatrixView<'_> {
        MatrixView::new(self.format, self.rows, self.cols, &self.bytes).unwrap()
    }

    fn run(&self, threads: &Threads) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.m * self.rows];
        matmul(threads, &self.x, &self.view(), Some(&self.bias), &mut out).unwrap();
        out
    }

    /// The product in double precision, and the sum of the sizes of its terms.
    fn exact(&self) -> (Vec<f64>, f64) {
        let mut w = vec![0.0; self.rows * self.cols];
        expand(self.format, &self.bytes, &mut w).unwrap();
        let mut largest = 0.0f64;
        let mut out = Vec::new();
        for x in self.x.chunks_exact(self.cols) {
            for (w, &bias) in w.chunks_exact(self.cols).zip(&self.bias) {
                let products = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w));
                largest = largest.max(products.clone().map(f64::abs).sum());
                out.push(products.sum::<f64>() + f64::from(bias));
            }
        }
        (out, largest)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_instruction_set_and_thread_count_gives_the_bits_of_the_reference(
        format in prop::sample::select(Format::ALL.to_vec()),
        m in 0usize..15,
        rows in 1usize..40,
        cols in 1usize..80,
        seed: u64,
    ) {
        let cols = if format.block_len() == 1 { cols } else { cols.div_ceil(30) * format.block_len() };
        let case = Case::new(format, [m, rows, cols], seed);
        let expected = case.run(&reference());
        let (exact, size) = case.exact();
        assert_close(&expected, &exact, 1e-6 * (1.0 + size), "reference");
        for threads in all_threads() {
            assert_same(&case.run(&threads), &expected, &format!("{threads:?} {format} {m}x{rows}x{cols}"));
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_neighbours(
        format in prop::sample::select(vec![Format::F32, Format::F16, Format::Q4_1, Format::Q6K]),
        m in 2usize..20,
        rows in 1usize..30,
        blocks in 1usize..4,
        seed: u64,
    ) {
        let cols = if format.block_len() == 1 { blocks * 37 } else { blocks * format.block_len() };
        let case = Case::new(format, [m, rows, cols], seed);
        for threads in all_threads() {
            let together = case.run(&threads);
            for i in 0..m {
                let x = &case.x[i * cols..][..cols];
                let mut alone = vec![f32::NAN; rows];
                matmul(&threads, x, &case.view(), Some(&case.bias), &mut alone).unwrap();
                assert_same(&alone, &together[i * rows..][..rows], &format!("{threads:?} row {i}"));
            }
        }
    }
}

/// Large enough that many jobs run and groups of rows end within the matrix.
#[test]
fn large_products_are_the_same_for_any_number_of_threads() {
    for format in [Format::F32, Format::Q4_1, Format::Q4K] {
        for m in [1, 2, 7, 33] {
            let case = Case::new(format, [m, 1030, 768], 7 + m as u64);
            let expected = case.run(&Threads::new(1).unwrap());
            for threads in all_threads() {
                assert_same(&case.run(&threads), &expected, &format!("{threads:?} {format} m={m}"));
            }
        }
    }
}

#[test]
fn weights_at_odd_addresses_give_the_same_bits() {
    for format in Format::ALL {
        let case = Case::new(format, [3, 9, 256], 11);
        let mut shifted = vec![0u8; case.bytes.len() + 1];
        shifted[1..].copy_from_slice(&case.bytes);
        let view = MatrixView::new(format, 9, 256, &shifted[1..]).unwrap();
        let threads = Threads::new(2).unwrap();
        let mut out = vec![f32::NAN; 27];
        matmul(&threads, &case.x, &view, Some(&case.bias), &mut out).unwrap();
        assert_same(&out, &case.run(&threads), format.name());
    }
}

#[test]
fn gathered_rows_are_the_expanded_rows() {
    for format in Format::ALL {
        let case = Case::new(format, [0, 5, 256], 3);
        let mut all = vec![0.0; 5 * 256];
        expand(format, &case.bytes, &mut all).unwrap();
        let mut out = vec![f32::NAN; 3 * 256];
        gather_rows(&case.view(), &[4, 0, 4], &mut out).unwrap();
        for (row, id) in out.chunks_exact(256).zip([4, 0, 4]) {
            assert_same(row, &all[id * 256..][..256], format.name());
        }
    }
}

#[test]
fn wrong_arguments_are_refused_by_name() {
    let case = Case::new(Format::Q8_0, [2, 3, 64], 1);
    let view = case.view();
    let threads = Threads::new(1).unwrap();
    let mut out = vec![0.0; 6];
    let error = matmul(&threads, &case.x[1..], &view, None, &mut out).unwrap_err();
    assert_eq!(error, KernelError::NotMultiple { argument: "x", multiple_of: 64, actual: 127 });
    let error = matmul(&threads, &case.x, &view, None, &mut out[1..]).unwrap_err();
    assert_eq!(error, KernelError::Length { argument: "out", expected: 6, actual: 5 });
    let error = matmul(&threads, &case.x, &view, Some(&[0.0]), &mut out).unwrap_err();
    assert_eq!(error.to_string(), "bias: expected 3 elements, got 1");
    let error = gather_rows(&view, &[2, 3], &mut [0.0; 128]).unwrap_err();
    assert_eq!(error.to_string(), "ids: 3 is not below 3");
    let error = MatrixView::new(Format::Q8_0, 3, 63, &case.bytes).unwrap_err();
    assert_eq!(error, KernelError::NotMultiple { argument: "cols", multiple_of: 32, actual: 63 });
    let error = MatrixView::new(Format::Q8_0, 3, 64, &case.bytes[1..]).unwrap_err();
    assert_eq!(error, KernelError::Length { argument: "bytes", expected: 204, actual: 203 });
    assert!(matches!(MatrixView::new(Format::F32, usize::MAX, 2, &[]), Err(KernelError::Overflow { .. })));
    assert!(matches!(MatrixView::new(Format::F32, 3, 0, &[]), Err(KernelError::Zero { .. })));
    assert!(matches!(Threads::new(0), Err(KernelError::Zero { argument: "threads" })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The product with weights the other way around: right, the same bits everywhere, and each row by itself.
    #[test]
    fn combined_rows_are_the_product_and_depend_on_nothing_else(
        format in prop::sample::select(Format::ALL.to_vec()),
        m in 0usize..11,
        rows in 1usize..50,
        cols in 1usize..80,
        seed: u64,
    ) {
        let cols = if format.block_len() == 1 { cols } else { cols.div_ceil(30) * format.block_len() };
        let case = Case::new(format, [1, rows, cols], seed);
        let x = Numbers::new(seed ^ 1).floats(m * rows);
        let mut w = vec![0.0; rows * cols];
        expand(format, &case.bytes, &mut w).unwrap();
        let exact: Vec<f64> = (0..m * cols)
            .map(|at| (0..rows).map(|p| f64::from(x[at / cols * rows + p]) * f64::from(w[p * cols + at % cols])).sum())
            .collect();
        let size = rows as f64 * f64::from(w.iter().fold(0.0f32, |most, w| most.max(w.abs())));
        let mut expected = vec![f32::NAN; m * cols];
        combine_rows(&reference(), &x, &case.view(), None, &mut expected).unwrap();
        assert_close(&expected, &exact, 1e-6 * (1.0 + size), "reference");
        for threads in all_threads() {
            let mut out = vec![f32::NAN; m * cols];
            combine_rows(&threads, &x, &case.view(), None, &mut out).unwrap();
            assert_same(&out, &expected, &format!("{threads:?} {format} {m}x{rows}x{cols}"));
            for i in 0..m {
                let mut alone = vec![f32::NAN; cols];
                combine_rows(&threads, &x[i * rows..][..rows], &case.view(), None, &mut alone).unwrap();
                assert_same(&alone, &expected[i * cols..][..cols], &format!("{threads:?} row {i}"));
            }
        }
    }
}

/// Large enough that many jobs run and groups of rows end within the matrix.
#[test]
fn large_combinations_are_the_same_for_any_number_of_threads() {
    for format in [Format::F32, Format::BF16, Format::Q4K] {
        for m in [1, 2, 7, 33] {
            let case = Case::new(format, [1, 700, 1280], 5 + m as u64);
            let x = Numbers::new(3).floats(m * 700);
            let mut expected = vec![f32::NAN; m * 1280];
            combine_rows(&reference(), &x, &case.view(), None, &mut expected).unwrap();
            for threads in all_threads() {
                let mut out = vec![f32::NAN; m * 1280];
                combine_rows(&threads, &x, &case.view(), None, &mut out).unwrap();
                assert_same(&out, &expected, &format!("{threads:?} {format} m={m}"));
            }
        }
    }
}

#[test]
fn a_combination_has_its_bias_and_is_refused_by_name_when_its_sizes_do_not_fit() {
    let case = Case::new(Format::Q8_0, [1, 3, 64], 1);
    let threads = Threads::new(1).unwrap();
    let error = combine_rows(&threads, &[0.0; 4], &case.view(), None, &mut [0.0; 64]).unwrap_err();
    assert_eq!(error, KernelError::NotMultiple { argument: "x", multiple_of: 3, actual: 4 });
    let error = combine_rows(&threads, &[0.0; 6], &case.view(), None, &mut [0.0; 64]).unwrap_err();
    assert_eq!(error, KernelError::Length { argument: "out", expected: 128, actual: 64 });
    let error = combine_rows(&threads, &[0.0; 3], &case.view(), Some(&[0.0]), &mut [0.0; 64]).unwrap_err();
    assert_eq!(error.to_string(), "bias: expected 64 elements, got 1");
    let (mut plain, mut raised) = (vec![0.0; 128], vec![0.0; 128]);
    combine_rows(&threads, &[0.5; 6], &case.view(), None, &mut plain).unwrap();
    combine_rows(&threads, &[0.5; 6], &case.view(), Some(&[2.0; 64]), &mut raised).unwrap();
    assert!(plain.iter().zip(&raised).all(|(plain, raised)| plain + 2.0 == *raised));
}
