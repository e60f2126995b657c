//! One opened checkpoint, whatever its format: tensors by the names of the Hugging Face checkpoint.
//!
//! Owns the lookup and the check of shapes; must not know which tensors a model needs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{Fault, Part, WeightsError};
use super::gguf::Gguf;
use super::gguf_names::{NameTable, known_architectures};
use super::tensor::{Contents, IgnoredTensor, WeightTensor};

/// The tensors of a checkpoint, or of a part of it. Cloning copies no weights.
#[derive(Debug, Clone)]
pub struct Weights {
    store: Arc<Store>,
    /// Put before every name that is asked for.
    prefix: String,
}

#[derive(Debug)]
struct Store {
    path: PathBuf,
    /// How the file's names differ from those of Hugging Face, if they do.
    table: Option<&'static NameTable>,
    /// By the names in the file.
    tensors: BTreeMap<String, WeightTensor>,
    ignored: Vec<IgnoredTensor>,
}

impl Weights {
    /// The tensors of a GGUF file under their Hugging Face names, by the table of its `general.architecture`. A tensor
    /// without such a name (`rope_freqs.weight`) keeps its own.
    ///
    /// # Errors
    /// The architecture is not named, or there is no table for it.
    pub fn open_gguf(gguf: &Gguf) -> Result<Self, WeightsError> {
        let found = gguf.metadata().string("general.architecture")?;
        let unsupported = || Fault::UnsupportedArchitecture { found: found.to_owned(), known: known_architectures() };
        let table = NameTable::of(found).ok_or_else(|| unsupported().of(gguf.file(), Part::File))?;
        let contents = Contents { tensors: gguf.tensors().to_vec(), ignored: gguf.ignored().to_vec() };
        Ok(Self::new(gguf.file(), Some(table), contents))
    }

    /// The checkpoint in `folder`: `model.safetensors` or else `pytorch_model.bin`, in one file or in the shards that an
    /// index of that name and `.index.json` lists.
    ///
    /// # Errors
    /// There is none, or a file of the checkpoint is damaged or missing.
    pub fn open_folder(folder: &Path) -> Result<Self, WeightsError> {
        Ok(Self::new(folder, None, super::folder::open_folder(folder)?))
    }

    fn new(path: &Path, table: Option<&'static NameTable>, contents: Contents) -> Self {
        let tensors = contents.tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        let store = Store { path: path.to_path_buf(), table, tensors, ignored: contents.ignored };
        Self { store: Arc::new(store), prefix: String::new() }
    }

    /// The tensors whose names begin with `prefix`, by the rest of their names.
    #[must_use]
    pub fn with_prefix(&self, prefix: &str) -> Self {
        Self { store: Arc::clone(&self.store), prefix: format!("{}{prefix}", self.prefix) }
    }

    /// [`Weights::with_prefix`] where any tensor has the prefix, otherwise the same tensors: for checkpoints that were
    /// saved from inside a larger model (`bert.encoder...`) and those that were not.
    #[must_use]
    pub fn strip_prefix(&self, prefix: &str) -> Self {
        let inner = self.with_prefix(prefix);
        if inner.names().next().is_some() { inner } else { self.clone() }
    }

    /// The tensor of this name, under its full name.
    pub fn get(&self, name: &str) -> Option<WeightTensor> {
        let name = self.full(name);
        let tensors = &self.store.tensors;
        let stored = tensors.get(&self.store.stored_name(&name)).or_else(|| tensors.get(&name))?;
        Some(WeightTensor { name, ..stored.clone() })
    }

    /// The tensor of this name, which must have this shape (outermost dimension first).
    ///
    /// # Errors
    /// It is missing, of another shape, or of an element type that is not supported.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<WeightTensor, WeightsError> {
        let tensor = self.get(name).ok_or_else(|| self.absent(name))?;
        tensor.expect_shape(shape)?;
        Ok(tensor)
    }

    /// A tensor of one dimension as f32: norms and biases.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>, WeightsError> {
        Ok(self.tensor(name, &[length])?.to_f32())
    }

    /// The names that can be asked for.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.tensors().map(|(name, _)| name)
    }

    /// The stored size of these tensors in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.tensors().map(|(_, tensor)| tensor.bytes.len() as u64).sum()
    }

    /// The tensors of the whole checkpoint that hold no weights, by their names in the file.
    pub fn ignored(&self) -> &[IgnoredTensor] {
        &self.store.ignored
    }

    /// The file or folder this was opened from.
    pub fn path(&self) -> &Path {
        &self.store.path
    }

    fn tensors(&self) -> impl Iterator<Item = (String, &WeightTensor)> {
        self.store.tensors.iter().filter_map(|(stored, tensor)| {
            let full = self.store.table.and_then(|table| table.to_hugging_face(stored));
            let name = full.as_deref().unwrap_or(stored).strip_prefix(&self.prefix)?.to_owned();
            Some((name, tensor))
        })
    }

    /// All tensors, under the names they can be asked for.
    pub(super) fn all(&self) -> impl Iterator<Item = WeightTensor> {
        self.tensors().map(|(name, tensor)| WeightTensor { name, ..tensor.clone() })
    }

    /// These tensors instead, under their Hugging Face names, as from the same file.
    pub(super) fn replaced(&self, tensors: Vec<WeightTensor>) -> Self {
        let contents = Contents { tensors, ignored: self.store.ignored.clone() };
        Self::new(&self.store.path, None, contents)
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn absent(&self, name: &str) -> WeightsError {
        let name = self.full(name);
        let stored = self.store.stored_name(&name);
        if let Some(tensor) = self.store.ignored.iter().find(|tensor| tensor.name == stored) {
            let fault = Fault::UnsupportedElement { found: tensor.element.clone() };
            return fault.of(&tensor.file, Part::Tensor(name));
        }
        let part = if stored == name { Part::Tensor(name) } else { Part::Renamed { name, stored } };
        Fault::Missing.of(&self.store.path, part)
    }
}

impl Store {
    fn stored_name(&self, name: &str) -> String {
        self.table.and_then(|table| table.to_gguf(name)).unwrap_or_else(|| name.to_owned())
    }
}
