//! Credentials that were given as they are, and the secrets that external models refer to.

use futures::FutureExt;
use futures::future::BoxFuture;
use secrecy::SecretString;

use super::ControlPlane;
use super::endpoints::Literal;
use crate::error::{ApiError, ErrorKind};
use crate::providers::external::{SecretError, SecretSource};
use crate::store::Change;

impl ControlPlane {
    pub(super) async fn keep_literals(&self, _change: &mut Change, literals: Vec<Literal>) -> Result<(), ApiError> {
        if literals.is_empty() {
            return Ok(());
        }
        Err(ApiError::new(ErrorKind::Unsupported, "credentials cannot be kept yet"))
    }
}

/// No secrets.
pub struct NoSecrets;

impl SecretSource for NoSecrets {
    fn secret<'a>(&'a self, scope: &'a str, key: &'a str) -> BoxFuture<'a, Result<SecretString, SecretError>> {
        let (scope, key) = (scope.to_owned(), key.to_owned());
        async { Err(SecretError::Missing { scope, key }) }.boxed()
    }
}
