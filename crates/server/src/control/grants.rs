//! Grants: who may do what with an endpoint.

use std::collections::{HashMap, HashSet};

use super::ControlPlane;
use crate::error::{ApiError, ErrorKind};
use crate::gate::{Allowed, Manage, Permission};
use crate::store::GrantRow;

/// What is to be granted on an endpoint, by the principal's id; the name is for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedGrant {
    /// To whom.
    pub principal_id: String,
    /// What the request calls them.
    pub name: String,
    /// What.
    pub level: Permission,
}

impl ControlPlane {
    /// Grants this on an endpoint, in one change; with `replace` nothing else, but for what the configuration file grants.
    ///
    /// # Errors
    /// 400 where the configuration file grants one of them something else.
    pub async fn grant(
        &self,
        allowed: &Allowed<Manage>,
        wanted: &[WantedGrant],
        replace: bool,
    ) -> Result<(), ApiError> {
        let endpoint = allowed.endpoint().id();
        let mut change = self.store().change().await?;
        let standing = change.grants(endpoint).await?;
        let by_principal: HashMap<&str, &GrantRow> =
            standing.iter().map(|row| (row.principal_id.as_str(), row)).collect();
        let mut set = Vec::new();
        for grant in wanted {
            let level = grant.level.name();
            match by_principal.get(grant.principal_id.as_str()) {
                Some(row) if row.level == level => {}
                Some(row) if row.origin == "config" => return Err(declared(&grant.name, &row.level)),
                _ => set.push(GrantRow {
                    endpoint_id: endpoint.to_owned(),
                    principal_id: grant.principal_id.clone(),
                    level: level.to_owned(),
                    origin: "api".to_owned(),
                }),
            }
        }
        let kept: HashSet<&str> = wanted.iter().map(|grant| grant.principal_id.as_str()).collect();
        let goes = |row: &&GrantRow| replace && row.origin != "config" && !kept.contains(row.principal_id.as_str());
        let gone: Vec<String> = standing.iter().filter(goes).map(|row| row.principal_id.clone()).collect();
        if set.is_empty() && gone.is_empty() {
            return Ok(());
        }
        change.set_grants(endpoint, &set, &gone).await?;
        self.commit(change).await
    }
}

fn declared(name: &str, level: &str) -> ApiError {
    let text = format!("the configuration file grants `{name}` {level}, and is the place to change that");
    ApiError::new(ErrorKind::BadRequest, text)
}
