//! The credential of a model, as it is sent: found when a request needs it, and kept for a moment.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use super::model::{Credential, can_be_sent};
use super::secret::{SecretError, SecretSource};
use crate::providers::ProviderError;

/// How long a secret is used before it is asked for again.
const KEPT: Duration = Duration::from_secs(1);
/// What stands where a secret stood.
const REDACTED: &str = "[redacted]";
/// The shortest text that is taken out of messages: to take out shorter ones would leave nothing of them.
const SHORTEST: usize = 4;

/// Where a request has its credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// In `Authorization`, as a bearer token.
    Bearer,
    /// In a header of its own.
    Header(HeaderName),
}

/// A secret that can be sent.
pub(super) struct Key {
    secret: SecretString,
}

impl Key {
    /// # Errors
    /// Where no header can carry it.
    pub(super) fn new(secret: SecretString) -> Result<Self, ProviderError> {
        if !can_be_sent(&secret) {
            let text = "the credential of another provider must be visible ASCII without blanks, and not empty";
            return Err(ProviderError::Failed(text.to_owned()));
        }
        Ok(Self { secret })
    }

    /// The secret itself.
    pub(super) fn secret(&self) -> &SecretString {
        &self.secret
    }

    /// The header that carries it.
    pub(super) fn header(&self, place: &Place) -> Result<(HeaderName, HeaderValue), ProviderError> {
        let (name, text) = match place {
            Place::Bearer => (AUTHORIZATION, SecretString::from(format!("Bearer {}", self.secret.expose_secret()))),
            Place::Header(name) => (name.clone(), self.secret.clone()),
        };
        let value = HeaderValue::from_str(text.expose_secret());
        let mut value = value.map_err(|_| ProviderError::Failed("the credential fits into no header".to_owned()))?;
        value.set_sensitive(true);
        Ok((name, value))
    }

    /// `text` without the secret.
    pub(super) fn redact(&self, text: &str) -> String {
        let secret = self.secret.expose_secret();
        if secret.len() < SHORTEST { text.to_owned() } else { text.replace(secret, REDACTED) }
    }
}

/// A key that is used until that time.
#[derive(Default)]
pub(super) struct KeptKey(Mutex<Option<(Instant, Arc<Key>)>>);

impl KeptKey {
    /// The key, while it may be used.
    pub(super) fn get(&self) -> Option<Arc<Key>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|(until, _)| Instant::now() < *until).map(|(_, key)| Arc::clone(key))
    }

    /// Keeps a key for some time.
    pub(super) fn keep(&self, secret: SecretString, time: Duration) -> Result<Arc<Key>, ProviderError> {
        let key = Arc::new(Key::new(secret)?);
        let until = Instant::now().checked_add(time);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until.map(|until| (until, Arc::clone(&key)));
        Ok(key)
    }

    /// Forgets the key.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Gives the key of one model.
pub(super) struct Keyring {
    credential: Option<Credential>,
    secrets: Arc<dyn SecretSource>,
    kept: KeptKey,
}

impl Keyring {
    pub(super) fn new(credential: Option<Credential>, secrets: Arc<dyn SecretSource>) -> Self {
        Self { credential, secrets, kept: KeptKey::default() }
    }

    /// The key; `None` for a model that needs none.
    pub(super) async fn key(&self) -> Result<Option<Arc<Key>>, ProviderError> {
        let Some(credential) = &self.credential else { return Ok(None) };
        if let Some(key) = self.kept.get() {
            return Ok(Some(key));
        }
        let secret = match credential {
            Credential::Literal(secret) => secret.clone(),
            Credential::Reference(reference) => {
                self.secrets.secret(reference.scope(), reference.key()).await.map_err(failure)?
            }
        };
        self.kept.keep(secret, KEPT).map(Some)
    }

    /// Forgets a key that was refused: there may be a new one.
    pub(super) fn forget(&self) {
        self.kept.forget();
    }
}

/// Which secret is missing is for the log: whoever may call a model need not know its secrets' names.
fn failure(error: SecretError) -> ProviderError {
    ProviderError::Failed(format!("the credential of another provider's model: {error}"))
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::BoxFuture;

    use super::*;
    use crate::wire::external::SecretReference;

    struct Counting(Mutex<Vec<&'static str>>);

    impl SecretSource for Counting {
        fn secret<'a>(&'a self, scope: &'a str, key: &'a str) -> BoxFuture<'a, Result<SecretString, SecretError>> {
            let next = self.0.lock().unwrap().pop();
            let missing = || SecretError::Missing { scope: scope.into(), key: key.into() };
            async move { next.map(SecretString::from).ok_or_else(missing) }.boxed()
        }
    }

    fn keyring(secrets: Vec<&'static str>) -> Keyring {
        let reference = SecretReference::new("scope", "key").unwrap();
        Keyring::new(Some(Credential::Reference(reference)), Arc::new(Counting(Mutex::new(secrets))))
    }

    #[tokio::test]
    async fn a_key_is_kept_for_a_moment_and_a_refused_one_is_forgotten() {
        let keyring = keyring(vec!["second", "first"]);
        let secret = async || keyring.key().await.unwrap().unwrap().secret().expose_secret().to_owned();
        assert_eq!((secret().await, secret().await), ("first".to_owned(), "first".to_owned()));
        keyring.forget();
        assert_eq!(secret().await, "second");
        keyring.forget();
        let Err(error) = keyring.key().await else { panic!("there is no third") };
        assert!(matches!(&error, ProviderError::Failed(text) if text.contains("no secret `key`")), "{error}");
    }

    #[tokio::test]
    async fn a_key_stands_in_its_header_and_in_no_message() {
        let key = keyring(vec!["sk-1234"]).key().await.unwrap().unwrap();
        let (name, value) = key.header(&Place::Bearer).unwrap();
        assert_eq!(
            (name.as_str(), value.to_str().unwrap(), value.is_sensitive()),
            ("authorization", "Bearer sk-1234", true)
        );
        let (name, value) = key.header(&Place::Header(HeaderName::from_static("api-key"))).unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("api-key", "sk-1234"));
        assert_eq!(key.redact("Bearer sk-1234 is not sk-1234"), "Bearer [redacted] is not [redacted]");
        assert!(keyring(vec!["two words"]).key().await.is_err());
    }
}
