//! A checkpoint in fewer bits: which tensor is stored how, and the conversion, a tensor at a time.
//!
//! Owns the memory this takes: what is converted so far, and a few rows. The pages of the original are given back as it is
//! read. It must not know where the result goes.

mod scheme;

use hearth_kernels::{Format, MatrixView, Threads, store_as};

use self::scheme::Mixture;
use super::checkpoint::Weights;
use super::error::{Fault, Part, WeightsError};
use super::gguf_names::NameTable;
use super::map::WeightMap;
use super::tensor::{WeightTensor, stored_bytes};

pub use self::scheme::{ModelOutline, QuantScheme};

/// Bytes of the original that are converted before their pages are given back.
const SLAB_BYTES: usize = 64 << 20;

/// A tensor and how it is to be stored.
#[derive(Debug)]
pub struct PlannedTensor {
    /// By the name of the Hugging Face checkpoint.
    original: WeightTensor,
    gguf_name: String,
    format: Format,
}

impl PlannedTensor {
    /// The name in the Hugging Face checkpoint.
    pub fn name(&self) -> &str {
        &self.original.name
    }

    /// The name in a GGUF file.
    pub fn gguf_name(&self) -> &str {
        &self.gguf_name
    }

    /// How it is to be stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Outermost dimension first.
    pub fn shape(&self) -> &[usize] {
        &self.original.shape
    }

    /// How many bytes it will take.
    ///
    /// # Errors
    /// When the size overflows.
    pub fn bytes(&self) -> Result<u64, WeightsError> {
        stored_bytes(self.format, &self.original.shape).map_err(|fault| self.fault(fault))
    }

    /// Converts it. The result is in memory; the pages of the original are given back.
    ///
    /// # Errors
    /// [`Fault::NotStorable`] when a number is not finite or too large.
    pub fn convert(&self, threads: &Threads) -> Result<WeightTensor, WeightsError> {
        let (original, format) = (&self.original, self.format);
        let mut bytes = vec![0; self.bytes()? as usize];
        let (rows, cols) = (original.rows(), original.cols());
        let (from, to) = (original.bytes.len() / rows.max(1), bytes.len() / rows.max(1));
        let slab = (SLAB_BYTES / from.max(1)).clamp(1, rows.max(1));
        if !bytes.is_empty() {
            for (index, out) in bytes.chunks_mut(slab * to).enumerate() {
                let (first, count) = (index * slab, out.len() / to);
                let source = &original.bytes[first * from..(first + count) * from];
                MatrixView::new(original.format, count, cols, source)
                    .and_then(|view| store_as(threads, &view, format, out))
                    .map_err(|why| self.fault(Fault::NotStorable { format, first_row: first, why }))?;
                original.bytes.release(first * from..(first + count) * from);
            }
        }
        let bytes = WeightMap::from_bytes(original.bytes.file(), bytes).whole();
        let (name, shape) = (original.name.clone(), original.shape.clone());
        Ok(WeightTensor { name, format, shape, bytes })
    }

    fn fault(&self, fault: Fault) -> WeightsError {
        fault.of(self.original.bytes.file(), Part::Tensor(self.original.name.clone()))
    }
}

impl Weights {
    /// How `scheme` stores each of these tensors, in the order of their names.
    ///
    /// # Errors
    /// [`Fault::AlreadyQuantized`] when a tensor is in a block format now.
    pub fn plan(&self, scheme: QuantScheme, outline: ModelOutline) -> Result<Vec<PlannedTensor>, WeightsError> {
        let table = NameTable::of(outline.architecture);
        let translate = |name: &str| table.and_then(|table| gguf_name(table, name)).unwrap_or_else(|| name.to_owned());
        let mut planned: Vec<PlannedTensor> = self
            .all()
            .map(|original| {
                let gguf_name = translate(&original.name);
                PlannedTensor { original, gguf_name, format: Format::F32 }
            })
            .collect();
        let rows = |name: &str| planned.iter().find(|one| one.gguf_name == name).map(|one| one.original.rows());
        let tied = outline.tied || rows("output.weight").is_none();
        let grouped = rows("blk.0.attn_q.weight") != rows("blk.0.attn_k.weight");
        let mixture = Mixture { scheme, outline, tied, grouped };
        if tied {
            // Some checkpoints hold the same matrix once more.
            planned.retain(|one| one.gguf_name != "output.weight");
        }
        for one in &mut planned {
            let stored = one.original.format;
            if !matches!(stored, Format::F32 | Format::F16 | Format::BF16) {
                return Err(one.fault(Fault::AlreadyQuantized { format: stored }));
            }
            one.format = mixture.format(&one.gguf_name, &one.original.shape, stored);
        }
        Ok(planned)
    }

    /// The same weights in memory, stored as `scheme` has it. Memory grows to the size of the result and no further: a
    /// tensor's pages are given back once it is converted.
    ///
    /// # Errors
    /// As [`Weights::plan`] and [`PlannedTensor::convert`].
    pub fn quantized(
        &self,
        scheme: QuantScheme,
        outline: ModelOutline,
        threads: &Threads,
    ) -> Result<Self, WeightsError> {
        let converted = self.plan(scheme, outline)?.into_iter().map(|planned| planned.convert(threads));
        Ok(self.replaced(converted.collect::<Result<_, _>>()?))
    }
}

/// Newer Mixtrals in safetensors, and the names they had before. The gates stand for the fused gates and ups.
const RESPELLED: [(&str, &str); 3] = [
    (".mlp.gate.weight", ".block_sparse_moe.gate.weight"),
    (".mlp.experts.gate_up_proj", ".block_sparse_moe.experts.w1.weight"),
    (".mlp.experts.down_proj", ".block_sparse_moe.experts.w2.weight"),
];

/// The GGUF name the rules know this tensor by.
fn gguf_name(table: &NameTable, name: &str) -> Option<String> {
    let respelled = || {
        let (end, other) = RESPELLED.into_iter().find(|(end, _)| name.ends_with(end))?;
        table.to_gguf(&format!("{}{other}", name.strip_suffix(end)?))
    };
    // Checkpoints saved from inside a larger model have one more part in front.
    let inner = || name.split_once('.').and_then(|(_, inner)| table.to_gguf(inner));
    // The experts of DBRX lack the last part.
    let whole = || table.to_gguf(&format!("{name}.weight"));
    table.to_gguf(name).or_else(whole).or_else(inner).or_else(respelled)
}
