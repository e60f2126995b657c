//! How `hearth serve` calls the APIs of other providers.

use std::time::Duration;

use clap::Args;
use hearth::providers::external::{BaseUrl, ExternalSettings};
use hyper::header::HeaderValue;

/// Arguments about external models.
#[derive(Args, Clone)]
pub(super) struct ExternalArguments {
    /// Seconds that a connection to an external model's API may take to be made
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=LONGEST), value_name = "SECONDS")]
    external_connect_timeout: u64,
    /// Seconds until an external model's answer begins; of one that is not streamed, until it is there
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=LONGEST), value_name = "SECONDS")]
    external_answer_timeout: u64,
    /// Seconds that an external model's answer may pause
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=LONGEST), value_name = "SECONDS")]
    external_idle_timeout: u64,
    /// Times that a request is sent again which an external model's API refused for now
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=10), value_name = "N")]
    external_retries: u32,
    /// Where Anthropic's API is, which endpoints have no field for [default: its own address]
    #[arg(long, value_name = "URL")]
    anthropic_base: Option<BaseUrl>,
    /// Version of Anthropic's API
    #[arg(long, default_value = "2023-06-01", value_name = "DATE")]
    anthropic_version: HeaderValue,
}

/// A day.
const LONGEST: u64 = 24 * 3600;

impl ExternalArguments {
    /// The settings.
    pub(super) fn settings(&self) -> ExternalSettings {
        ExternalSettings {
            anthropic_base: self.anthropic_base.clone(),
            anthropic_version: self.anthropic_version.clone(),
            connect_timeout: Duration::from_secs(self.external_connect_timeout),
            first_byte_timeout: Duration::from_secs(self.external_answer_timeout),
            idle_timeout: Duration::from_secs(self.external_idle_timeout),
            retries: self.external_retries,
            ..ExternalSettings::default()
        }
    }
}
