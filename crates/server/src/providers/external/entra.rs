//! Tokens of Microsoft Entra, which open Azure's APIs for whoever has a client's secret.

use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::address::escaped;
use super::protocol::{Fault, Outgoing, document};
use super::{BaseUrl, ExternalSettings};
use crate::providers::ProviderError;
use crate::wire::external::Plaintext;

const BASE: &str = "https://login.microsoftonline.com";
/// What the token is to open.
const SCOPE: &str = "https://cognitiveservices.azure.com/.default";
/// How long before its end a token is not used any more.
const MARGIN: Duration = Duration::from_secs(60);

/// Who asks for tokens. The client's secret is the model's credential.
#[derive(Debug)]
pub(super) struct Entra {
    /// The directory.
    pub(super) tenant: String,
    /// The application.
    pub(super) client: String,
}

#[derive(Deserialize)]
struct Token {
    access_token: Plaintext,
    /// Seconds.
    expires_in: u64,
}

impl Entra {
    /// The request for a token.
    ///
    /// # Errors
    /// Where there is no such address.
    pub(super) fn request(
        &self,
        secret: &SecretString,
        settings: &ExternalSettings,
    ) -> Result<Outgoing, ProviderError> {
        let path = format!("/{}/oauth2/v2.0/token", escaped(&self.tenant));
        let uri = match &settings.entra_base {
            Some(base) => base.join(&path),
            None => BASE.parse::<BaseUrl>().and_then(|base| base.join(&path)),
        };
        let fields = [
            ("grant_type", "client_credentials"),
            ("scope", SCOPE),
            ("client_id", &self.client),
            ("client_secret", secret.expose_secret()),
        ];
        let form = fields.map(|(name, value)| format!("{name}={}", escaped(value))).join("&");
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        let outgoing = Outgoing::new(uri, Bytes::from(form))?;
        Ok(outgoing.with(CONTENT_TYPE, form_type))
    }

    /// The token in the answer, and how long it may be used.
    pub(super) fn token(body: &[u8]) -> Result<(SecretString, Duration), Fault> {
        let Token { access_token: Plaintext(token), expires_in } = document(body)?;
        Ok((token, Duration::from_secs(expires_in).saturating_sub(MARGIN)))
    }
}
