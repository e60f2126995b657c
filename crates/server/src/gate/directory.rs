//! Everybody the store knows, in memory: principals, their groups, tokens and grants.
//!
//! Owns the answer to "whose token is this" and "what may they do", without a look at the database. `control` keeps it as
//! the store is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use subtle::ConstantTimeEq;

use super::principal::Identity;
use super::{Permission, Principal, TokenHash};
use crate::store::{BUILT_IN_ADMIN, GrantRow, PrincipalKind, PrincipalRow, Store, StoreError, TokenRow, USERS, now};

/// Everybody the store knows.
#[derive(Default)]
pub struct Directory {
    principals: HashMap<Arc<str>, PrincipalRow>,
    /// Ids by kind and name, as `key` writes it.
    names: HashMap<PrincipalKind, HashMap<String, Arc<str>>>,
    /// By group.
    members: HashMap<Arc<str>, Vec<Arc<str>>>,
    /// By member.
    memberships: HashMap<Arc<str>, Vec<Arc<str>>>,
    tokens: HashMap<TokenHash, TokenRow>,
    /// By endpoint, then by principal.
    grants: HashMap<String, HashMap<Arc<str>, Grant>>,
}

/// What was granted, and whether the configuration file did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The level.
    pub level: Permission,
    /// `api`, or `config`.
    pub origin: String,
}

impl Directory {
    /// A directory of the built-in administrator alone, for a server without a store.
    pub fn built_in() -> Self {
        let mut directory = Self::default();
        let row = |id: &str, kind, name| PrincipalRow { id: id.to_owned(), ..PrincipalRow::new(kind, name, name) };
        let admins = row(crate::store::ADMINS, PrincipalKind::Group, "admins");
        directory.put_principal(row(BUILT_IN_ADMIN, PrincipalKind::User, "admin"), Vec::new());
        directory.put_principal(admins, vec![BUILT_IN_ADMIN.to_owned()]);
        directory.put_principal(row(USERS, PrincipalKind::Group, "users"), Vec::new());
        directory
    }

    /// Everybody, as the store has them now.
    ///
    /// # Errors
    /// Where the store fails, or holds what this program does not know.
    pub async fn load(store: &Store) -> Result<Self, StoreError> {
        let mut directory = Self::default();
        let mut members: HashMap<String, Vec<String>> = HashMap::new();
        for (group, member) in store.members(None).await? {
            members.entry(group).or_default().push(member);
        }
        for row in store.principals().await? {
            let members = members.remove(&row.id).unwrap_or_default();
            directory.put_principal(row, members);
        }
        for row in store.tokens().await? {
            directory.put_token(row)?;
        }
        let mut grants: HashMap<String, Vec<GrantRow>> = HashMap::new();
        for grant in store.grants(None).await? {
            grants.entry(grant.endpoint_id.clone()).or_default().push(grant);
        }
        for (endpoint, grants) in grants {
            directory.set_grants(&endpoint, grants)?;
        }
        Ok(directory)
    }

    /// Adds a principal or replaces it; of a group with its members.
    pub fn put_principal(&mut self, row: PrincipalRow, members: Vec<String>) {
        let id: Arc<str> = row.id.as_str().into();
        self.leave_members(&id);
        let members: Vec<Arc<str>> = members.into_iter().map(Into::into).collect();
        for member in &members {
            self.memberships.entry(Arc::clone(member)).or_default().push(Arc::clone(&id));
        }
        if !members.is_empty() {
            self.members.insert(Arc::clone(&id), members);
        }
        self.forget_name(&id);
        self.names.entry(row.kind).or_default().insert(key(row.kind, &row.name), Arc::clone(&id));
        self.principals.insert(id, row);
    }

    /// Removes a principal and whatever is its.
    pub fn remove_principal(&mut self, id: &str) {
        self.leave_members(id);
        self.forget_name(id);
        self.principals.remove(id);
        for group in self.memberships.remove(id).unwrap_or_default() {
            if let Some(members) = self.members.get_mut(&group) {
                members.retain(|member| **member != *id);
            }
        }
        self.tokens.retain(|_, token| token.principal_id != id);
        self.grants.values_mut().for_each(|grants| drop(grants.remove(id)));
    }

    fn forget_name(&mut self, id: &str) {
        if let Some(row) = self.principals.get(id)
            && let Some(names) = self.names.get_mut(&row.kind)
        {
            let key = key(row.kind, &row.name);
            // Another one may have got the name meanwhile.
            if names.get(&key).is_some_and(|named| **named == *id) {
                names.remove(&key);
            }
        }
    }

