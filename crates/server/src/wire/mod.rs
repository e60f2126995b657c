//! What goes over the wire: the shapes of requests and answers, and how a request body is read.
//!
//! Owns the field names, the types and the messages about them. Knows no endpoint, no model and no status code:
//! a request that was read here is well formed, not yet checked against bounds.

pub mod admin;
pub mod answer;
pub mod chat;
pub mod completions;
pub mod embeddings;
pub mod error;
pub mod external;
mod fields;
pub mod grammar;
pub mod guardrails;
mod json;
mod later;
pub mod models;
pub mod options;
pub mod payloads;
pub mod permissions;
mod read;
mod request;
pub mod rerank;
pub mod scim;
pub mod secrets;
pub mod served;
pub mod serving;
pub mod tokenize;
pub mod tokens;
pub mod tools;
pub mod usage;

pub use fields::FieldError;
pub use read::{JsonObject, parse_object, read_object, take_text};
pub use request::Request;
