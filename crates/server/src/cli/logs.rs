//! How the program's words about itself are written to stderr.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// How lines of the log are written.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Arguments about the log.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct LogArguments {
    /// How the log is written; HEARTH_LOG says what is, as in `info,hearth=debug`
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
}

impl LogArguments {
    /// Begins the log of what `filter` lets through.
    pub(super) fn begin(&self, filter: EnvFilter) {
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
        match self.log_format {
            LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).init(),
            LogFormat::Json => lines.json().init(),
        }
    }
}
