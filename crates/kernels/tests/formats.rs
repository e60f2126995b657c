//! Every block format against the numbers that ggml's own Python package expands the same blocks to
//! (made by `scripts/make-format-goldens`), bit for bit.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Numbers, assert_same};
use hearth_kernels::{Format, Isa, KernelError, expand, expand_with};

/// The blocks, then the numbers they stand for, of each format in the order of `Format::ALL`.
fn goldens() -> Vec<(Format, Vec<u8>, Vec<f32>)> {
    let mut rest = include_bytes!("goldens/formats.bin").as_slice();
    let mut take = |count: usize| {
        let (taken, left) = rest.split_at(count);
        rest = left;
        taken
    };
    let goldens = Format::ALL
        .into_iter()
        .map(|format| {
            let numbers = 512;
            let bytes = take(format.row_bytes(numbers).unwrap()).to_vec();
            let expected =
                take(4 * numbers).as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            (format, bytes, expected)
        })
        .collect();
    assert!(rest.is_empty(), "the file has no more than the formats");
    goldens
}

#[test]
fn blocks_stand_for_what_ggml_says() {
    for (format, bytes, expected) in goldens() {
        for isa in Isa::available() {
            let mut actual = vec![f32::NAN; expected.len()];
            expand_with(isa, format, &bytes, &mut actual).unwrap();
            assert_same(&actual, &expected, &format!("{format} {isa}"));
        }
    }
}

#[test]
fn every_instruction_set_expands_to_the_same_bits() {
    for format in Format::ALL {
        let bytes = Numbers::new(9).blocks(format, 256 * 33);
        let mut expected = vec![f32::NAN; 256 * 33];
        expand_with(Isa::SCALAR, format, &bytes, &mut expected).unwrap();
        for isa in Isa::available() {
            let mut actual = vec![f32::NAN; expected.len()];
            expand_with(isa, format, &bytes, &mut actual).unwrap();
            assert_same(&actual, &expected, &format!("{format} {isa}"));
        }
    }
}

#[test]
fn rows_are_whole_blocks() {
    assert_eq!(Format::Q4K.row_bytes(512), Some(288));
    assert_eq!(Format::Q4K.row_bytes(511), None);
    assert_eq!(Format::Q4_1.row_bytes(64), Some(40));
    assert_eq!(Format::F32.row_bytes(usize::MAX), None, "the size overflows");
    assert_eq!(Format::Q2K.to_string(), "Q2_K");
}

#[test]
fn wrong_lengths_are_refused() {
    let error = expand(Format::Q8_0, &[0; 34], &mut [0.0; 33]).unwrap_err();
    assert_eq!(error, KernelError::NotMultiple { argument: "out", multiple_of: 32, actual: 33 });
    let error = expand(Format::Q8_0, &[0; 33], &mut [0.0; 32]).unwrap_err();
    assert_eq!(error, KernelError::Length { argument: "bytes", expected: 34, actual: 33 });
}
