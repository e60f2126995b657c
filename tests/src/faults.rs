//! Models that fail on command, for tests of what a failure may touch.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use candle_core::{DType, Tensor};
use hearth_engine::Error;
use hearth_engine::kv::KvStore;
use hearth_engine::models::{DecoderModel, DecoderShape, EncoderModel, EncoderShape, Model};
use hearth_engine::ops::{ForwardBatch, PackedTexts};
use hearth_engine::serve::Decorator;

/// What a model does instead of its work, once.
#[derive(Debug)]
pub enum Fault {
    /// The step is an error.
    StepError,
    /// The step panics.
    StepPanic,
    /// There is no memory for the step.
    NoMemory,
    /// The step does not end before the sender is gone.
    Hang(Receiver<()>),
    /// Reading the logits of a decoder panics.
    LogitsPanic,
    /// The output is not a number.
    NotANumber,
    /// The output has a column too many.
    Wide,
    /// The output has a column too few.
    Narrow,
}

/// The command: what goes wrong next.
#[derive(Clone, Default)]
pub struct Faults {
    next: Arc<Mutex<Option<Fault>>>,
    pause: Arc<Mutex<Duration>>,
    steps: Arc<AtomicUsize>,
}

impl Faults {
    /// Puts a model that obeys around each model.
    #[must_use]
    pub fn decorator(&self) -> Decorator {
        let faults = self.clone();
        Decorator::new(move |model| match model {
            Model::Decoder(inner) => Model::Decoder(Box::new(FaultyDecoder { inner, faults: faults.clone() })),
            Model::Encoder(inner) => Model::Encoder(Box::new(FaultyEncoder { inner, faults: faults.clone() })),
            Model::Reranker(inner) => Model::Reranker(Box::new(FaultyEncoder { inner, faults: faults.clone() })),
        })
    }

    /// What goes wrong next, once.
    pub fn set(&self, fault: Fault) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
    }

    /// Makes every step take that much longer.
    pub fn slow_down(&self, pause: Duration) {
        *self.pause.lock().unwrap_or_else(PoisonError::into_inner) = pause;
    }

    /// Whether the fault that was set has not happened yet.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Steps that have begun.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps.load(Ordering::SeqCst)
    }

    fn take(&self, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).take_if(|fault| wanted(fault))
    }

    fn step(&self) -> Result<(), Error> {
        self.steps.fetch_add(1, Ordering::SeqCst);
        let pause = *self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        std::thread::sleep(pause);
        let of_step =
            |fault: &Fault| matches!(fault, Fault::StepError | Fault::StepPanic | Fault::NoMemory | Fault::Hang(_));
        match self.take(of_step) {
            Some(Fault::StepError) => Err(Error::Step("as commanded".to_owned())),
            Some(Fault::StepPanic) => panic!("a panic as commanded"),
            Some(Fault::NoMemory) => Err(candle_core::Error::Msg("out of memory".to_owned()).into()),
            Some(Fault::Hang(until)) => {
                let _ = until.recv();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn output(&self, output: Tensor) -> Result<Tensor, Error> {
        let (rows, columns) = output.dims2()?;
        let of_output = |fault: &Fault| matches!(fault, Fault::NotANumber | Fault::Wide | Fault::Narrow);
        Ok(match self.take(of_output) {
            Some(Fault::NotANumber) => (output * f64::NAN)?,
            Some(Fault::Wide) => Tensor::cat(&[&output, &Tensor::zeros((rows, 1), DType::F32, output.device())?], 1)?,
            Some(_) => output.narrow(1, 0, columns - 1)?.contiguous()?,
            None => output,
        })
    }
}

struct FaultyDecoder {
    inner: Box<dyn DecoderModel>,
    faults: Faults,
}

impl DecoderModel for FaultyDecoder {
    fn shape(&self) -> DecoderShape {
        self.inner.shape()
    }

    fn forward(&self, batch: &ForwardBatch, kv: &mut KvStore) -> Result<Tensor, Error> {
        self.faults.step()?;
        self.inner.forward(batch, kv)
    }

    fn logits(&self, states: &Tensor) -> Result<Tensor, Error> {
        if self.faults.take(|fault| matches!(fault, Fault::LogitsPanic)).is_some() {
            panic!("a panic as commanded");
        }
        self.faults.output(self.inner.logits(states)?)
    }
}

struct FaultyEncoder {
    inner: Box<dyn EncoderModel>,
    faults: Faults,
}

impl EncoderModel for FaultyEncoder {
    fn shape(&self) -> EncoderShape {
        self.inner.shape()
    }

    fn forward(&self, texts: &PackedTexts) -> Result<Tensor, Error> {
        self.faults.step()?;
        self.faults.output(self.inner.forward(texts)?)
    }
}
