//! `hearth pull`: models onto the disk.

use anyhow::{Context, Result};

use super::load::get;
use super::terminal::answer;

/// Arguments of `hearth pull`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Catalogue names or hub ids
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<String>,
}

/// Fetches each model and prints where it lies.
pub(super) fn main(arguments: &Arguments) -> Result<()> {
    for model in &arguments.models {
        let local = get(model).with_context(|| format!("cannot get {model}"))?;
        answer(&format!("{}\n", local.path.display()))?;
    }
    Ok(())
}
