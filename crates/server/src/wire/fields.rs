//! What can be wrong with one field of a request, in words that name the field.

use std::fmt::Display;

/// A request body that cannot be used, and the field that is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// The body is no JSON at all.
    #[error("the body is not valid JSON: {problem} (line {line}, column {column})")]
    Malformed {
        /// What the parser says, without the place.
        problem: String,
        /// Line, counted from 1.
        line: usize,
        /// Column, counted from 1.
        column: usize,
    },
    /// The body is JSON but no object.
    #[error("the body must be a JSON object, not {0}")]
    NotAnObject(&'static str),
    /// No request of this kind has such a field.
    #[error("unknown field `{field}`")]
    Unknown {
        /// The field as it was spelled.
        field: String,
    },
    /// A required field is absent or null.
    #[error("the field `{field}` is required")]
    Missing {
        /// The absent field.
        field: String,
    },
    /// The value has another type than the field.
    #[error("`{field}`: {problem}")]
    Type {
        /// Path of the field, as `messages[2].role`.
        field: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// The value has the right type and is not allowed.
    #[error("`{field}` must be {bound}, not {value}")]
    Value {
        /// Path of the field.
        field: String,
        /// What is allowed.
        bound: String,
        /// What was given.
        value: String,
    },
    /// Two fields, or a field and its neighbourhood, contradict each other.
    #[error("`{field}`: {problem}")]
    Conflict {
        /// The field to blame.
        field: String,
        /// What contradicts what.
        problem: String,
    },
    /// The field is known and this server does not do it yet.
    #[error("`{field}`{detail} is not supported yet by this server")]
    Unsupported {
        /// Path of the field.
        field: String,
        /// Which values are meant; empty for the field as a whole.
        detail: String,
    },
}

impl FieldError {
    /// A value outside its bound.
    pub fn value(field: impl Into<String>, bound: impl Into<String>, value: impl Display) -> Self {
        Self::Value { field: field.into(), bound: bound.into(), value: value.to_string() }
    }

    /// Fields that contradict each other.
    pub fn conflict(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Conflict { field: field.into(), problem: problem.into() }
    }

    /// A field of which nothing is supported.
    pub fn unsupported(field: impl Into<String>) -> Self {
        Self::Unsupported { field: field.into(), detail: String::new() }
    }

    /// A field of which only some values are unsupported: `detail` says which, beginning with a space.
    pub fn unsupported_value(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Unsupported { field: field.into(), detail: detail.into() }
    }

    /// The same error of a field that stands within another one.
    pub fn within(mut self, place: &str) -> Self {
        if let Self::Unknown { field }
        | Self::Missing { field }
        | Self::Type { field, .. }
        | Self::Value { field, .. }
        | Self::Conflict { field, .. }
        | Self::Unsupported { field, .. } = &mut self
        {
            *field = format!("{place}.{field}");
        }
        self
    }

    /// The field to blame; `None` where the body as a whole is.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Malformed { .. } | Self::NotAnObject(_) => None,
            Self::Unknown { field }
            | Self::Missing { field }
            | Self::Type { field, .. }
            | Self::Value { field, .. }
            | Self::Conflict { field, .. }
            | Self::Unsupported { field, .. } => Some(field),
        }
    }
}
