//! GGUF files, versions 2 and 3, little-endian.
//!
//! Owns the layout of the file: header, metadata, the list of tensors, the data. It must not know the meaning of a key
//! or a tensor's name. Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod cursor;
mod metadata;
mod types;
mod writer;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use self::cursor::Cursor;
use self::types::TensorType;
use super::error::{Fault, Part, WeightsError};
use super::map::{MappedBytes, WeightMap};
use super::tensor::{Contents, IgnoredTensor, WeightTensor, checked_bytes, stored_bytes};

pub use self::metadata::GgufMetadata;
pub use self::writer::{GgufValue, GgufWriter};

/// As many as ggml's tensors have.
const DIMENSION_LIMIT: u32 = 4;

/// Where `general.alignment` is not given.
const DEFAULT_ALIGNMENT: u32 = 32;

/// The smallest entry of the list of tensors: an empty name, a count of dimensions, a type, an offset.
const SMALLEST_ENTRY: u64 = 8 + 4 + 4 + 8;

/// An opened GGUF file: its header is read and checked, its tensors lie in the map.
#[derive(Debug)]
pub struct Gguf {
    map: Arc<WeightMap>,
    version: u32,
    metadata: GgufMetadata,
    contents: Contents,
}

impl Gguf {
    /// Maps the file and checks its whole header: every tensor lies within the file, on its alignment, apart from the
    /// others, in a format the kernels know.
    ///
    /// # Errors
    /// Anything in [`Fault`] that is said of GGUF files, with the tensor or key it was found at.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        Self::read(WeightMap::open(path)?)
    }

    /// As [`Gguf::open`], of a file already mapped.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn read(map: Arc<WeightMap>) -> Result<Self, WeightsError> {
        let of_file = |fault: Fault| fault.of(map.file(), Part::File);
        let mut cursor = Cursor::new(&map);
        let version = read_version(&mut cursor).map_err(of_file)?;
        let tensors = cursor.count("tensors", SMALLEST_ENTRY).map_err(of_file)?;
        let entries = cursor.count("metadata entries", metadata::SMALLEST_ENTRY).map_err(of_file)?;
        let metadata = GgufMetadata::read(map.file(), &mut cursor, entries)?;
        let alignment = alignment(&metadata)?;
        let list = read_list(&map, &mut cursor, tensors)?;
        // At most the header's limit rounded up: no overflow.
        let data = Data { start: cursor.position().next_multiple_of(alignment), alignment, map: &map };
        let contents = data.place(list)?;
        Ok(Self { version, metadata, contents, map })
    }

    /// The path this was opened by.
    pub fn file(&self) -> &Path {
        self.map.file()
    }

    /// The version of the format, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The key-value pairs.
    pub fn metadata(&self) -> &GgufMetadata {
        &self.metadata
    }

    /// The tensors by the names in the file, in the order of the file; shapes outermost first, the reverse of the file.
    pub fn tensors(&self) -> &[WeightTensor] {
        &self.contents.tensors
    }

    /// The tensors of integers and f64.
    pub fn ignored(&self) -> &[IgnoredTensor] {
        &self.contents.ignored
    }
}

/// Reads the magic bytes and the version.
fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, Fault> {
    match &cursor.array()? {
        b"GGUF" => {}
        b"FUGG" => return Err(Fault::BigEndian),
        &found => return Err(Fault::WrongMagic { found }),
    }
    match cursor.u32()? {
        version @ (2 | 3) => Ok(version),
        // Writers of big-endian files keep the order of the magic bytes and swap the version.
        swapped if (1..=3).contains(&swapped.swap_bytes()) => Err(Fault::BigEndian),
        found => Err(Fault::UnsupportedVersion { found }),
    }
}

fn alignment(metadata: &GgufMetadata) -> Result<u64, WeightsError> {
    const KEY: &str = "general.alignment";
    let found = metadata.optional(KEY, GgufMetadata::u32)?.unwrap_or(DEFAULT_ALIGNMENT);
    if !found.is_power_of_two() {
        return Err(metadata.fault(KEY, Fault::InvalidAlignment { found }));
    }
    Ok(u64::from(found))
}

