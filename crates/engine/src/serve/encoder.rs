//! An encoder as a service: texts of all callers are packed into batches by a token budget, without padding.
//!
//! What its rows of numbers mean, an embedding or a score, is not known here.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use candle_core::Tensor;
use tokio::sync::oneshot;

use super::engine::panic_message;
use super::handle::{Departure, LoadGauges, Place};
use super::request::check_tokens;
use super::{ModelInfo, RequestError, SubmitError};
use crate::error::Error;
use crate::models::EncoderModel;
use crate::ops::{Backend, PackedTexts};
use crate::text::{ModelText, Tokenizer, TypedText};

/// One row of numbers a text.
type Rows = Vec<Vec<f32>>;

/// One call: its texts, and the rows so far.
struct Call {
    texts: Vec<TypedText>,
    rows: Rows,
    reply: oneshot::Sender<Result<Rows, Error>>,
    /// Given up when the call is answered or cancelled.
    _place: Place,
}

/// A running encoder. Cheap to clone; the thread ends when the last handle is gone.
#[derive(Clone)]
pub struct EncoderHandle {
    info: Arc<ModelInfo>,
    text: Arc<ModelText>,
    calls: Sender<Call>,
    gauges: Arc<LoadGauges>,
    limit: usize,
}

impl EncoderHandle {
    /// Starts the thread of an encoder. `limit` is how many calls may run and wait.
    pub(super) fn start(
        info: ModelInfo,
        text: Arc<ModelText>,
        worker: EncoderWorker,
        limit: usize,
    ) -> Result<Self, Error> {
        let (calls, receiver) = channel();
        let gauges = Arc::new(LoadGauges::default());
        let stopped = gauges.stopped_when_dropped();
        let thread = std::thread::Builder::new().name(format!("encoder {}", info.name));
        let run = move || {
            let _stopped = stopped;
            worker.run(&receiver);
        };
        thread.spawn(run).map_err(Error::Thread)?;
        Ok(Self { info: Arc::new(info), text, calls, gauges, limit })
    }

    /// What is known of the model.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Everything it knows about text.
    #[must_use]
    pub fn text(&self) -> &Arc<ModelText> {
        &self.text
    }

    /// Its tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.text.tokenizer
    }

    /// Checks that each text has tokens, that the model knows them, and that they fit its context.
    ///
    /// # Errors
    /// The first text that does not, with its index.
    pub fn check(&self, texts: &[Vec<u32>]) -> Result<(), RequestError> {
        self.check_texts(texts.iter().map(Vec::as_slice))
    }

    pub(super) fn check_texts<'a>(&self, texts: impl Iterator<Item = &'a [u32]>) -> Result<(), RequestError> {
        texts.enumerate().try_for_each(|(index, text)| {
            check_tokens(text, &self.info).map_err(|reason| RequestError::Text { index, reason: Box::new(reason) })
        })
    }

    /// Queues checked texts. The future gives their embeddings in order; dropping it cancels what is not computed yet.
    ///
    /// # Errors
    /// When the queue is full or the encoder is gone; the future's, when a step fails.
    pub fn submit(
        &self,
        texts: Vec<Vec<u32>>,
    ) -> Result<impl Future<Output = Result<Rows, Error>> + Send + use<>, SubmitError> {
        self.submit_texts(texts.into_iter().map(TypedText::single).collect())
    }

    /// Queues checked texts, or pairs. The future gives a row of numbers for each.
    pub(super) fn submit_texts(
        &self,
        texts: Vec<TypedText>,
    ) -> Result<impl Future<Output = Result<Rows, Error>> + Send + use<>, SubmitError> {
        let (reply, answer) = oneshot::channel();
        let call = Call { texts, rows: Vec::new(), reply, _place: self.gauges.enter(self.limit)? };
        self.calls.send(call).map_err(|_| SubmitError::Stopped)?;
        Ok(async { answer.await.map_err(|_| Error::Stopped)? })
    }

    /// The end of the encoder's thread, which comes after the last handle.
    #[must_use]
    pub fn departure(&self) -> Departure {
        Departure(Arc::clone(&self.gauges))
    }

    /// Whether the encoder's thread has not ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.gauges.is_alive()
    }

    /// Calls that are running or waiting.
    #[must_use]
    pub fn present(&self) -> usize {
        self.gauges.present()
    }
}

