//! The model with its cache: runs one planned step.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;

use super::batch::{LogitRows, build};
use crate::error::Error;
use crate::ids::SeqId;
use crate::kv::KvStore;
use crate::models::DecoderModel;
use crate::schedule::{Scheduler, StepPlan};

/// Rows of logits that are held at a time. A prompt whose log-probabilities are wanted asks for one row a token, and a row of
/// a large vocabulary takes half a mebibyte.
pub const LOGIT_ROWS: usize = 64;

/// A decoder and the tensors of its cache.
pub struct Runner {
    model: Arc<dyn DecoderModel>,
    kv: KvStore,
}

/// The logits of one step, computed some rows at a time as they are asked for.
pub struct Logits {
    model: Arc<dyn DecoderModel>,
    /// What the model knows at each of the rows. `[logit_rows, width]`
    states: Tensor,
    /// The rows in `values`.
    held: Range<usize>,
    /// In host memory. `[held, vocab_size]`
    values: Vec<f32>,
    /// Whose they are.
    pub rows: LogitRows,
}

impl Runner {
    /// A model with the cache that its sequences will live in.
    #[must_use]
    pub fn new(model: Box<dyn DecoderModel>, kv: KvStore) -> Self {
        Self { model: model.into(), kv }
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
        let Self { model, kv } = self;
        plan.copies.iter().try_for_each(|(from, to)| kv.copy_block(*from, *to))?;
        let states = model.forward(&batch, kv)?;
        Ok(Logits { model: Arc::clone(model), states, held: 0..0, values: Vec::new(), rows })
    }
}

impl Logits {
    /// One row, to be changed in place by the sampler. `[vocab_size]`
    ///
    /// Rows are to be asked for in their order: each group of [`LOGIT_ROWS`] is computed when its first is.
    ///
    /// # Errors
    /// When the row was not planned, or the model's own.
    pub fn row(&mut self, row: usize) -> Result<&mut [f32], Error> {
        if !self.held.contains(&row) {
            let end = self.states.dim(0)?.min(row.saturating_add(LOGIT_ROWS));
            if row >= end {
                return Err(Error::Step(format!("row {row} of the logits is wanted, and there are {end}")));
            }
            let (model, states) = (&self.model, self.states.narrow(0, row, end - row)?);
            let (logits, wanted) = (model.logits(&states)?, [end - row, model.shape().vocab_size]);
            if logits.dims() != wanted {
                let found = logits.dims();
                return Err(Error::Step(format!("the model gave logits of the shape {found:?}, not {wanted:?}")));
            }
            self.values = logits.flatten_all()?.to_vec1()?; // [held, vocab_size]
            self.held = row..end;
        }
        let width = self.values.len() / self.held.len();
        Ok(&mut self.values[(row - self.held.start) * width..][..width])
    }
}
