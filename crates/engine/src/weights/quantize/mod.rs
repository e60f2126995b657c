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

/// What the rules need to know of a tensor.
#[derive(Debug, Clone, Copy)]
pub struct TensorOutline<'a> {
    /// As the Hugging Face checkpoint calls it.
    pub name: &'a str,
    /// Outermost dimension first.
    pub shape: &'a [usize],
    /// How it is stored now.
    pub format: Format,
}

impl<'a> TensorOutline<'a> {
    fn of(tensor: &'a WeightTensor) -> Self {
        Self { name: &tensor.name, shape: &tensor.shape, format: tensor.format }
    }

    fn rows(&self) -> usize {
        self.shape.split_last().map_or(1, |(_, outer)| outer.iter().product())
    }
}

impl QuantScheme {
    /// The GGUF name and the format of each tensor; `None` for one that is not kept: an output matrix where the embedding
    /// is that too, which some checkpoints hold once more.
    #[must_use]
    pub fn formats(self, tensors: &[TensorOutline<'_>], outline: ModelOutline) -> Vec<Option<(String, Format)>> {
        let table = NameTable::of(outline.architecture);
        let translate = |name: &str| table.and_then(|table| translated(table, name)).unwrap_or_else(|| name.to_owned());
        let names: Vec<String> = tensors.iter().map(|tensor| translate(tensor.name)).collect();
        let rows = |name: &str| names.iter().position(|one| one == name).map(|index| tensors[index].rows());
        let tied = outline.tied || rows("output.weight").is_none();
        let grouped = rows("blk.0.attn_q.weight") != rows("blk.0.attn_k.weight");
        let mixture = Mixture { scheme: self, outline, tied, grouped };
        let format = |(name, tensor): (String, &TensorOutline<'_>)| {
            let format = mixture.format(&name, tensor.shape, tensor.format);
            (!tied || name != "output.weight").then_some((name, format))
        };
        names.into_iter().zip(tensors).map(format).collect()
    }

    /// Bytes that these tensors take when they are stored as this scheme has it; `None` when one is quantised already, or
    /// the sum overflows.
    #[must_use]
    pub fn bytes(self, tensors: &[TensorOutline<'_>], outline: ModelOutline) -> Option<u64> {
        let plain = |tensor: &TensorOutline<'_>| matches!(tensor.format, Format::F32 | Format::F16 | Format::BF16);
        if !tensors.iter().all(plain) {
            return None;
        }
        let kept = self.formats(tensors, outline).into_iter().zip(tensors);
        let bytes = kept.filter_map(|(kept, tensor)| Some(stored_bytes(kept?.1, tensor.shape).ok()));
        bytes.into_iter().try_fold(0_u64, |sum, bytes| sum.checked_add(bytes?))
    }
}

/// A tensor and how it is to be stored.
#[derive(Debug)]
pub struct PlannedTensor {
    /// By the name of the Hugging Face checkpoint.
    original: WeightTensor,
    gguf_name: String,
    format: Format,
}

impl PlannedTensor {
    /// A tensor that is to be stored in `format`, under this name in a GGUF file.
    pub fn new(original: WeightTensor, gguf_name: impl Into<String>, format: Format) -> Self {
        Self { original, gguf_name: gguf_name.into(), format }
    }

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
        let originals: Vec<WeightTensor> = self.all().collect();
        let tensors: Vec<TensorOutline<'_>> = originals.iter().map(TensorOutline::of).collect();
        let formats = scheme.formats(&tensors, outline);
        let planned = originals.into_iter().zip(formats).filter_map(|(original, format)| {
            let (gguf_name, format) = format?;
            Some(PlannedTensor { original, gguf_name, format })
        });
        let check = |one: PlannedTensor| match one.original.format {
            Format::F32 | Format::F16 | Format::BF16 => Ok(one),
            format => Err(one.fault(Fault::AlreadyQuantized { format })),
        };
        planned.map(check).collect()
    }

    /// Bytes of these tensors when they are stored as `scheme` has it; `None` when one is quantised already.
    #[must_use]
    pub fn quantized_bytes(&self, scheme: QuantScheme, outline: ModelOutline) -> Option<u64> {
        let tensors: Vec<WeightTensor> = self.all().collect();
        scheme.bytes(&tensors.iter().map(TensorOutline::of).collect::<Vec<_>>(), outline)
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

/// The name in GGUF files of `architecture` of the tensor that a Hugging Face checkpoint calls `name`.
pub fn gguf_name(architecture: &str, name: &str) -> Option<String> {
    translated(NameTable::of(architecture)?, name)
}

/// The GGUF name the rules know this tensor by.
fn translated(table: &NameTable, name: &str) -> Option<String> {
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
