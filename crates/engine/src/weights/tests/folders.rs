//! Safetensors folders: what is written is read, and each thing wrong has its own refusal.

use std::sync::Arc;

use super::super::safetensors::read_file;
use super::super::{Fault, WeightMap, Weights};
use super::writer::{entry, floats, safetensors_of, small_safetensors};
use super::{refusal, write};

fn map(entries: &[String], data: &[u8]) -> Arc<WeightMap> {
    WeightMap::from_bytes("small.safetensors", safetensors_of(&format!("{{{}}}", entries.join(",")), data))
}

fn refused(entries: &[String], data: &[u8]) -> (Fault, String) {
    refusal(read_file(&map(entries, data)))
}

/// A folder of two shards, `a` and `b`, with this index of (tensor, shard).
fn sharded(index: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let shard = |name, values: &[f32]| {
        let header = format!("{{{}}}", entry(name, "F32", &[values.len() as u64], (0, 4 * values.len() as u64)));
        safetensors_of(&header, &floats(values))
    };
    write(folder.path(), "a.safetensors", &shard("a.weight", &[1.0]));
    write(folder.path(), "b.safetensors", &shard("b.weight", &[2.0, 3.0]));
    let pairs: Vec<_> = index.iter().map(|(tensor, file)| format!(r#""{tensor}":"{file}""#)).collect();
    let index = format!(r#"{{"metadata":{{"total_size":12}},"weight_map":{{{}}}}}"#, pairs.join(","));
    write(folder.path(), "model.safetensors.index.json", index.as_bytes());
    folder
}

#[test]
fn a_single_file_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "model.safetensors", &small_safetensors());
    let weights = Weights::open_folder(folder.path()).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["encoder.weight", "norm.weight"]);
    assert_eq!(weights.tensor("encoder.weight", &[2, 3]).unwrap().to_f32(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(weights.vector("norm.weight", 2).unwrap(), [0.5, -0.5]);
    assert_eq!(weights.total_bytes(), 32);
    assert_eq!(weights.ignored()[0].name, "embeddings.position_ids");
    assert!(weights.get("embeddings.position_ids").is_none());
    let message = refusal(weights.tensor("embeddings.position_ids", &[1, 2])).1;
    assert!(message.ends_with("element type I64 is not supported; F32, F16 and BF16 are"), "{message}");
    let message = refusal(weights.tensor("absent.weight", &[1])).1;
    assert!(message.ends_with("tensor `absent.weight`: is missing"), "{message}");
}

#[test]
fn shards_are_one_checkpoint() {
    let folder = sharded(&[("a.weight", "a.safetensors"), ("b.weight", "b.safetensors")]);
    let weights = Weights::open_folder(folder.path()).unwrap();
    assert_eq!(weights.vector("a.weight", 1).unwrap(), [1.0]);
    assert_eq!(weights.vector("b.weight", 2).unwrap(), [2.0, 3.0]);
}

#[test]
fn an_index_that_lies_is_refused_with_the_tensor() {
    let missing = sharded(&[("a.weight", "c.safetensors")]);
    let message = refusal(Weights::open_folder(missing.path())).1;
    assert!(
        message.contains("index.json: tensor `a.weight`: the index places it in `c.safetensors`, which is not in"),
        "{message}"
    );

    let elsewhere = sharded(&[("b.weight", "a.safetensors")]);
    let message = refusal(Weights::open_folder(elsewhere.path())).1;
    assert!(
        message.contains("tensor `b.weight`: the index places it in `a.safetensors`, which does not hold it"),
        "{message}"
    );

    let twice = sharded(&[("a.weight", "a.safetensors"), ("a.weight", "a.safetensors")]);
    assert!(matches!(refusal(Weights::open_folder(twice.path())).0, Fault::Duplicate));

    for outside in
        ["../a.safetensors", "/etc/passwd", "sub/a.safetensors", "..", ".", "", "a.safetensors/", "C:a", r"..\\a"]
    {
        let folder = sharded(&[("a.weight", outside)]);
        let fault = refusal(Weights::open_folder(folder.path())).0;
        assert!(matches!(fault, Fault::ShardOutsideFolder(_)), "{outside}: {fault:?}");
    }

    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(refusal(Weights::open_folder(folder.path())).0, Fault::NoCheckpoint));
    for index in ["", "[]", "{}", r#"{"weight_map":[]}"#, r#"{"weight_map":{"a":1}}"#] {
        write(folder.path(), "model.safetensors.index.json", index.as_bytes());
        assert!(matches!(refusal(Weights::open_folder(folder.path())).0, Fault::InvalidIndex(_)), "{index}");
    }
}

#[test]
fn a_prefix_is_stripped_where_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    for (name, prefixed) in [("bert.norm.weight", true), ("norm.weight", false)] {
        let header = format!("{{{}}}", entry(name, "F32", &[1], (0, 4)));
        write(folder.path(), "model.safetensors", &safetensors_of(&header, &floats(&[1.0])));
        let weights = Weights::open_folder(folder.path()).unwrap().strip_prefix("bert.");
        assert_eq!(weights.vector("norm.weight", 1).unwrap(), [1.0]);
        assert_eq!(weights.get("norm.weight").unwrap().name.starts_with("bert."), prefixed);
    }
}

