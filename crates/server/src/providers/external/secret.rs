//! The seam to wherever secrets are kept.

use futures::future::BoxFuture;
use secrecy::SecretString;

/// Gives secrets by name. It is asked again and again, so that a new secret takes effect without a restart.
pub trait SecretSource: Send + Sync {
    /// The secret `key` of `scope`.
    fn secret<'a>(&'a self, scope: &'a str, key: &'a str) -> BoxFuture<'a, Result<SecretString, SecretError>>;
}

/// A secret that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// There is none of this name.
    #[error("there is no secret `{key}` in the scope `{scope}`")]
    Missing {
        /// The scope.
        scope: String,
        /// The key.
        key: String,
    },
    /// It cannot be read now. The text is for the log.
    #[error("the secrets cannot be read: {0}")]
    Unavailable(String),
}
