//! The policies of an endpoint: what stands between a call that is allowed and the models that answer it.
//!
//! Owns the way of a call: which entity answers, and which one instead where that fails. Knows no route and no dialect. What
//! an endpoint's policies are is in its [`Policies`]; [`Allowed`](crate::gate::Allowed) sends calls through them, and there is
//! no other way to a model.

mod call;
mod fallback;
mod rest;
mod way;

pub(crate) use call::Call;
pub use fallback::{Passed, ServedBy};
pub use rest::Rest;
pub use way::Served;

use crate::payloads::InferenceTable;
use crate::wire::serving::AiGateway;

/// What an endpoint keeps to.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    /// Whether another entity is asked where one fails.
    pub falls_back: bool,
    /// Where requests and answers are kept.
    pub table: Option<InferenceTable>,
}

impl Policies {
    /// Those of a checked configuration.
    pub(crate) fn of(gateway: &AiGateway) -> Self {
        let table = gateway.inference_table_config.as_ref().filter(|table| table.enabled);
        Self {
            falls_back: gateway.fallback_config.is_some_and(|fallback| fallback.enabled),
            table: table.map(|table| InferenceTable { sampling_fraction: table.sampling_fraction.unwrap_or(1.0) }),
        }
    }
}
