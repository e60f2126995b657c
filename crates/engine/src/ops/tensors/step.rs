//! What the layers of one step share on the device, made once.

use std::sync::OnceLock;

use super::attention::{PackedPlan, PagedPlan};
use super::rows::Angles;
use crate::error::Error;

/// The device's form of a batch's positions, slots and blocks. Every layer of a model has the same heads and the same
/// rotary table, so that one form serves all of them.
#[derive(Clone, Debug, Default)]
pub(in crate::ops) struct StepTensors {
    pub(super) angles: OnceLock<Angles>,
    pub(super) paged: OnceLock<PagedPlan>,
    pub(super) packed: OnceLock<PackedPlan>,
}

/// What is kept in `cell`, made by the first who asks.
pub(super) fn once<T>(cell: &OnceLock<T>, make: impl FnOnce() -> Result<T, Error>) -> Result<&T, Error> {
    match cell.get() {
        Some(made) => Ok(made),
        None => {
            let made = make()?;
            Ok(cell.get_or_init(|| made))
        }
    }
}
