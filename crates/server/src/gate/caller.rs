//! Who is calling: tokens, principals and what they may do.

use std::fmt;

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq;

use crate::endpoints::Endpoint;
use crate::error::{ApiError, ErrorKind};

/// What a principal may do with an endpoint; each level holds the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// See that it exists.
    CanView,
    /// Call it.
    CanQuery,
    /// Change it.
    CanManage,
}

impl fmt::Display for Permission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::CanView => "CAN_VIEW",
            Self::CanQuery => "CAN_QUERY",
            Self::CanManage => "CAN_MANAGE",
        })
    }
}

/// Somebody the gate has recognised. Only [`Access::authenticate`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    kind: PrincipalKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PrincipalKind {
    LocalAdmin,
    TokenHolder,
}

impl Principal {
    /// What this principal may do with `endpoint`; `None`: not even know of it.
    pub fn permission_on(&self, _endpoint: &Endpoint) -> Option<Permission> {
        // Both kinds of today own the machine or its one token.
        match self.kind {
            PrincipalKind::LocalAdmin | PrincipalKind::TokenHolder => Some(Permission::CanManage),
        }
    }

    /// How logs name this principal.
    pub fn name(&self) -> &'static str {
        match self.kind {
            PrincipalKind::LocalAdmin => "local-admin",
            PrincipalKind::TokenHolder => "token",
        }
    }
}

/// Who may come in.
pub enum Access {
    /// Whoever reaches the server is its administrator: for loopback addresses only.
    LocalAdmin,
    /// Whoever has this token.
    Token(String),
}

impl fmt::Debug for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::LocalAdmin => "LocalAdmin",
            Self::Token(_) => "Token(..)",
        })
    }
}

impl Access {
    /// Who sent these headers. As local admin any token is fine, since clients always send one.
    ///
    /// # Errors
    /// 401 where a token is needed and the headers hold none or another one.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, ApiError> {
        let expected = match self {
            Self::LocalAdmin => return Ok(Principal { kind: PrincipalKind::LocalAdmin }),
            Self::Token(token) => token,
        };
        let given = bearer_token(headers).ok_or_else(|| {
            let text = "no token given: send it in the header `Authorization: Bearer TOKEN`";
            ApiError::new(ErrorKind::Unauthenticated, text)
        })?;
        // In constant time, so that the answer's delay does not spell the token.
        if bool::from(given.ct_eq(expected.as_bytes())) {
            Ok(Principal { kind: PrincipalKind::TokenHolder })
        } else {
            Err(ApiError::new(ErrorKind::Unauthenticated, "the token is not valid"))
        }
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii()).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_header(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn the_token_and_nothing_else_opens_the_gate() {
        let access = Access::Token("open sesame".into());
        assert_eq!(access.authenticate(&with_header("Bearer open sesame")).unwrap().name(), "token");
        assert_eq!(access.authenticate(&with_header("bearer open sesame ")).unwrap().name(), "token");
        for refused in ["Bearer open", "Bearer open sesamee", "Bearer ", "Basic open sesame", "open sesame", ""] {
            let error = access.authenticate(&with_header(refused)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{refused}");
        }
        assert_eq!(access.authenticate(&HeaderMap::new()).unwrap_err().kind(), ErrorKind::Unauthenticated);
    }

    #[test]
    fn the_local_admin_may_send_any_token() {
        assert_eq!(Access::LocalAdmin.authenticate(&with_header("Bearer no-token")).unwrap().name(), "local-admin");
        assert_eq!(Access::LocalAdmin.authenticate(&HeaderMap::new()).unwrap().name(), "local-admin");
    }

    #[test]
    fn permissions_are_ordered_and_debug_hides_the_token() {
        assert!(Permission::CanView < Permission::CanQuery && Permission::CanQuery < Permission::CanManage);
        assert!(!format!("{:?}", Access::Token("secret".into())).contains("secret"));
    }
}
