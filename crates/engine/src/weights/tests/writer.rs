//! Writes small GGUF and safetensors files, right ones and wrong ones.

use std::sync::Arc;

use super::super::WeightMap;

pub const F32: u32 = 0;
pub const Q4_1: u32 = 3;

pub struct Entry {
    pub name: String,
    /// Innermost first, as in the file.
    pub dimensions: Vec<u64>,
    pub code: u32,
    pub offset: u64,
}

/// A GGUF file; every field may be made wrong before `bytes` is called.
pub struct GgufWriter {
    pub magic: [u8; 4],
    pub version: u32,
    pub alignment: u64,
    pub extra_tensors: u64,
    pub extra_keys: u64,
    pub entries: Vec<Entry>,
    pub keys: u64,
    pub metadata: Vec<u8>,
    pub data: Vec<u8>,
}

impl GgufWriter {
    pub fn new(architecture: &str) -> Self {
        let writer = Self {
            magic: *b"GGUF",
            version: 3,
            alignment: 32,
            extra_tensors: 0,
            extra_keys: 0,
            entries: Vec::new(),
            keys: 0,
            metadata: Vec::new(),
            data: Vec::new(),
        };
        writer.string("general.architecture", architecture)
    }

    /// A key with a value of the type with this code.
    pub fn key(mut self, key: &str, code: u32, value: &[u8]) -> Self {
        self.metadata.extend(text(key.as_bytes()));
        self.metadata.extend(code.to_le_bytes());
        self.metadata.extend(value);
        self.keys += 1;
        self
    }

    pub fn string(self, key: &str, value: &str) -> Self {
        self.key(key, 8, &text(value.as_bytes()))
    }

    pub fn u32(self, key: &str, value: u32) -> Self {
        self.key(key, 4, &value.to_le_bytes())
    }

    pub fn array(self, key: &str, element: u32, count: u64, values: &[u8]) -> Self {
        self.key(key, 9, &[element.to_le_bytes().as_slice(), &count.to_le_bytes(), values].concat())
    }

    pub fn tensor(mut self, name: &str, dimensions: &[u64], code: u32, bytes: &[u8]) -> Self {
        let offset = self.data.len().next_multiple_of(self.alignment as usize);
        self.data.resize(offset, 0);
        self.data.extend(bytes);
        let (name, dimensions) = (name.to_owned(), dimensions.to_vec());
        self.entries.push(Entry { name, dimensions, code, offset: offset as u64 });
        self
    }

    pub fn floats(self, name: &str, dimensions: &[u64], values: &[f32]) -> Self {
        self.tensor(name, dimensions, F32, &floats(values))
    }

    pub fn header(&self) -> Vec<u8> {
        let mut bytes = self.magic.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend((self.entries.len() as u64 + self.extra_tensors).to_le_bytes());
        bytes.extend((self.keys + self.extra_keys).to_le_bytes());
        bytes.extend(&self.metadata);
        for entry in &self.entries {
            bytes.extend(text(entry.name.as_bytes()));
            bytes.extend((entry.dimensions.len() as u32).to_le_bytes());
            entry.dimensions.iter().for_each(|dimension| bytes.extend(dimension.to_le_bytes()));
            bytes.extend(entry.code.to_le_bytes());
            bytes.extend(entry.offset.to_le_bytes());
        }
        bytes
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header();
        bytes.resize(bytes.len().next_multiple_of(self.alignment as usize), 0);
        bytes.extend(&self.data);
        bytes
    }

    pub fn map(&self) -> Arc<WeightMap> {
        WeightMap::from_bytes("small.gguf", self.bytes())
    }
}

/// A string as GGUF stores it.
pub fn text(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

pub fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A small file with a value of every kind.
pub fn small_gguf() -> GgufWriter {
    let tokens = [text(b"a"), text("ü".as_bytes()), text(&[b'x', 0xc3])].concat();
    let inner = [&4_u32.to_le_bytes()[..], &1_u64.to_le_bytes(), &7_u32.to_le_bytes()].concat();
    GgufWriter::new("llama")
        .u32("llama.block_count", 1)
        .key("llama.rope.freq_base", 6, &1e5_f32.to_le_bytes())
        .key("a.double", 12, &0.5_f64.to_le_bytes())
        .key("tokenizer.ggml.add_bos_token", 7, &[1])
        .key("a.byte", 1, &[0x80])
        .key("a.long", 10, &u64::MAX.to_le_bytes())
        .array("tokenizer.ggml.tokens", 8, 3, &tokens)
        .array("tokenizer.ggml.token_type", 5, 2, &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff])
        .array("tokenizer.ggml.scores", 6, 2, &floats(&[0.25, -1.0]))
        .array("nested", 9, 1, &inner)
        .floats("output_norm.weight", &[3], &[1.0, 2.0, 3.0])
        .floats("token_embd.weight", &[3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
        .tensor("blk.0.ffn_up.weight", &[32, 3], Q4_1, &[0; 60])
        .tensor("positions", &[2], 27, &[0; 16])
}

/// A safetensors file of this header and data.
pub fn safetensors_of(header: &str, data: &[u8]) -> Vec<u8> {
    [text(header.as_bytes()).as_slice(), data].concat()
}

/// An entry of a safetensors header.
pub fn entry(name: &str, dtype: &str, shape: &[u64], (begin, end): (u64, u64)) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#)
}

/// A small file with two tensors of weights and one of positions.
pub fn small_safetensors() -> Vec<u8> {
    let entries = [
        r#""__metadata__":{"format":"pt"}"#.to_owned(),
        entry("encoder.weight", "F32", &[2, 3], (16, 40)),
        entry("embeddings.position_ids", "I64", &[1, 2], (0, 16)),
        entry("norm.weight", "F32", &[2], (40, 48)),
    ];
    let data = [vec![0; 16], floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.5, -0.5])].concat();
    safetensors_of(&format!("{{{}}}", entries.join(",")), &data)
}
