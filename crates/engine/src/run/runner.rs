//! The model with its cache: runs one planned step.

use super::batch::{LogitRows, build};
use crate::error::Error;
use crate::ids::SeqId;
use crate::kv::KvStore;
use crate::models::DecoderModel;
use crate::schedule::{Scheduler, StepPlan};

/// A decoder and the tensors of its cache.
pub struct Runner {
    model: Box<dyn DecoderModel>,
    kv: KvStore,
}

/// The logits of one step, in host memory.
pub struct Logits {
    values: Vec<f32>,
    width: usize,
    /// Whose they are.
    pub rows: LogitRows,
}

impl Runner {
    /// A model with the cache that its sequences will live in.
    #[must_use]
    pub fn new(model: Box<dyn DecoderModel>, kv: KvStore) -> Self {
        Self { model, kv }
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
        let width = self.model.shape().vocab_size;
        let logits = self.model.forward(&batch, &mut self.kv)?; // [logit_rows, vocab_size]
        Ok(Logits { values: logits.flatten_all()?.to_vec1()?, width, rows })
    }
}

impl Logits {
    /// One row, to be changed in place by the sampler. `[vocab_size]`
    #[must_use]
    pub fn row(&mut self, row: usize) -> &mut [f32] {
        &mut self.values[row * self.width..][..self.width]
    }
}
