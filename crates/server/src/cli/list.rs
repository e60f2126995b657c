//! `hearth list`: the catalogue, what of it is on disk, and what of it this machine can hold.

use anyhow::Result;
use hearth_engine::config::HubConfig;
use hearth_engine::hub::{CacheDirectory, CacheState, Card, Catalogue};
use hearth_engine::memory::{Bytes, Memory};
use hearth_engine::serve::{Fit, Footprint, LoadOptions, Needs};
use serde_json::json;

use super::terminal::answer;

/// Arguments of `hearth list`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Print one JSON object a line, with licences and aliases
    #[arg(long)]
    json: bool,
}

/// One model, as it is here.
struct Entry<'a> {
    card: &'a Card,
    state: CacheState,
    /// What it needs and how this machine can hold it; `None` when its card does not say.
    memory: Option<(Footprint, Fit)>,
    /// Bytes that a download would take, as far as they are known.
    download: Option<u64>,
}

/// Prints one line a model.
pub(super) fn main(arguments: &Arguments) -> Result<()> {
    let catalogue = Catalogue::embedded()?;
    let cache = CacheDirectory::new(&HubConfig::from_environment().cache);
    let memory = Memory::of_machine()?;
    if !arguments.json {
        answer(&format!(
            "{:<28} {:<9} {:>6} {:>7}  {:>8}  {:>8}  {:>8}  FITS\n",
            "NAME", "TASK", "PARAMS", "CONTEXT", "ON DISK", "DOWNLOAD", "MEMORY"
        ))?;
    }
    for card in catalogue.cards() {
        let entry = Entry::read(card, &cache, memory)?;
        let line = match arguments.json {
            true => entry.json_line(),
            false => entry.table_line(),
        };
        answer(&line)?;
    }
    if !arguments.json {
        answer(&format!(
            "MEMORY is weights, a cache of up to 8,192 tokens, and work. This machine has {}.\n",
            Bytes(memory.total)
        ))?;
    }
    Ok(())
}

impl<'a> Entry<'a> {
    fn read(card: &'a Card, cache: &CacheDirectory, memory: Memory) -> Result<Self> {
        let (options, needs) = (LoadOptions::default(), Needs::of_card(card)?);
        let download = card.packaged_bytes().or(needs.as_ref().map(Needs::stored_bytes));
        let memory = needs.map(|needs| (needs.footprint(&options), needs.fit(&options, memory.total)));
        Ok(Self { card, state: cache.state(&card.name), memory, download })
    }

    fn bytes_on_disk(&self) -> Option<u64> {
        match &self.state {
            CacheState::Complete(manifest) => Some(manifest.files.iter().map(|file| file.size).sum()),
            CacheState::Absent | CacheState::Damaged(_) => None,
        }
    }

    /// How it can be held, as one word or the option that makes it so.
    fn fits(&self) -> String {
        match self.memory {
            None => "-".to_owned(),
            Some((_, Fit::Stored)) => "yes".to_owned(),
            Some((_, Fit::Quantized(scheme))) => format!("--quant {scheme}"),
            Some((_, Fit::No)) => "no".to_owned(),
        }
    }

    fn table_line(&self) -> String {
        let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), |bytes| Bytes(bytes).to_string());
        let (on_disk, download) = match (self.bytes_on_disk(), &self.state) {
            (Some(bytes), _) => (size(Some(bytes)), "-".to_owned()),
            (None, CacheState::Damaged(_)) => ("damaged".to_owned(), size(self.download)),
            (None, _) => ("-".to_owned(), size(self.download)),
        };
        let parameters = match self.card.parameters as f64 {
            many if many >= 1e9 => format!("{:.1}B", many / 1e9),
            few => format!("{:.0}M", few / 1e6),
        };
        let Card { name, task, context_length, .. } = self.card;
        let (task, memory) = (task.to_string(), size(self.memory.map(|(footprint, _)| footprint.total())));
        let fits = self.fits();
        format!(
            "{name:<28} {task:<9} {parameters:>6} {context_length:>7}  {on_disk:>8}  {download:>8}  {memory:>8}  {fits}\n"
        )
    }

    fn json_line(&self) -> String {
        let damage = match &self.state {
            CacheState::Damaged(reason) => Some(reason),
            CacheState::Absent | CacheState::Complete(_) => None,
        };
        let card = self.card;
        let memory = self.memory.map(|(footprint, fit)| {
            let Footprint { weights, cache, work } = footprint;
            let quant = match fit {
                Fit::Quantized(scheme) => Some(scheme.name()),
                Fit::Stored | Fit::No => None,
            };
            json!({
                "weights": weights, "cache": cache, "work": work, "total": footprint.total(),
                "fits": fit != Fit::No, "needs_quant": quant,
            })
        });
        let value = json!({
            "name": card.name, "aliases": card.aliases, "task": card.task, "parameters": card.parameters,
            "context_length": card.context_length, "licence": card.licence, "bytes_on_disk": self.bytes_on_disk(),
            "bytes_to_download": self.download, "memory": memory, "damage": damage,
        });
        format!("{value}\n")
    }
}
