//! Secrets: sealed before they reach the store, and opened for whoever may have them.
//!
//! Owns the cipher, its key, and the names and sizes that secrets may have. Knows no request and no permission: who may is the
//! control plane's to say. No value shows in a message, in a log or in `Debug`.

mod cipher;
mod key;

use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

use self::cipher::Cipher;
pub use self::key::{KeyError, KeySource, MasterKey, NotAKey};
use crate::config::SECRETS_KEY_VARIABLE;
use crate::error::ApiError;
use crate::providers::external::{SecretError, SecretSource};
use crate::store::{Change, Store, StoreError};
use crate::wire::external::SecretReference;

/// What is sealed to know the key by, in a place that no secret can have.
const KNOWN: &[u8] = b"hearth";

/// The secrets of a store. A clone is the same one.
#[derive(Clone)]
pub struct Secrets(Arc<Inner>);

struct Inner {
    store: Store,
    source: KeySource,
    /// The cipher, once its key has proved to be the store's.
    cipher: Mutex<Option<Arc<Cipher>>>,
}

/// Why a secret cannot be sealed or opened. No text holds a value.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is none.
    #[error(
        "there are secrets in the store, and no key to open them: put it into {0} or {SECRETS_KEY_VARIABLE}. Servers with \
         one store need the same key"
    )]
    NoKey(std::path::PathBuf),
    /// The store's secrets were sealed with another one.
    #[error(
        "the key of the secrets is not the one that the store's secrets were sealed with. Servers with one store need \
         the same key"
    )]
    OtherKey,
    /// Somebody has changed the sealed text.
    #[error("the secret `{key}` of the scope `{scope}` cannot be opened: its text in the store was changed")]
    Broken {
        /// The scope.
        scope: String,
        /// The key.
        key: String,
    },
    /// It cannot be sealed.
    #[error("the secret `{0}` cannot be sealed")]
    Unsealed(String),
}

impl From<SecretsError> for ApiError {
    fn from(error: SecretsError) -> Self {
        match error {
            SecretsError::Store(error) => error.into(),
            error => Self::unavailable("secrets cannot be used now; the server's log says why", error.to_string()),
        }
    }
}

impl Secrets {
    /// The secrets of that store, with that key. Neither is looked at yet.
    pub fn new(store: Store, source: KeySource) -> Self {
        Self(Arc::new(Inner { store, source, cipher: Mutex::new(None) }))
    }

    /// A store of its own below `folder`, for tests.
    #[cfg(test)]
    pub(crate) async fn temporary(folder: &std::path::Path) -> Self {
        let source = KeySource { given: None, file: folder.join("secrets.key") };
        Self::new(Store::temporary(folder).await, source)
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Whether the key is the one that the store's secrets were sealed with.
    ///
    /// # Errors
    /// Where it is not, or is not there; where the store fails.
    pub async fn check(&self) -> Result<(), SecretsError> {
        match self.store().secrets_check().await? {
            Some(check) => self.proven(&check).map(drop),
            // Nothing was sealed yet. A key that could not be used shows all the same.
            None => Ok(self.0.source.key().map(drop)?),
        }
    }

    /// The secret `key` of `scope`; `None` where there is none.
    ///
    /// # Errors
    /// Where it cannot be opened; where the store fails.
    pub async fn open(&self, scope: &str, key: &str) -> Result<Option<Zeroizing<Vec<u8>>>, SecretsError> {
        let Some(sealed) = self.store().sealed(scope, key).await? else { return Ok(None) };
        let cipher = match self.cached() {
            Some(cipher) => cipher,
            None => self.proven(&self.store().secrets_check().await?.ok_or(SecretsError::OtherKey)?)?,
        };
        let broken = |_| SecretsError::Broken { scope: scope.to_owned(), key: key.to_owned() };
        cipher.open(scope, key, &sealed).map(Some).map_err(broken)
    }

    /// Seals a secret and puts it into the store.
    ///
    /// # Errors
    /// Where the key cannot be used, or the scope does not exist; where the store fails.
    pub async fn put(&self, change: &mut Change, scope: &str, key: &str, value: &[u8]) -> Result<(), SecretsError> {
        let cipher = self.sealing(change).await?;
        let sealed = cipher.seal(scope, key, value).map_err(|_| SecretsError::Unsealed(key.to_owned()))?;
        Ok(change.put_sealed(scope, key, &sealed).await?)
    }

    /// Keeps a credential that belongs to the server's own `reference`, a name in a scope that callers neither see nor read.
    ///
    /// # Errors
    /// As [`Secrets::put`].
    pub async fn keep(
        &self,
        change: &mut Change,
        reference: &SecretReference,
        credential: &SecretString,
    ) -> Result<(), SecretsError> {
        change.ensure_scope(reference.scope()).await?;
        self.put(change, reference.scope(), reference.key(), credential.expose_secret().as_bytes()).await
    }

    /// Forgets the credentials that were kept under names that begin with `prefix` in the server's own `scope`, but for those
    /// that `still` says are in use.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn forget(
        &self,
        change: &mut Change,
        (scope, prefix): (&str, &str),
        still: impl Fn(&str) -> bool,
    ) -> Result<(), StoreError> {
        for key in change.keys_with(scope, prefix).await?.into_iter().filter(|key| !still(key)) {
            change.delete_secret(scope, &key).await?;
        }
        Ok(())
    }