/// One entry of the list of tensors.
struct Entry {
    name: String,
    kind: TensorType,
    /// Outermost dimension first.
    shape: Vec<usize>,
    /// From the begin of the data.
    offset: u64,
    bytes: u64,
}

fn read_list(map: &WeightMap, cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<Entry>, WeightsError> {
    let mut names = HashSet::new();
    let mut list = Vec::new();
    for index in 0..count {
        let name = cursor.string().map_err(|fault| fault.of(map.file(), Part::TensorAt(index)))?;
        let of_tensor = |fault: Fault| fault.of(map.file(), Part::Tensor(name.clone()));
        if !names.insert(name.clone()) {
            return Err(of_tensor(Fault::Duplicate));
        }
        let entry = read_entry(cursor).map_err(of_tensor)?;
        list.push(Entry { name, ..entry });
    }
    Ok(list)
}

/// Reads an entry after its name.
fn read_entry(cursor: &mut Cursor<'_>) -> Result<Entry, Fault> {
    let dimensions = cursor.u32()?;
    if dimensions > DIMENSION_LIMIT {
        return Err(Fault::TooManyDimensions { found: dimensions, limit: DIMENSION_LIMIT });
    }
    let mut stored = (0..dimensions).map(|_| cursor.u64()).collect::<Result<Vec<u64>, _>>()?;
    // The file lists the innermost dimension first.
    stored.reverse();
    let kind = TensorType::from_code(cursor.u32()?)?;
    let offset = cursor.u64()?;
    let shape = stored.iter().map(|&dimension| usize::try_from(dimension)).collect::<Result<Vec<usize>, _>>();
    let shape = shape.map_err(|_| Fault::ShapeOverflow { shape: stored })?;
    let bytes = match kind {
        TensorType::Format(format) => stored_bytes(format, &shape),
        TensorType::Plain { bits, .. } => checked_bytes(&shape, bits),
    }?;
    Ok(Entry { name: String::new(), kind, shape, offset, bytes })
}

/// The part of the file after the header.
struct Data<'map> {
    map: &'map Arc<WeightMap>,
    start: u64,
    alignment: u64,
}

impl Data<'_> {
    /// Finds the bytes of every tensor.
    fn place(&self, list: Vec<Entry>) -> Result<Contents, WeightsError> {
        self.check_apart(&list)?;
        let mut contents = Contents::default();
        for Entry { name, kind, shape, offset, bytes } in list {
            let bytes =
                self.cut(offset, bytes).map_err(|fault| fault.of(self.map.file(), Part::Tensor(name.clone())))?;
            match kind {
                TensorType::Format(format) => contents.tensors.push(WeightTensor { name, format, shape, bytes }),
                TensorType::Plain { name: element, .. } => {
                    let file = self.map.file().to_path_buf();
                    contents.ignored.push(IgnoredTensor { name, element: element.to_owned(), file });
                }
            }
        }
        Ok(contents)
    }

    fn cut(&self, offset: u64, length: u64) -> Result<MappedBytes, Fault> {
        if !offset.is_multiple_of(self.alignment) {
            return Err(Fault::Misaligned { offset, alignment: self.alignment });
        }
        if length == 0 {
            return self.map.cut(0, 0);
        }
        let truncated = Fault::Truncated { needed: length, offset, size: self.map.size() };
        self.map.cut(self.start.checked_add(offset).ok_or(truncated)?, length)
    }

    /// Refuses two tensors that share bytes.
    fn check_apart(&self, list: &[Entry]) -> Result<(), WeightsError> {
        let mut sorted: Vec<&Entry> = list.iter().filter(|entry| entry.bytes > 0).collect();
        sorted.sort_by_key(|entry| entry.offset);
        for pair in sorted.windows(2) {
            let [before, entry] = pair else { continue };
            let other_end = before.offset.saturating_add(before.bytes);
            if entry.offset < other_end {
                let fault = Fault::Overlap { offset: entry.offset, other: before.name.clone(), other_end };
                return Err(fault.of(self.map.file(), Part::Tensor(entry.name.clone())));
            }
        }
        Ok(())
    }
}
