//! Where the store is, for every command that looks into it.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use hearth::serve::{ServeConfig, ServeSettings};
use hearth::store::Store;
use hearth::usage::Journal;

/// The journal of usage, in the folder of the state.
const JOURNAL_FOLDER: &str = "usage";

/// The place of the store.
#[derive(clap::Args)]
pub(super) struct StateArguments {
    /// Folder of the store: principals, tokens, endpoints, secrets and usage [default: ~/.local/state/hearth]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Postgres database that takes the place of the folder's file; HEARTH_DATABASE keeps its password out of sight
    #[arg(long, value_name = "URL", env = "HEARTH_DATABASE", hide_env_values = true)]
    database: Option<String>,
}

impl StateArguments {
    /// The settings with what was typed here.
    pub(super) fn settings(&self, settings: ServeSettings) -> ServeSettings {
        let state = self.state.clone().or(settings.state);
        let database = self.database.clone().or(settings.database);
        ServeSettings { state, database, ..settings }
    }

    /// Opens the store of a server that may be running.
    pub(super) async fn open(&self) -> Result<Store> {
        open_store(&self.settings(ServeSettings::from_environment()).check()?).await
    }
}

/// The store, in a folder that nobody else may look into.
pub(super) async fn open_store(config: &ServeConfig) -> Result<Store> {
    let folder = &config.state;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Store::open(&config.store).await.with_context(|| format!("cannot open the store ({:?})", config.store))
}

/// The journal of usage, in the folder of the store.
pub(super) fn open_journal(config: &ServeConfig) -> Result<Journal> {
    let folder = config.state.join(JOURNAL_FOLDER);
    Journal::open(&folder).with_context(|| format!("cannot use the journal in {}", folder.display()))
}
