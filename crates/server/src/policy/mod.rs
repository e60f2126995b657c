//! The policies of an endpoint: what stands between a call that is allowed and the models that answer it.
//!
//! Owns the way of a call: which entity answers, and which one instead where that fails. Knows no route and no dialect. What
//! an endpoint's policies are is in its [`Policies`]; [`Allowed`](crate::gate::Allowed) sends calls through them, and there is
//! no other way to a model.

mod call;
mod fallback;
pub mod guardrails;
mod rest;
mod way;

pub(crate) use call::Call;
pub use fallback::{Passed, ServedBy};
pub use rest::Rest;
pub use way::Served;

use std::sync::{Arc, Weak};

use self::guardrails::Guardrails;
use crate::gate::Gate;
use crate::wire::serving::AiGateway;

/// What an endpoint keeps to.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    /// Whether another entity is asked where one fails.
    pub falls_back: bool,
    /// What may not be said; `None` where everything may.
    pub guardrails: Option<Arc<Guardrails>>,
}

impl Policies {
    /// Those of a checked configuration, on endpoints behind `gate`.
    pub(crate) fn of(gateway: &AiGateway, gate: &Weak<Gate>) -> Self {
        Self {
            falls_back: gateway.fallback_config.is_some_and(|fallback| fallback.enabled),
            guardrails: gateway.guardrails.as_ref().and_then(|fields| Guardrails::of(fields, gate)),
        }
    }
}
