//! Checkpoints on disk, memory-mapped and checked: GGUF files, and folders of safetensors or PyTorch files.
//!
//! Owns the file formats, the names of tensors in them and every check that stands between a damaged file and the
//! arithmetic. It must not know what a model does with a tensor, what a device is, or where a file came from.
//!
//! - [`Weights`] (`checkpoint`): one opened checkpoint; tensors by the names of the Hugging Face checkpoint.
//! - [`Gguf`] (`gguf`): one GGUF file: its metadata and its tensors by the names in the file.
//! - `folder`: the files of a folder, alone or as shards with an index.
//! - `safetensors`, `pytorch`: one file of either kind. `pairs`: lists in which no name stands twice.
//! - [`WeightTensor`] (`tensor`): format, shape and bytes of one tensor; the bytes stay in the map.
//! - [`WeightMap`], [`MappedBytes`] (`map`): the memory map, the only `unsafe` of this crate.
//! - [`QuantScheme`], [`PlannedTensor`] (`quantize`): the same weights in fewer bits.
//! - [`GgufWriter`] (`gguf`): the same file format the other way.
//! - `gguf_names`: Hugging Face names to GGUF names, a table an architecture.
//! - [`WeightsError`] (`error`): file, tensor, reason.
//!
//! Nothing here allocates by a number read from a file before that number is checked against the bytes that are there.

mod checkpoint;
mod error;
mod folder;
mod gguf;
mod gguf_names;
mod map;
mod pairs;
mod pytorch;
mod quantize;
mod safetensors;
mod tensor;
#[cfg(test)]
mod tests;

pub use checkpoint::Weights;
pub use error::{Fault, Part, WeightsError};
pub use gguf::{Gguf, GgufMetadata, GgufValue, GgufWriter};
pub use map::{MappedBytes, WeightMap};
pub use quantize::{ModelOutline, PlannedTensor, QuantScheme, TensorOutline, gguf_name};
pub use tensor::{IgnoredTensor, WeightTensor};
