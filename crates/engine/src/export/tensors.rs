//! The tensors of a checkpoint in the shape that GGUF files have: one tensor for all experts of a matrix, rows of queries and
//! keys in the order in which neighbours rotate together, DBRX's second matrices turned around.

use std::collections::BTreeMap;
use std::io::Write;

use hearth_kernels::{Format, Threads};

use super::WriteFault;
use super::metadata::Rotation;
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::weights::{ModelOutline, PlannedTensor, TensorOutline, WeightTensor, gguf_name};

/// A tensor to be written: its parts follow each other.
pub(super) struct WrittenTensor {
    /// As GGUF files call it.
    pub(super) name: String,
    /// Outermost dimension first.
    pub(super) shape: Vec<usize>,
    parts: Vec<WeightTensor>,
    order: Order,
}

/// In which order the numbers of a part are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    AsStored,
    /// Rows of so many heads: each followed by the one it rotates with.
    Neighbours {
        heads: usize,
        head_dim: usize,
    },
    /// Columns become rows.
    Turned,
}

/// Tensors that no file has: rotary frequencies in old checkpoints, which are no weights, and the parts of a BERT that make no
/// sentence vector.
const LEFT_OUT: [&str; 4] = [".rotary_emb.inv_freq", "pooler.dense.weight", "pooler.dense.bias", "position_ids"];

/// What norms end in, in the oldest checkpoints and today.
const OLD_ENDS: [(&str, &str); 2] = [(".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias")];

/// Heads of a BERT for other tasks.
const OTHER_TASKS: &str = "cls.";

/// The tensors of the checkpoint, by their names.
///
/// # Errors
/// When one has no name in GGUF files of this architecture, an expert is missing, or rows do not fit the heads.
pub(super) fn gather(checkpoint: &Checkpoint, rotation: Option<Rotation>) -> Result<Vec<WrittenTensor>, Error> {
    let outline = checkpoint.outline()?;
    let weights = checkpoint.weights.strip_prefix("bert.");
    // By name, then by expert: their numbers do not sort as text.
    let mut found: BTreeMap<String, BTreeMap<usize, (WeightTensor, Order)>> = BTreeMap::new();
    for name in weights.names() {
        if LEFT_OUT.iter().any(|end| name.ends_with(end)) || name.starts_with(OTHER_TASKS) {
            continue;
        }
        let Some(tensor) = weights.get(&name) else { continue };
        for (gguf, expert, part, order) in parts(tensor, outline, rotation)? {
            found.entry(gguf).or_default().insert(expert, (part, order));
        }
    }
    found.into_iter().map(|(name, parts)| WrittenTensor::new(name, parts.into_values().collect(), outline)).collect()
}

/// What becomes of one tensor of the checkpoint: GGUF name, number of the expert, rows, and their order.
fn parts(
    tensor: WeightTensor,
    outline: ModelOutline,
    rotation: Option<Rotation>,
) -> Result<Vec<(String, usize, WeightTensor, Order)>, Error> {
    // The oldest BERTs spell their norms otherwise.
    let present = OLD_ENDS.iter().find_map(|(old, new)| Some(format!("{}{new}", tensor.name.strip_suffix(old)?)));
    let name = gguf_name(outline.architecture, present.as_ref().unwrap_or(&tensor.name)).ok_or_else(|| {
        Error::file(tensor.bytes.file(), format!("tensor `{}` has no name in GGUF files", tensor.name))
    })?;
    if let Some((merged, expert)) = merged_name(&name) {
        return Ok(vec![(merged, expert, tensor, Order::AsStored)]);
    }
    if !name.contains("_exps") {
        let order = rotation.map_or(Ok(Order::AsStored), |rotation| rotation_order(&name, &tensor, rotation))?;
        return Ok(vec![(name, 0, tensor, order)]);
    }
    let experts = outline.experts.max(1);
    let fused = tensor.name.ends_with("gate_up_proj");
    let pieces = if fused { 2 * experts } else { experts };
    let rows = tensor.split_rows(&vec![tensor.rows() / pieces; pieces])?;
    // Where the last part of the name is missing, as in DBRX's, the second matrix lies the other way around.
    let turned = tensor.name.ends_with(".w2");
    let order = if turned { Order::Turned } else { Order::AsStored };
    let up = name.replace("ffn_gate_exps", "ffn_up_exps");
    let place = |(index, piece)| match fused {
        true if index % 2 == 1 => (up.clone(), index / 2, piece, order),
        true => (name.clone(), index / 2, piece, order),
        false => (name.clone(), index, piece, order),
    };
    Ok(rows.into_iter().enumerate().map(place).collect())
}

