//! One model's way to its API and back: the key, attempts, and what becomes of failures.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::client::{Client, whole};
use super::entra::Entra;
use super::key::{KeptKey, Key, Keyring};
use super::protocol::{Fault, Outgoing, Protocol, Target, error_message};
use super::{ExternalModel, ExternalSettings, SecretSource};
use crate::providers::{ProviderError, UpstreamError, UpstreamFailure};

/// Most bytes of an answer that is not streamed.
pub(super) const LONGEST_ANSWER: usize = 64 << 20;
/// Most bytes of an error that are read.
const LONGEST_ERROR: usize = 64 << 10;
/// The first wait before a request is sent again; the next ones are twice as long each.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// What all models of other providers share.
pub(super) struct Shared {
    pub(super) settings: ExternalSettings,
    pub(super) secrets: Arc<dyn SecretSource>,
    pub(super) client: Client,
}

/// The way to one model.
pub(super) struct Upstream {
    pub(super) model: ExternalModel,
    pub(super) shared: Arc<Shared>,
    keyring: Keyring,
    token: KeptKey,
}

/// An attempt that failed.
pub(super) struct Setback {
    pub(super) error: ProviderError,
    /// Whether the same request may do better later.
    pub(super) again: bool,
}

impl From<ProviderError> for Setback {
    fn from(error: ProviderError) -> Self {
        Self { error, again: false }
    }
}

/// What opens the API, and what must not be repeated.
pub(super) struct Opening {
    header: Option<(HeaderName, HeaderValue)>,
    keys: Vec<Arc<Key>>,
}

impl Upstream {
    pub(super) fn new(model: ExternalModel, shared: Arc<Shared>) -> Self {
        let keyring = Keyring::new(model.credential().cloned(), Arc::clone(&shared.secrets));
        Self { model, shared, keyring, token: KeptKey::default() }
    }

    pub(super) fn protocol(&self) -> &dyn Protocol {
        &*self.model.protocol
    }

    pub(super) fn settings(&self) -> &ExternalSettings {
        &self.shared.settings
    }

