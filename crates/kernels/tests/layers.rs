//! Norms, rotary embedding and activations: the same bits with every instruction set and thread count, and right.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Numbers, all_threads, assert_close, assert_same, reference};
use hearth_kernels::{
    Affine, KernelError, Rotary, RotaryStyle, RotaryTable, Threads, add, gelu_erf, gelu_tanh, layer_norm, rms_norm,
    rotary, silu_mul, softmax_rows,
};
use proptest::prelude::*;

/// Runs one kernel on every kind of threads and compares the bits; returns them.
fn same_everywhere(kernel: impl Fn(&Threads) -> Vec<f32>) -> Vec<f32> {
    let expected = kernel(&reference());
    for threads in all_threads() {
        assert_same(&kernel(&threads), &expected, &format!("{threads:?}"));
    }
    expected
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn rms_norm_is_right(m in 0usize..400, n in 1usize..300, seed: u64) {
        let mut numbers = Numbers::new(seed);
        let (x, weight) = (numbers.floats(m * n), numbers.floats(n));
        let actual = same_everywhere(|threads| {
            let mut out = vec![f32::NAN; m * n];
            rms_norm(threads, &x, &weight, 1e-5, &mut out).unwrap();
            out
        });
        let mut expected = Vec::new();
        for row in wide(&x).chunks_exact(n) {
            let mean = row.iter().map(|x| x * x).sum::<f64>() / n as f64;
            expected.extend(row.iter().zip(wide(&weight)).map(|(x, w)| x / (mean + 1e-5).sqrt() * w));
        }
        assert_close(&actual, &expected, 1e-6, "rms_norm");
    }

    #[test]
    fn layer_norm_is_right(m in 0usize..400, n in 1usize..300, with_bias: bool, seed: u64) {
        let mut numbers = Numbers::new(seed);
        let (x, weight, bias) = (numbers.floats(m * n), numbers.floats(n), numbers.floats(n));
        let affine = Affine { weight: &weight, bias: with_bias.then_some(&bias) };
        let actual = same_everywhere(|threads| {
            let mut out = vec![f32::NAN; m * n];
            layer_norm(threads, &x, &affine, 1e-5, &mut out).unwrap();
            out
        });
        let mut expected = Vec::new();
        for row in wide(&x).chunks_exact(n) {
            let mean = row.iter().sum::<f64>() / n as f64;
            let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n as f64;
            for (i, x) in row.iter().enumerate() {
                let bias = if with_bias { f64::from(bias[i]) } else { 0.0 };
                expected.push((x - mean) / (variance + 1e-5).sqrt() * f64::from(weight[i]) + bias);
            }
        }
        assert_close(&actual, &expected, 2e-5, "layer_norm");
    }

    #[test]
    fn activations_are_right(count in 0usize..40_000, seed: u64) {
        let mut numbers = Numbers::new(seed);
        let x: Vec<f32> = numbers.floats(count).iter().map(|x| x * 8.0).collect();
        let y = numbers.floats(count);
        let actual = same_everywhere(|threads| {
            let mut out = vec![f32::NAN; count];
            silu_mul(threads, &x, &y, &mut out).unwrap();
            out
        });
        let expected: Vec<f64> = wide(&x).iter().zip(wide(&y)).map(|(x, y)| x / (1.0 + (-x).exp()) * y).collect();
        assert_close(&actual, &expected, 1e-6, "silu_mul");
        let in_place = |kernel: fn(&Threads, &mut [f32])| {
            same_everywhere(|threads| {
                let mut out = x.clone();
                kernel(threads, &mut out);
                out
            })
        };
        let close = |(erf, tanh): (&f32, &f32)| (erf - tanh).abs() < 1e-3;
        assert!(in_place(gelu_erf).iter().zip(&in_place(gelu_tanh)).all(close), "the two forms of gelu are close");
        let sum = same_everywhere(|threads| {
            let mut out = x.clone();
            add(threads, &mut out, &y).unwrap();
            out
        });
        assert_same(&sum, &x.iter().zip(&y).map(|(x, y)| x + y).collect::<Vec<_>>(), "add");
    }

    #[test]
    fn softmax_is_right(m in 0usize..200, n in 1usize..400, seed: u64) {
        let x: Vec<f32> = Numbers::new(seed).floats(m * n).iter().map(|x| x * 20.0).collect();
        let actual = same_everywhere(|threads| {
            let mut out = x.clone();
            softmax_rows(threads, &mut out, n).unwrap();
            out
        });
        let mut expected = Vec::new();
        for row in wide(&x).chunks_exact(n) {
            let sum: f64 = row.iter().map(|x| x.exp()).sum();
            expected.extend(row.iter().map(|x| x.exp() / sum));
        }
        assert_close(&actual, &expected, 1e-6, "softmax");
    }

    #[test]
    fn rotary_turns_pairs(
        tokens in 0usize..40,
        heads in 1usize..4,
        pairs in 1usize..40,
        rest in 0usize..5,
        halves: bool,
        seed: u64,
    ) {
        let mut numbers = Numbers::new(seed);
        let head_dim = 2 * pairs + rest;
        let frequencies: Vec<f32> = (0..pairs).map(|i| 10_000f32.powf(-(i as f32) / pairs as f32)).collect();
        let table = RotaryTable::new(&frequencies, 1000).unwrap();
        let style = if halves { RotaryStyle::Halves } else { RotaryStyle::Interleaved };
        let x = numbers.floats(tokens * heads * head_dim);
        let positions: Vec<u32> = (0..tokens).map(|_| (numbers.bits() % 1000) as u32).collect();
        let actual = same_everywhere(|threads| {
            let mut out = x.clone();
            rotary(threads, &mut out, &positions, &Rotary { table: &table, style, heads, head_dim }).unwrap();
            out
        });
        let mut expected = wide(&x);
        for (head, out) in expected.chunks_exact_mut(head_dim).enumerate() {
            for (pair, frequency) in frequencies.iter().enumerate() {
                let angle = f64::from(frequency * positions[head / heads] as f32);
                let (a, b) = if halves { (pair, pair + pairs) } else { (2 * pair, 2 * pair + 1) };
                (out[a], out[b]) =
                    (out[a] * angle.cos() - out[b] * angle.sin(), out[b] * angle.cos() + out[a] * angle.sin());
            }
        }
        assert_close(&actual, &expected, 3e-7, "rotary");
    }
}

