//! Who is calling: the token in a request, and whose it is.

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq;

use super::{Aides, Directory, Origins, Principal, TokenHash};
use crate::error::{ApiError, ErrorKind};
use crate::store::BUILT_IN_ADMIN;
use crate::usage::Draft;

/// A principal making a request.
#[derive(Clone)]
pub struct Caller {
    principal: Principal,
    draft: Draft,
}

impl Caller {
    /// `principal`, whose request is accounted for in `draft`.
    pub fn new(principal: Principal, draft: Draft) -> Self {
        Self { principal, draft }
    }

    /// Who it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    pub(super) fn draft(&self) -> &Draft {
        &self.draft
    }
}

/// Who may come in besides those whom the directory knows.
#[derive(Debug, Default)]
pub struct Access {
    /// Whether the address can be reached from this machine alone: while nobody has a token, whoever calls is its administrator.
    pub local: bool,
    /// The administrator's token that the environment holds.
    pub token: Option<TokenHash>,
    /// The sites whose pages may call from a browser, besides those of this machine.
    pub origins: Origins,
    /// The endpoints that the server itself may ask.
    pub aides: Aides,
}

impl Access {
    /// For an address that this machine alone can reach.
    pub fn local() -> Self {
        Self { local: true, ..Self::default() }
    }

    /// For whoever has this token, or one that the directory knows.
    pub fn token(token: &str) -> Self {
        Self { token: Some(TokenHash::of(token.as_bytes())), ..Self::default() }
    }

    /// Whether anybody could come in.
    pub(super) fn is_open_to_somebody(&self, directory: &Directory) -> bool {
        self.local || self.token.is_some() || directory.has_tokens()
    }

    /// Whether whoever calls is the administrator.
    pub(super) fn is_open_to_all(&self, directory: &Directory) -> bool {
        self.local && self.token.is_none() && !directory.has_tokens()
    }

    /// Who sent these headers. As local administrator any token is fine, since clients always send one.
    ///
    /// # Errors
    /// 401 where a token is needed and the headers hold none or another one, 403 where a page of somebody else's sent the
    /// request through the administrator's browser.
    pub(super) fn authenticate(&self, directory: &Directory, headers: &HeaderMap) -> Result<Principal, ApiError> {
        let admin = || {
            let gone = || ApiError::internal("the administrator is not known", "the built-in user is gone");
            directory.recognised(BUILT_IN_ADMIN).ok_or_else(gone)
        };
        if self.is_open_to_all(directory) {
            from_this_machine(headers, &self.origins)?;
            return admin();
        }
        let given = bearer_token(headers).ok_or_else(|| {
            let text = "no token given: send it in the header `Authorization: Bearer TOKEN`";
            ApiError::new(ErrorKind::Unauthenticated, text)
        })?;
        let hash = TokenHash::of(given);
        let is_environment = |own: TokenHash| bool::from(own.bytes().ct_eq(hash.bytes()));
        if self.token.is_some_and(is_environment) {
            return admin();
        }
        let refused = || ApiError::new(ErrorKind::Unauthenticated, "the token is not valid");
        directory.bearer(&hash).ok_or_else(refused)
    }
}

/// Refuses what a page of another site, or a name that was pointed at this machine, makes a browser send.
fn from_this_machine(headers: &HeaderMap, origins: &Origins) -> Result<(), ApiError> {
    let refuse = |what: &str| {
        let text = format!(
            "without a token only this machine's own callers are answered, and the header `{what}` names another one"
        );
        Err(ApiError::new(ErrorKind::Forbidden, text))
    };
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if text(header::HOST).is_some_and(|host| !is_loopback(host)) {
        return refuse("Host");
    }
    if headers.get(header::ORIGIN).is_some_and(|origin| origins.contain(origin)) {
        return Ok(());
    }
    let origin = text(header::ORIGIN).map(|origin| origin.split_once("://").map_or(origin, |(_, host)| host));
    if origin.is_some_and(|host| !is_loopback(host)) {
        return refuse("Origin");
    }
    Ok(())
}

