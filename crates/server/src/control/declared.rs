//! What a configuration file declares, brought into the store: principals, their tokens, and grants on the endpoints that the
//! file names. What it declared before and no longer does goes away; what was made over the API is left alone.

use std::collections::{HashMap, HashSet};

use super::ControlPlane;
use crate::config::{Declared, DeclaredPrincipal, PrincipalName};
use crate::endpoints::id_of;
use crate::error::ApiError;
use crate::store::{Change, GrantRow, PrincipalKind, PrincipalRow, StoreError, TokenRow, now};

/// How rows say that a configuration file declared them.
const ORIGIN: &str = "config";

/// Why a store cannot be as a configuration file declares.
#[derive(Debug, thiserror::Error)]
pub enum DeclareError {
    /// A name is taken.
    #[error("the configuration declares the {kind} `{name}`, and there is one already that was made over the API")]
    Exists {
        /// What kind of thing.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A token is somebody else's.
    #[error("the configuration gives `{0}` a token that was made over the API for somebody")]
    Token(String),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The change does not last.
    #[error(transparent)]
    Commit(#[from] ApiError),
}

/// What is in the store while a declaration is brought into it.
struct Before {
    principals: HashMap<PrincipalName, PrincipalRow>,
    members: HashMap<String, Vec<String>>,
    tokens: Vec<TokenRow>,
    grants: Vec<GrantRow>,
}

impl ControlPlane {
    /// Makes the store as `declared`. Nothing is written where it is so already.
    ///
    /// # Errors
    /// Where something of the same name was made over the API; where the store fails. Nothing is changed then.
    pub async fn declare(&self, declared: &Declared) -> Result<(), DeclareError> {
        let mut change = self.store().change().await?;
        // No other change comes between.
        let before = self.before(declared).await?;
        let ids = principals(&mut change, &before, declared).await?;
        members(&mut change, &before, declared, &ids).await?;
        tokens(&mut change, &before, declared, &ids).await?;
        grants(&mut change, &before, declared, &ids).await?;
        Ok(self.commit(change).await?)
    }

    async fn before(&self, declared: &Declared) -> Result<Before, DeclareError> {
        let store = self.store();
        for made in store.endpoints().await? {
            if declared.endpoints.iter().flatten().any(|endpoint| endpoint.name == made.name) {
                return Err(DeclareError::Exists { kind: "endpoint", name: made.name });
            }
        }
        let named = |row: PrincipalRow| (PrincipalName { kind: row.kind, name: row.name.clone() }, row);
        let principals = store.principals().await?.into_iter().map(named).collect();
        let mut members: HashMap<String, Vec<String>> = HashMap::new();
        for (group, member) in store.members(None).await? {
            members.entry(group).or_default().push(member);
        }
        Ok(Before { principals, members, tokens: store.tokens().await?, grants: store.grants(None).await? })
    }
}

impl Before {
    /// Whether the principal of that id was declared by a file.
    fn is_declared(&self, id: &str) -> bool {
        self.principals.values().any(|row| row.id == id && row.origin == ORIGIN)
    }
}

/// Ids by name, of those who are declared and those who are built in.
type Ids = HashMap<PrincipalName, String>;

async fn principals(change: &mut Change, before: &Before, declared: &Declared) -> Result<Ids, DeclareError> {
    let is_declared = |name: &PrincipalName| declared.principals.iter().any(|principal| principal.name == *name);
    for (name, row) in &before.principals {
        if row.origin == ORIGIN && !is_declared(name) {
            change.delete_principal(&row.id).await?;
        }
    }
    let built_in = before.principals.iter().filter(|(_, row)| row.origin == "built-in");
    let mut ids: Ids = built_in.map(|(name, row)| (name.clone(), row.id.clone())).collect();
    for DeclaredPrincipal { name, display_name, .. } in &declared.principals {
        if ids.contains_key(name) {
            continue;
        }
        let new = || {
            let row = PrincipalRow::new(name.kind, &name.name, display_name);
            PrincipalRow { origin: ORIGIN.to_owned(), ..row }
        };
        let row = match before.principals.get(name) {
            // Of users in another case.
            None if change.principal_named(name.kind, &name.name).await?.is_some() => {
                return Err(DeclareError::Exists { kind: described(name.kind), name: name.name.clone() });
            }
            None => new(),
            Some(row) if row.origin == ORIGIN => PrincipalRow { display_name: display_name.clone(), ..row.clone() },
            Some(_) => return Err(DeclareError::Exists { kind: described(name.kind), name: name.name.clone() }),
        };
        if before.principals.get(name) != Some(&row) {
            change.put_principal(&row).await?;
        }
        ids.insert(name.clone(), row.id);
    }
    Ok(ids)
}

fn described(kind: PrincipalKind) -> &'static str {
    match kind {
        PrincipalKind::User => "user",
        PrincipalKind::ServicePrincipal => "service principal",
        PrincipalKind::Group => "group",
    }
}

/// A group that is declared has the members that are declared. Of a built-in one, those that were made over the API stay; and
/// where nothing is said of it, those that a file has put there go.
async fn members(change: &mut Change, before: &Before, declared: &Declared, ids: &Ids) -> Result<(), DeclareError> {
    for (group, id) in ids.iter().filter(|(name, _)| name.kind == PrincipalKind::Group) {
        let principal = declared.principals.iter().find(|principal| principal.name == *group);
        let is_built_in = before.principals.get(group).is_some_and(|row| row.origin == "built-in");
        let old: HashSet<&String> = before.members.get(id).into_iter().flatten().collect();
        let kept = old.iter().copied().filter(|id| is_built_in && !before.is_declared(id));
        let named = principal.into_iter().flat_map(|principal| &principal.members).filter_map(|name| ids.get(name));
        let new: HashSet<&String> = kept.chain(named).collect();
        // Those who are gone have left by themselves.
        let left = |id: &&String| !before.is_declared(id) || ids.values().any(|known| known == *id);
        if old.into_iter().filter(left).collect::<HashSet<_>>() != new {
            let new: Vec<String> = new.into_iter().cloned().collect();
            change.set_members(id, &new).await?;
        }
    }
    Ok(())
}

async fn tokens(change: &mut Change, before: &Before, declared: &Declared, ids: &Ids) -> Result<(), DeclareError> {
    let wanted: HashMap<String, (&String, &DeclaredPrincipal)> = declared
        .principals
        .iter()
        .filter_map(|principal| Some((principal, ids.get(&principal.name)?)))
        .flat_map(|(principal, id)| principal.tokens.iter().map(move |hash| (hash.to_hex(), (id, principal))))
        .collect();
    let mut there = HashSet::new();
    for token in &before.tokens {
        let owner = wanted.get(&token.hash);
        match (token.origin == ORIGIN, owner) {
            (true, Some((id, _))) if **id == token.principal_id => {
                there.insert(&token.hash);
            }
            (true, _) => change.delete_token(&token.id).await?,
            (false, Some((_, principal))) => return Err(DeclareError::Token(principal.name.name.clone())),
            (false, None) => {}
        }
    }
    for (hash, (id, _)) in wanted.iter().filter(|(hash, _)| !there.contains(hash)) {
        let token = TokenRow {
            // Of the same file on every server, the same.
            id: id_of(hash),
            principal_id: (*id).clone(),
            hash: hash.clone(),
            comment: "of the configuration file".to_owned(),
            origin: ORIGIN.to_owned(),
            created: now(),
            created_by: ORIGIN.to_owned(),
            expires: None,
        };
        change.add_token(&token).await?;
    }
    Ok(())
}

async fn grants(change: &mut Change, before: &Before, declared: &Declared, ids: &Ids) -> Result<(), DeclareError> {
    let mut wanted: HashMap<(String, &String), GrantRow> = HashMap::new();
    for endpoint in declared.endpoints.iter().flatten() {
        for (name, level) in &endpoint.grants {
            let Some(principal) = ids.get(name) else { continue };
            let grant = GrantRow {
                endpoint_id: id_of(&endpoint.name),
                principal_id: principal.clone(),
                level: level.name().to_owned(),
                origin: ORIGIN.to_owned(),
            };
            wanted.insert((grant.endpoint_id.clone(), principal), grant);
        }
    }
    let is_wanted = |grant: &GrantRow| wanted.values().any(|wanted| wanted == grant);
    let stale: HashSet<&String> = before
        .grants
        .iter()
        .filter(|grant| grant.origin == ORIGIN && !is_wanted(grant))
        .map(|grant| &grant.endpoint_id)
        .collect();
    for endpoint in &stale {
        change.delete_grants(endpoint, ORIGIN).await?;
    }
    for grant in wanted.values() {
        if stale.contains(&grant.endpoint_id) || !before.grants.contains(grant) {
            change.set_grant(grant).await?;
        }
    }
    Ok(())
}
