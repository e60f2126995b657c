//! An endpoint together with the proof that the caller may use it.

use std::marker::PhantomData;
use std::sync::Arc;

use super::{Pass, Permission};
use crate::endpoints::{Endpoint, ServedEntity, Task};
use crate::error::{ApiError, ErrorKind};

/// A permission as a type.
pub trait Level {
    /// The permission it stands for.
    const PERMISSION: Permission;
}

/// May see the endpoint.
#[derive(Debug)]
pub enum View {}

/// May call the endpoint.
#[derive(Debug)]
pub enum Query {}

/// May change the endpoint.
#[derive(Debug)]
pub enum Manage {}

impl Level for View {
    const PERMISSION: Permission = Permission::CanView;
}

impl Level for Query {
    const PERMISSION: Permission = Permission::CanQuery;
}

impl Level for Manage {
    const PERMISSION: Permission = Permission::CanManage;
}

/// An endpoint that the caller has permission `L` on. Only the gate makes one.
pub struct Allowed<L: Level> {
    endpoint: Arc<Endpoint>,
    level: PhantomData<L>,
}

impl<L: Level> Allowed<L> {
    pub(super) fn new(endpoint: Arc<Endpoint>, _pass: Pass) -> Self {
        Self { endpoint, level: PhantomData }
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl Allowed<Query> {
    /// The entity that answers this call of task `wanted`.
    ///
    /// # Errors
    /// 400 where the endpoint does something else.
    pub fn entity_for(&self, wanted: Task) -> Result<&ServedEntity, ApiError> {
        let endpoint = &*self.endpoint;
        // What a model does that has never been loaded shows when it is: it refuses what it does not do.
        if let Some(task) = endpoint.task().filter(|task| !task.serves(wanted)) {
            let text = format!("endpoint `{}` serves {task}, not {wanted}", endpoint.name());
            return Err(ApiError::new(ErrorKind::BadRequest, text).with_field("model"));
        }
        self.entity()
    }

    /// The entity that answers a call that endpoints of every task take.
    ///
    /// # Errors
    /// 503 where the endpoint has none.
    pub fn entity(&self) -> Result<&ServedEntity, ApiError> {
        let endpoint = &*self.endpoint;
        // One entity today: the first takes all the traffic.
        endpoint.entities().first().ok_or_else(|| {
            ApiError::new(ErrorKind::Unavailable, format!("endpoint `{}` serves no model", endpoint.name()))
        })
    }
}
