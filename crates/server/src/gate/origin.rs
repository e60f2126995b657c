//! Sites whose pages may call this server from a browser.

use std::str::FromStr;

use axum::http::{HeaderValue, Uri};

/// A site, as browsers name it: scheme, host, and the port where it is not the usual one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(HeaderValue);

/// A text that no browser sends as an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an origin is written as browsers send it, SCHEME://HOST[:PORT] in lower case without a path, not `{0}`")]
pub struct NotAnOrigin(String);

impl FromStr for Origin {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        let bad = || NotAnOrigin(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else { return Err(bad()) };
        let port = match (uri.port_u16(), scheme) {
            (Some(80), "http") | (Some(443), "https") | (None, _) => String::new(),
            (Some(port), _) => format!(":{port}"),
        };
        // Whatever else a URL may hold, or another spelling of the same, would never be equal to what is sent.
        if format!("{scheme}://{host}{port}").to_ascii_lowercase() != text || host.contains('*') {
            return Err(bad());
        }
        HeaderValue::from_str(text).map(Self).map_err(|_| bad())
    }
}

/// The sites that are let in. Nothing by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(Vec<Origin>);

impl Origins {
    /// These.
    pub fn new(origins: Vec<Origin>) -> Self {
        Self(origins)
    }

    /// Whether the header `Origin` names one of them.
    pub(super) fn contain(&self, header: &HeaderValue) -> bool {
        self.0.iter().any(|origin| origin.0 == header)
    }

    /// As the header `Origin` names them.
    pub fn headers(&self) -> impl Iterator<Item = HeaderValue> {
        self.0.iter().map(|origin| origin.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for good in ["https://app.example.org", "http://localhost:3000", "http://[::1]:8000", "tauri://localhost"] {
            let origins = Origins::new(vec![good.parse().unwrap()]);
            assert!(origins.contain(&HeaderValue::from_static(good)), "{good}");
            assert!(!origins.contain(&HeaderValue::from_static("https://evil.example.org")));
        }
        for bad in [
            "",
            "*",
            "null",
            "example.org",
            "https://",
            "https://*.example.org",
            "https://example.org/",
            "https://example.org/x",
            "https://example.org:443",
            "http://example.org:80",
            "https://Example.org",
            "https://user@example.org",
            "https://example.org?x",
            "HTTPS://example.org",
            "https://ex ample.org",
        ] {
            assert_eq!(bad.parse::<Origin>(), Err(NotAnOrigin(bad.into())), "{bad}");
        }
    }
}
