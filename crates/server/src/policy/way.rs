//! The way of a call: from the gate through the policies to a model, and of its answer back to the caller.

use std::time::Instant;

use serde_json::Value;

use super::guardrails::Watch;
use super::{Call, ServedBy, fallback};
use crate::endpoints::Task;
use crate::error::{ApiError, ErrorKind};
use crate::gate::{Allowed, Query};
use crate::metrics;
use crate::providers::{
    Answer, ChatCall, CompletionCall, EmbeddingCall, Embeddings, ProviderError, RerankCall, Scores,
};
use crate::wire::JsonObject;
use crate::wire::options::Usage;

/// An answer, and what has given it.
pub struct Served<T> {
    /// The answer.
    pub answer: T,
    /// What has given it.
    pub by: ServedBy,
}

impl Allowed<Query> {
    /// Opens the account of a call of task `wanted`, whose body has these fields.
    ///
    /// # Errors
    /// 400 where the endpoint does something else.
    pub async fn begin(&self, wanted: Task, fields: &JsonObject) -> Result<(), ApiError> {
        let endpoint = self.endpoint();
        self.draft().open(self.caller().principal(), endpoint);
        if self.draft().keeps_payload() {
            let body = Value::Object(fields.clone());
            let body = match &endpoint.policies().guardrails {
                Some(guardrails) => guardrails.redacted(body).await,
                None => body,
            };
            self.draft().asked(body.to_string());
        }
        // What a model does that has never been loaded shows when it is: it refuses what it does not do.
        if let Some(task) = endpoint.task().filter(|task| !task.serves(wanted)) {
            let text = format!("endpoint `{}` serves {task}, not {wanted}", endpoint.name());
            return Err(ApiError::new(ErrorKind::BadRequest, text).with_field("model"));
        }
        Ok(())
    }

    /// Answers a conversation. `streamed`: the caller reads the answer while it is made.
    ///
    /// # Errors
    /// The policy's that refuses the call, or the model's.
    pub async fn chat(&self, call: ChatCall, streamed: bool) -> Result<Served<Answer>, ApiError> {
        self.generate(call, streamed).await
    }

    /// Continues texts, as [`Allowed::chat`].
    ///
    /// # Errors
    /// As [`Allowed::chat`].
    pub async fn complete(&self, call: CompletionCall, streamed: bool) -> Result<Served<Answer>, ApiError> {
        self.generate(call, streamed).await
    }

    /// Turns texts into vectors.
    ///
    /// # Errors
    /// As [`Allowed::chat`].
    pub async fn embed(&self, call: EmbeddingCall) -> Result<Served<Embeddings>, ApiError> {
        self.compute(call, |embeddings| embeddings.prompt_tokens).await
    }

    /// Scores documents.
    ///
    /// # Errors
    /// As [`Allowed::chat`].
    pub async fn rerank(&self, call: RerankCall) -> Result<Served<Scores>, ApiError> {
        self.compute(call, |scores| scores.prompt_tokens).await
    }

    async fn generate<C: Call<Answer = Answer>>(&self, call: C, streamed: bool) -> Result<Served<Answer>, ApiError> {
        if streamed {
            self.draft().streaming();
        }
        let (call, watch) = self.let_in(call).await?;
        let asked = Instant::now();
        let Served { answer, by } = self.ask(call, streamed).await?;
        let answer = metrics::measured(answer, self.endpoint().name(), asked);
        let answer = match watch {
            Some(watch) => watch.over(answer),
            None => answer,
        };
        let answer = self.draft().streamed(answer);
        Ok(Served { answer, by })
    }

    /// A call that is answered in one piece, with the tokens that `tokens` finds in the answer.
    async fn compute<C: Call>(
        &self,
        call: C,
        tokens: impl Fn(&C::Answer) -> usize,
    ) -> Result<Served<C::Answer>, ApiError> {
        let (call, _) = self.let_in(call).await?;
        let asked = self.ask(call, false);
        let served = metrics::measured_call(asked, self.endpoint().name(), |served| tokens(&served.answer)).await?;
        self.draft().count(Usage::new(tokens(&served.answer), 0), true);
        Ok(served)
    }

    /// The call as a model may read it, once limits and guardrails let it in, and what is to be done with its answer.
    async fn let_in<C: Call>(&self, call: C) -> Result<(C, Option<Watch>), ApiError> {
        self.draft().read(&call);
        self.admit(&call).await?;
        match &self.endpoint().policies().guardrails {
            Some(guardrails) => Ok(guardrails.admit(call).await?),
            None => Ok((call, None)),
        }
    }

    async fn ask<C: Call>(&self, call: C, streamed: bool) -> Result<Served<C::Answer>, ProviderError> {
        let endpoint = self.endpoint();
        let order = fallback::order(endpoint, endpoint.policies());
        let note = |by: &ServedBy| self.draft().served_by(by);
        let (answer, by) = fallback::first_answer(&order, call, streamed, note).await?;
        Ok(Served { answer, by })
    }
}
