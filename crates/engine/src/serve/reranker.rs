//! A reranker as a service: pairs of texts in, one score each out, on an encoder's thread and by its batches.

use std::sync::Arc;
use std::time::Instant;

use super::{Departure, EncoderHandle, EngineLoad, Health, ModelInfo, RequestError, SubmitError};
use crate::error::Error;
use crate::text::{ModelText, PairTemplate, TextError, Tokenizer, TypedText};

/// A running reranker. Cheap to clone; the thread ends when the last handle is gone.
#[derive(Clone)]
pub struct RerankerHandle {
    encoder: EncoderHandle,
    template: PairTemplate,
}

impl RerankerHandle {
    /// A reranker over a running encoder whose rows are scores.
    ///
    /// # Errors
    /// When its tokenizer does not say how two texts are put together.
    pub(super) fn new(encoder: EncoderHandle) -> Result<Self, Error> {
        let template = encoder.tokenizer().pair_template().cloned().ok_or_else(|| TextError::Tokenizer {
            message: "the post-processor does not say how a pair of texts is put together, as a reranker needs".into(),
        })?;
        Ok(Self { encoder, template })
    }

    /// What is known of the model.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        self.encoder.info()
    }

    /// Everything it knows about text.
    #[must_use]
    pub fn text(&self) -> &Arc<ModelText> {
        self.encoder.text()
    }

    /// Its tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        self.encoder.tokenizer()
    }

    /// How a query and a document, both encoded without special tokens, become one text.
    #[must_use]
    pub fn template(&self) -> &PairTemplate {
        &self.template
    }

    /// Checks that the model knows the tokens of each pair, and that they fit its context.
    ///
    /// # Errors
    /// The first pair that does not, with its index.
    pub fn check(&self, pairs: &[TypedText]) -> Result<(), RequestError> {
        self.encoder.check_texts(pairs.iter().map(|pair| pair.tokens.as_slice()))
    }

    /// Queues checked pairs. The future gives their scores in order, as logits; dropping it cancels what is not computed
    /// yet.
    ///
    /// # Errors
    /// When the queue is full, or the reranker is stalled or gone; the future's, when a step fails.
    pub fn submit(
        &self,
        pairs: Vec<TypedText>,
    ) -> Result<impl Future<Output = Result<Vec<f32>, Error>> + Send + use<>, SubmitError> {
        self.submit_until(pairs, None)
    }

    /// As [`RerankerHandle::submit`], with a deadline as that of [`EncoderHandle::submit_until`].
    ///
    /// # Errors
    /// As [`RerankerHandle::submit`], and [`Error::Deadline`].
    pub fn submit_until(
        &self,
        pairs: Vec<TypedText>,
        deadline: Option<Instant>,
    ) -> Result<impl Future<Output = Result<Vec<f32>, Error>> + Send + use<>, SubmitError> {
        let rows = self.encoder.submit_texts(pairs, deadline)?;
        Ok(async { Ok(rows.await?.into_iter().flatten().collect()) })
    }

    /// The end of the reranker's thread, which comes after the last handle.
    #[must_use]
    pub fn departure(&self) -> Departure {
        self.encoder.departure()
    }

    /// Whether the reranker answers.
    #[must_use]
    pub fn health(&self) -> Health {
        self.encoder.health()
    }

    /// The calls that have begun and that wait.
    #[must_use]
    pub fn load(&self) -> EngineLoad {
        self.encoder.load()
    }
}