#[test]
fn absurd_headers_are_refused() {
    let of = |bytes: &[u8]| refusal(read_file(&WeightMap::from_bytes("odd.safetensors", bytes.to_vec())));
    assert!(matches!(of(&[]).0, Fault::Truncated { needed: 8, offset: 0, size: 0 }));
    assert!(matches!(of(&[0xff; 64]).0, Fault::Truncated { needed: u64::MAX, offset: 8, size: 64 }));
    for header in ["", "null", "[]", "{", "{}}", r#"{"a":1}"#, r#"{"a":{"dtype":"F32"}}"#, "\u{0}"] {
        assert!(matches!(of(&safetensors_of(header, &[])).0, Fault::InvalidHeader(_)), "{header}");
    }
    let deep = format!(r#"{{"__metadata__":{}"#, "[".repeat(100_000));
    assert!(matches!(of(&safetensors_of(&deep, &[])).0, Fault::InvalidHeader(_)));
    let message = refused(&[entry("t", "F12", &[1], (0, 4))], &[0; 4]).1;
    assert!(
        message.starts_with("small.safetensors: header is not valid: tensor `t`: unknown variant `F12`"),
        "{message}"
    );
    let large = safetensors_of(&" ".repeat(100_000_001), &[]);
    assert!(matches!(of(&large).0, Fault::HeaderTooLarge { limit: 100_000_000 }));
}

#[test]
fn damaged_entries_are_refused_with_the_tensor() {
    let first = || entry("first", "F32", &[1], (0, 4));
    let data = [0; 8];
    let (fault, message) = refused(&[entry("t", "F32", &[3], (0, 8))], &data);
    assert!(matches!(fault, Fault::WrongLength { found: 8, needed: 12, .. }));
    assert_eq!(message, "small.safetensors: tensor `t`: takes 8 bytes, shape [3] of F32 needs 12");
    let fault = refused(&[entry("t", "F32", &[4], (0, 16))], &data).0;
    assert!(matches!(fault, Fault::Truncated { needed: 16, .. }));
    let fault = refused(&[first(), entry("t", "F32", &[1], (0, 4))], &data).0;
    assert!(matches!(fault, Fault::NotAdjacent { offset: 0, expected: 4 }));
    let fault = refused(&[first(), entry("t", "F32", &[1], (8, 12))], &data).0;
    assert!(matches!(fault, Fault::NotAdjacent { offset: 8, expected: 4 }));
    assert!(matches!(refused(&[first(), first()], &data[..4]).0, Fault::Duplicate));
    assert!(matches!(refused(&[first()], &data).0, Fault::TrailingBytes { end: 4, size: 8 }));
    let fault = refused(&[entry("t", "F32", &[1], (4, 0))], &data).0;
    assert!(matches!(fault, Fault::EndsBeforeBegin { begin: 4, end: 0 }));
    for huge in [&[u64::MAX, 2][..], &[1 << 62], &[0, 1 << 40, 1 << 40]] {
        let fault = refused(&[entry("t", "F32", huge, (0, 8))], &data).0;
        assert!(matches!(fault, Fault::ShapeOverflow { .. }), "{huge:?}: {fault:?}");
    }
    // Offsets whose sum with the header's length leaves u64.
    let half = 1 << 62;
    let chain =
        [0, 1, 2, 3].map(|step| entry(&format!("t{step}"), "I8", &[half], (step * half, (step + 1).min(3) * half)));
    assert!(read_file(&map(&chain, &data)).is_err());
}

#[test]
fn half_formats_and_empty_tensors_are_read() {
    let entries =
        [entry("a", "F16", &[2], (0, 4)), entry("b", "BF16", &[1], (4, 6)), entry("c", "F32", &[0, 7], (6, 6))];
    let contents = read_file(&map(&entries, &[0; 6])).unwrap();
    let sizes: Vec<_> = contents.tensors.iter().map(|tensor| (tensor.format, tensor.bytes.len())).collect();
    use hearth_kernels::Format;
    assert_eq!(sizes, [(Format::F16, 4), (Format::BF16, 2), (Format::F32, 0)]);
}

#[test]
fn every_truncation_is_refused() {
    let whole = small_safetensors();
    for length in 0..whole.len() {
        let map = WeightMap::from_bytes("short.safetensors", whole[..length].to_vec());
        assert!(read_file(&map).is_err(), "{length} of {} bytes", whole.len());
    }
}
