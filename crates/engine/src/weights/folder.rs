//! The checkpoint in a folder: one file, or shards with an index, of safetensors or else of PyTorch.
//!
//! Owns which files are read and what an index may say; must not know how a file stores its tensors.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

use super::error::{Fault, Part, WeightsError};
use super::map::WeightMap;
use super::pairs::{Pairs, parse, refuse_duplicates};
use super::tensor::Contents;
use super::{pytorch, safetensors};

/// The largest index that is read, as large as the largest header of a safetensors file.
const INDEX_LIMIT: u64 = 100_000_000;

/// The files that a checkpoint may be, first choice first, and what reads them: alone, or behind an index of this name and
/// `.index.json`.
const KINDS: [(&str, FileReader); 2] =
    [("model.safetensors", safetensors::read_file), ("pytorch_model.bin", pytorch::read_file)];

/// Opens the checkpoint in `folder`.
///
/// # Errors
/// There is none, or a file of it is damaged or missing.
pub(super) fn open_folder(folder: &Path) -> Result<Contents, WeightsError> {
    for (name, read_file) in KINDS {
        let single = folder.join(name);
        if single.exists() {
            return read_file(&WeightMap::open(&single)?);
        }
        let index = folder.join(format!("{name}.index.json"));
        if index.exists() {
            return read_shards(folder, &WeightMap::open(&index)?, read_file);
        }
    }
    Err(Fault::NoCheckpoint.of(folder, Part::File))
}

/// Reads the content of one file.
type FileReader = fn(&Arc<WeightMap>) -> Result<Contents, WeightsError>;

/// Opens every shard the index names and takes from each what the index places there.
fn read_shards(folder: &Path, index: &Arc<WeightMap>, read_file: FileReader) -> Result<Contents, WeightsError> {
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
    if map.size() > INDEX_LIMIT {
        return Err(of_file(Fault::HeaderTooLarge { limit: INDEX_LIMIT }));
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
