//! Another entity where one fails: which ones are asked, in which order, and what they failed of.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use super::{Call, Policies};
use crate::endpoints::{Endpoint, ServedEntity};
use crate::error::ApiError;
use crate::providers::ProviderError;

/// What has answered, and what was asked before it.
#[derive(Clone)]
pub struct ServedBy {
    /// What has answered.
    pub entity: ServedEntity,
    /// What has failed before, in order.
    pub passed: Vec<Passed>,
}

/// An entity that has failed, so that another one was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Its name.
    pub entity: String,
    /// The status that the caller would have got.
    pub status: u16,
}

impl fmt::Display for Passed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}={}", self.entity, self.status)
    }
}

impl ServedBy {
    /// `NAME=STATUS` of each entity that has failed, in order; `None` where the first has answered.
    pub fn passed_over(&self) -> Option<String> {
        let passed: Vec<String> = self.passed.iter().map(ToString::to_string).collect();
        (!passed.is_empty()).then(|| passed.join(", "))
    }
}

/// The entities to ask: the one whose turn it is, and with fallback the others as they are listed after it, round and round.
pub(super) fn order<'a>(endpoint: &'a Endpoint, policies: &Policies) -> Vec<&'a ServedEntity> {
    let (before, from) = endpoint.entities().split_at(endpoint.next_entity());
    let others = if policies.falls_back { usize::MAX } else { 1 };
    from.iter().chain(before).take(others).collect()
}

/// Asks one entity after the other until one answers, or fails in a way that no other would mend. Those that rest come last.
/// `note` is told whom it asks, and who was asked before.
///
/// # Errors
/// The last one's.
pub(super) async fn first_answer<C: Call>(
    order: &[&ServedEntity],
    call: C,
    streamed: bool,
    note: impl Fn(&ServedBy),
) -> Result<(C::Answer, ServedBy), ProviderError> {
    if let [only] = order {
        let by = ServedBy { entity: (*only).clone(), passed: Vec::new() };
        note(&by);
        // Nobody else would be asked, so there is nothing to wait for.
        return Ok((noted(only, call.ask(only.provider().as_ref()).await)?, by));
    }
    let mut failure = ProviderError::Stopped("the endpoint serves no model".to_owned());
    let (mut awake, mut resting, mut passed) = (order.iter(), VecDeque::new(), Vec::new());
    loop {
        let entity = match awake.next() {
            Some(entity) if entity.rest().is_resting(Instant::now()) => {
                resting.push_back(entity);
                continue;
            }
            Some(entity) => entity,
            None => resting.pop_front().ok_or(failure)?,
        };
        let by = ServedBy { entity: (*entity).clone(), passed };
        note(&by);
        match ask(entity, call.clone(), streamed).await {
            Ok(answer) => return Ok((answer, by)),
            Err(error) if is_passing(&error) => {
                tracing::warn!(entity = entity.name(), %error, "an entity has failed");
                failure = error.clone();
                passed = by.passed;
                passed
                    .push(Passed { entity: entity.name().to_owned(), status: ApiError::from(error).status().as_u16() });
            }
            Err(error) => return Err(error),
        }
    }
}

async fn ask<C: Call>(entity: &ServedEntity, call: C, streamed: bool) -> Result<C::Answer, ProviderError> {
    let answer = match call.ask(entity.provider().as_ref()).await {
        Ok(answer) => C::begun(answer, streamed).await,
        Err(error) => Err(error),
    };
    noted(entity, answer)
}

/// The answer, once it is noted how the entity does.
fn noted<T>(entity: &ServedEntity, answer: Result<T, ProviderError>) -> Result<T, ProviderError> {
    match &answer {
        Ok(_) => entity.rest().answered(),
        Err(error) if is_passing(error) => entity.rest().failed(Instant::now()),
        Err(_) => {}
    }
    answer
}

/// Whether another entity may do better: this one is overloaded, broken or out of reach. What is wrong with the call is wrong
/// with it everywhere, and a deadline that has passed has passed for all.
fn is_passing(error: &ProviderError) -> bool {
    match error {
        ProviderError::Busy(_) | ProviderError::TooLarge(_) | ProviderError::Stopped(_) | ProviderError::Failed(_) => {
            true
        }
        ProviderError::Upstream(error) => !error.is_refusal(),
        ProviderError::Invalid { .. }
        | ProviderError::OutOfRange { .. }
        | ProviderError::ContextLength { .. }
        | ProviderError::Late { .. }
        | ProviderError::Guarded(_)
        | ProviderError::WrongTask(_) => false,
    }
}
