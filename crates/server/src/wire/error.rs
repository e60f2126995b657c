//! The two bodies of an error.

use serde::Serialize;

/// An error as OpenAI's clients read it; also the form of an error inside a stream, in both dialects.
#[derive(Debug, Serialize)]
pub struct OpenAiError<'a> {
    /// The error.
    pub error: OpenAiErrorFields<'a>,
}

/// The fields of an OpenAI error.
#[derive(Debug, Serialize)]
pub struct OpenAiErrorFields<'a> {
    /// For people.
    pub message: &'a str,
    /// The kind of error.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The field to blame.
    pub param: Option<&'a str>,
    /// For programs.
    pub code: Option<&'static str>,
}

/// An error as Databricks' clients read it. It must never have a key `error`, which would hide the message from them.
#[derive(Debug, Serialize)]
pub struct DatabricksError<'a> {
    /// For programs.
    pub error_code: &'static str,
    /// For people.
    pub message: &'a str,
}