    /// Whom requests are for.
    pub(super) fn target(&self) -> Target<'_> {
        Target { provider: self.model.provider(), model: self.model.name(), settings: self.settings() }
    }

    /// The whole answer to a request, read by `read`.
    pub(super) async fn document<T>(
        &self,
        outgoing: &Outgoing,
        deadline: Option<Instant>,
        read: impl Fn(&[u8]) -> Result<T, Fault> + Sync,
    ) -> Result<T, ProviderError> {
        let read = &read;
        let attempt = move || async move {
            let (response, opening) = self.ask(outgoing).await?;
            let body = whole(response.into_body(), LONGEST_ANSWER, self.settings().idle_timeout).await;
            let body = body.map_err(|error| self.setback(error, &opening))?;
            read(&body).map_err(|fault| self.fault(fault, &opening))
        };
        self.retried(deadline, attempt).await
    }

    /// Does something until it succeeds, fails for good, or has failed too often.
    pub(super) async fn retried<T, F>(
        &self,
        deadline: Option<Instant>,
        attempt: impl Fn() -> F,
    ) -> Result<T, ProviderError>
    where
        F: Future<Output = Result<T, Setback>>,
    {
        let mut attempts = 0;
        loop {
            let Setback { error, again } = match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(setback) => setback,
            };
            let wait = if again && attempts < self.settings().retries { self.wait(attempts, &error) } else { None };
            let in_time = |wait: &Duration| deadline.is_none_or(|deadline| Instant::now() + *wait < deadline);
            let Some(wait) = wait.filter(in_time) else { return Err(error) };
            attempts += 1;
            tracing::warn!(model = self.model.name(), attempts, %error, "a provider is asked again");
            tokio::time::sleep(wait).await;
        }
    }

    /// How long to wait before the next attempt: what the API asks for, or twice as long as the time before. Everyone waits a
    /// little longer or shorter than everyone else. `None` where the API asks for more than anybody wants to wait.
    fn wait(&self, attempts: u32, error: &ProviderError) -> Option<Duration> {
        let longest = self.settings().longest_wait;
        let share = (RandomState::new().hash_one(attempts) % 1024) as f64 / 1024.0;
        let asked = match error {
            ProviderError::Upstream(error) => error.retry_after.map(Duration::from_secs),
            _ => None,
        };
        match asked {
            Some(asked) if asked > longest => None,
            Some(asked) => Some(asked.mul_f64(1.0 + share / 4.0)),
            None => Some(FIRST_WAIT.saturating_mul(1 << attempts.min(10)).min(longest).mul_f64(0.5 + share / 2.0)),
        }
    }

    /// Sends a request once. What comes back is an answer, and not an error.
    pub(super) async fn ask(&self, outgoing: &Outgoing) -> Result<(Response<Incoming>, Opening), Setback> {
        let opening = self.opening().await?;
        let sent = self.shared.client.send(outgoing, opening.header.clone(), self.settings()).await;
        let response = sent.map_err(|error| self.setback(error, &opening))?;
        if response.status().is_success() {
            return Ok((response, opening));
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            self.keyring.forget();
            self.token.forget();
        }
        Err(self.setback(self.refusal(response).await, &opening))
    }

    /// The key of a request.
    async fn opening(&self) -> Result<Opening, Setback> {
        let Some(key) = self.keyring.key().await? else { return Ok(Opening { header: None, keys: Vec::new() }) };
        let place = self.protocol().key_place();
        let Some(entra) = self.protocol().entra() else {
            return Ok(Opening { header: Some(key.header(&place)?), keys: vec![key] });
        };
        let token = match self.token.get() {
            Some(token) => token,
            None => self.new_token(entra, &key).await?,
        };
        Ok(Opening { header: Some(token.header(&place)?), keys: vec![token, key] })
    }

    async fn new_token(&self, entra: &Entra, key: &Arc<Key>) -> Result<Arc<Key>, Setback> {
        let opening = Opening { header: None, keys: vec![Arc::clone(key)] };
        let outgoing = entra.request(key.secret(), self.settings())?;
        let sent = self.shared.client.send(&outgoing, None, self.settings()).await;
        let response = sent.map_err(|error| self.setback(error, &opening))?;
        if !response.status().is_success() {
            self.keyring.forget();
            // Whatever it is, it is not the caller's fault.
            let UpstreamError { message, .. } = self.refusal(response).await;
            let error =
                UpstreamError::new(UpstreamFailure::Failed, format!("needs a token, and Microsoft Entra {message}"));
            return Err(self.setback(error, &opening));
        }
        let body = whole(response.into_body(), LONGEST_ERROR, self.settings().idle_timeout).await;
        let body = body.map_err(|error| self.setback(error, &opening))?;
        let (token, time) = Entra::token(&body).map_err(|fault| self.fault(fault, &opening))?;
        Ok(self.token.keep(token, time)?)
    }

    /// The error that an answer is.
    async fn refusal(&self, response: Response<Incoming>) -> UpstreamError {
        let status = response.status().as_u16();
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let body =
            whole(response.into_body(), LONGEST_ERROR, self.settings().idle_timeout).await.unwrap_or(Bytes::new());
        let message = serde_json::from_slice(&body).ok().and_then(|body| error_message(&body));
        UpstreamError { retry_after, ..told(status, message.as_deref()) }
    }

    /// The failure of an attempt.
    pub(super) fn setback(&self, error: UpstreamError, opening: &Opening) -> Setback {
        let again = match error.failure {
            UpstreamFailure::Refused(status) => matches!(status, 408 | 425 | 429),
            UpstreamFailure::Failed | UpstreamFailure::Unreachable => true,
            // It had all the time that there is for one answer.
            UpstreamFailure::TimedOut => false,
        };
        let message = opening.keys.iter().fold(error.message, |text, key| key.redact(&text));
        let message = format!("{} {message}", self.model.provider());
        Setback { error: ProviderError::Upstream(UpstreamError { message, ..error }), again }
    }

    /// The failure of an attempt whose answer says so, or says nothing that anybody understands.
    pub(super) fn fault(&self, fault: Fault, opening: &Opening) -> Setback {
        match fault {
            Fault::Told { status, message } => self.setback(told(status.unwrap_or(500), Some(&message)), opening),
            Fault::Malformed(what) => {
                let error =
                    UpstreamError::new(UpstreamFailure::Failed, format!("answered what nobody understands: {what}"));
                Setback { again: false, ..self.setback(error, opening) }
            }
        }
    }
}

/// The error of an API that says that it has failed.
fn told(status: u16, message: Option<&str>) -> UpstreamError {
    let message = match (status, message) {
        // What is said of a credential may be a part of it.
        (401, _) => "refused the credential of this model".to_owned(),
        (_, Some(message)) => format!("answered {status}: {message}"),
        (_, None) => format!("answered {status}"),
    };
    let failure = if (400..500).contains(&status) { UpstreamFailure::Refused(status) } else { UpstreamFailure::Failed };
    UpstreamError::new(failure, message)
}
