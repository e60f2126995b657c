//! GGUF: what is written is read, and each thing wrong has its own refusal.

use super::super::{Fault, Gguf, GgufMetadata, WeightMap, Weights};
use super::refusal;
use super::writer::{GgufWriter, floats, small_gguf, text};
use hearth_kernels::Format;

fn refused(writer: &GgufWriter) -> (Fault, String) {
    refusal(Gguf::read(writer.map()))
}

fn one() -> GgufWriter {
    GgufWriter::new("llama").floats("output_norm.weight", &[3], &[1.0, 2.0, 3.0])
}

fn two() -> GgufWriter {
    one().floats("token_embd.weight", &[3, 2], &[0.0; 6])
}

#[test]
fn metadata_is_read_back_by_type() {
    for version in [2, 3] {
        let gguf = Gguf::read(GgufWriter { version, ..small_gguf() }.map()).unwrap();
        assert_eq!(gguf.version(), version);
        let metadata = gguf.metadata();
        assert_eq!(metadata.string("general.architecture").unwrap(), "llama");
        assert_eq!(metadata.u32("llama.block_count").unwrap(), 1);
        assert_eq!(metadata.f32("llama.rope.freq_base").unwrap(), 1e5);
        assert_eq!(metadata.f32("a.double").unwrap(), 0.5);
        assert!(metadata.bool("tokenizer.ggml.add_bos_token").unwrap());
        assert_eq!(metadata.strings("tokenizer.ggml.tokens").unwrap(), ["a", "ü", "x\u{fffd}"]);
        assert_eq!(metadata.i32s("tokenizer.ggml.token_type").unwrap(), [1, -1]);
        assert_eq!(metadata.f32s("tokenizer.ggml.scores").unwrap(), [0.25, -1.0]);
        assert_eq!(metadata.keys().count(), 11);
        assert_eq!(metadata.optional("absent", GgufMetadata::u32).unwrap(), None);
        assert_eq!(metadata.optional("llama.block_count", GgufMetadata::u32).unwrap(), Some(1));
    }
}

#[test]
fn a_key_of_the_wrong_type_is_named_with_both_types() {
    let gguf = Gguf::read(small_gguf().map()).unwrap();
    let metadata = gguf.metadata();
    let messages = [
        refusal(metadata.u32("absent")).1,
        refusal(metadata.u32("general.architecture")).1,
        refusal(metadata.string("llama.block_count")).1,
        refusal(metadata.u32("a.byte")).1,
        refusal(metadata.u32("a.long")).1,
        refusal(metadata.strings("tokenizer.ggml.scores")).1,
        refusal(metadata.i32s("tokenizer.ggml.scores")).1,
        refusal(metadata.f32s("nested")).1,
        refusal(metadata.optional("a.byte", GgufMetadata::bool)).1,
    ];
    let expected = [
        "small.gguf: metadata key `absent`: is missing",
        "small.gguf: metadata key `general.architecture`: is of type string, expected u32",
        "small.gguf: metadata key `llama.block_count`: is of type u32, expected string",
        "small.gguf: metadata key `a.byte`: value -128 does not fit u32",
        "small.gguf: metadata key `a.long`: value 18446744073709551615 does not fit u32",
        "small.gguf: metadata key `tokenizer.ggml.scores`: is of type array of f32, expected array of string",
        "small.gguf: metadata key `tokenizer.ggml.scores`: is of type array of f32, expected array of i32",
        "small.gguf: metadata key `nested`: is of type array of array, expected array of f32",
        "small.gguf: metadata key `a.byte`: is of type i8, expected bool",
    ];
    assert_eq!(messages, expected);
}