    /// The cipher to seal with. The first seal of a store makes the key, if none is given, and leaves in the store what every
    /// other one is checked against; changes come one at a time, so that two servers never make two keys.
    async fn sealing(&self, change: &mut Change) -> Result<Arc<Cipher>, SecretsError> {
        if let Some(cipher) = self.cached() {
            return Ok(cipher);
        }
        if let Some(check) = change.secrets_check().await? {
            return self.proven(&check);
        }
        let cipher = Cipher::new(&self.0.source.key_or_new()?);
        let check = cipher.seal("", "", KNOWN).map_err(|_| SecretsError::Unsealed(String::new()))?;
        change.set_secrets_check(&check).await?;
        // Not cached: the change may be undone.
        Ok(Arc::new(cipher))
    }

    /// The cipher, whose key opens the store's known text.
    fn proven(&self, check: &str) -> Result<Arc<Cipher>, SecretsError> {
        let key = self.0.source.key()?.ok_or_else(|| SecretsError::NoKey(self.0.source.file.clone()))?;
        let cipher = Cipher::new(&key);
        let known = cipher.open("", "", check).is_ok_and(|text| text.as_slice() == KNOWN);
        if !known {
            return Err(SecretsError::OtherKey);
        }
        let cipher = Arc::new(cipher);
        *self.0.cipher.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&cipher));
        Ok(cipher)
    }

    fn cached(&self) -> Option<Arc<Cipher>> {
        self.0.cipher.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl SecretSource for Secrets {
    fn secret<'a>(&'a self, scope: &'a str, key: &'a str) -> BoxFuture<'a, Result<SecretString, SecretError>> {
        async move {
            let opened = self.open(scope, key).await.map_err(|error| SecretError::Unavailable(error.to_string()))?;
            let missing = || SecretError::Missing { scope: scope.to_owned(), key: key.to_owned() };
            let value = opened.ok_or_else(missing)?;
            let no_text = |_| SecretError::Unavailable(format!("`{key}` of the scope `{scope}` is no text"));
            Ok(std::str::from_utf8(&value).map_err(no_text)?.into())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn put(secrets: &Secrets, scope: &str, key: &str, value: &[u8]) -> Result<(), SecretsError> {
        let mut change = secrets.store().change().await?;
        change.ensure_scope(scope).await?;
        secrets.put(&mut change, scope, key, value).await?;
        Ok(change.commit().await?)
    }

    fn given(key: MasterKey, other: &Secrets) -> Secrets {
        Secrets::new(other.store().clone(), KeySource { given: Some(key), file: "/nowhere/secrets.key".into() })
    }

    #[tokio::test]
    async fn a_secret_is_stored_sealed_and_opens_with_the_same_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = Secrets::temporary(folder.path()).await;
        secrets.check().await.unwrap();
        assert!(secrets.open("s", "k").await.unwrap().is_none());
        assert!(!folder.path().join("secrets.key").exists(), "no key before the first secret");
        put(&secrets, "s", "k", b"rosebud").await.unwrap();
        assert_eq!(secrets.open("s", "k").await.unwrap().unwrap().as_slice(), b"rosebud");
        let sealed = secrets.store().sealed("s", "k").await.unwrap().unwrap();
        assert!(!sealed.contains("rosebud"));

        let again = Secrets::new(secrets.store().clone(), secrets.0.source.clone());
        again.check().await.unwrap();
        assert_eq!(again.open("s", "k").await.unwrap().unwrap().as_slice(), b"rosebud");
        let same = given(secrets.0.source.key().unwrap().unwrap(), &secrets);
        put(&same, "s", "k2", b"sesame").await.unwrap();
        assert_eq!(secrets.open("s", "k2").await.unwrap().unwrap().as_slice(), b"sesame");

        let other = given(MasterKey::random(), &secrets);
        assert!(matches!(other.check().await, Err(SecretsError::OtherKey)));
        assert!(matches!(other.open("s", "k").await, Err(SecretsError::OtherKey)));
        assert!(matches!(put(&other, "s", "k", b"x").await, Err(SecretsError::OtherKey)));
        assert_eq!(secrets.open("s", "k").await.unwrap().unwrap().as_slice(), b"rosebud");
    }

    #[tokio::test]
    async fn a_server_without_the_stores_key_makes_none_of_its_own() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secrets = Secrets::temporary(folder.path()).await;
        put(&secrets, "s", "k", b"rosebud").await.unwrap();
        let file = elsewhere.path().join("secrets.key");
        let replica = Secrets::new(secrets.store().clone(), KeySource { given: None, file: file.clone() });
        for error in [replica.check().await.unwrap_err(), put(&replica, "s", "k", b"x").await.unwrap_err()] {
            assert!(error.to_string().contains("secrets.key or HEARTH_SECRETS_KEY"), "{error}");
        }
        assert!(!file.exists());
        std::fs::copy(&secrets.0.source.file, &file).unwrap();
        put(&replica, "s", "k", b"another").await.unwrap();
        assert_eq!(secrets.open("s", "k").await.unwrap().unwrap().as_slice(), b"another");
    }

    #[tokio::test]
    async fn an_undone_first_seal_leaves_a_store_that_others_can_begin() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = Secrets::temporary(folder.path()).await;
        let mut undone = secrets.store().change().await.unwrap();
        undone.ensure_scope("s").await.unwrap();
        secrets.put(&mut undone, "s", "k", b"x").await.unwrap();
        drop(undone);
        put(&secrets, "s", "k", b"rosebud").await.unwrap();
        let again = Secrets::new(secrets.store().clone(), secrets.0.source.clone());
        assert_eq!(again.open("s", "k").await.unwrap().unwrap().as_slice(), b"rosebud");
    }

    #[tokio::test]
    async fn a_sealed_text_in_another_place_does_not_open() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = Secrets::temporary(folder.path()).await;
        put(&secrets, "s", "theirs", b"rosebud").await.unwrap();
        let sealed = secrets.store().sealed("s", "theirs").await.unwrap().unwrap();
        let mut change = secrets.store().change().await.unwrap();
        change.put_sealed("s", "mine", &sealed).await.unwrap();
        change.commit().await.unwrap();
        let error = secrets.open("s", "mine").await.unwrap_err().to_string();
        assert!(error.contains("`mine` of the scope `s`") && !error.contains("rosebud"), "{error}");
    }

    #[tokio::test]
    async fn kept_credentials_are_found_by_reference_and_forgotten_with_their_endpoint() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = Secrets::temporary(folder.path()).await;
        let mut change = secrets.store().change().await.unwrap();
        for key in ["e1.a", "e1.b", "e10.a"] {
            let reference = SecretReference::new(".endpoints", key).unwrap();
            secrets.keep(&mut change, &reference, &SecretString::from(format!("sk-{key}"))).await.unwrap();
        }
        change.commit().await.unwrap();
        assert_eq!(secrets.secret(".endpoints", "e1.b").await.unwrap().expose_secret(), "sk-e1.b");
        let mut change = secrets.store().change().await.unwrap();
        secrets.forget(&mut change, (".endpoints", "e1."), |key| key == "e1.a").await.unwrap();
        change.commit().await.unwrap();
        for (key, is_there) in [("e1.a", true), ("e1.b", false), ("e10.a", true)] {
            assert_eq!(secrets.secret(".endpoints", key).await.is_ok(), is_there, "{key}");
        }
        put(&secrets, "s", "bytes", &[255]).await.unwrap();
        let error = secrets.secret("s", "bytes").await.unwrap_err();
        assert!(matches!(&error, SecretError::Unavailable(text) if text.contains("is no text")), "{error}");
    }
}
