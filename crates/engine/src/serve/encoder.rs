//! An encoder as a service: texts of all callers are packed into batches by a token budget, without padding.
//!
//! What its rows of numbers mean, an embedding or a score, is not known here.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Poll;
use std::time::Instant;

use tokio::sync::oneshot;

use super::engine::panic_message;
use super::handle::{Departure, LoadGauges, Place, Terms};
use super::meters::Meters;
use super::patience::Patience;
use super::pulse::{Health, Pulse};
use super::request::check_tokens;
use super::{EngineLoad, ModelInfo, RequestError, SubmitError};
use crate::error::Error;
use crate::models::EncoderModel;
use crate::ops::PackedTexts;
use crate::text::{ModelText, Tokenizer, TypedText};

/// One row of numbers a text.
type Rows = Vec<Vec<f32>>;

/// One call: its texts, and the rows so far.
struct Call {
    texts: Vec<TypedText>,
    rows: Rows,
    reply: oneshot::Sender<Result<Rows, Error>>,
    /// Given up when the call is answered or cancelled.
    place: Place,
    submitted: Instant,
    /// Whether a step has computed any of it.
    begun: Arc<AtomicBool>,
}

impl Call {
    /// Sends the answer. Its place is free when it arrives.
    fn answer(self, answer: Result<(), &str>) {
        let Self { rows, reply, place, .. } = self;
        drop(place);
        // A caller that is gone wants no answer.
        let _ = reply.send(answer.map(|()| rows).map_err(|reason| Error::Step(reason.to_owned())));
    }
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
    /// Starts the thread of an encoder.
    pub(super) fn start(
        info: ModelInfo,
        text: Arc<ModelText>,
        worker: EncoderWorker,
        terms: Terms,
    ) -> Result<Self, Error> {
        let (calls, receiver) = channel();
        let gauges = Arc::new(LoadGauges::new(Pulse::new(terms.step_timeout)));
        let life = gauges.pulse.life(&terms.label)?;
        let (meters, shown) = (Meters::new(&terms.label), Arc::clone(&gauges));
        let thread = std::thread::Builder::new().name(format!("encoder {}", info.name));
        let run = move || {
            // Dropped last, after the model.
            let (_life, mut worker) = (life, worker);
            worker.run(&receiver, &shown, &meters);
        };
        thread.spawn(run).map_err(Error::Thread)?;
        Ok(Self { info: Arc::new(info), text, calls, gauges, limit: terms.limit })
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
    /// When the queue is full, or the encoder is stalled or gone; the future's, when a step fails.
    pub fn submit(
        &self,
        texts: Vec<Vec<u32>>,
    ) -> Result<impl Future<Output = Result<Rows, Error>> + Send + use<>, SubmitError> {
        self.submit_until(texts, None)
    }

    /// As [`EncoderHandle::submit`]; the future, which then needs a runtime that keeps time, fails with [`Error::Deadline`] where
    /// it is not complete at the deadline.
    ///
    /// # Errors
    /// As [`EncoderHandle::submit`].
    pub fn submit_until(
        &self,
        texts: Vec<Vec<u32>>,
        deadline: Option<Instant>,
    ) -> Result<impl Future<Output = Result<Rows, Error>> + Send + use<>, SubmitError> {
        self.submit_texts(texts.into_iter().map(TypedText::single).collect(), deadline)
    }

    /// Queues checked texts, or pairs. The future gives a row of numbers for each.
    pub(super) fn submit_texts(
        &self,
        texts: Vec<TypedText>,
        deadline: Option<Instant>,
    ) -> Result<impl Future<Output = Result<Rows, Error>> + Send + use<>, SubmitError> {
        let tokens = texts.iter().map(|text| text.tokens.len()).sum();
        let place = self.gauges.enter(self.limit, tokens)?;
        let (reply, mut answer) = oneshot::channel();
        let begun = Arc::new(AtomicBool::new(false));
        let mut patience = Patience::new(deadline, Arc::clone(&begun));
        let call = Call { texts, rows: Vec::new(), reply, place, submitted: Instant::now(), begun };
        self.calls.send(call).map_err(|_| SubmitError::Stopped)?;
        Ok(poll_fn(move |context| match Pin::new(&mut answer).poll(context) {
            Poll::Ready(answer) => Poll::Ready(answer.map_err(|_| Error::Stopped).flatten()),
            Poll::Pending => patience.poll(context).map(Err),
        }))
    }

    /// The end of the encoder's thread, which comes after the last handle.
    #[must_use]
    pub fn departure(&self) -> Departure {
        Departure(Arc::clone(&self.gauges.pulse))
    }

    /// Whether the encoder answers.
    #[must_use]
    pub fn health(&self) -> Health {
        self.gauges.pulse.health()
    }

    /// The calls that have begun and that wait; an encoder has no cache.
    #[must_use]
    pub fn load(&self) -> EngineLoad {
        self.gauges.load()
    }
}

/// What an encoder's thread owns.
pub(super) struct EncoderWorker {
    model: Box<dyn EncoderModel>,
    token_budget: usize,
    calls: VecDeque<Call>,
}

impl EncoderWorker {
    /// A worker that computes at most about `token_budget` tokens a step.
    pub(super) fn new(model: Box<dyn EncoderModel>, token_budget: usize) -> Self {
        Self { model, token_budget, calls: VecDeque::new() }
    }

