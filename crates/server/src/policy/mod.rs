//! The policies of an endpoint: what stands between a call that is allowed and the models that answer it.
//!
//! Owns the way of a call: whether it is admitted, which entity answers, and which one instead where that fails. Knows no route
//! and no dialect. What an endpoint's policies are is in its [`Policies`]; [`Allowed`](crate::gate::Allowed) sends calls through
//! them, and there is no other way to a model.

mod call;
mod fallback;
pub mod guardrails;
pub mod limits;
mod rest;
mod way;

use std::sync::{Arc, Weak};

pub(crate) use call::Call;
pub use fallback::{Passed, ServedBy};
pub use rest::Rest;
pub use way::Served;

use self::guardrails::Guardrails;
use self::limits::Rule;
use crate::gate::{Aides, Gate};
use crate::payloads::InferenceTable;
use crate::wire::FieldError;
use crate::wire::serving::AiGateway;

/// What an endpoint keeps to.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    /// As they are asked for and shown.
    pub asked: AiGateway,
    /// Whether another entity is asked where one fails.
    pub falls_back: bool,
    /// Where requests and answers are kept.
    pub table: Option<InferenceTable>,
    /// How much may be asked for in a minute.
    pub limits: Arc<[Rule]>,
    /// What may not be said; `None` where everything may.
    pub guardrails: Option<Arc<Guardrails>>,
}

impl Policies {
    /// Checks what is asked for; `before` is what stands until it does, and `aides` are the endpoints that the server itself may ask.
    ///
    /// # Errors
    /// The field to blame, as a part of `ai_gateway`.
    pub fn check(gateway: &AiGateway, before: Option<&AiGateway>, aides: &Aides) -> Result<(), FieldError> {
        limits::rules("ai_gateway.rate_limits", gateway.rate_limits.as_deref().unwrap_or_default())?;
        if let Some(fields) = &gateway.guardrails {
            guardrails::check(fields, aides, "ai_gateway.guardrails")?;
        }
        if let Some(table) = &gateway.inference_table_config {
            let before = before.and_then(|before| before.inference_table_config.as_ref());
            InferenceTable::check(table, before, "ai_gateway.inference_table_config")?;
        }
        Ok(())
    }

    /// Those of a checked configuration, on endpoints behind `gate`.
    pub(crate) fn of(gateway: &AiGateway, gate: &Weak<Gate>) -> Self {
        let limits = limits::rules("ai_gateway.rate_limits", gateway.rate_limits.as_deref().unwrap_or_default());
        Self {
            asked: gateway.clone(),
            falls_back: gateway.fallback_config.is_some_and(|fallback| fallback.enabled),
            table: gateway.inference_table_config.as_ref().and_then(InferenceTable::of),
            // They were checked before they were stored.
            limits: limits.map(Arc::from).unwrap_or_default(),
            guardrails: gateway.guardrails.as_ref().and_then(|fields| Guardrails::of(fields, gate)),
        }
    }
}
