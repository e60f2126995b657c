//! `hearth list`: the catalogue, and what of it is on disk.

use anyhow::Result;
use hearth_engine::config::HubConfig;
use hearth_engine::hub::{CacheDirectory, CacheState, Card, Catalogue};
use serde_json::json;

use super::terminal::answer;

/// Arguments of `hearth list`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Prints one line a model.
pub(super) fn main(arguments: &Arguments) -> Result<()> {
    let catalogue = Catalogue::embedded()?;
    let cache = CacheDirectory::new(&HubConfig::from_environment().cache);
    if !arguments.json {
        let (name, task, parameters) = ("NAME", "TASK", "PARAMETERS");
        answer(&format!("{name:<28} {task:<10} {parameters:>10} {:>8}  {:<10}  LICENCE\n", "CONTEXT", "ON DISK"))?;
    }
    for card in catalogue.cards() {
        let state = cache.state(&card.name);
        let line = match arguments.json {
            true => json_line(card, &state),
            false => table_line(card, &state),
        };
        answer(&line)?;
    }
    Ok(())
}

fn bytes_on_disk(state: &CacheState) -> Option<u64> {
    match state {
        CacheState::Complete(manifest) => Some(manifest.files.iter().map(|file| file.size).sum()),
        CacheState::Absent | CacheState::Damaged(_) => None,
    }
}

fn table_line(card: &Card, state: &CacheState) -> String {
    let on_disk = match (bytes_on_disk(state), state) {
        (Some(bytes), _) => indicatif::HumanBytes(bytes).to_string(),
        (None, CacheState::Damaged(_)) => "damaged".to_owned(),
        (None, _) => "-".to_owned(),
    };
    let parameters = match card.parameters as f64 {
        many if many >= 1e9 => format!("{:.1}B", many / 1e9),
        few => format!("{:.0}M", few / 1e6),
    };
    let Card { name, task, context_length, licence, .. } = card;
    let task = task.to_string();
    format!("{name:<28} {task:<10} {parameters:>10} {context_length:>8}  {on_disk:<10}  {licence}\n")
}

fn json_line(card: &Card, state: &CacheState) -> String {
    let damage = match state {
        CacheState::Damaged(reason) => Some(reason),
        CacheState::Absent | CacheState::Complete(_) => None,
    };
    let value = json!({
        "name": card.name, "aliases": card.aliases, "task": card.task, "parameters": card.parameters,
        "context_length": card.context_length, "licence": card.licence, "bytes_on_disk": bytes_on_disk(state),
        "damage": damage,
    });
    format!("{value}\n")
}