    fn leave_members(&mut self, group: &str) {
        for member in self.members.remove(group).unwrap_or_default() {
            if let Some(groups) = self.memberships.get_mut(&member) {
                groups.retain(|one| **one != *group);
            }
        }
    }

    /// Adds a token.
    ///
    /// # Errors
    /// Where the stored hash is none.
    pub fn put_token(&mut self, row: TokenRow) -> Result<(), StoreError> {
        let unknown = || StoreError::Unknown { what: "a hash of a token,", value: row.id.clone() };
        let hash = TokenHash::from_hex(&row.hash).ok_or_else(unknown)?;
        self.tokens.insert(hash, row);
        Ok(())
    }

    /// Removes a token.
    pub fn remove_token(&mut self, id: &str) {
        self.tokens.retain(|_, token| token.id != id);
    }

    /// Sets what is granted on an endpoint.
    ///
    /// # Errors
    /// Where a level is not known.
    pub fn set_grants(&mut self, endpoint: &str, rows: Vec<GrantRow>) -> Result<(), StoreError> {
        let grants = rows.into_iter().map(|row| {
            let level = row.level.parse();
            let level = level.map_err(|_| StoreError::Unknown { what: "a grant of the level", value: row.level })?;
            Ok((Arc::from(row.principal_id), Grant { level, origin: row.origin }))
        });
        let grants: HashMap<_, _> = grants.collect::<Result<_, StoreError>>()?;
        if grants.is_empty() {
            self.grants.remove(endpoint);
        } else {
            self.grants.insert(endpoint.to_owned(), grants);
        }
        Ok(())
    }

    /// Whose token this is; nobody's where it has expired, or where its owner is not active.
    pub fn bearer(&self, hash: &TokenHash) -> Option<Principal> {
        // The look-up finds at most one; whether it is the one is decided in constant time.
        let (found, token) = self.tokens.get_key_value(hash)?;
        let same = bool::from(found.bytes().ct_eq(hash.bytes()));
        let alive = token.expires.is_none_or(|expires| expires > now());
        (same && alive).then(|| self.recognised(&token.principal_id)).flatten()
    }

    /// The principal of that id, if it is active and no group.
    pub fn recognised(&self, id: &str) -> Option<Principal> {
        let row = self.principals.get(id).filter(|row| row.active && row.kind != PrincipalKind::Group)?;
        let (id, kind) = (Arc::from(id), row.kind);
        let (name, display_name) = (row.name.clone(), row.display_name.clone());
        let groups = self.groups_of(&id);
        let group_names = groups.iter().filter_map(|group| Some(self.principals.get(group)?.name.clone())).collect();
        Some(Principal::new(Identity { groups, group_names, id, kind, name, display_name }))
    }

    /// All groups that somebody is in, through other groups too.
    pub fn groups_of(&self, id: &Arc<str>) -> Vec<Arc<str>> {
        let mut found: Vec<Arc<str>> = vec![Arc::from(USERS)];
        let mut next = 0;
        let direct = |id: &Arc<str>| self.memberships.get(id).cloned().unwrap_or_default();
        let mut waiting = direct(id);
        let mut seen: HashSet<Arc<str>> = found.iter().cloned().collect();
        waiting.extend(direct(&found[0]));
        while let Some(group) = waiting.get(next).cloned() {
            next += 1;
            if seen.insert(Arc::clone(&group)) {
                waiting.extend(direct(&group));
                found.push(group);
            }
        }
        found
    }

    /// What `principal` may do with that endpoint; `None`: not even know of it.
    pub fn permission(&self, principal: &Principal, endpoint: &str) -> Option<Permission> {
        if principal.is_admin() {
            return Some(Permission::CanManage);
        }
        let grants = self.grants.get(endpoint)?;
        principal.ids().filter_map(|id| grants.get(id)).map(|grant| grant.level).max()
    }

    /// What is granted on an endpoint, by principal.
    pub fn grants(&self, endpoint: &str) -> impl Iterator<Item = (&PrincipalRow, &Grant)> {
        let grants = self.grants.get(endpoint).into_iter().flatten();
        grants.filter_map(|(id, grant)| Some((self.principals.get(id)?, grant)))
    }

    /// Whether anybody has a token.
    pub fn has_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// All tokens.
    pub fn tokens(&self) -> impl Iterator<Item = &TokenRow> {
        self.tokens.values()
    }