/// What an encoder's thread owns.
pub(super) struct EncoderWorker {
    model: Box<dyn EncoderModel>,
    backend: Backend,
    token_budget: usize,
    calls: VecDeque<Call>,
}

impl EncoderWorker {
    /// A worker that computes at most about `token_budget` tokens a step.
    pub(super) fn new(model: Box<dyn EncoderModel>, backend: Backend, token_budget: usize) -> Self {
        Self { model, backend, token_budget, calls: VecDeque::new() }
    }

    fn run(mut self, receiver: &Receiver<Call>) {
        loop {
            if self.calls.is_empty() {
                match receiver.recv() {
                    Ok(call) => self.calls.push_back(call),
                    Err(_) => return,
                }
            }
            self.calls.extend(receiver.try_iter());
            self.calls.retain(|call| !call.reply.is_closed());
            self.step();
        }
    }

    /// Packs texts from the front of the queue, runs them, and answers the calls that are complete.
    fn step(&mut self) {
        let mut counts = Vec::new();
        let mut texts = PackedTexts::default();
        let mut budget = self.token_budget;
        for call in &self.calls {
            let waiting = &call.texts[call.rows.len()..];
            let before = texts.lengths.len();
            for text in waiting.iter().take_while(|text| take_budget(&mut budget, text.tokens.len())) {
                texts.push(&text.tokens, text.second);
            }
            let taken = texts.lengths.len() - before;
            if taken > 0 || waiting.is_empty() {
                counts.push(taken);
            }
            if taken < waiting.len() {
                break;
            }
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| self.forward(&texts)));
        match outcome.unwrap_or_else(|panic| Err(Error::Step(panic_message(panic.as_ref())))) {
            Ok(rows) => self.deliver(rows, &counts),
            Err(error) => self.fail(counts.len(), &error),
        }
    }

    fn forward(&mut self, texts: &PackedTexts) -> Result<Rows, Error> {
        if texts.lengths.is_empty() {
            return Ok(Vec::new());
        }
        let Self { model, backend, .. } = self;
        let rows: Result<Tensor, Error> = backend.run(|| model.forward(texts));
        Ok(rows?.to_vec2()?)
    }

    /// Hands rows to the first calls, `counts` to each, and answers those that have all of theirs.
    fn deliver(&mut self, rows: Rows, counts: &[usize]) {
        let mut rows = rows.into_iter();
        for (call, count) in self.calls.iter_mut().zip(counts) {
            call.rows.extend(rows.by_ref().take(*count));
        }
        self.answer_complete();
        // What is left of a long call waits behind the others, so that a short one never waits for all of it.
        if let Some(begun) = self.calls.pop_front_if(|call| !call.rows.is_empty()) {
            self.calls.push_back(begun);
        }
    }

    fn answer_complete(&mut self) {
        while let Some(call) = self.calls.pop_front_if(|call| call.rows.len() == call.texts.len()) {
            // A caller that is gone wants no answer.
            let _ = call.reply.send(Ok(call.rows));
        }
    }

    fn fail(&mut self, calls: usize, error: &Error) {
        tracing::error!(%error, calls, "an encoder step failed");
        for call in self.calls.drain(..calls) {
            // A caller that is gone needs no reason.
            let _ = call.reply.send(Err(Error::Step(error.to_string())));
        }
    }
}

/// Takes `tokens` out of the budget; the first text always fits, however long.
fn take_budget(budget: &mut usize, tokens: usize) -> bool {
    let fits = *budget > 0;
    *budget = budget.saturating_sub(tokens);
    fits
}
