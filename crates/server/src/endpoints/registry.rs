//! All endpoints by name, and the names of those that are still loading.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Endpoint, EndpointError, check_name};
use crate::gate::Pass;

/// All endpoints. Whoever holds it can add one; getting one out takes the gate's [`Pass`].
#[derive(Default)]
pub struct Registry {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    endpoints: BTreeMap<String, Arc<Endpoint>>,
    loading: BTreeSet<String>,
}

/// What stands under a name.
pub(crate) enum Found {
    /// An endpoint that answers.
    Ready(Arc<Endpoint>),
    /// An endpoint whose model is loading.
    Loading,
    /// Nothing.
    Nothing,
}

impl Registry {
    /// Announces an endpoint whose model is loading: the server is not ready before it is inserted.
    pub fn announce(&self, name: &str) -> Result<(), EndpointError> {
        check_name(name)?;
        let mut state = self.write();
        if state.endpoints.contains_key(name) || !state.loading.insert(name.to_owned()) {
            return Err(EndpointError::Exists(name.to_owned()));
        }
        Ok(())
    }

    /// Puts an endpoint in the place of the one of its name, if there is one, and gives that back.
    pub(crate) fn replace(&self, endpoint: Endpoint) -> Option<Arc<Endpoint>> {
        let endpoint = Arc::new(endpoint);
        self.write().endpoints.insert(endpoint.name().to_owned(), endpoint)
    }

    /// Takes an endpoint away; its calls that have begun go on.
    pub(crate) fn remove(&self, name: &str) -> Option<Arc<Endpoint>> {
        self.write().endpoints.remove(name)
    }

    /// Adds an endpoint, announced or not.
    pub fn insert(&self, endpoint: Endpoint) -> Result<(), EndpointError> {
        let mut state = self.write();
        let name = endpoint.name().to_owned();
        if state.endpoints.contains_key(&name) {
            return Err(EndpointError::Exists(name));
        }
        state.loading.remove(&name);
        state.endpoints.insert(name, Arc::new(endpoint));
        Ok(())
    }

    /// The endpoints that do not answer: those that are announced and have not been inserted, those of the store whose models
    /// are not here yet, and those with a model that has stopped or is stuck. The server is ready when there is none.
    pub fn unready(&self) -> Vec<String> {
        let state = self.read();
        let dead = |endpoint: &&Arc<Endpoint>| {
            endpoint.is_awaited() || endpoint.entities().iter().any(|entity| !entity.provider().is_alive())
        };
        let dead = state.endpoints.values().filter(dead).map(|endpoint| endpoint.name().to_owned());
        state.loading.iter().cloned().chain(dead).collect()
    }

    /// Whether there is an endpoint of that name, or will be.
    pub(crate) fn has(&self, name: &str) -> bool {
        let state = self.read();
        state.endpoints.contains_key(name) || state.loading.contains(name)
    }

    /// Whether the model of an announced endpoint is still loading.
    pub fn is_loading(&self) -> bool {
        !self.read().loading.is_empty()
    }

    pub(crate) fn find(&self, name: &str, _pass: Pass) -> Found {
        let state = self.read();
        match state.endpoints.get(name) {
            Some(endpoint) => Found::Ready(Arc::clone(endpoint)),
            None if state.loading.contains(name) => Found::Loading,
            None => Found::Nothing,
        }
    }

    pub(crate) fn find_id(&self, id: &str, _pass: Pass) -> Option<Arc<Endpoint>> {
        self.read().endpoints.values().find(|endpoint| endpoint.id() == id).cloned()
    }

    pub(crate) fn all(&self, _pass: Pass) -> Vec<Arc<Endpoint>> {
        self.read().endpoints.values().cloned().collect()
    }

    // No critical section in here leaves the state half changed, so a poisoned lock still guards a sound value.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}