    fn run(&mut self, receiver: &Receiver<Call>, gauges: &LoadGauges, meters: &Meters) {
        loop {
            if self.calls.is_empty() {
                match receiver.recv() {
                    Ok(call) => self.calls.push_back(call),
                    Err(_) => return,
                }
            }
            self.calls.extend(receiver.try_iter());
            self.calls.retain(|call| !call.reply.is_closed());
            let _beat = gauges.pulse.beat();
            let (texts, counts) = self.pack();
            for call in self.calls.range(..counts.len()).filter(|call| !call.begun.swap(true, Ordering::Relaxed)) {
                meters.begins(call.submitted);
            }
            gauges.publish_running(counts.len());
            let begun = Instant::now();
            self.step(&texts, &counts);
            meters.step(begun, texts.tokens.len());
            gauges.publish_running(self.calls.iter().filter(|call| call.begun.load(Ordering::Relaxed)).count());
        }
    }

    /// Packs texts from the front of the queue, and says how many of each call.
    fn pack(&self) -> (PackedTexts, Vec<usize>) {
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
        (texts, counts)
    }

    /// Runs packed texts, and answers the calls that are complete.
    fn step(&mut self, texts: &PackedTexts, counts: &[usize]) {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.forward(texts)));
        match outcome.unwrap_or_else(|panic| Err(Error::Step(panic_message(panic.as_ref())))) {
            Ok(rows) => self.deliver(rows, counts),
            Err(error) => self.fail(counts.len(), &error.to_string()),
        }
    }

    fn forward(&mut self, texts: &PackedTexts) -> Result<Rows, Error> {
        if texts.lengths.is_empty() {
            return Ok(Vec::new());
        }
        let (rows, wanted) = (self.model.forward(texts)?, (texts.lengths.len(), self.model.shape().dimensions));
        if rows.dims() != [wanted.0, wanted.1] {
            return Err(Error::Step(format!("the model gave numbers of the shape {:?}, not {wanted:?}", rows.dims())));
        }
        Ok(rows.to_vec2()?)
    }

    /// Hands rows to the first calls, `counts` to each, and answers those that have all of theirs, or one that is no number.
    fn deliver(&mut self, rows: Rows, counts: &[usize]) {
        let mut rows = rows.into_iter();
        let mut left = VecDeque::new();
        for (mut call, count) in self.calls.drain(..counts.len()).zip(counts) {
            let broken = call.rows.len();
            call.rows.extend(rows.by_ref().take(*count));
            let broken = call.rows[broken..].iter().flatten().any(|number| !number.is_finite());
            match call.rows.len() == call.texts.len() {
                _ if broken => {
                    tracing::error!("an encoder gave something that is no number");
                    call.answer(Err("the encoder gave something that is no number"));
                }
                true => call.answer(Ok(())),
                false => left.push_back(call),
            }
        }
        // What is left of a long call waits behind the others, so that a short one never waits for all of it.
        self.calls.append(&mut left);
    }

    fn fail(&mut self, calls: usize, reason: &str) {
        tracing::error!(reason, calls, "an encoder step failed");
        self.calls.drain(..calls).for_each(|call| call.answer(Err(reason)));
    }
}

/// Takes `tokens` out of the budget; the first text always fits, however long.
fn take_budget(budget: &mut usize, tokens: usize) -> bool {
    let fits = *budget > 0;
    *budget = budget.saturating_sub(tokens);
    fits
}
