//! What can be wrong with a grammar.

use std::fmt::Display;

use thiserror::Error;

/// Why an answer cannot be held to a grammar.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GrammarError {
    /// Its text is too long.
    #[error("its text must have at most {limit} bytes, not {bytes}")]
    TooLarge {
        /// The text's length.
        bytes: usize,
        /// [`super::MAX_GRAMMAR_BYTES`].
        limit: usize,
    },
    /// A list of choices that allows nothing.
    #[error("it must have at least 1 choice, not 0")]
    NoChoice,
    /// A keyword of a JSON schema that is not honoured, or not as it is used.
    #[error("at `{place}`: {problem}")]
    Schema {
        /// The place in the schema, as a JSON pointer behind `#`.
        place: String,
        /// What is wrong there, naming the keyword.
        problem: String,
    },
    /// The compiler does not take it.
    #[error("{0}")]
    Refused(String),
    /// The model's vocabulary cannot be used for grammars.
    #[error("{0}")]
    Vocabulary(String),
    /// It failed while an answer was written.
    #[error("the grammar failed: {0}")]
    Failed(String),
}

impl GrammarError {
    /// What the library says against a grammar.
    pub(super) fn refused(error: &impl Display) -> Self {
        let text = told(error);
        if text.contains("oneOf constraints are not supported") {
            let problem = "the alternatives of `oneOf` must exclude each other by their types or by different values of a \
                           required property; `anyOf` needs no such thing";
            return Self::Refused(problem.to_owned());
        }
        if text == "NoExtensionBias" {
            return Self::Refused("nothing in the model's vocabulary can begin it".to_owned());
        }
        Self::Refused(text)
    }

    /// What the library says when it cannot go on.
    pub(super) fn failed(error: &impl Display) -> Self {
        Self::Failed(told(error))
    }
}

/// The library's words without its state.
fn told(error: &impl Display) -> String {
    let text = error.to_string();
    let end = ["<non-verbose/>", "<backtrace>", "<state>"].iter().filter_map(|mark| text.find(mark)).min();
    text[..end.unwrap_or(text.len())].trim().to_owned()
}
