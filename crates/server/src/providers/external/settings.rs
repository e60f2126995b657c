//! What holds for all models of other providers.

use std::time::Duration;

use hyper::header::HeaderValue;

use super::BaseUrl;

/// How other providers' APIs are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalSettings {
    /// Where Anthropic's API is, which has no field for it; `None` for its own address.
    pub anthropic_base: Option<BaseUrl>,
    /// The version of Anthropic's API.
    pub anthropic_version: HeaderValue,
    /// Where Microsoft Entra is; `None` for its own address.
    pub entra_base: Option<BaseUrl>,
    /// How long a connection may take to be made, TLS included.
    pub connect_timeout: Duration,
    /// How long the head of an answer may take after the request was sent. Of an answer that is not streamed, that is the
    /// time of the whole answer.
    pub first_byte_timeout: Duration,
    /// How long nothing may come of an answer that has begun.
    pub idle_timeout: Duration,
    /// How often a request is sent again that could not be sent, or was refused for now.
    pub retries: u32,
    /// The longest wait before it is sent again; a provider that asks for a longer one is not asked again.
    pub longest_wait: Duration,
}

impl Default for ExternalSettings {
    fn default() -> Self {
        Self {
            anthropic_base: None,
            anthropic_version: HeaderValue::from_static("2023-06-01"),
            entra_base: None,
            connect_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(300),
            // Models that think before they speak may be silent for long.
            idle_timeout: Duration::from_secs(120),
            retries: 2,
            longest_wait: Duration::from_secs(8),
        }
    }
}
