//! Noise: whatever the bytes are, the readers answer with tensors that lie in the file or with an error.

use proptest::prelude::*;

use super::super::pytorch;
use super::super::safetensors::read_file;
use super::super::tensor::Contents;
use super::super::{Gguf, WeightMap, Weights};
use super::pytorch::small_archive;
use super::writer::{small_gguf, small_safetensors};

/// Reads a file of these bytes and everything in it; what is accepted must fit in the file.
fn read_gguf(bytes: Vec<u8>) {
    let size = bytes.len();
    let Ok(gguf) = Gguf::read(WeightMap::from_bytes("noise", bytes)) else { return };
    let metadata = gguf.metadata();
    for key in metadata.keys() {
        let strings = metadata.strings(key).map_or(0, <[String]>::len);
        let numbers = metadata.i32s(key).map_or(0, |numbers| numbers.len());
        assert!(strings * 8 + numbers <= size);
        // Typed readers refuse and never panic.
        let _ = (metadata.u32(key), metadata.f32(key), metadata.bool(key), metadata.string(key), metadata.f32s(key));
    }
    check_sizes(gguf.tensors().iter().map(|tensor| (tensor.rows() * tensor.cols(), tensor.bytes.len())), size);
    if let Ok(weights) = Weights::open_gguf(&gguf) {
        assert!(weights.total_bytes() <= size as u64);
        assert!(weights.names().all(|name| weights.get(&name).is_some()));
    }
}

fn read_safetensors(bytes: Vec<u8>) {
    let size = bytes.len();
    let Ok(Contents { tensors, .. }) = read_file(&WeightMap::from_bytes("noise", bytes)) else { return };
    check_sizes(tensors.iter().map(|tensor| (tensor.rows() * tensor.cols(), tensor.bytes.len())), size);
}

/// Tensors may share a storage here, so that each fits in the file and not all together.
fn read_pytorch(bytes: Vec<u8>) {
    let size = bytes.len();
    let Ok(Contents { tensors, .. }) = pytorch::read_file(&WeightMap::from_bytes("noise", bytes)) else { return };
    for tensor in tensors {
        check_sizes(std::iter::once((tensor.rows() * tensor.cols(), tensor.bytes.len())), size);
        assert_eq!(tensor.to_f32().len(), tensor.rows() * tensor.cols());
    }
}

/// (values, bytes) of each tensor: the smallest format has more than a quarter of a byte a value.
fn check_sizes(tensors: impl Iterator<Item = (usize, usize)>, size: usize) {
    let mut total = 0;
    for (values, bytes) in tensors {
        assert!(values <= 4 * bytes, "{values} values in {bytes} bytes");
        total += bytes;
    }
    assert!(total <= size, "{total} bytes of tensors in a file of {size}");
}

/// Changes to make to a file: (place, new byte), the place taken modulo the length.
fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
}

fn changed(mut bytes: Vec<u8>, changes: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    for (place, byte) in changes {
        let place = place.index(bytes.len());
        bytes[place] = *byte;
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        read_gguf(bytes.clone());
        read_gguf([b"GGUF\x03\0\0\0".as_slice(), &bytes].concat());
        read_safetensors(bytes.clone());
        read_pytorch(bytes.clone());
        read_safetensors([&(bytes.len() as u64).to_le_bytes(), bytes.as_slice()].concat());
    }

    #[test]
    fn random_changes(changes in changes()) {
        read_gguf(changed(small_gguf().bytes(), &changes));
        read_safetensors(changed(small_safetensors(), &changes));
        read_pytorch(changed(small_archive(), &changes));
    }

    #[test]
    fn random_words(place in any::<prop::sample::Index>(), word in prop_oneof![any::<u64>(), 0_u64..64, Just(u64::MAX)]) {
        let mut bytes = small_gguf().bytes();
        let place = place.index(bytes.len() - 8);
        bytes[place..place + 8].copy_from_slice(&word.to_le_bytes());
        read_gguf(bytes);
    }

    #[test]
    fn random_changes_and_a_cut(changes in changes(), cut in any::<prop::sample::Index>()) {
        let mut gguf = changed(small_gguf().bytes(), &changes);
        gguf.truncate(cut.index(gguf.len()));
        read_gguf(gguf);
        let mut archive = changed(small_archive(), &changes);
        archive.truncate(cut.index(archive.len()));
        read_pytorch(archive);
    }
}

#[test]
fn every_single_bit_flip() {
    for (file, read) in [
        (small_gguf().bytes(), read_gguf as fn(_)),
        (small_safetensors(), read_safetensors),
        (small_archive(), read_pytorch),
    ] {
        for bit in 0..file.len() * 8 {
            let mut bytes = file.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            read(bytes);
        }
    }
}