    /// All principals.
    pub fn principals(&self) -> impl Iterator<Item = &PrincipalRow> {
        self.principals.values()
    }

    /// The principal of that id.
    pub fn principal(&self, id: &str) -> Option<&PrincipalRow> {
        self.principals.get(id)
    }

    /// The principal of that kind and name; of a user in any case.
    pub fn named(&self, kind: PrincipalKind, name: &str) -> Option<&PrincipalRow> {
        self.principals.get(self.names.get(&kind)?.get(&key(kind, name))?)
    }

    /// Ids of the direct members of a group.
    pub fn members(&self, group: &str) -> &[Arc<str>] {
        self.members.get(group).map_or(&[], Vec::as_slice)
    }

    /// Ids of the groups that somebody is a direct member of, but for the one that everybody is in.
    pub fn memberships(&self, id: &str) -> &[Arc<str>] {
        self.memberships.get(id).map_or(&[], Vec::as_slice)
    }
}

/// What a name is found by. Those of users are addresses, which are the same in any case.
fn key(kind: PrincipalKind, name: &str) -> String {
    match kind {
        PrincipalKind::User => name.to_ascii_lowercase(),
        PrincipalKind::ServicePrincipal | PrincipalKind::Group => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ADMINS;

    fn row(id: &str, kind: PrincipalKind, name: &str) -> PrincipalRow {
        PrincipalRow { id: id.to_owned(), ..PrincipalRow::new(kind, name, name) }
    }

    fn ids(groups: &[Arc<str>]) -> Vec<&str> {
        groups.iter().map(AsRef::as_ref).collect()
    }

    #[test]
    fn groups_that_hold_each_other_are_found_once() {
        let mut directory = Directory::built_in();
        directory.put_principal(row("10", PrincipalKind::Group, "a"), vec!["11".into(), "20".into()]);
        directory.put_principal(row("11", PrincipalKind::Group, "b"), vec!["10".into(), "11".into()]);
        directory.put_principal(row("20", PrincipalKind::User, "u"), Vec::new());
        assert_eq!(ids(&directory.groups_of(&"20".into())), [USERS, "10", "11"]);
        let user = directory.recognised("20").unwrap();
        assert!(!user.is_admin() && directory.permission(&user, "e").is_none());
    }

    #[test]
    fn a_name_is_found_for_as_long_as_somebody_has_it() {
        let mut directory = Directory::built_in();
        let found =
            |directory: &Directory, name: &str| directory.named(PrincipalKind::Group, name).map(|row| row.id.clone());
        directory.put_principal(row("10", PrincipalKind::Group, "a"), Vec::new());
        assert_eq!(found(&directory, "a").as_deref(), Some("10"));
        assert!(directory.named(PrincipalKind::User, "a").is_none());
        // The name goes to another one, before the change of the one that had it is seen.
        directory.put_principal(row("11", PrincipalKind::Group, "a"), Vec::new());
        directory.put_principal(row("10", PrincipalKind::Group, "b"), Vec::new());
        assert_eq!((found(&directory, "a").as_deref(), found(&directory, "b").as_deref()), (Some("11"), Some("10")));
        directory.remove_principal("11");
        assert_eq!(found(&directory, "a"), None);
        assert_eq!(found(&directory, "admins").as_deref(), Some(ADMINS));
        assert_eq!(found(&directory, "Admins"), None);
        assert!(directory.named(PrincipalKind::User, "ADMIN").is_some(), "users are found in any case");
    }

    #[test]
    fn whoever_is_removed_leaves_nothing_behind() {
        let mut directory = Directory::built_in();
        directory.put_principal(row("20", PrincipalKind::User, "u"), Vec::new());
        directory.put_principal(row("10", PrincipalKind::Group, "a"), vec!["20".into()]);
        let grant = |principal: &str| GrantRow {
            endpoint_id: "e".into(),
            principal_id: principal.into(),
            level: "CAN_QUERY".into(),
            origin: "api".into(),
        };
        directory.set_grants("e", vec![grant("10"), grant("20")]).unwrap();
        let user = directory.recognised("20").unwrap();
        assert_eq!(directory.permission(&user, "e"), Some(Permission::CanQuery));
        directory.remove_principal("10");
        assert_eq!((ids(directory.memberships("20")), directory.grants("e").count()), (vec![], 1));
        directory.remove_principal("20");
        assert!(directory.recognised("20").is_none() && directory.members("10").is_empty());
        assert_eq!(directory.grants("e").count(), 0);
    }
}
