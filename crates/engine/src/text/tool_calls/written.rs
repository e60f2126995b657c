//! One call, however it is written, read a character at a time.

use super::Shape;
use super::named::NamedCall;
use super::object::{CallObject, Progress};
use super::parser::Syntax;

/// A text that may be a call.
#[derive(Clone, Debug)]
pub(super) enum WrittenCall {
    Object(CallObject),
    Named(NamedCall),
}

impl WrittenCall {
    /// One of this syntax. Where nothing need announce a call, the name comes first: a grammar could not hold arguments to
    /// a schema without knowing whose they are.
    pub(super) fn new(syntax: Syntax) -> Self {
        match syntax.shape {
            Shape::Object { .. } => Self::Object(CallObject::new(syntax.bare)),
            Shape::Named { id, arguments } => Self::Named(NamedCall::new(id, arguments)),
        }
    }

    /// The next character. `functions` are the names that can be called.
    pub(super) fn push(&mut self, c: char, functions: &[String]) -> Progress {
        match self {
            Self::Object(object) => object.push(c, functions),
            Self::Named(named) => named.push(c, functions),
        }
    }

    /// Whether it is known for a call.
    pub(super) fn is_begun(&self) -> bool {
        match self {
            Self::Object(object) => object.is_begun(),
            Self::Named(named) => named.is_begun(),
        }
    }

    /// Whether the arguments are whole.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Object(object) => object.is_whole(),
            Self::Named(named) => named.is_over(),
        }
    }

    /// Whether its last character has come.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Object(object) => object.is_over(),
            Self::Named(named) => named.is_over(),
        }
    }
}
