//! The grammar of an answer that may call functions: what constrained decoding holds the model to.
//!
//! Owns how a format's calls are told in the Lark notation of the `llguidance` crate. Compiles nothing.

/// Whether an answer has calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The model decides.
    Auto,
    /// It has at least one, and nothing else.
    Required,
}
