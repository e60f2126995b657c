//! Safetensors: one file, or a folder of shards with an index.
//!
//! Owns the layout of both; must not know the meaning of a tensor's name. The header's entries are those of the
//! `safetensors` crate; the checks are here, because that crate's reader keeps the last of two tensors of one name and
//! says neither which tensor is at fault nor by how much.
//! Format: <https://huggingface.co/docs/safetensors/index#format>.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::path::{Component, Path};
use std::sync::Arc;

use hearth_kernels::Format;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::error::{Fault, Part, WeightsError};
use super::map::{MappedBytes, WeightMap};
use super::tensor::{Contents, IgnoredTensor, WeightTensor, checked_bytes};

/// The largest header or index that is read: the limit of the format's own reader.
const HEADER_LIMIT: u64 = 100_000_000;

/// The length of the header, a u64.
const PREFIX: u64 = 8;

/// Opens the checkpoint in `folder`: `model.safetensors`, or the shards named by `model.safetensors.index.json`.
pub(super) fn open_folder(folder: &Path) -> Result<Contents, WeightsError> {
    let single = folder.join("model.safetensors");
    if single.exists() {
        return read_file(&WeightMap::open(&single)?);
    }
    let index = folder.join("model.safetensors.index.json");
    if index.exists() {
        return read_shards(folder, &WeightMap::open(&index)?);
    }
    Err(Fault::NoCheckpoint.of(folder, Part::File))
}

/// Reads and checks the header of one file.
pub(super) fn read_file(map: &Arc<WeightMap>) -> Result<Contents, WeightsError> {
    let of_file = |fault: Fault| fault.of(map.file(), Part::File);
    let header = read_header(map).map_err(of_file)?;
    let data_start = PREFIX + header.len() as u64;
    let Pairs(mut entries) = parse::<Pairs<TensorInfo>>(&header).map_err(|why| of_file(Fault::InvalidHeader(why)))?;
    refuse_duplicates(map.file(), &mut entries)?;
    entries.sort_by_key(|(_, info)| info.data_offsets);

    let mut contents = Contents::default();
    let mut end = 0;
    for (name, info) in entries {
        let bytes = place(map, data_start, end, &info);
        let bytes = bytes.map_err(|fault| fault.of(map.file(), Part::Tensor(name.clone())))?;
        end = info.data_offsets.1 as u64;
        let TensorInfo { dtype, shape, .. } = info;
        match format(dtype) {
            Some(format) => contents.tensors.push(WeightTensor { name, format, shape, bytes }),
            None => {
                let file = map.file().to_path_buf();
                contents.ignored.push(IgnoredTensor { name, element: dtype.to_string(), file });
            }
        }
    }
    let size = map.size() - data_start;
    if end != size {
        return Err(of_file(Fault::TrailingBytes { end, size }));
    }
    Ok(contents)
}

fn read_header(map: &Arc<WeightMap>) -> Result<MappedBytes, Fault> {
    let mut length = [0; PREFIX as usize];
    length.copy_from_slice(&map.cut(0, PREFIX)?);
    let header = map.cut(PREFIX, u64::from_le_bytes(length))?;
    if header.len() as u64 > HEADER_LIMIT {
        return Err(Fault::HeaderTooLarge { limit: HEADER_LIMIT });
    }
    Ok(header)
}

