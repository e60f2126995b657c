//! An endpoint together with the proof that the caller may use it.

use std::marker::PhantomData;
use std::sync::Arc;

use serde_json::Value;

use super::{Caller, Pass, Permission};
use crate::endpoints::{Endpoint, ServedEntity};
use crate::error::{ApiError, ErrorKind};
use crate::policy::limits::Counters;
use crate::usage::Draft;
use crate::wire::options::Bookkeeping;

/// The proof that the caller is an administrator. Only the gate makes one.
pub struct Admin(());

impl Admin {
    pub(super) fn new(_pass: Pass) -> Self {
        Self(())
    }
}

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
    permission: Permission,
    caller: Caller,
    counters: Counters,
    level: PhantomData<L>,
}

impl<L: Level> Allowed<L> {
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        permission: Permission,
        caller: &Caller,
        counters: Counters,
        _pass: Pass,
    ) -> Self {
        Self { endpoint, permission, caller: caller.clone(), counters, level: PhantomData }
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// All that the caller may do with it, which may be more than was asked for.
    pub fn permission(&self) -> Permission {
        self.permission
    }

    /// Who is calling.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }
}

impl Allowed<Query> {
    /// The entity that answers a call that endpoints of every task take.
    ///
    /// # Errors
    /// 503 where the endpoint has none.
    pub fn entity(&self) -> Result<&ServedEntity, ApiError> {
        let endpoint = &*self.endpoint;
        let entity = endpoint.entities().get(endpoint.next_entity()).ok_or_else(|| {
            ApiError::new(ErrorKind::Unavailable, format!("endpoint `{}` serves no model", endpoint.name()))
        })?;
        Ok(entity)
    }

    /// Notes what the caller says of this call, in the usage and in the log. Most say nothing.
    pub fn record(&self, bookkeeping: &Bookkeeping) {
        self.draft().record(bookkeeping);
        match serde_json::to_value(bookkeeping) {
            Ok(Value::Object(fields)) if !fields.is_empty() => {
                let fields = Value::Object(fields);
                tracing::info!(%fields, "the caller said of this call");
            }
            _ => {}
        }
    }

    /// Where this call is counted.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The account of this call.
    pub(crate) fn draft(&self) -> &Draft {
        self.caller.draft()
    }
}
