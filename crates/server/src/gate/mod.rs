//! The gate: who is calling, and what they may do with which endpoint.
//!
//! Owns authentication and permissions, and is the only door to an endpoint: the registry gives one only for a
//! [`Pass`], which nobody else can make, and the gate hands it on only as an [`Allowed`].

mod allowed;
mod caller;

use std::sync::Arc;

pub use allowed::{Allowed, Level, Manage, Query, View};
pub use caller::{Access, Permission, Principal};

use crate::endpoints::{Endpoint, Found, Registry};
use crate::error::{ApiError, ErrorKind};

/// The gate's own right to take endpoints out of the registry.
pub struct Pass(());

/// Who may come in, and the endpoints behind.
pub struct Gate {
    access: Access,
    registry: Registry,
}

impl Gate {
    /// A gate with no endpoint behind it yet.
    pub fn new(access: Access) -> Self {
        Self { access, registry: Registry::default() }
    }

    /// The endpoints, to add to.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Who may come in.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The endpoint `name`, if `principal` may do with it what `L` says.
    ///
    /// # Errors
    /// 404 where there is none or the principal may not even see it, 403 where they may see it and no more,
    /// 503 while its model is loading.
    pub fn allow<L: Level>(&self, principal: &Principal, name: &str) -> Result<Allowed<L>, ApiError> {
        match self.registry.find(name, Pass(())) {
            Found::Ready(endpoint) => permit(principal, endpoint),
            Found::Loading => {
                Err(ApiError::new(ErrorKind::Unavailable, format!("the model of endpoint `{name}` is still loading")))
            }
            Found::Nothing => Err(no_such_endpoint(name)),
        }
    }

    /// Every endpoint with which `principal` may do what `L` says, by name.
    pub fn all<L: Level>(&self, principal: &Principal) -> Vec<Allowed<L>> {
        self.registry.all(Pass(())).into_iter().filter_map(|endpoint| permit(principal, endpoint).ok()).collect()
    }
}

fn permit<L: Level>(principal: &Principal, endpoint: Arc<Endpoint>) -> Result<Allowed<L>, ApiError> {
    match principal.permission_on(&endpoint) {
        None => Err(no_such_endpoint(endpoint.name())),
        Some(permission) if permission < L::PERMISSION => {
            let text = format!("{} on endpoint `{}` is required", L::PERMISSION, endpoint.name());
            Err(ApiError::new(ErrorKind::Forbidden, text))
        }
        Some(_) => Ok(Allowed::new(endpoint, Pass(()))),
    }
}

/// The same words whether the endpoint is missing or hidden, so that names do not leak.
fn no_such_endpoint(name: &str) -> ApiError {
    let text = format!("The given endpoint does not exist, please retry after checking the specified model: `{name}`");
    ApiError::new(ErrorKind::EndpointNotFound, text).with_field("model")
}
