//! `hearth usage`: who used what, out of the store.

use std::io::{self, Write};
use std::pin::pin;

use anyhow::Result;
use futures::{Stream, TryStreamExt};
use hearth::store::{Grouping, StoreError, UsageFilter};
use hearth::usage::{sums_as_csv, usage_as_csv};
use hearth::wire::usage::moment;

use super::state::StateArguments;

/// Arguments of `hearth usage`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Write usage as CSV: one line a request, newest first, or one line a group
    Export(Export),
}

#[derive(clap::Args)]
struct Export {
    #[command(flatten)]
    state: StateArguments,
    /// First moment: milliseconds since 1970, or a day in UTC as 2026-01-31
    #[arg(long, value_name = "TIME", value_parser = |text: &str| moment("--from", text))]
    from: Option<i64>,
    /// First moment that is out
    #[arg(long, value_name = "TIME", value_parser = |text: &str| moment("--until", text))]
    until: Option<i64>,
    /// Only of this endpoint
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Only of the user of this name, or of the service principal of this application id
    #[arg(long, value_name = "NAME")]
    requester: Option<String>,
    /// Sums by these, and not single requests
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',')]
    group_by: Vec<By>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum By {
    Endpoint,
    Requester,
    ServedEntity,
    Day,
}

impl By {
    fn grouping(self) -> Grouping {
        match self {
            Self::Endpoint => Grouping::Endpoint,
            Self::Requester => Grouping::Requester,
            Self::ServedEntity => Grouping::ServedEntity,
            Self::Day => Grouping::Day,
        }
    }
}

/// Writes what was asked for to stdout.
pub(super) fn main(arguments: Arguments) -> Result<()> {
    let Command::Export(export) = arguments.command;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(write(export))
}

async fn write(export: Export) -> Result<()> {
    let store = export.state.open().await?;
    let filter = UsageFilter {
        from: export.from,
        until: export.until,
        endpoint_name: export.endpoint,
        requester: export.requester,
        ..UsageFilter::default()
    };
    let groupings: Vec<_> = export.group_by.into_iter().map(By::grouping).collect();
    match groupings.is_empty() {
        true => print(usage_as_csv(store.clone(), filter)).await?,
        false => print(sums_as_csv(store.clone(), filter, groupings)).await?,
    }
    store.close().await;
    Ok(())
}

async fn print(pieces: impl Stream<Item = Result<Vec<u8>, StoreError>>) -> Result<()> {
    let mut pieces = pin!(pieces);
    let mut out = io::stdout().lock();
    while let Some(piece) = pieces.try_next().await? {
        out.write_all(&piece)?;
    }
    Ok(out.flush()?)
}