/// Whether `HOST[:PORT]` is this machine.
fn is_loopback(host: &str) -> bool {
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn bearer_token(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii()).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{TokenRow, now};

    fn with_headers(headers: &[(header::HeaderName, &str)]) -> HeaderMap {
        headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn with_token(value: &str) -> HeaderMap {
        with_headers(&[(header::AUTHORIZATION, value)])
    }

    /// A directory in which the built-in administrator has this token.
    fn with_bearer(token: &str, expires: Option<i64>) -> Directory {
        let mut directory = Directory::built_in();
        let (id, hash) = ("t".to_owned(), TokenHash::of(token.as_bytes()).to_hex());
        let owner = BUILT_IN_ADMIN.to_owned();
        let row = TokenRow {
            id,
            principal_id: owner,
            hash,
            comment: String::new(),
            origin: "api".into(),
            created: 0,
            created_by: "admin".into(),
            expires,
        };
        directory.put_token(row).unwrap();
        directory
    }

    #[test]
    fn the_tokens_that_are_known_and_nothing_else_open_the_gate() {
        let access = Access::token("sesame");
        let directory = with_bearer("rosebud", Some(now() + 60_000));
        for good in ["Bearer sesame", "bearer sesame ", "Bearer rosebud"] {
            assert_eq!(access.authenticate(&directory, &with_token(good)).unwrap().name(), "admin", "{good}");
        }
        for refused in ["Bearer sesam", "Bearer sesamee", "Bearer ", "Basic sesame", "sesame", ""] {
            let error = access.authenticate(&directory, &with_token(refused)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{refused}");
        }
        assert!(access.authenticate(&directory, &HeaderMap::new()).is_err());
        assert!(!format!("{:?}", access.token).contains("sesame"));
    }

    #[test]
    fn an_expired_token_opens_nothing_and_closes_the_local_door_all_the_same() {
        let directory = with_bearer("rosebud", Some(now() - 1));
        for access in [Access::local(), Access::token("sesame")] {
            assert!(access.authenticate(&directory, &with_token("Bearer rosebud")).is_err());
            assert!(access.authenticate(&directory, &HeaderMap::new()).is_err());
        }
    }

    #[test]
    fn while_nobody_has_a_token_whoever_calls_from_this_machine_is_the_administrator() {
        let (access, directory) = (Access::local(), Directory::built_in());
        let local = [
            &[(header::AUTHORIZATION, "Bearer no-token")][..],
            &[],
            &[(header::HOST, "localhost:8080"), (header::ORIGIN, "http://127.0.0.1:3000")],
            &[(header::HOST, "[::1]:8080")],
            &[(header::HOST, "127.1.2.3")],
        ];
        for headers in local {
            let principal = access.authenticate(&directory, &with_headers(headers)).unwrap();
            assert!(principal.is_admin(), "{headers:?}");
        }
        let strange = [
            &[(header::HOST, "rebound.example.org:8080")][..],
            &[(header::HOST, "localhost"), (header::ORIGIN, "https://evil.example.org")],
            &[(header::ORIGIN, "null")],
            &[(header::HOST, "localhost.evil.org")],
        ];
        for headers in strange {
            let error = access.authenticate(&directory, &with_headers(headers)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Forbidden, "{headers:?}");
        }
        let origins = Origins::new(vec!["https://app.example.org".parse().unwrap()]);
        let access = Access { origins, ..access };
        for (headers, is_let_in) in [
            (&[(header::HOST, "localhost"), (header::ORIGIN, "https://app.example.org")][..], true),
            (&[(header::HOST, "localhost"), (header::ORIGIN, "https://evil.example.org")], false),
            (&[(header::HOST, "app.example.org"), (header::ORIGIN, "https://app.example.org")], false),
        ] {
            assert_eq!(access.authenticate(&directory, &with_headers(headers)).is_ok(), is_let_in, "{headers:?}");
        }
    }
}
