//! A model's folder as one GGUF file that llama.cpp reads, its weights quantised on the way.
//!
//! Owns what the file says about the model ([`metadata`], [`vocabulary`]) and the order of query and key rows; which format a
//! tensor gets and how a file is laid out are the business of `weights`.

mod metadata;
mod vocabulary;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use hearth_kernels::{Format, Threads};

use self::metadata::LlamaOutline;
use crate::checkpoint::{Checkpoint, CheckpointSource};
use crate::error::Error;
use crate::weights::{GgufWriter, PlannedTensor, QuantScheme};

/// The tensor of Llama 3's divisors of the rotary frequencies.
const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The size of the file.
    pub bytes: u64,
    /// How many tensors are stored in each format, in the order of [`Format::ALL`].
    pub formats: Vec<(Format, usize)>,
}

/// Writes the model in the folder `model` to `out`, one tensor at a time, by `threads` threads (the machine's cores by
/// default); the file appears under its name when it is whole.
///
/// # Errors
/// When the model is not a Llama in a folder, its tokenizer is not one that can be written, a tensor cannot be quantised, or the
/// file cannot be written.
pub fn export_gguf(model: &Path, out: &Path, scheme: QuantScheme, threads: Option<usize>) -> Result<Exported, Error> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = Threads::new(threads.unwrap_or(cores))?;
    let checkpoint = Checkpoint::open(model)?;
    let CheckpointSource::Folder(folder) = &checkpoint.source else {
        return Err(Error::file(model, "is a GGUF file already; only models in safetensors are quantised"));
    };
    let llama = LlamaOutline::read(&checkpoint)?;
    let planned: Vec<PlannedTensor> = named(checkpoint.weights.plan(scheme, checkpoint.outline()?)?, out)?;
    let mut writer = GgufWriter::default();
    metadata::describe(&mut writer, &checkpoint, &llama, scheme);
    vocabulary::describe(&mut writer, &checkpoint, folder, llama.vocab_size)?;
    let divisors = llama.rope_divisors();
    for one in &planned {
        writer.tensor(one.gguf_name(), one.format(), one.shape(), one.bytes()?);
    }
    if let Some(divisors) = &divisors {
        writer.tensor(ROPE_DIVISORS, Format::F32, &[divisors.len()], 4 * divisors.len() as u64);
    }
    let bytes = write_whole(out, |file| {
        writer.write(file, |index, data| match planned.get(index) {
            Some(one) => write_tensor(data, one, &llama, &threads),
            None => Ok(divisors.iter().flatten().try_for_each(|one| data.write_all(&one.to_le_bytes()))?),
        })
    })?;
    let stored = |format| planned.iter().filter(|one| one.format() == format).count();
    let formats = Format::ALL.into_iter().map(|format| (format, stored(format))).filter(|(_, count)| *count > 0);
    Ok(Exported { bytes, formats: formats.collect() })
}

/// The tensors that have a name in GGUF files. Old checkpoints also hold the rotary frequencies, which are no weights.
fn named(planned: Vec<PlannedTensor>, out: &Path) -> Result<Vec<PlannedTensor>, Error> {
    let kept = planned.into_iter().filter(|one| !one.name().ends_with(".rotary_emb.inv_freq"));
    let check = |one: PlannedTensor| match one.name() == one.gguf_name() {
        true => Err(Error::file(out, format!("tensor `{}` has no name in GGUF files of Llamas", one.name()))),
        false => Ok(one),
    };
    kept.map(check).collect()
}

/// What can go wrong while a file is written.
enum WriteFault {
    File(io::Error),
    Model(Error),
}

impl From<io::Error> for WriteFault {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

/// Has `write` fill a file beside `out`, and gives that the name when it is whole. Returns its size.
fn write_whole(out: &Path, write: impl FnOnce(&mut BufWriter<File>) -> Result<(), WriteFault>) -> Result<u64, Error> {
    let mut name = out.as_os_str().to_owned();
    name.push(".partial");
    let partial = PathBuf::from(name);
    let fill = || {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&partial)?);
        write(&mut file)?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        let bytes = file.metadata()?.len();
        fs::rename(&partial, out)?;
        Ok(bytes)
    };
    fill().map_err(|fault: WriteFault| {
        // It may not even exist; the first fault is the one to tell.
        let _ = fs::remove_file(&partial);
        match fault {
            WriteFault::File(error) => Error::file(out, error),
            WriteFault::Model(error) => error,
        }
    })
}

/// Converts one tensor and writes its rows, those of queries and keys in the order in which neighbours rotate together.
fn write_tensor(
    data: &mut dyn Write,
    planned: &PlannedTensor,
    llama: &LlamaOutline,
    threads: &Threads,
) -> Result<(), WriteFault> {
    let tensor = planned.convert(threads).map_err(|error| WriteFault::Model(error.into()))?;
    let heads = match planned.gguf_name().rsplit_once('.').map(|(module, _)| module) {
        Some(module) if module.ends_with(".attn_q") => llama.heads as usize,
        Some(module) if module.ends_with(".attn_k") => llama.kv_heads as usize,
        _ => return Ok(data.write_all(&tensor.bytes)?),
    };
    let head_dim = llama.head_dim as usize;
    // A bias is as long as its matrix has rows.
    let rows = tensor.shape.first().copied().unwrap_or(0);
    if rows != heads * head_dim {
        let reason = format!("is {rows}, {heads} heads of {head_dim} need {}", heads * head_dim);
        return Err(WriteFault::Model(Error::config(format!("rows of {}", tensor.name), reason)));
    }
    let row_bytes = tensor.bytes.len() / rows;
    for row in neighbours(heads, head_dim) {
        data.write_all(&tensor.bytes[row * row_bytes..(row + 1) * row_bytes])?;
    }
    Ok(())
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
}
