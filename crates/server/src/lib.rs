//! The server half of Hearth: foundation models behind OpenAI- and Databricks-compatible endpoints.
//!
//! A request comes in through [`routes`], passes the [`gate`] to one of the [`endpoints`], goes by that endpoint's [`policy`] and is
//! answered by one of its [`providers`]. [`wire`] holds the shapes of requests and answers.

pub mod config;
pub mod connections;
pub mod control;
pub mod endpoints;
pub mod error;
pub mod gate;
pub mod life;
pub mod metrics;
pub mod models;
pub mod payloads;
pub mod policy;
pub mod providers;
mod room;
pub mod routes;
pub mod secrets;
pub mod serve;
pub mod sse;
pub mod store;
pub mod usage;
pub mod wire;
