//! A model's folder as one GGUF file that llama.cpp reads, its weights quantised on the way.
//!
//! Owns what the file says about the model ([`metadata`], [`vocabulary`]), the shapes and the order of rows that such files
//! have ([`tensors`]), and which format stands for which name ([`storage`]); how a tensor is converted and a file is laid out are
//! the business of `weights`.

mod metadata;
mod storage;
mod tensors;
mod vocabulary;

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use hearth_kernels::{Format, Threads};

use self::metadata::Description;
use self::tensors::WrittenTensor;
use crate::checkpoint::{Checkpoint, CheckpointSource};
use crate::error::Error;
use crate::weights::{GgufValue, GgufWriter, TensorOutline};

pub use self::storage::Storage;

/// The tensor of Llama 3's divisors of the rotary frequencies.
const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// The present layouts of the blocks.
const QUANTIZATION_VERSION: u32 = 2;

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
/// When the model is not in a folder, its architecture or its tokenizer is not one that can be written, a tensor cannot be
/// converted, or the file cannot be written.
pub fn export_gguf(
    model: &Path,
    out: &Path,
    storage: impl Into<Storage>,
    threads: Option<usize>,
) -> Result<Exported, Error> {
    let storage = storage.into();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = Threads::new(threads.unwrap_or(cores))?;
    let checkpoint = Checkpoint::open(model)?;
    let CheckpointSource::Folder(folder) = &checkpoint.source else {
        return Err(Error::file(model, "is a GGUF file already; only models in safetensors are quantised"));
    };
    let description = Description::read(&checkpoint)?;
    let mut writer = GgufWriter::default();
    describe(&mut writer, &checkpoint, &description, storage);
    vocabulary::describe(&mut writer, &checkpoint, folder, &description)?;
    let planned = plan(&checkpoint, &description, storage)?;
    for (one, format) in &planned {
        writer.tensor(&one.name, *format, &one.shape, one.bytes(*format)?);
    }
    let divisors = &description.rope_divisors;
    if let Some(divisors) = divisors {
        writer.tensor(ROPE_DIVISORS, Format::F32, &[divisors.len()], 4 * divisors.len() as u64);
    }
    let bytes = write_whole(out, |file| {
        writer.write(file, |index, data| match planned.get(index) {
            Some((one, format)) => one.write(data, *format, &threads),
            None => Ok(divisors.iter().flatten().try_for_each(|one| data.write_all(&one.to_le_bytes()))?),
        })
    })?;
    let stored = |format| planned.iter().filter(|(_, stored)| *stored == format).count();
    let formats = Format::ALL.into_iter().map(|format| (format, stored(format))).filter(|(_, count)| *count > 0);
    Ok(Exported { bytes, formats: formats.collect() })
}

/// Adds the keys of the model.
fn describe(writer: &mut GgufWriter, checkpoint: &Checkpoint, description: &Description, storage: Storage) {
    let path = checkpoint.weights.path();
    let architecture = description.architecture;
    let name = path.file_name().map_or_else(|| architecture.into(), |name| name.to_string_lossy());
    writer.key("general.architecture", GgufValue::Text(architecture.to_owned()));
    writer.key("general.name", GgufValue::Text(name.into_owned()));
    writer.key("general.type", GgufValue::Text("model".to_owned()));
    writer.key("general.file_type", GgufValue::U32(storage.file_type()));
    writer.key("general.quantization_version", GgufValue::U32(QUANTIZATION_VERSION));
    for (key, value) in &description.keys {
        writer.key(format!("{architecture}.{key}"), value.clone());
    }
}

/// The tensors of the file with their formats.
fn plan(
    checkpoint: &Checkpoint,
    description: &Description,
    storage: Storage,
) -> Result<Vec<(WrittenTensor, Format)>, Error> {
    let tensors = tensors::gather(checkpoint, description.rotation)?;
    let outlines: Vec<TensorOutline<'_>> = tensors.iter().map(WrittenTensor::outline).collect();
    let formats = storage.formats(&outlines, checkpoint.outline()?);
    Ok(tensors.into_iter().zip(formats).filter_map(|(tensor, format)| Some((tensor, format?))).collect())
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
