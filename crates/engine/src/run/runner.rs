//! The model with its cache: runs one planned step.

use candle_core::Tensor;

use super::batch::{LogitRows, build};
use crate::error::Error;
use crate::ids::SeqId;
use crate::kv::KvStore;
use crate::models::DecoderModel;
use crate::ops::Backend;
use crate::schedule::{Scheduler, StepPlan};

/// A decoder and the tensors of its cache.
pub struct Runner {
    model: Box<dyn DecoderModel>,
    kv: KvStore,
    backend: Backend,
}

/// The logits of one step, in host memory.
pub struct Logits {
    values: Vec<f32>,
    width: usize,
    /// Whose they are.
    pub rows: LogitRows,
}

impl Runner {
    /// A model with the cache that its sequences will live in, and the backend both were made on.
    #[must_use]
    pub fn new(model: Box<dyn DecoderModel>, kv: KvStore, backend: Backend) -> Self {
        Self { model, kv, backend }
    }

    /// Computes the plan's tokens and returns the logits that were asked for.
    ///
    /// # Errors
    /// When the plan does not fit the scheduler's state, or the model's own.
    pub fn forward(
        &mut self,
        plan: &StepPlan,
        scheduler: &Scheduler,
        first_logit: impl Fn(SeqId) -> Option<usize>,
    ) -> Result<Logits, Error> {
        let (batch, rows) = build(plan, scheduler, first_logit)?;
        let Self { model, kv, backend } = self;
        let width = model.shape().vocab_size;
        let logits: Result<Tensor, Error> = backend.run(|| model.forward(&batch, kv));
        Ok(Logits { values: logits?.flatten_all()?.to_vec1()?, width, rows }) // [logit_rows, vocab_size]
    }
}

impl Logits {
    /// One row, to be changed in place by the sampler. `[vocab_size]`
    #[must_use]
    pub fn row(&mut self, row: usize) -> &mut [f32] {
        &mut self.values[row * self.width..][..self.width]
    }
}
