//! How much a server takes on, and how long it lets a request and a model take.

use std::time::Duration;

use clap::Args;
use hearth::serve::ServeSettings;
use hearth_engine::serve::LoadOptions;

/// Limits of `hearth serve`.
#[derive(Args, Clone)]
pub(super) struct LimitArguments {
    /// Sequences that a model computes at the same time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536), value_name = "N")]
    max_sequences: u32,
    /// Requests that wait for a model besides those that run; what comes then is refused with 429
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_048_576), value_name = "N")]
    queue: u32,
    /// Seconds that a request may take, waiting included; then it is ended with 503 or 504. 0: any time
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(0..=LONGEST), value_name = "SECONDS")]
    request_timeout: u64,
    /// Seconds that a step of a model may take; a longer one makes the server not ready, and new requests to the model are
    /// refused with 503 until it ends. 0: any time
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(0..=LONGEST), value_name = "SECONDS")]
    step_timeout: u64,
}

/// A year.
const LONGEST: u64 = 366 * 24 * 3600;

impl LimitArguments {
    /// The options of the model that endpoint `name` serves.
    pub(super) fn options(&self, name: &str, options: LoadOptions) -> LoadOptions {
        LoadOptions {
            max_sequences: self.max_sequences as usize,
            queue: self.queue as usize,
            step_timeout: (self.step_timeout > 0).then(|| Duration::from_secs(self.step_timeout)),
            label: Some(name.to_owned()),
            ..options
        }
    }

    /// The server's settings within these limits.
    pub(super) fn settings(&self, settings: ServeSettings) -> ServeSettings {
        ServeSettings { request_timeout: Duration::from_secs(self.request_timeout), ..settings }
    }
}