/// `blk.3.ffn_up.5.weight` to the name of the tensor of all experts, `blk.3.ffn_up_exps.weight`, and 5.
fn merged_name(name: &str) -> Option<(String, usize)> {
    let (module, expert) = name.strip_suffix(".weight")?.rsplit_once('.')?;
    let expert = expert.parse().ok()?;
    module.contains(".ffn_").then(|| (format!("{module}_exps.weight"), expert))
}

fn rotation_order(name: &str, tensor: &WeightTensor, rotation: Rotation) -> Result<Order, Error> {
    let Rotation { heads, kv_heads, head_dim } = rotation;
    let heads = match name.rsplit_once('.').map(|(module, _)| module) {
        Some(module) if module.ends_with(".attn_q") => heads,
        Some(module) if module.ends_with(".attn_k") => kv_heads,
        _ => return Ok(Order::AsStored),
    };
    // A bias is as long as its matrix has rows.
    let rows = tensor.shape.first().copied().unwrap_or(0);
    if rows != heads * head_dim {
        let reason = format!("is {rows}, {heads} heads of {head_dim} need {}", heads * head_dim);
        return Err(Error::config(format!("rows of {}", tensor.name), reason));
    }
    Ok(Order::Neighbours { heads, head_dim })
}

impl WrittenTensor {
    fn new(name: String, parts: Vec<(WeightTensor, Order)>, outline: ModelOutline) -> Result<Self, Error> {
        let order = parts.first().map_or(Order::AsStored, |(_, order)| *order);
        let parts: Vec<WeightTensor> = parts.into_iter().map(|(part, _)| part).collect();
        let mut shape = parts.first().map(|part| part.shape.clone()).unwrap_or_default();
        if parts.iter().any(|part| part.shape != shape) {
            return Err(Error::config(name, "the experts have matrices of different shapes"));
        }
        if order == Order::Turned {
            shape.reverse();
        }
        if name.contains("_exps") {
            if parts.len() != outline.experts {
                let reason = format!("{} experts are there, the model has {}", parts.len(), outline.experts);
                return Err(Error::config(name, reason));
            }
            shape.insert(0, parts.len());
        }
        Ok(Self { name, shape, parts, order })
    }

    /// What the rules of formats look at.
    pub(super) fn outline(&self) -> TensorOutline<'_> {
        let format = self.parts.first().map_or(Format::F32, |part| part.format);
        TensorOutline { name: &self.name, shape: &self.shape, format }
    }

    /// How many bytes it takes in `format`.
    pub(super) fn bytes(&self, format: Format) -> Result<u64, Error> {
        let part = |part: &WeightTensor| PlannedTensor::new(self.oriented(part), self.name.as_str(), format).bytes();
        // All parts are alike.
        let one = self.parts.first().map_or(Ok(0), part)?;
        Ok(one * self.parts.len() as u64)
    }

    /// Converts the parts one after the other and writes them.
    pub(super) fn write(&self, data: &mut dyn Write, format: Format, threads: &Threads) -> Result<(), WriteFault> {
        for part in &self.parts {
            let part = if self.order == Order::Turned { part.turned() } else { Ok(part.clone()) };
            let converted = part.and_then(|part| PlannedTensor::new(part, self.name.as_str(), format).convert(threads));
            let converted = converted.map_err(|error| WriteFault::Model(error.into()))?;
            let Order::Neighbours { heads, head_dim } = self.order else {
                data.write_all(&converted.bytes)?;
                continue;
            };
            let row_bytes = converted.bytes.len() / (heads * head_dim);
            for row in neighbours(heads, head_dim) {
                data.write_all(&converted.bytes[row * row_bytes..(row + 1) * row_bytes])?;
            }
        }
        Ok(())
    }

    /// The part as it is going to be, with a shape that is right and bytes that may lie the other way around.
    fn oriented(&self, part: &WeightTensor) -> WeightTensor {
        let mut part = part.clone();
        if self.order == Order::Turned {
            part.shape.reverse();
        }
        part
    }
}

/// The rows of all heads in the order of a file: where a head's first and second half rotate together here, each row is
/// followed by its partner there.
fn neighbours(heads: usize, head_dim: usize) -> impl Iterator<Item = usize> {
    let half = head_dim / 2;
    (0..heads).flat_map(move |head| (0..head_dim).map(move |row| head * head_dim + row % 2 * half + row / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partners_become_neighbours() {
        assert_eq!(neighbours(2, 6).collect::<Vec<_>>(), [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
    }

    #[test]
    fn experts_are_told_from_blocks() {
        assert_eq!(merged_name("blk.3.ffn_up.15.weight"), Some(("blk.3.ffn_up_exps.weight".to_owned(), 15)));
        for other in ["blk.3.ffn_up.weight", "blk.3.ffn_up_exps.weight", "output.weight", "blk.3.attn_q.weight"] {
            assert_eq!(merged_name(other), None, "{other}");
        }
    }
}
