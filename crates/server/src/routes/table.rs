//! The table of routes: each says what it takes to be answered, and a test calls every one as everybody.

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};

use crate::gate::Permission;
use crate::serve::App;

/// What it takes to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing: whoever reaches the server is answered.
    Nothing,
    /// A caller who is known; what they get is theirs, or what they may see.
    Caller,
    /// This level on the endpoint that the path or the body names.
    Level(Permission),
    /// An administrator.
    Admin,
    /// What the ACL of the scope of secrets says that the request names.
    Scope,
}

/// One route.
#[cfg_attr(not(test), expect(dead_code, reason = "who is let in is checked by a test, which reads the table"))]
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) needs: Needs,
    handler: MethodRouter<App>,
}

impl Route {
    pub(super) fn get<H: Handler<T, App>, T: 'static>(path: impl Into<String>, needs: Needs, handler: H) -> Self {
        Self { method: "GET", path: path.into(), needs, handler: on(MethodFilter::GET, handler) }
    }

    pub(super) fn post<H: Handler<T, App>, T: 'static>(path: impl Into<String>, needs: Needs, handler: H) -> Self {
        Self { method: "POST", path: path.into(), needs, handler: on(MethodFilter::POST, handler) }
    }

    pub(super) fn put<H: Handler<T, App>, T: 'static>(path: impl Into<String>, needs: Needs, handler: H) -> Self {
        Self { method: "PUT", path: path.into(), needs, handler: on(MethodFilter::PUT, handler) }
    }

    pub(super) fn patch<H: Handler<T, App>, T: 'static>(path: impl Into<String>, needs: Needs, handler: H) -> Self {
        Self { method: "PATCH", path: path.into(), needs, handler: on(MethodFilter::PATCH, handler) }
    }

    pub(super) fn delete<H: Handler<T, App>, T: 'static>(path: impl Into<String>, needs: Needs, handler: H) -> Self {
        Self { method: "DELETE", path: path.into(), needs, handler: on(MethodFilter::DELETE, handler) }
    }
}

/// A router of these routes.
pub(super) fn router(routes: Vec<Route>) -> Router<App> {
    routes.into_iter().fold(Router::new(), |router, route| router.route(&route.path, route.handler))
}
