//! PyTorch archives: what is written is read, and each thing wrong has its own refusal.

use std::io::{Cursor, Write};

use hearth_kernels::Format;
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

use super::super::pytorch::read_file;
use super::super::{Fault, WeightMap, Weights};
use super::writer::floats;
use super::{refusal, write};

/// A tensor as a pickle describes it.
pub struct Described {
    pub name: &'static str,
    pub class: &'static str,
    pub storage: &'static str,
    pub offset: u8,
    pub shape: &'static [u8],
    pub strides: &'static [u8],
}

impl Described {
    fn plain(name: &'static str, storage: &'static str, shape: &'static [u8], strides: &'static [u8]) -> Self {
        Self { name, class: "FloatStorage", storage, offset: 0, shape, strides }
    }
}

fn text(text: &str) -> Vec<u8> {
    [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

fn tuple(numbers: &[u8]) -> Vec<u8> {
    let items = numbers.iter().flat_map(|number| [b'K', *number]);
    std::iter::once(b'(').chain(items).chain([b't']).collect()
}

/// An ordered dictionary of tensors, with a state as PyTorch's has one.
pub fn pickle(tensors: &[Described]) -> Vec<u8> {
    let mut bytes = b"\x80\x02ccollections\nOrderedDict\n)Rq\x00(".to_vec();
    for Described { name, class, storage, offset, shape, strides } in tensors {
        bytes.extend(text(name));
        bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        bytes.extend(text("storage"));
        bytes.extend(format!("ctorch\n{class}\n").as_bytes());
        bytes.extend(text(storage));
        bytes.extend(text("cpu"));
        bytes.extend(b"K\x08tQK");
        bytes.push(*offset);
        bytes.extend(tuple(shape));
        bytes.extend(tuple(strides));
        // requires_grad, backward hooks.
        bytes.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    bytes.extend(b"u}");
    bytes.extend(text("_metadata"));
    bytes.extend(b"}sb.");
    bytes
}

/// An archive with these entries below `archive/`, compressed where that is said.
fn archive(entries: &[(&str, &[u8], bool)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content, compressed) in entries {
        let method = if *compressed { CompressionMethod::Deflated } else { CompressionMethod::Stored };
        let options = SimpleFileOptions::default().compression_method(method);
        zip.start_file(format!("archive/{name}"), options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A matrix, a vector that lies in the same storage, and positions that no model computes with.
pub fn small_archive() -> Vec<u8> {
    let tensors = [
        Described::plain("encoder.weight", "0", &[2, 3], &[3, 1]),
        Described { offset: 6, ..Described::plain("norm.weight", "0", &[2], &[1]) },
        Described { class: "LongStorage", ..Described::plain("embeddings.position_ids", "1", &[1, 2], &[2, 1]) },
    ];
    let storage = floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.5, -0.5]);
    archive(&[
        ("data.pkl", &pickle(&tensors), false),
        ("byteorder", b"little", false),
        ("data/0", &storage, false),
        ("data/1", &[0; 16], false),
        ("version", b"3\n", false),
    ])
}

fn refused(entries: &[(&str, &[u8], bool)]) -> (Fault, String) {
    refusal(read_file(&WeightMap::from_bytes("small.bin", archive(entries))))
}

fn refused_tensor(tensor: Described) -> (Fault, String) {
    refused(&[("data.pkl", &pickle(&[tensor]), false), ("data/0", &floats(&[0.0; 6]), false)])
}

#[test]
fn an_archive_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "pytorch_model.bin", &small_archive());
    let weights = Weights::open_folder(folder.path()).unwrap();
    assert_eq!(weights.tensor("encoder.weight", &[2, 3]).unwrap().to_f32(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(weights.vector("norm.weight", 2).unwrap(), [0.5, -0.5]);
    let [ignored] = weights.ignored() else { panic!("{:?}", weights.ignored()) };
    assert_eq!((ignored.name.as_str(), ignored.element.as_str()), ("embeddings.position_ids", "Long"));
}

#[test]
fn shards_are_found_by_their_index_and_safetensors_come_first() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "pytorch_model-00001-of-00001.bin", &small_archive());
    let index = r#"{"weight_map": {"norm.weight": "pytorch_model-00001-of-00001.bin"}}"#;
    write(folder.path(), "pytorch_model.bin.index.json", index.as_bytes());
    assert_eq!(Weights::open_folder(folder.path()).unwrap().vector("norm.weight", 2).unwrap(), [0.5, -0.5]);
    write(folder.path(), "model.safetensors", b"broken");
    let message = refusal(Weights::open_folder(folder.path())).1;
    assert!(message.contains("model.safetensors: truncated"), "{message}");
}

#[test]
fn half_formats_and_empty_tensors_are_read() {
    let tensors = [
        Described { class: "HalfStorage", ..Described::plain("a", "0", &[2], &[1]) },
        Described { class: "BFloat16Storage", offset: 2, ..Described::plain("b", "0", &[1, 1], &[9, 9]) },
        Described::plain("c", "0", &[0, 7], &[7, 1]),
        Described::plain("d", "0", &[], &[]),
    ];
    let bytes = archive(&[("data.pkl", &pickle(&tensors), false), ("data/0", &[0; 8], false)]);
    let contents = read_file(&WeightMap::from_bytes("small.bin", bytes)).unwrap();
    let sizes: Vec<_> = contents.tensors.iter().map(|tensor| (tensor.format, tensor.bytes.len())).collect();
    assert_eq!(sizes, [(Format::F16, 4), (Format::BF16, 2), (Format::F32, 0), (Format::F32, 4)]);
}

#[test]
fn what_cannot_be_used_where_it_lies_is_refused_with_the_tensor() {
    let (fault, message) = refused_tensor(Described::plain("t", "0", &[2, 3], &[1, 2]));
    assert!(matches!(fault, Fault::NotRowMajor { .. }));
    let expected =
        "small.bin: tensor `t`: is stored with strides [1, 2], not with the rows of shape [2, 3] one after another";
    assert_eq!(message, expected);
    let fault = refused_tensor(Described::plain("t", "0", &[7], &[1])).0;
    assert!(matches!(fault, Fault::Truncated { needed: 28, offset: 0, size: 24 }));
    let fault = refused_tensor(Described { offset: 5, ..Described::plain("t", "0", &[2], &[1]) }).0;
    assert!(matches!(fault, Fault::Truncated { needed: 8, offset: 20, size: 24 }));
    let (_, message) = refused_tensor(Described::plain("t", "../0", &[1], &[1]));
    assert!(message.contains("tensor `t`: `archive/data/../0` is not in the archive"), "{message}");
    assert!(matches!(refused_tensor(Described::plain("t", "0", &[255; 9], &[1; 9])).0, Fault::ShapeOverflow { .. }));
    assert!(matches!(refused_tensor(Described::plain("t", "0", &[2, 3], &[1])).0, Fault::NotRowMajor { .. }));

    let one = pickle(&[Described::plain("t", "0", &[1], &[1])]);
    let (fault, message) = refused(&[("data.pkl", &one, false), ("data/0", &[0; 4], true)]);
    assert!(
        matches!(fault, Fault::CompressedEntry(_)) && message.contains("tensor `t`: `archive/data/0`"),
        "{message}"
    );
    let twice = [Described::plain("t", "0", &[1], &[1]), Described::plain("t", "0", &[1], &[1])];
    let fault = refused(&[("data.pkl", &pickle(&twice), false), ("data/0", &[0; 4], false)]).0;
    assert!(matches!(fault, Fault::Duplicate));
}

#[test]
fn archives_of_other_kinds_are_refused() {
    let of = |bytes: &[u8]| refusal(read_file(&WeightMap::from_bytes("odd.bin", bytes.to_vec())));
    // What PyTorch wrote before version 1.6 begins with a pickle.
    for bytes in [&b""[..], b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", &[0; 64]] {
        let (fault, message) = of(bytes);
        assert!(matches!(fault, Fault::InvalidArchive(_)) && message.contains("since version 1.6"), "{message}");
    }
    assert!(matches!(refused(&[("version", b"3", false)]).0, Fault::InvalidArchive(_)));
    let empty = pickle(&[]);
    let (fault, message) = refused(&[("data.pkl", &empty, false), ("byteorder", b"big", false)]);
    assert!(matches!(fault, Fault::OtherByteOrder(_)) && message.contains("\"big\""), "{message}");
    assert!(matches!(refused(&[("data.pkl", &empty, true)]).0, Fault::CompressedEntry(_)));
    assert!(matches!(refused(&[("data.pkl", b"\x80\x02N.", false)]).0, Fault::NoStateDictionary));
    let (fault, message) = refused(&[("data.pkl", b"\x80\x02ccollections\nOrd", false)]);
    assert!(matches!(fault, Fault::InvalidPickle { at: 2, .. }) && message.contains("at byte 2"), "{message}");

    // Something that would be run by others, in the place of a tensor.
    let evil = [b"\x80\x02}(".as_slice(), &text("t"), b"cos\nsystem\n", &text("true"), b"\x85Ru."].concat();
    let (fault, message) = refused(&[("data.pkl", &evil, false)]);
    assert!(matches!(fault, Fault::NoPlainTensor) && message.contains("tensor `t`"), "{message}");
}