/// The bytes of a tensor, which must begin where the one before it ended: the format allows no holes.
fn place(map: &Arc<WeightMap>, data_start: u64, expected: u64, info: &TensorInfo) -> Result<MappedBytes, Fault> {
    let (begin, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
    let found = end.checked_sub(begin).ok_or(Fault::EndsBeforeBegin { begin, end })?;
    let needed = checked_bytes(&info.shape, info.dtype.bitsize())?;
    if format(info.dtype).is_some() {
        // As for GGUF: a buffer of the values as f32 is to fit as well.
        checked_bytes(&info.shape, 32)?;
    }
    if found != needed {
        let element = info.dtype.to_string();
        return Err(Fault::WrongLength { found, shape: info.shape.clone(), element, needed });
    }
    if begin != expected {
        return Err(Fault::NotAdjacent { offset: begin, expected });
    }
    let truncated = Fault::Truncated { needed, offset: begin, size: map.size() };
    map.cut(data_start.checked_add(begin).ok_or(truncated)?, needed)
}

fn format(dtype: Dtype) -> Option<Format> {
    match dtype {
        Dtype::F32 => Some(Format::F32),
        Dtype::F16 => Some(Format::F16),
        Dtype::BF16 => Some(Format::BF16),
        _ => None,
    }
}

/// Opens every shard the index names and takes from each what the index places there.
fn read_shards(folder: &Path, index: &Arc<WeightMap>) -> Result<Contents, WeightsError> {
    let mut contents = Contents::default();
    for (shard, names) in read_index(index)? {
        let of_tensor = |fault: Fault, name: &str| fault.of(index.file(), Part::Tensor(name.to_owned()));
        let first = names.first().map_or("", String::as_str);
        let map = WeightMap::open(&folder.join(&shard)).map_err(|error| match *error.fault {
            Fault::Unreadable(ref why) if why.kind() == io::ErrorKind::NotFound => {
                of_tensor(Fault::ShardMissing(shard.clone()), first)
            }
            _ => error,
        })?;
        let Contents { tensors, ignored } = read_file(&map)?;
        let mut tensors: HashMap<String, _> = tensors.into_iter().map(|found| (found.name.clone(), found)).collect();
        let mut ignored: HashMap<String, _> = ignored.into_iter().map(|found| (found.name.clone(), found)).collect();
        for name in names {
            if let Some(tensor) = tensors.remove(&name) {
                contents.tensors.push(tensor);
            } else if let Some(tensor) = ignored.remove(&name) {
                contents.ignored.push(tensor);
            } else {
                return Err(of_tensor(Fault::NotInShard(shard), &name));
            }
        }
        if !tensors.is_empty() {
            tracing::warn!(shard = %map.file().display(), left_out = tensors.len(), "the index does not name these tensors");
        }
    }
    Ok(contents)
}

/// The names of the tensors of every shard.
fn read_index(map: &Arc<WeightMap>) -> Result<BTreeMap<String, Vec<String>>, WeightsError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: Pairs<String>,
    }
    let of_file = |fault: Fault| fault.of(map.file(), Part::File);
    if map.size() > HEADER_LIMIT {
        return Err(of_file(Fault::HeaderTooLarge { limit: HEADER_LIMIT }));
    }
    let index = parse::<Index>(map.bytes()).map_err(|why| of_file(Fault::InvalidIndex(why)))?;
    let Pairs(mut pairs) = index.weight_map;
    refuse_duplicates(map.file(), &mut pairs)?;
    let mut shards = BTreeMap::<String, Vec<String>>::new();
    for (name, shard) in pairs {
        if !is_plain_file_name(&shard) {
            return Err(Fault::ShardOutsideFolder(shard).of(map.file(), Part::Tensor(name)));
        }
        shards.entry(shard).or_default().push(name);
    }
    Ok(shards)
}

/// Whether `name` is the name of a file in the same folder, on every platform, and nothing else.
fn is_plain_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let is_one =
        matches!((components.next(), components.next()), (Some(Component::Normal(part)), None) if part == name);
    is_one && !name.contains(['/', '\\', ':', '\0'])
}

/// Sorts by name.
fn refuse_duplicates<V>(file: &Path, pairs: &mut [(String, V)]) -> Result<(), WeightsError> {
    pairs.sort_by(|(left, _), (right, _)| left.cmp(right));
    let twice = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0);
    twice.map_or(Ok(()), |pair| Err(Fault::Duplicate.of(file, Part::Tensor(pair[0].0.clone()))))
}

fn parse<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<T, String> {
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

/// A JSON object as the list of its entries, without `__metadata__`: an entry given twice is kept twice.
struct Pairs<V>(Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Pairs<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor(PhantomData))
    }
}

struct PairsVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for PairsVisitor<V> {
    type Value = Pairs<V>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with an entry a tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value().map_err(|why| A::Error::custom(format_args!("tensor `{name}`: {why}")))?;
            pairs.push((name, value));
        }
        Ok(Pairs(pairs))
    }
}