#[test]
fn minus_infinity_gets_no_weight() {
    let mut x = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, 1.0];
    softmax_rows(&Threads::new(1).unwrap(), &mut x, 4).unwrap();
    assert_eq!(x, [0.0, 0.5, 0.0, 0.5]);
}

#[test]
fn wrong_arguments_are_refused_by_name() {
    let threads = Threads::new(1).unwrap();
    let table = RotaryTable::new(&[1.0, 0.5], 300).unwrap();
    let how = Rotary { table: &table, style: RotaryStyle::Halves, heads: 1, head_dim: 4 };
    let error = rotary(&threads, &mut [0.0; 4], &[300], &how).unwrap_err();
    assert_eq!(error, KernelError::OutOfBounds { argument: "positions", bound: 300, value: 300 });
    let error = rotary(&threads, &mut [0.0; 5], &[0], &how).unwrap_err();
    assert_eq!(error, KernelError::Length { argument: "x", expected: 4, actual: 5 });
    let narrow = Rotary { head_dim: 3, ..how };
    assert!(rotary(&threads, &mut [0.0; 3], &[0], &narrow).is_err(), "the pairs do not fit");
    assert!(RotaryTable::new(&[], 5).is_err());
    assert!(rms_norm(&threads, &[0.0; 5], &[1.0; 2], 1e-5, &mut [0.0; 5]).is_err());
    assert!(rms_norm(&threads, &[0.0; 4], &[], 1e-5, &mut [0.0; 4]).is_err());
    assert!(silu_mul(&threads, &[0.0; 2], &[0.0; 2], &mut [0.0; 3]).is_err());
    assert!(add(&threads, &mut [0.0; 2], &[0.0; 3]).is_err());
    assert!(softmax_rows(&threads, &mut [0.0; 5], 2).is_err());
    let affine = Affine { weight: &[1.0; 2], bias: Some(&[0.0; 3]) };
    assert!(layer_norm(&threads, &[0.0; 4], &affine, 1e-5, &mut [0.0; 4]).is_err());
}
