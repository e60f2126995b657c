//! Writing a GGUF file, version 3: the header from a list of tensors that is known beforehand, then their data one by one.
//!
//! Owns the layout; must not know the meaning of a key. Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::io::{self, Write};

use hearth_kernels::Format;

use super::DEFAULT_ALIGNMENT;
use super::types::code_of;

/// A value of the metadata, of the types a model's file needs.
#[derive(Debug, Clone, PartialEq)]
pub enum GgufValue {
    /// An unsigned integer.
    U32(u32),
    /// A float.
    F32(f32),
    /// A switch.
    Bool(bool),
    /// A text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
    /// A list of integers.
    I32s(Vec<i32>),
    /// A list of floats.
    F32s(Vec<f32>),
}

impl GgufValue {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        const I32: u32 = 5;
        const F32: u32 = 6;
        const TEXT: u32 = 8;
        const ARRAY: u32 = 9;
        match self {
            Self::U32(value) => out.write_all(&[4u32.to_le_bytes(), value.to_le_bytes()].concat()),
            Self::F32(value) => out.write_all(&[6u32.to_le_bytes(), value.to_le_bytes()].concat()),
            Self::Bool(value) => out.write_all(&[7, 0, 0, 0, u8::from(*value)]),
            Self::Text(text) => {
                out.write_all(&TEXT.to_le_bytes())?;
                write_text(out, text)
            }
            Self::Texts(texts) => {
                write_array_head(out, ARRAY, TEXT, texts.len())?;
                texts.iter().try_for_each(|text| write_text(out, text))
            }
            Self::I32s(values) => {
                write_array_head(out, ARRAY, I32, values.len())?;
                values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))
            }
            Self::F32s(values) => {
                write_array_head(out, ARRAY, F32, values.len())?;
                values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))
            }
        }
    }
}

fn write_array_head(out: &mut impl Write, array: u32, element: u32, count: usize) -> io::Result<()> {
    out.write_all(&[array.to_le_bytes(), element.to_le_bytes()].concat())?;
    out.write_all(&(count as u64).to_le_bytes())
}

fn write_text(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(text.as_bytes())
}

/// A tensor of the list.
#[derive(Debug)]
struct Entry {
    name: String,
    format: Format,
    /// Outermost dimension first.
    shape: Vec<usize>,
    bytes: u64,
}

/// A file to be written: metadata and the list of its tensors.
#[derive(Debug, Default)]
pub struct GgufWriter {
    metadata: Vec<(String, GgufValue)>,
    tensors: Vec<Entry>,
}

impl GgufWriter {
    /// Adds a key.
    pub fn key(&mut self, key: impl Into<String>, value: GgufValue) {
        self.metadata.push((key.into(), value));
    }

    /// Adds a tensor of `shape` (outermost dimension first) that takes `bytes` bytes.
    pub fn tensor(&mut self, name: impl Into<String>, format: Format, shape: &[usize], bytes: u64) {
        self.tensors.push(Entry { name: name.into(), format, shape: shape.to_vec(), bytes });
    }

