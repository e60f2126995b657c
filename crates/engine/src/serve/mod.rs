//! Models as services: one OS thread a model, handles to talk to it, streams of what it says.
//!
//! [`load()`] opens a model and starts its thread. A decoder is reached through an [`EngineHandle`]: `submit` gives a
//! [`GenerationStream`] of tokens, which a [`TextStream`] turns into text. An encoder is reached through an
//! [`EncoderHandle`], a reranker through a [`RerankerHandle`]. Dropping a stream or a call cancels it.

mod active;
mod decorator;
mod encoder;
mod engine;
mod footprint;
mod handle;
mod info;
mod loader;
mod meters;
mod model_text;
mod patience;
mod pulse;
mod request;
mod reranker;
mod stream;
mod text_stream;

pub use decorator::Decorator;
pub use encoder::EncoderHandle;
pub use footprint::{Fit, Footprint, Needs, check_memory};
pub use handle::{Departure, EngineHandle, EngineLoad, SubmitError};
pub use info::ModelInfo;
pub use loader::{LoadOptions, LoadedModel, load};
pub use pulse::Health;
pub use request::{GenerationRequest, RequestError};
pub use reranker::RerankerHandle;
pub use stream::{FinishReason, GenerationEvent, GenerationStream};
pub use text_stream::{TextDelta, TextEvent, TextOptions, TextStream, TokenAlternative, TokenText};
