//! Quantisation against the blocks that ggml makes of the same numbers (by `scripts/make-quantize-goldens`), byte for byte, and
//! what holds for any numbers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::Numbers;
use hearth_kernels::{Format, Isa, KernelError, MatrixView, Threads, expand, quantize, quantize_with, store_as};
use proptest::prelude::*;

/// The numbers, and the blocks of each format.
fn goldens() -> (Vec<f32>, Vec<(Format, Vec<u8>)>) {
    let (numbers, mut rest) = include_bytes!("goldens/quantize.bin").split_at(4 * 5120);
    let numbers: Vec<f32> = numbers.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let formats = Format::ALL.into_iter().filter(|format| *format != Format::F32);
    let blocks = formats.map(|format| {
        let (blocks, left) = rest.split_at(format.row_bytes(numbers.len()).unwrap());
        rest = left;
        (format, blocks.to_vec())
    });
    let blocks = blocks.collect();
    assert!(rest.is_empty(), "the file has no more than the formats");
    (numbers, blocks)
}

fn quantized(format: Format, values: &[f32]) -> Vec<u8> {
    let mut out = vec![0xff; format.row_bytes(values.len()).unwrap()];
    quantize(format, values, &mut out).unwrap();
    out
}

#[test]
fn blocks_are_those_of_ggml() {
    let (numbers, goldens) = goldens();
    for (format, expected) in goldens {
        for isa in Isa::available() {
            let mut actual = vec![0xff; expected.len()];
            quantize_with(isa, format, &numbers, &mut actual).unwrap();
            let block = format.block_bytes();
            for (i, (actual, expected)) in actual.chunks(block).zip(expected.chunks(block)).enumerate() {
                assert_eq!(actual, expected, "{format} {isa} block {i}");
            }
        }
    }
}

#[test]
fn every_instruction_set_makes_the_same_blocks() {
    let values: Vec<f32> = Numbers::new(3).floats(256 * 40).iter().map(|value| value * value * value).collect();
    for format in Format::ALL {
        let mut expected = vec![0; format.row_bytes(values.len()).unwrap()];
        quantize_with(Isa::SCALAR, format, &values, &mut expected).unwrap();
        for isa in Isa::available() {
            let mut actual = vec![0xff; expected.len()];
            quantize_with(isa, format, &values, &mut actual).unwrap();
            assert!(actual == expected, "{format} {isa}");
        }
    }
}

/// How far a number may move, as a part of the extent of its block (from the smallest to the largest number and zero).
fn tolerance(format: Format) -> f32 {
    match format {
        Format::F32 => 0.0,
        Format::F16 => 1.0 / 2048.0,
        Format::BF16 => 1.0 / 256.0,
        Format::Q8_0 => 1.0 / 220.0,
        Format::Q5_0 => 1.0 / 15.0,
        Format::Q5_1 => 1.0 / 56.0,
        Format::Q4_0 => 1.0 / 7.0,
        Format::Q4_1 => 1.0 / 28.0,
        // The scales of the groups are rounded too, and may sacrifice one number for the others.
        Format::Q6K => 1.0 / 20.0,
        Format::Q5K => 1.0 / 12.0,
        Format::Q4K => 1.0 / 6.0,
        Format::Q3K => 1.0 / 2.0,
        Format::Q2K => 1.0,
    }
}

