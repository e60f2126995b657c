//! `hearth usage`: who used what and what was said, out of the store.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::pin::pin;

use anyhow::{Result, bail};
use futures::{Stream, TryStreamExt};
use hearth::endpoints::id_of;
use hearth::payloads::{payloads_as_csv, payloads_as_parquet};
use hearth::store::{Grouping, PayloadFilter, UsageFilter};
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
    /// Write the inference table of an endpoint: what was asked and answered, oldest first
    Payloads(Payloads),
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

#[derive(clap::Args)]
struct Payloads {
    #[command(flatten)]
    state: StateArguments,
    /// The endpoint
    endpoint: String,
    /// First moment: milliseconds since 1970, or a day in UTC as 2026-01-31
    #[arg(long, value_name = "TIME", value_parser = |text: &str| moment("--from", text))]
    from: Option<i64>,
    /// First moment that is out
    #[arg(long, value_name = "TIME", value_parser = |text: &str| moment("--until", text))]
    until: Option<i64>,
    /// Form of the table
    #[arg(long, value_enum, default_value = "csv")]
    format: Form,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Form {
    Csv,
    Parquet,
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments.command {
        Command::Export(export) => runtime.block_on(write(export)),
        Command::Payloads(payloads) => runtime.block_on(write_payloads(payloads)),
    }
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

async fn write_payloads(payloads: Payloads) -> Result<()> {
    let store = payloads.state.open().await?;
    let made = store.endpoints().await?.into_iter().find(|endpoint| endpoint.name == payloads.endpoint);
    // The id of an endpoint that the store does not know follows from its name.
    let endpoint_id = made.map_or_else(|| id_of(&payloads.endpoint), |endpoint| endpoint.id);
    let filter = PayloadFilter { endpoint_id, from: payloads.from, until: payloads.until };
    match payloads.format {
        Form::Csv => print(payloads_as_csv(store.clone(), filter)).await?,
        Form::Parquet if io::stdout().is_terminal() => bail!("a Parquet file is nothing for a terminal: redirect it"),
        Form::Parquet => print(payloads_as_parquet(store.clone(), filter)).await?,
    }
    store.close().await;
    Ok(())
}

async fn print<E: Error + Send + Sync + 'static>(pieces: impl Stream<Item = Result<Vec<u8>, E>>) -> Result<()> {
    let mut pieces = pin!(pieces);
    let mut out = io::stdout().lock();
    while let Some(piece) = pieces.try_next().await? {
        out.write_all(&piece)?;
    }
    Ok(out.flush()?)
}
