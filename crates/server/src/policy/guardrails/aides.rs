//! The models that guardrails ask: endpoints that the server's settings name, in nobody's name and on nobody's account.

use std::fmt::Display;
use std::sync::{Arc, Weak};
use std::time::Instant;

use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::endpoints::Endpoint;
use crate::gate::{Aide, Gate};
use crate::metrics;
use crate::policy::fallback;
use crate::providers::{Answer, ChatCall, EmbeddingCall, ProviderError};

/// The way to them. The gate holds the endpoints that hold this.
#[derive(Debug, Clone)]
pub(super) struct Aides(pub(super) Weak<Gate>);

impl Aides {
    /// How near a text must be to a topic.
    pub(super) fn threshold(&self) -> f32 {
        self.0.upgrade().map_or(1.0, |gate| gate.access().aides.topic_threshold)
    }

    /// The answer of the judge. Its own endpoint's policies are not asked, but for fallback.
    pub(super) async fn judge(&self, call: ChatCall) -> Result<Answer, ProviderError> {
        let endpoint = self.endpoint(Aide::Judge)?;
        let asked = async {
            let begun = Instant::now();
            let order = fallback::order(&endpoint, endpoint.policies());
            let answer = fallback::first_answer(&order, call, false, |_| {}).await;
            answer.map(|(answer, _)| metrics::measured(answer, endpoint.name(), begun))
        };
        asked.instrument(own_span()).await.map_err(|error| Self::failed("judge", &error))
    }

    /// Vectors, and the id of the entity that has made them.
    pub(super) async fn vectors(&self, call: EmbeddingCall) -> Result<(String, Vec<Vec<f32>>), ProviderError> {
        let endpoint = self.endpoint(Aide::Topics)?;
        let order = fallback::order(&endpoint, endpoint.policies());
        let asked = fallback::first_answer(&order, call, false, |_| {});
        let answer = metrics::measured_call(asked, endpoint.name(), |(embeddings, _)| embeddings.prompt_tokens);
        let (embeddings, by) = answer.instrument(own_span()).await.map_err(|error| Self::failed("topics", &error))?;
        Ok((by.entity.id().to_owned(), embeddings.vectors))
    }

    fn endpoint(&self, aide: Aide) -> Result<Arc<Endpoint>, ProviderError> {
        let gate = self.0.upgrade().ok_or_else(|| Self::failed("gate", &"the server stops"))?;
        gate.aide(aide).map_err(|error| Self::failed("gate", &error))
    }

    /// What cannot be checked is not let through. Why is for the log.
    pub(super) fn failed(what: &str, error: &dyn Display) -> ProviderError {
        tracing::error!(what, %error, "a guardrail cannot be checked");
        ProviderError::Stopped("the endpoint's guardrails cannot be checked now".to_owned())
    }
}

/// A span of the model that is asked, whose numbers are not those of the request.
fn own_span() -> Span {
    tracing::info_span!("guardrail", model = Empty, prompt_tokens = Empty, completion_tokens = Empty)
}