    /// Writes everything: the header, then for each tensor in the order of the list what `data` writes, which is called with
    /// its place in the list.
    ///
    /// # Errors
    /// Those of `data` and of `out`, and [`io::ErrorKind::InvalidData`] when `data` writes another number of bytes than was
    /// said.
    pub fn write<W: Write, E: From<io::Error>>(
        &self,
        out: W,
        mut data: impl FnMut(usize, &mut dyn Write) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut out = Counting { out, written: 0 };
        self.write_header(&mut out)?;
        for (index, entry) in self.tensors.iter().enumerate() {
            out.pad()?;
            let start = out.written;
            data(index, &mut out)?;
            let found = out.written - start;
            if found != entry.bytes {
                let reason = format!("tensor {} takes {} bytes, {found} were written", entry.name, entry.bytes);
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason).into());
            }
        }
        // Readers want the last tensor's place whole, too.
        out.pad()?;
        Ok(out.flush()?)
    }

    fn write_header(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(b"GGUF\x03\0\0\0")?;
        out.write_all(&(self.tensors.len() as u64).to_le_bytes())?;
        out.write_all(&(self.metadata.len() as u64).to_le_bytes())?;
        for (key, value) in &self.metadata {
            write_text(out, key)?;
            value.write(out)?;
        }
        let mut offset = 0u64;
        for entry in &self.tensors {
            write_text(out, &entry.name)?;
            out.write_all(&(entry.shape.len() as u32).to_le_bytes())?;
            for &dimension in entry.shape.iter().rev() {
                out.write_all(&(dimension as u64).to_le_bytes())?;
            }
            out.write_all(&code_of(entry.format).to_le_bytes())?;
            out.write_all(&offset.to_le_bytes())?;
            offset += entry.bytes.next_multiple_of(u64::from(DEFAULT_ALIGNMENT));
        }
        Ok(())
    }
}

/// Counts what is written, to align it.
struct Counting<W> {
    out: W,
    written: u64,
}

impl<W: Write> Counting<W> {
    fn pad(&mut self) -> io::Result<()> {
        let missing = self.written.next_multiple_of(u64::from(DEFAULT_ALIGNMENT)) - self.written;
        self.write_all(&[0; DEFAULT_ALIGNMENT as usize][..missing as usize])
    }
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{Gguf, WeightMap};

    fn write(tensors: &[(&str, Format, &[usize], Vec<u8>)]) -> io::Result<Vec<u8>> {
        let mut writer = GgufWriter::default();
        writer.key("a.u32", GgufValue::U32(7));
        writer.key("a.f32", GgufValue::F32(1.5));
        writer.key("a.bool", GgufValue::Bool(true));
        writer.key("a.text", GgufValue::Text("é".to_owned()));
        writer.key("a.texts", GgufValue::Texts(vec!["x".to_owned(), String::new()]));
        writer.key("a.i32s", GgufValue::I32s(vec![1, -2, 3]));
        for (name, format, shape, _) in tensors {
            let values = shape.iter().product::<usize>();
            writer.tensor(*name, *format, shape, format.row_bytes(values).unwrap() as u64);
        }
        let mut out = Vec::new();
        writer.write(&mut out, |index, out| out.write_all(&tensors[index].3))?;
        Ok(out)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let tensors: [(&str, Format, &[usize], Vec<u8>); 3] = [
            ("one.weight", Format::F32, &[3], (0..12).collect()),
            ("two.weight", Format::Q8_0, &[2, 3, 32], (0..204).collect()),
            ("three.weight", Format::F16, &[5, 1], (7..17).collect()),
        ];
        let file = write(&tensors).unwrap();
        let gguf = Gguf::read(WeightMap::from_bytes("written.gguf", file)).unwrap();
        let metadata = gguf.metadata();
        assert_eq!(gguf.version(), 3);
        assert_eq!(metadata.u32("a.u32").unwrap(), 7);
        assert_eq!(metadata.f32("a.f32").unwrap(), 1.5);
        assert!(metadata.bool("a.bool").unwrap());
        assert_eq!(metadata.string("a.text").unwrap(), "é");
        assert_eq!(metadata.strings("a.texts").unwrap(), ["x", ""]);
        assert_eq!(metadata.i32s("a.i32s").unwrap(), [1, -2, 3]);
        for (found, (name, format, shape, bytes)) in gguf.tensors().iter().zip(&tensors) {
            assert_eq!((&*found.name, found.format, &*found.shape), (*name, *format, *shape));
            assert_eq!(&*found.bytes, &**bytes);
        }
    }

    #[test]
    fn a_tensor_of_another_length_is_named() {
        let error = write(&[("short", Format::F32, &[3], vec![0; 11])]).unwrap_err();
        assert_eq!(error.to_string(), "tensor short takes 12 bytes, 11 were written");
    }
}
