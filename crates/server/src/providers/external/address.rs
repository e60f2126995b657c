//! Where an API is: a base URL, and what is put behind it.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;

/// What comes before the paths of an API: scheme, host, perhaps a path; no slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(String);

/// A text that cannot come before a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a URL that begins with http:// or https:// and has a host, but no user, no `?` and no `#`")]
pub struct BaseUrlError;

impl BaseUrl {
    /// The address of `path`, which begins with a slash and may end with a query.
    ///
    /// # Errors
    /// Where the two make no URL.
    pub fn join(&self, path: &str) -> Result<Uri, BaseUrlError> {
        format!("{}{path}", self.0).parse().map_err(|_| BaseUrlError)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BaseUrl {
    type Err = BaseUrlError;

    fn from_str(text: &str) -> Result<Self, BaseUrlError> {
        let uri: Uri = text.parse().map_err(|_| BaseUrlError)?;
        let authority = uri.authority().ok_or(BaseUrlError)?;
        let web = matches!(uri.scheme_str(), Some("http" | "https"));
        // A user in the URL would be a secret in a place where none is expected.
        if !web || authority.host().is_empty() || text.contains(['@', '?', '#']) {
            return Err(BaseUrlError);
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// `text` as a part of a path or as a value in a query: everything but letters, digits, `-`, `_`, `.` and `~` is escaped.
pub(super) fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_a_url_without_query_and_user() {
        let base: BaseUrl = "http://127.0.0.1:8000/v1/".parse().unwrap();
        assert_eq!(base.as_str(), "http://127.0.0.1:8000/v1");
        assert_eq!(base.join("/chat?a=b").unwrap().to_string(), "http://127.0.0.1:8000/v1/chat?a=b");
        assert!("https://[::1]/".parse::<BaseUrl>().is_ok());
        for bad in [
            "",
            "api.openai.com",
            "/v1",
            "ftp://x",
            "http://",
            "http://u:p@x",
            "http://x?a",
            "http://x#a",
            "http://x y",
        ] {
            assert_eq!(bad.parse::<BaseUrl>(), Err(BaseUrlError), "{bad}");
        }
    }

    #[test]
    fn what_a_path_cannot_hold_is_escaped() {
        assert_eq!(escaped("gpt-4.1_x~"), "gpt-4.1_x~");
        assert_eq!(escaped("a/b c?ä"), "a%2Fb%20c%3F%C3%A4");
    }
}
