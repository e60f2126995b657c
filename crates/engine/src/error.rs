//! The error of the engine. Each message names what was wrong, the bound and the value.

use thiserror::Error;

use crate::device::DeviceChoice;

/// Anything that can go wrong between a model's files and its answers.
#[derive(Debug, Error)]
pub enum Error {
    /// The weights cannot be read or do not fit the model.
    #[error(transparent)]
    Weights(#[from] crate::weights::WeightsError),
    /// Tokenizer, template or vocabulary.
    #[error(transparent)]
    Text(#[from] crate::text::TextError),
    /// The model's configuration is missing something or contradicts itself.
    #[error("model configuration, {field}: {reason}")]
    Config {
        /// The field as the checkpoint spells it.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of the checkpoint cannot be read.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What the system or the parser said.
        reason: String,
    },
    /// The architecture is not one of those that are built in.
    #[error("architecture {name:?} is not supported; supported are {supported}")]
    Architecture {
        /// As the checkpoint names it.
        name: String,
        /// All names that are known.
        supported: String,
    },
    /// The device cannot be had.
    #[error("device {choice}: {reason}")]
    Device {
        /// What was asked for.
        choice: DeviceChoice,
        /// Why not.
        reason: String,
    },
    /// The cache that is needed is larger than what is allowed.
    #[error("the key-value cache: {0}")]
    Cache(String),
    /// The system does not say how much memory there is.
    #[error("the machine's memory: {0}")]
    MemoryUnknown(String),
    /// The model does not fit.
    #[error("{0}")]
    Memory(String),
    /// A tensor operation failed.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
    /// A kernel refused its arguments.
    #[error("kernel: {0}")]
    Kernel(#[from] hearth_kernels::KernelError),
    /// The sampler could not choose a token.
    #[error("sampling: {0}")]
    Sample(#[from] hearth_sampler::SampleError),
    /// The answer cannot go on by its grammar.
    #[error(transparent)]
    Grammar(#[from] crate::text::grammar::GrammarError),
    /// A step of the model failed or panicked; the requests in it failed and the engine went on.
    #[error("a model step failed: {0}")]
    Step(String),
    /// The request's deadline passed.
    #[error("the request's time is over, {}", if *begun { "before its answer was complete" } else { "before its turn came" })]
    Deadline {
        /// Whether any of it had been computed.
        begun: bool,
    },
    /// The system gives no thread for a model.
    #[error("no thread for the model: {0}")]
    Thread(std::io::Error),
    /// The engine's thread is gone.
    #[error("the engine has stopped")]
    Stopped,
}

impl Error {
    /// A configuration error of that field.
    pub fn config(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Config { field: field.into(), reason: reason.into() }
    }

    /// A file error of that path.
    pub fn file(path: &std::path::Path, reason: impl ToString) -> Self {
        Self::File { path: path.display().to_string(), reason: reason.to_string() }
    }
}
