//! PyTorch's own checkpoints (`pytorch_model.bin`): a zip archive of uncompressed storages and a pickle that says which
//! tensor lies where.
//!
//! Owns what of the archive is a tensor; must not know the meaning of a tensor's name. Storages are used where they lie in
//! the file, and the pickle is read as data: no code in it is run.
//! Format: <https://github.com/pytorch/pytorch/blob/main/torch/serialization.py>.

mod pickle;

use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

use hearth_kernels::Format;
use zip::{CompressionMethod, ZipArchive};

use self::pickle::{Id, Pickle, Value};
use super::error::{Fault, Part, WeightsError};
use super::map::{MappedBytes, WeightMap};
use super::tensor::{Contents, IgnoredTensor, WeightTensor, checked_bytes};

/// The longest description that is read: some hundred bytes a tensor are usual.
const PICKLE_LIMIT: u64 = 8 << 20;

/// Reads and checks the description in one file.
pub(super) fn read_file(map: &Arc<WeightMap>) -> Result<Contents, WeightsError> {
    let of_file = |fault: Fault| fault.of(map.file(), Part::File);
    let archive = Archive::read(map).map_err(of_file)?;
    archive.check_byte_order().map_err(of_file)?;
    let description = archive.description().map_err(of_file)?;
    let pickle = Pickle::read(&description).map_err(|(at, why)| of_file(Fault::InvalidPickle { at, why }))?;
    let Value::Dict(entries) = pickle.root() else { return Err(of_file(Fault::NoStateDictionary)) };

    let mut entries: Vec<(String, Id)> = entries
        .iter()
        .map(|(name, value)| match pickle.get(*name) {
            Value::Text(name) => Ok(((*name).to_owned(), *value)),
            _ => Err(of_file(Fault::NoStateDictionary)),
        })
        .collect::<Result<_, _>>()?;
    super::pairs::refuse_duplicates(map.file(), &mut entries)?;
    let mut contents = Contents::default();
    for (name, value) in entries {
        let of_tensor = |fault: Fault| fault.of(map.file(), Part::Tensor(name.clone()));
        let described = Described::read(&pickle, value).ok_or_else(|| of_tensor(Fault::NoPlainTensor))?;
        match format(described.storage_class) {
            Some(format) => {
                let bytes = archive.bytes_of(&described, format).map_err(of_tensor)?;
                contents.tensors.push(WeightTensor { name, format, shape: described.shape, bytes });
            }
            None => {
                let element = described.storage_class.trim_end_matches("Storage").to_owned();
                contents.ignored.push(IgnoredTensor { name, element, file: map.file().to_path_buf() });
            }
        }
    }
    Ok(contents)
}

fn format(storage_class: &str) -> Option<Format> {
    match storage_class {
        "FloatStorage" => Some(Format::F32),
        "HalfStorage" => Some(Format::F16),
        "BFloat16Storage" => Some(Format::BF16),
        _ => None,
    }
}

/// Where the entries of a zip archive lie.
struct Archive<'a> {
    map: &'a Arc<WeightMap>,
    entries: HashMap<String, Entry>,
    /// In front of the name of every entry, ending in `/` or empty.
    folder: String,
}

#[derive(Clone, Copy)]
struct Entry {
    start: u64,
    length: u64,
    /// Neither compressed nor encrypted.
    plain: bool,
}

impl<'a> Archive<'a> {
    fn read(map: &'a Arc<WeightMap>) -> Result<Self, Fault> {
        let broken = |why: zip::result::ZipError| Fault::InvalidArchive(why.to_string());
        let mut zip = ZipArchive::new(Cursor::new(map.bytes())).map_err(broken)?;
        let mut entries = HashMap::with_capacity(zip.len());
        for index in 0..zip.len() {
            let entry = zip.by_index_raw(index).map_err(broken)?;
            let name = entry.name().map_err(broken)?.into_owned();
            let start = entry.data_start().ok_or_else(|| Fault::InvalidArchive(format!("`{name}` lies nowhere")))?;
            let plain = entry.compression() == CompressionMethod::Stored
                && !entry.encrypted()
                && entry.size() == entry.compressed_size();
            let place = Entry { start, length: entry.size(), plain };
            entries.insert(name, place);
        }
        let mut folders = entries.keys().filter_map(|name| name.strip_suffix("data.pkl"));
        let folder = match (folders.next(), folders.next()) {
            (Some(folder), None) if folder.is_empty() || folder.ends_with('/') => folder.to_owned(),
            _ => return Err(Fault::InvalidArchive("it must have one `data.pkl`".to_owned())),
        };
        Ok(Self { map, entries, folder })
    }

    /// The bytes of an entry, where they lie.
    fn entry(&self, name: &str) -> Result<MappedBytes, Fault> {
        let name = format!("{}{name}", self.folder);
        match self.entries.get(&name) {
            None => Err(Fault::EntryMissing(name)),
            Some(Entry { plain: false, .. }) => Err(Fault::CompressedEntry(name)),
            Some(entry) => self.map.cut(entry.start, entry.length),
        }
    }

