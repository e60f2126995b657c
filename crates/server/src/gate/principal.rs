//! Who somebody is, and the levels of what they may do.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::store::{ADMINS, PrincipalKind};

/// What a principal may do with an endpoint; each level holds the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// See that it exists.
    CanView,
    /// Call it.
    CanQuery,
    /// Change it.
    CanManage,
}

impl Permission {
    /// All levels, the lowest first.
    pub const ALL: [Self; 3] = [Self::CanView, Self::CanQuery, Self::CanManage];

    /// As the permissions API spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::CanView => "CAN_VIEW",
            Self::CanQuery => "CAN_QUERY",
            Self::CanManage => "CAN_MANAGE",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A word that is no level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a permission level is CAN_VIEW, CAN_QUERY or CAN_MANAGE, not `{0}`")]
pub struct UnknownPermission(String);

impl FromStr for Permission {
    type Err = UnknownPermission;

    fn from_str(name: &str) -> Result<Self, UnknownPermission> {
        let known = Self::ALL.into_iter().find(|level| level.name() == name);
        known.ok_or_else(|| UnknownPermission(name.to_owned()))
    }
}

/// Somebody the gate has recognised; it alone makes them. A clone is the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal(Arc<Identity>);

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: Arc<str>,
    pub(super) kind: PrincipalKind,
    pub(super) name: String,
    pub(super) display_name: String,
    /// Of all groups that it is in, through other groups too.
    pub(super) groups: Vec<Arc<str>>,
    /// The names of those groups.
    pub(super) group_names: Vec<String>,
}

impl Principal {
    pub(super) fn new(identity: Identity) -> Self {
        Self(Arc::new(identity))
    }

    /// Digits, the same for as long as the principal exists.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// A user or a service principal.
    pub fn kind(&self) -> PrincipalKind {
        self.0.kind
    }

    /// The user name or the application id: how logs, usage and creators name it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// For people to read.
    pub fn display_name(&self) -> &str {
        &self.0.display_name
    }

    /// Ids of all groups that it is in.
    pub fn groups(&self) -> &[Arc<str>] {
        &self.0.groups
    }

    /// Whether it is in the group of that name, through other groups too.
    pub fn is_in(&self, group: &str) -> bool {
        self.0.group_names.iter().any(|name| name == group)
    }

    /// Its own id and those of its groups: whatever is granted to one of them is granted to it.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.id()).chain(self.0.groups.iter().map(AsRef::as_ref))
    }

    /// Whether it may do everything.
    pub fn is_admin(&self) -> bool {
        self.0.groups.iter().any(|group| **group == *ADMINS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_ordered_and_spelled_as_the_api_spells_them() {
        assert!(Permission::CanView < Permission::CanQuery && Permission::CanQuery < Permission::CanManage);
        for level in Permission::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        assert!("CAN_EDIT".parse::<Permission>().unwrap_err().to_string().ends_with("not `CAN_EDIT`"));
    }
}