/// The largest multiples of the halves of a block, scale and minimum together.
fn multiples(format: Format) -> f32 {
    match format {
        Format::F32 | Format::BF16 => 0.0,
        Format::F16 => 1.0,
        Format::Q4_0 | Format::Q4_1 | Format::Q5_0 | Format::Q5_1 => 32.0,
        Format::Q8_0 => 127.0,
        Format::Q2K => 15.0 * 3.0 + 15.0,
        Format::Q3K => 32.0 * 4.0,
        Format::Q4K => 63.0 * 15.0 + 63.0,
        Format::Q5K => 63.0 * 31.0 + 63.0,
        Format::Q6K => 128.0 * 32.0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn numbers_come_back_nearly_as_they_were(
        seed in any::<u64>(), scale in -5i32..4, shift in -1.0f32..1.0, format in prop::sample::select(Format::ALL.to_vec()),
    ) {
        let scale = 10.0f32.powi(scale);
        let values: Vec<f32> = Numbers::new(seed).floats(512).iter().map(|value| scale * (value + shift)).collect();
        let mut back = vec![f32::NAN; values.len()];
        expand(format, &quantized(format, &values), &mut back).unwrap();
        // A scale may be off by half the smallest half, 6e-8, and so may the scale of the minima.
        let smallest = 3e-8 * multiples(format);
        let block = format.block_len().max(1);
        for (values, back) in values.chunks(block).zip(back.chunks(block)) {
            let largest = values.iter().fold(0.0f32, |largest, &value| largest.max(value));
            let extent = largest - values.iter().fold(0.0f32, |least, &value| least.min(value));
            for (value, back) in values.iter().zip(back) {
                let bound = tolerance(format) * extent + smallest;
                prop_assert!((value - back).abs() <= bound, "{format}: {value} became {back}, more than {bound}");
            }
        }
    }

    #[test]
    fn any_bits_are_quantised_or_refused(
        bits in prop::collection::vec(any::<u32>(), 256), format in prop::sample::select(Format::ALL.to_vec()),
    ) {
        let values: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        let mut out = vec![0; format.row_bytes(256).unwrap()];
        match quantize(format, &values, &mut out) {
            Ok(()) => {
                let mut back = vec![f32::NAN; 256];
                expand(format, &out, &mut back).unwrap();
                prop_assert!(back.iter().all(|value| value.is_finite()), "{format}");
            }
            Err(KernelError::NotRepresentable { index, .. }) => prop_assert!(values[index].is_nan() || values[index].abs() > 65504.0),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn every_number_within_the_bounds_is_quantised(
        seed in any::<u64>(), exponent in 0u32..=142, format in prop::sample::select(Format::ALL.to_vec()),
    ) {
        // From subnormal numbers to those just below 65504.
        let scale = f32::from_bits(exponent << 23).max(f32::from_bits(1)) * 0.999;
        let values: Vec<f32> = Numbers::new(seed).floats(256).iter().map(|value| scale * value).collect();
        let mut back = vec![f32::NAN; 256];
        expand(format, &quantized(format, &values), &mut back).unwrap();
        prop_assert!(back.iter().all(|value| value.is_finite() && value.abs() <= 4.0 * scale.max(1e-4)), "{format} {scale}: {back:?}");
    }
}

#[test]
fn what_a_format_cannot_hold_is_named() {
    for (format, value, limit) in [
        (Format::Q4K, f32::NAN, "65504"),
        (Format::Q8_0, f32::INFINITY, "65504"),
        (Format::F16, -65505.0, "65504"),
        (Format::F32, f32::NEG_INFINITY, "340282350000000000000000000000000000000"),
        (Format::BF16, f32::MAX, "338953140000000000000000000000000000000"),
    ] {
        let mut values = vec![0.5; 512];
        values[300] = value;
        let mut out = vec![7; format.row_bytes(512).unwrap()];
        let error = quantize(format, &values, &mut out).unwrap_err().to_string();
        assert_eq!(error, format!("values: number 300 is {value}, {format} holds finite numbers up to {limit}"));
        assert!(out.iter().all(|&byte| byte == 7), "nothing is written");
    }
    assert!(
        quantize(Format::Q4K, &[0.0; 255], &mut [0; 144])
            .unwrap_err()
            .to_string()
            .contains("255 is not a multiple of 256")
    );
    assert!(quantize(Format::Q4K, &[0.0; 256], &mut [0; 143]).unwrap_err().to_string().contains("expected 144"));
}

#[test]
fn a_matrix_is_stored_row_by_row() {
    let (rows, cols) = (37, 512);
    let values = Numbers::new(1).floats(rows * cols);
    let halves: Vec<u8> = values.iter().flat_map(|&value| half::bf16::from_f32(value).to_le_bytes()).collect();
    let w = MatrixView::new(Format::BF16, rows, cols, &halves).unwrap();
    let mut rounded = vec![0.0; rows * cols];
    expand(Format::BF16, &halves, &mut rounded).unwrap();
    for threads in [1, 3].map(|count| Threads::new(count).unwrap()) {
        for format in Format::ALL {
            let expected = quantized(format, &rounded);
            let mut out = vec![0; expected.len()];
            store_as(&threads, &w, format, &mut out).unwrap();
            assert!(out == expected, "{format}");
        }
    }
}

#[test]
fn the_first_number_that_does_not_fit_is_named() {
    let (rows, cols) = (64, 256);
    let mut values = vec![0.25f32; rows * cols];
    (values[9 * cols + 3], values[50 * cols]) = (f32::NAN, f32::INFINITY);
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let w = MatrixView::new(Format::F32, rows, cols, &bytes).unwrap();
    let mut out = vec![0; Format::Q6K.row_bytes(cols).unwrap() * rows];
    let error = store_as(&Threads::new(3).unwrap(), &w, Format::Q6K, &mut out).unwrap_err();
    assert!(error.to_string().contains(&format!("number {} is NaN", 9 * cols + 3)), "{error}");
    let mut out = vec![0; 5];
    assert!(store_as(&Threads::new(1).unwrap(), &w, Format::Q6K, &mut out).unwrap_err().to_string().contains("got 5"));
}