    /// Files of older versions do not say their byte order; they were written on little-endian machines all the same.
    fn check_byte_order(&self) -> Result<(), Fault> {
        match self.entry("byteorder") {
            Err(Fault::EntryMissing(_)) => Ok(()),
            Ok(order) if *order == *b"little" => Ok(()),
            Ok(order) => {
                let shown = &order[..order.len().min(16)];
                Err(Fault::OtherByteOrder(String::from_utf8_lossy(shown).into_owned()))
            }
            Err(fault) => Err(fault),
        }
    }

    fn description(&self) -> Result<MappedBytes, Fault> {
        let description = self.entry("data.pkl")?;
        match description.len() as u64 > PICKLE_LIMIT {
            true => Err(Fault::HeaderTooLarge { limit: PICKLE_LIMIT }),
            false => Ok(description),
        }
    }

    fn bytes_of(&self, tensor: &Described<'_>, format: Format) -> Result<MappedBytes, Fault> {
        let Described { shape, strides, .. } = tensor;
        let element = format.block_bytes() as u64;
        let needed = checked_bytes(shape, 8 * format.block_bytes())?;
        // As for GGUF: a buffer of the values as f32 is to fit as well.
        checked_bytes(shape, 32)?;
        if !is_row_major(shape, strides) {
            return Err(Fault::NotRowMajor { shape: shape.clone(), strides: strides.clone() });
        }
        let storage = self.entry(&format!("data/{}", tensor.storage))?;
        let begin = tensor.offset.checked_mul(element);
        let part = begin.and_then(|begin| {
            let end = begin.checked_add(needed)?;
            storage.part(usize::try_from(begin).ok()?..usize::try_from(end).ok()?)
        });
        part.ok_or(Fault::Truncated {
            needed,
            offset: tensor.offset.saturating_mul(element),
            size: storage.len() as u64,
        })
    }
}

/// Whether values with these steps between them lie as a row-major tensor's do.
fn is_row_major(shape: &[usize], strides: &[u64]) -> bool {
    let mut step = 1_u64;
    let lie = shape.iter().zip(strides).rev().all(|(dimension, stride)| {
        let lies = *dimension <= 1 || *stride == step;
        step = step.saturating_mul(*dimension as u64);
        lies
    });
    shape.len() == strides.len() && (lie || shape.contains(&0))
}

/// A tensor as the pickle describes it.
struct Described<'a> {
    storage_class: &'a str,
    storage: &'a str,
    /// Elements of the storage before the first one.
    offset: u64,
    shape: Vec<usize>,
    /// Elements of the storage from one index of a dimension to the next.
    strides: Vec<u64>,
}

impl<'a> Described<'a> {
    /// `None` where `value` is no plain tensor.
    fn read(pickle: &Pickle<'a>, value: Id) -> Option<Self> {
        let (function, arguments) = call(pickle, value)?;
        let (function, arguments) = match function {
            "_rebuild_parameter" => call(pickle, *arguments.first()?)?,
            _ => (function, arguments),
        };
        let ("_rebuild_tensor_v2", [storage, offset, shape, strides, ..]) = (function, arguments) else { return None };
        let Value::Persistent(storage) = pickle.get(*storage) else { return None };
        let [kind, class, key, ..] = tuple(pickle, *storage)? else { return None };
        let (Value::Text("storage"), Value::Text(key)) = (pickle.get(*kind), pickle.get(*key)) else { return None };
        let Value::Global { module: "torch", name: storage_class } = pickle.get(*class) else { return None };
        let numbers = |id: Id| tuple(pickle, id)?.iter().map(|id| number(pickle, *id)).collect::<Option<Vec<u64>>>();
        let shape = numbers(*shape)?.into_iter().map(|dimension| usize::try_from(dimension).ok());
        Some(Self {
            storage_class,
            storage: key,
            offset: number(pickle, *offset)?,
            shape: shape.collect::<Option<_>>()?,
            strides: numbers(*strides)?,
        })
    }
}

/// The function of `torch._utils` that would be called, and its arguments.
fn call<'p, 'a>(pickle: &'p Pickle<'a>, value: Id) -> Option<(&'a str, &'p [Id])> {
    let Value::Call { callable, arguments } = pickle.get(value) else { return None };
    let Value::Global { module: "torch._utils", name } = pickle.get(*callable) else { return None };
    Some((name, tuple(pickle, *arguments)?))
}

fn tuple<'p>(pickle: &'p Pickle<'_>, value: Id) -> Option<&'p [Id]> {
    match pickle.get(value) {
        Value::Tuple(items) => Some(items),
        _ => None,
    }
}

fn number(pickle: &Pickle<'_>, value: Id) -> Option<u64> {
    match pickle.get(value) {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}
