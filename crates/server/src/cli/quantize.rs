//! `hearth quantize`: a model in safetensors as one GGUF file in fewer bits.

use std::path::PathBuf;

use anyhow::{Context, Result};
use hearth_engine::export::{Exported, Storage, export_gguf};
use hearth_engine::memory::Bytes;

use super::load::get;
use super::terminal::say;

/// Arguments of `hearth quantize`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A folder in Hugging Face layout, a catalogue name or a hub id
    #[arg(value_name = "IN")]
    model: String,
    /// The file to write; one that is there is replaced when the new one is whole
    #[arg(value_name = "OUT.gguf")]
    out: PathBuf,
    /// How the weights are stored: q4_k_m, q5_k_m, q6_k or q8_0, or as they are in f16, bf16 or f32
    #[arg(long, value_name = "SCHEME")]
    quant: Storage,
    /// Threads that quantise, 1 to 512 [default: the machine's cores]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=512))]
    threads: Option<u16>,
}

/// Writes the file and says what is in it.
pub(super) fn main(arguments: &Arguments) -> Result<()> {
    let Arguments { model, out, quant, .. } = arguments;
    let local = get(model)?;
    let exported = export_gguf(&local.path, out, *quant, arguments.threads.map(usize::from))
        .with_context(|| format!("cannot quantise {model}"))?;
    let Exported { bytes, formats } = exported;
    let formats: Vec<String> = formats.iter().map(|(format, count)| format!("{count} {format}")).collect();
    let size = Bytes(bytes);
    say(format_args!("{}: {size}, tensors: {}", out.display(), formats.join(", ")));
    Ok(())
}