#[test]
fn tensors_are_read_back_outermost_dimension_first() {
    let gguf = Gguf::read(small_gguf().map()).unwrap();
    let [norm, embedding, up] = gguf.tensors() else { panic!("{:?}", gguf.tensors()) };
    assert_eq!((norm.name.as_str(), norm.format, norm.shape.as_slice()), ("output_norm.weight", Format::F32, &[3][..]));
    assert_eq!(norm.to_f32(), [1.0, 2.0, 3.0]);
    assert_eq!((embedding.rows(), embedding.cols()), (2, 3));
    assert_eq!(embedding.to_f32(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!((up.format, up.shape.as_slice(), up.bytes.len()), (Format::Q4_1, &[3, 32][..], 60));
    assert_eq!((gguf.ignored()[0].name.as_str(), gguf.ignored()[0].element.as_str()), ("positions", "I64"));
}

#[test]
fn rows_are_shared_out_without_a_copy() {
    let file = GgufWriter::new("llama").floats("stacked", &[2, 3, 2], &(0..12).map(|n| n as f32).collect::<Vec<_>>());
    let gguf = Gguf::read(file.map()).unwrap();
    let stacked = &gguf.tensors()[0];
    let parts = stacked.split_rows(&[1, 3, 2]).unwrap();
    let values: Vec<_> = parts.iter().map(|part| (part.shape.clone(), part.to_f32())).collect();
    assert_eq!(values[0], (vec![1, 2], vec![0.0, 1.0]));
    assert_eq!(values[1], (vec![3, 2], vec![2.0, 3.0, 4.0, 5.0, 6.0, 7.0]));
    assert_eq!(values[2], (vec![2, 2], vec![8.0, 9.0, 10.0, 11.0]));
    assert!(std::ptr::eq(&raw const stacked.bytes[8], &raw const parts[1].bytes[0]));
    for counts in [&[3, 2][..], &[3, 4], &[usize::MAX, 7], &[]] {
        let (_, message) = refusal(stacked.split_rows(counts));
        assert!(message.contains("tensor `stacked`: has shape [2, 3, 2], expected ["), "{message}");
    }
    let quantised = Gguf::read(small_gguf().map()).unwrap();
    let up = &quantised.tensors()[2]; // [3, 32] of Q4_1
    let parts = up.split_rows(&[1, 2]).unwrap();
    assert_eq!([parts[0].to_f32(), parts[1].to_f32()].concat(), up.to_f32());
}

#[test]
fn weights_are_found_by_hugging_face_names() {
    let weights = Weights::open_gguf(&Gguf::read(small_gguf().map()).unwrap()).unwrap();
    let names: Vec<_> = weights.names().collect();
    assert_eq!(names, ["model.layers.0.mlp.up_proj.weight", "model.norm.weight", "model.embed_tokens.weight"]);
    assert_eq!(weights.total_bytes(), 60 + 12 + 24);
    assert_eq!(weights.vector("model.norm.weight", 3).unwrap(), [1.0, 2.0, 3.0]);
    let layer = weights.with_prefix("model.layers.0.");
    assert_eq!(layer.names().collect::<Vec<_>>(), ["mlp.up_proj.weight"]);
    assert_eq!(layer.tensor("mlp.up_proj.weight", &[3, 32]).unwrap().name, "model.layers.0.mlp.up_proj.weight");
    assert_eq!(
        refusal(layer.tensor("mlp.up_proj.weight", &[32, 3])).1,
        "small.gguf: tensor `model.layers.0.mlp.up_proj.weight`: has shape [3, 32], expected [32, 3]"
    );
    assert_eq!(
        refusal(layer.tensor("mlp.down_proj.weight", &[32, 3])).1,
        "small.gguf: tensor `model.layers.0.mlp.down_proj.weight` (`blk.0.ffn_down.weight` in this file): is missing"
    );
    assert_eq!(
        refusal(weights.tensor("positions", &[2])).1,
        "small.gguf: tensor `positions`: element type I64 is not supported; F32, F16 and BF16 are"
    );
}

#[test]
fn an_architecture_without_names_is_refused() {
    let gguf = Gguf::read(GgufWriter::new("mamba").map()).unwrap();
    let message = refusal(Weights::open_gguf(&gguf)).1;
    assert!(
        message.contains("architecture `mamba` is not supported; supported in GGUF files are `llama`"),
        "{message}"
    );
}

#[test]
fn wrong_magic_version_and_byte_order_are_told_apart() {
    let (fault, message) = refused(&GgufWriter { magic: *b"PK\x03\x04", ..one() });
    assert!(matches!(fault, Fault::WrongMagic { .. }));
    assert_eq!(message, r#"small.gguf: not a GGUF file: begins with "PK\x03\x04", expected "GGUF""#);
    for version in [0, 1, 4] {
        let fault = refused(&GgufWriter { version, ..one() }).0;
        assert!(matches!(fault, Fault::UnsupportedVersion { found } if found == version));
    }
    assert!(matches!(refused(&GgufWriter { version: 3 << 24, ..one() }).0, Fault::BigEndian));
    assert!(matches!(refused(&GgufWriter { magic: *b"FUGG", ..one() }).0, Fault::BigEndian));
}

#[test]
fn a_tensor_past_the_end_says_what_it_needs() {
    let mut bytes = one().bytes();
    bytes.truncate(bytes.len() - 1);
    let size = bytes.len() as u64;
    let (fault, message) = refusal(Gguf::read(WeightMap::from_bytes("short.gguf", bytes)));
    assert!(
        matches!(fault, Fault::Truncated { needed: 12, offset, size: found } if found == size && offset == size - 11)
    );
    assert!(
        message.starts_with("short.gguf: tensor `output_norm.weight`: truncated: needs 12 bytes at offset "),
        "{message}"
    );

    let mut far = one();
    far.entries[0].offset = u64::MAX - 31;
    assert!(matches!(refused(&far).0, Fault::Truncated { needed: 12, .. }));
}

#[test]
fn every_truncation_is_refused() {
    let whole = small_gguf().bytes();
    for length in 0..whole.len() - 16 {
        let map = WeightMap::from_bytes("short.gguf", whole[..length].to_vec());
        assert!(Gguf::read(map).is_err(), "{length} of {} bytes", whole.len());
    }
}

#[test]
fn absurd_counts_are_refused_before_anything_is_allocated() {
    for extra in [1000, u64::MAX / 2, u64::MAX - 1] {
        let fault = refused(&GgufWriter { extra_tensors: extra, ..one() }).0;
        assert!(matches!(fault, Fault::AbsurdCount { what: "tensors", .. }), "{fault:?}");
        let fault = refused(&GgufWriter { extra_keys: extra, ..one() }).0;
        assert!(matches!(fault, Fault::AbsurdCount { what: "metadata entries", .. }), "{fault:?}");
        for element in [0, 8, 9, 12] {
            let (fault, message) = refused(&one().array("tokens", element, extra, &[]));
            assert!(matches!(fault, Fault::AbsurdCount { what: "array elements", .. }), "{fault:?}");
            assert!(message.starts_with("small.gguf: metadata key `tokens`: declares "), "{message}");
        }
        let (fault, _) = refused(&one().key("text", 8, &extra.to_le_bytes()));
        assert!(matches!(fault, Fault::Truncated { needed, .. } if needed == extra), "{fault:?}");
    }
}

#[test]
fn a_header_as_large_as_the_weights_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse.gguf");
    // 4 GiB of zeros, which take no space on disk, after a count that they could all be part of.
    for (element, count) in [(0, 4 << 30), (8, 1 << 28), (9, 1 << 28)] {
        super::write(folder.path(), "sparse.gguf", &one().array("tokens", element, count, &[]).bytes());
        std::fs::File::options().write(true).open(&path).unwrap().set_len(5 << 30).unwrap();
        let fault = refusal(Gguf::open(&path)).0;
        assert!(matches!(fault, Fault::HeaderTooLarge { .. }), "{fault:?}");
    }
}

#[test]
fn damaged_metadata_is_refused_with_its_key() {
    assert_eq!(
        refused(&one().key("odd", 13, &[])).1,
        "small.gguf: metadata key `odd`: value type 13 is not one of GGUF (0 to 12)"
    );
    assert_eq!(
        refused(&one().key("flag", 7, &[2])).1,
        "small.gguf: metadata key `flag`: a bool is stored as 2, expected 0 or 1"
    );
    assert!(matches!(refused(&one().key("text", 8, &text(&[0xff]))).0, Fault::NotUtf8 { valid: 0, length: 1 }));
    let twice = refused(&one().u32("count", 1).u32("count", 2)).1;
    assert_eq!(twice, "small.gguf: metadata key `count`: appears more than once");
    for (alignment, fits) in [(0, false), (48, false), (64, true)] {
        let writer = GgufWriter { alignment: 64, ..GgufWriter::new("llama") };
        let writer = writer.u32("general.alignment", alignment).floats("output_norm.weight", &[1], &[1.5]);
        match Gguf::read(writer.map()) {
            Ok(gguf) => assert!(fits && gguf.tensors()[0].to_f32() == [1.5]),
            Err(error) => assert!(!fits && matches!(*error.fault, Fault::InvalidAlignment { .. }), "{error}"),
        }
    }
}

#[test]
fn deep_nesting_is_refused() {
    let nested = |depth: usize| {
        let level = [9_u32.to_le_bytes().as_slice(), &1_u64.to_le_bytes()].concat();
        let innermost = [4_u32.to_le_bytes().as_slice(), &0_u64.to_le_bytes()].concat();
        one().key("deep", 9, &[level.repeat(depth - 1), innermost].concat())
    };
    assert!(Gguf::read(nested(4).map()).is_ok());
    assert!(matches!(refused(&nested(5)).0, Fault::NestedTooDeep { limit: 4 }));
    assert!(matches!(refused(&nested(100_000)).0, Fault::NestedTooDeep { limit: 4 }));
}

#[test]
fn a_type_without_a_kernel_is_refused_by_name() {
    for (code, name) in
        [(16, "IQ2_XXS"), (4, "Q4_2"), (15, "Q8_K"), (23, "IQ4_XS"), (34, "TQ1_0"), (39, "MXFP4"), (99, "unknown")]
    {
        let (_, message) = refused(&GgufWriter::new("llama").tensor("output.weight", &[256], code, &[0; 66]));
        assert_eq!(
            message,
            format!("small.gguf: tensor `output.weight`: tensor type {name} ({code}) is not supported")
        );
    }
}

#[test]
fn every_format_has_its_code() {
    use Format::*;
    let formats = [
        (0, F32),
        (1, F16),
        (2, Q4_0),
        (3, Q4_1),
        (6, Q5_0),
        (7, Q5_1),
        (8, Q8_0),
        (10, Q2K),
        (11, Q3K),
        (12, Q4K),
        (13, Q5K),
        (14, Q6K),
        (30, BF16),
    ];
    for (code, format) in formats {
        let bytes = vec![0; 256 / format.block_len() * format.block_bytes()];
        let gguf = Gguf::read(GgufWriter::new("llama").tensor("t", &[256], code, &bytes).map()).unwrap();
        assert_eq!((gguf.tensors()[0].format, gguf.tensors()[0].bytes.len()), (format, bytes.len()));
    }
}

#[test]
fn tensors_that_overlap_or_repeat_are_refused() {
    let mut overlapping = two();
    overlapping.entries[1].offset = 0;
    let message = refused(&overlapping).1;
    assert!(message.contains("inside tensor `"), "{message}");

    let mut misaligned = two();
    misaligned.entries[1].offset = 28;
    assert_eq!(
        refused(&misaligned).1,
        "small.gguf: tensor `token_embd.weight`: begins at offset 28 of the data, which is not a multiple of the alignment 32"
    );

    let mut twice = two();
    twice.entries[1].name = "output_norm.weight".to_owned();
    assert_eq!(refused(&twice).1, "small.gguf: tensor `output_norm.weight`: appears more than once");
}

#[test]
fn impossible_shapes_are_refused() {
    let shaped = |dimensions: &[u64]| {
        let mut writer = one();
        writer.entries[0].dimensions = dimensions.to_vec();
        writer
    };
    for huge in [&[u64::MAX, 2][..], &[1 << 32, 1 << 32], &[1 << 62], &[0, 1 << 40, 1 << 40], &[1 << 40, 1 << 40, 0]] {
        assert!(matches!(refused(&shaped(huge)).0, Fault::ShapeOverflow { .. }), "{huge:?}");
    }
    assert!(matches!(refused(&shaped(&[1; 5])).0, Fault::TooManyDimensions { found: 5, limit: 4 }));
    let (fault, _) = refused(&GgufWriter::new("llama").tensor("t", &[33], 3, &[0; 40]));
    assert!(matches!(fault, Fault::PartialBlock { columns: 33, block: 32, .. }));

    let empty = Gguf::read(shaped(&[3, 0]).map()).unwrap();
    assert_eq!((empty.tensors()[0].rows(), empty.tensors()[0].to_f32().len()), (0, 0));
    let scalar = Gguf::read(shaped(&[]).map()).unwrap();
    assert_eq!(scalar.tensors()[0].to_f32(), [1.0]);
}

#[test]
fn a_file_of_metadata_alone_is_read() {
    let header = GgufWriter::new("llama").u32("llama.block_count", 2).header();
    let gguf = Gguf::read(WeightMap::from_bytes("vocabulary.gguf", header)).unwrap();
    assert!(gguf.tensors().is_empty());
    assert_eq!(gguf.metadata().u32("llama.block_count").unwrap(), 2);
}

#[test]
fn a_file_on_disk_is_mapped_and_keeps_its_map() {
    let folder = tempfile::tempdir().unwrap();
    super::write(folder.path(), "model.gguf", &one().bytes());
    let tensor = Gguf::open(&folder.path().join("model.gguf")).unwrap().tensors()[0].clone();
    assert_eq!(&*tensor.bytes, floats(&[1.0, 2.0, 3.0]));
    let (fault, message) = refusal(Gguf::open(&folder.path().join("absent.gguf")));
    assert!(matches!(fault, Fault::Unreadable(_)) && message.contains("absent.gguf: cannot be read: "), "{message}");
    assert!(matches!(refusal(Gguf::open(folder.path())).0, Fault::NotAFile));
    super::write(folder.path(), "empty.gguf", &[]);
    let fault = refusal(Gguf::open(&folder.path().join("empty.gguf"))).0;
    assert!(matches!(fault, Fault::Truncated { needed: 4, offset: 0, size: 0 }));
}
