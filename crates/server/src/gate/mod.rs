//! The gate: who is calling, and what they may do with which endpoint.
//!
//! Owns authentication and permissions, and is the only door to an endpoint: the registry gives one only for a
//! [`Pass`], which nobody else can make, and the gate hands it on only as an [`Allowed`]. What only administrators may do
//! takes an [`Admin`].

mod aide;
mod allowed;
mod caller;
mod directory;
mod origin;
mod principal;
mod token;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use axum::http::HeaderMap;

pub(crate) use aide::Aide;
pub use aide::Aides;
pub use allowed::{Admin, Allowed, Level, Manage, Query, View};
pub use caller::{Access, Caller};
pub use directory::{Directory, Grant};
pub use origin::{NotAnOrigin, Origin, Origins};
pub use principal::{Permission, Principal, UnknownPermission};
pub use token::{Token, TokenHash};

use crate::endpoints::{Endpoint, Found, Registry};
use crate::error::{ApiError, ErrorKind};
use crate::policy::limits::Counters;

/// The gate's own right to take endpoints out of the registry.
pub struct Pass(());

/// Who may come in, and the endpoints behind.
pub struct Gate {
    access: Access,
    directory: RwLock<Directory>,
    registry: Registry,
    counters: Counters,
}

impl Gate {
    /// A gate with no endpoint behind it yet.
    pub fn new(access: Access, directory: Directory) -> Self {
        Self { access, directory: RwLock::new(directory), registry: Registry::default(), counters: Counters::default() }
    }

    /// The same, which counts in `counters`.
    pub fn with_counters(self, counters: Counters) -> Self {
        Self { counters, ..self }
    }

    /// The counters of limits and budgets.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The endpoints, to add to.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Everybody who is known.
    pub fn directory(&self) -> RwLockReadGuard<'_, Directory> {
        // No change leaves the directory half made, so a poisoned lock still guards a sound value.
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everybody who is known, for whoever keeps it as the store is.
    pub(crate) fn directory_mut(&self) -> RwLockWriteGuard<'_, Directory> {
        self.directory.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who may come in besides those whom the directory knows.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Whether anybody could come in.
    pub fn is_open_to_somebody(&self) -> bool {
        self.access.is_open_to_somebody(&self.directory())
    }

    /// Whether whoever calls is the administrator, since nobody has a token and only this machine can call.
    pub fn is_open_to_all(&self) -> bool {
        self.access.is_open_to_all(&self.directory())
    }

    /// The sites whose pages may call.
    pub fn origins(&self) -> &Origins {
        &self.access.origins
    }

    /// Who sent these headers.
    ///
    /// # Errors
    /// 401 where a token is needed and the headers hold none or another one; 403 for the pages of other sites.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, ApiError> {
        self.access.authenticate(&self.directory(), headers)
    }

    /// The endpoint `name`, if the caller may do with it what `L` says.
    ///
    /// # Errors
    /// 404 where there is none or the caller may not even see it, 403 where they may see it and no more,
    /// 503 while its model is loading.
    pub fn allow<L: Level>(&self, caller: &Caller, name: &str) -> Result<Allowed<L>, ApiError> {
        match self.registry.find(name, Pass(())) {
            Found::Ready(endpoint) => self.permit(caller, endpoint),
            Found::Loading => {
                Err(ApiError::new(ErrorKind::Unavailable, format!("the model of endpoint `{name}` is still loading")))
            }
            Found::Nothing => Err(no_such_endpoint(name)),
        }
    }

    /// The endpoint that the server itself asks for that.
    ///
    /// # Errors
    /// 503 where it does not answer, or none is set.
    pub(crate) fn aide(&self, aide: Aide) -> Result<Arc<Endpoint>, ApiError> {
        let unset = || ApiError::new(ErrorKind::Unavailable, "the server's settings name no such endpoint");
        let name = self.access.aides.name(aide).ok_or_else(unset)?;
        match self.registry.find(name, Pass(())) {
            Found::Ready(endpoint) => Ok(endpoint),
            Found::Loading | Found::Nothing => {
                Err(ApiError::new(ErrorKind::Unavailable, format!("the endpoint `{name}` does not answer yet")))
            }
        }
    }

    /// The endpoint of that id, if the caller may do with it what `L` says.
    ///
    /// # Errors
    /// As [`Gate::allow`].
    pub fn allow_id<L: Level>(&self, caller: &Caller, id: &str) -> Result<Allowed<L>, ApiError> {
        let endpoint = self.registry.find_id(id, Pass(())).ok_or_else(|| no_such_endpoint(id))?;
        self.permit(caller, endpoint).map_err(|error| match error.kind() {
            // The name is not the caller's to know.
            ErrorKind::EndpointNotFound => no_such_endpoint(id),
            _ => error,
        })
    }

    /// Every endpoint with which the caller may do what `L` says, by name.
    pub fn all<L: Level>(&self, caller: &Caller) -> Vec<Allowed<L>> {
        let all = self.registry.all(Pass(()));
        all.into_iter().filter_map(|endpoint| self.permit(caller, endpoint).ok()).collect()
    }

    /// The proof that the caller is an administrator.
    ///
    /// # Errors
    /// 403 where they are not.
    pub fn admin(&self, caller: &Caller) -> Result<Admin, ApiError> {
        if caller.principal().is_admin() {
            return Ok(Admin::new(Pass(())));
        }
        Err(ApiError::new(ErrorKind::Forbidden, "only members of the group `admins` may do this"))
    }

    fn permit<L: Level>(&self, caller: &Caller, endpoint: Arc<Endpoint>) -> Result<Allowed<L>, ApiError> {
        match self.directory().permission(caller.principal(), endpoint.id()) {
            None => Err(no_such_endpoint(endpoint.name())),
            Some(permission) if permission < L::PERMISSION => {
                let text = format!("{} on endpoint `{}` is required", L::PERMISSION, endpoint.name());
                Err(ApiError::new(ErrorKind::Forbidden, text))
            }
            Some(permission) => Ok(Allowed::new(endpoint, permission, caller, self.counters.clone(), Pass(()))),
        }
    }
}

/// The same words whether the endpoint is missing or hidden, so that names do not leak.
fn no_such_endpoint(name: &str) -> ApiError {
    let text = format!("The given endpoint does not exist, please retry after checking the specified model: `{name}`");
    ApiError::new(ErrorKind::EndpointNotFound, text).with_field("model")
}
