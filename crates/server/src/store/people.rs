//! Users, service principals and groups, and who is a member of what.

use std::collections::HashSet;

use sqlx::{query, query_as, query_scalar};
use uuid::Uuid;

use super::{Change, Store, StoreError, Subject, now};

/// The group of administrators.
pub const ADMINS: &str = "1";
/// The group that everybody is in who has a token, without being written down as a member.
pub const USERS: &str = "2";
/// The user who is called the administrator where nobody has a token, and who has the token of the environment.
pub const BUILT_IN_ADMIN: &str = "3";

/// What kind of principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PrincipalKind {
    /// A person, named by an e-mail address or another name.
    User,
    /// A program, named by its application id.
    ServicePrincipal,
    /// Several principals.
    Group,
}

const KINDS: [(PrincipalKind, &str); 3] = [
    (PrincipalKind::User, "user"),
    (PrincipalKind::ServicePrincipal, "service_principal"),
    (PrincipalKind::Group, "group"),
];

impl PrincipalKind {
    /// As it is stored.
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    fn of(name: &str) -> Result<Self, StoreError> {
        let known = KINDS.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind);
        known.ok_or_else(|| StoreError::Unknown { what: "a principal of the kind", value: name.to_owned() })
    }
}

/// A user, a service principal or a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrincipalRow {
    /// Digits, as the clients expect.
    pub id: String,
    /// What it is.
    pub kind: PrincipalKind,
    /// Of a user the user name, of a service principal the application id, of a group its name.
    pub name: String,
    /// For people to read.
    pub display_name: String,
    /// Whether its tokens count.
    pub active: bool,
    /// What another directory calls it.
    pub external_id: Option<String>,
    /// `api`, `config` or `built-in`.
    pub origin: String,
    /// Milliseconds since 1970.
    pub created: i64,
    /// JSON of what else is known of it.
    pub details: String,
}

type Columns = (String, String, String, String, i64, Option<String>, String, i64, String);

impl PrincipalRow {
    /// A new one, made over the API.
    pub fn new(kind: PrincipalKind, name: &str, display_name: &str) -> Self {
        // As long as the numbers that floating point holds exactly, for clients that read it as one.
        let id = (Uuid::new_v4().as_u128() % 9_000_000_000_000_000 + 10).to_string();
        let (name, display_name) = (name.to_owned(), display_name.to_owned());
        let (origin, details) = ("api".to_owned(), "{}".to_owned());
        Self { id, kind, name, display_name, active: true, external_id: None, origin, created: now(), details }
    }

    fn read(columns: Columns) -> Result<Self, StoreError> {
        let (id, kind, name, display_name, active, external_id, origin, created, details) = columns;
        let (kind, active) = (PrincipalKind::of(&kind)?, active != 0);
        Ok(Self { id, kind, name, display_name, active, external_id, origin, created, details })
    }
}

const ALL: &str = "SELECT id, kind, name, display_name, active, external_id, origin, created, details FROM principals";
const ONE: &str = "SELECT id, kind, name, display_name, active, external_id, origin, created, details FROM principals
    WHERE id = $1";
const MEMBERS: &str = "SELECT group_id, member_id FROM members WHERE group_id = $1 ORDER BY member_id";

impl Store {
    /// All principals.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn principals(&self) -> Result<Vec<PrincipalRow>, StoreError> {
        let rows: Vec<Columns> = query_as(ALL).fetch_all(&self.pool).await?;
        rows.into_iter().map(PrincipalRow::read).collect()
    }

    /// One principal.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn principal(&self, id: &str) -> Result<Option<PrincipalRow>, StoreError> {
        let row: Option<Columns> = query_as(ONE).bind(id).fetch_optional(&self.pool).await?;
        row.map(PrincipalRow::read).transpose()
    }

    /// Pairs of group and member: all, or of one group.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn members(&self, group: Option<&str>) -> Result<Vec<(String, String)>, StoreError> {
        let all = "SELECT group_id, member_id FROM members ORDER BY group_id, member_id";
        Ok(match group {
            None => query_as(all).fetch_all(&self.pool).await?,
            Some(group) => query_as(MEMBERS).bind(group).fetch_all(&self.pool).await?,
        })
    }
}

impl Change {
    /// A principal as this change finds it: no other change comes between.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn principal(&mut self, id: &str) -> Result<Option<PrincipalRow>, StoreError> {
        let row: Option<Columns> = query_as(ONE).bind(id).fetch_optional(self.connection()).await?;
        row.map(PrincipalRow::read).transpose()
    }

    /// The principal of that kind and name, as this change finds it.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn principal_named(
        &mut self,
        kind: PrincipalKind,
        name: &str,
    ) -> Result<Option<PrincipalRow>, StoreError> {
        let id: Option<String> = query_scalar("SELECT id FROM principals WHERE kind = $1 AND LOWER(name) = LOWER($2)")
            .bind(kind.name())
            .bind(name)
            .fetch_optional(self.connection())
            .await?;
        match id {
            Some(id) => self.principal(&id).await,
            None => Ok(None),
        }
    }

    /// Ids of the direct members of a group, as this change finds them.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn members(&mut self, group: &str) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String, String)> = query_as(MEMBERS).bind(group).fetch_all(self.connection()).await?;
        Ok(rows.into_iter().map(|(_, member)| member).collect())
    }

    /// Ids of the groups that a principal is a direct member of, as this change finds them.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn memberships(&mut self, member: &str) -> Result<Vec<String>, StoreError> {
        let groups = query_scalar("SELECT group_id FROM members WHERE member_id = $1 ORDER BY group_id");
        Ok(groups.bind(member).fetch_all(self.connection()).await?)
    }

    /// Ids of the groups that a principal is in, through other groups too, as this change finds them.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn groups_above(&mut self, member: &str) -> Result<HashSet<String>, StoreError> {
        let groups: Vec<String> = query_scalar(
            "WITH RECURSIVE above (id) AS (
                 SELECT group_id FROM members WHERE member_id = $1
                 UNION SELECT members.group_id FROM members JOIN above ON members.member_id = above.id
             )
             SELECT id FROM above",
        )
        .bind(member)
        .fetch_all(self.connection())
        .await?;
        Ok(groups.into_iter().collect())
    }

    /// Writes a principal, a new one or one that is there.
    ///
    /// # Errors
    /// Where another one has its name; where the store fails.
    pub async fn put_principal(&mut self, row: &PrincipalRow) -> Result<(), StoreError> {
        query(
            "INSERT INTO principals (id, kind, name, display_name, active, external_id, origin, created, details)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, display_name = excluded.display_name,
             active = excluded.active, external_id = excluded.external_id, origin = excluded.origin,
             details = excluded.details",
        )
        .bind(&row.id)
        .bind(row.kind.name())
        .bind(&row.name)
        .bind(&row.display_name)
        .bind(i64::from(row.active))
        .bind(&row.external_id)
        .bind(&row.origin)
        .bind(row.created)
        .bind(&row.details)
        .execute(self.connection())
        .await?;
        self.note(Subject::Principal, &row.id).await
    }

    /// Removes a principal, with its tokens, grants and memberships.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn delete_principal(&mut self, id: &str) -> Result<(), StoreError> {
        query("DELETE FROM principals WHERE id = $1").bind(id).execute(self.connection()).await?;
        self.note(Subject::Principal, id).await
    }

    /// Sets who is a member of a group. What is so already costs nothing.
    ///
    /// # Errors
    /// Where a member does not exist; where the store fails.
    pub async fn set_members(&mut self, group: &str, members: &[String]) -> Result<(), StoreError> {
        let before: HashSet<String> = self.members(group).await?.into_iter().collect();
        let after: HashSet<&String> = members.iter().collect();
        for gone in before.iter().filter(|member| !after.contains(member)) {
            query("DELETE FROM members WHERE group_id = $1 AND member_id = $2")
                .bind(group)
                .bind(gone)
                .execute(self.connection())
                .await?;
        }
        for added in after.into_iter().filter(|member| !before.contains(*member)) {
            self.insert_member(group, added).await?;
        }
        self.note(Subject::Principal, group).await
    }

    /// Makes somebody a member of a group, which they may be already.
    ///
    /// # Errors
    /// Where the member does not exist; where the store fails.
    pub async fn add_member(&mut self, group: &str, member: &str) -> Result<(), StoreError> {
        self.insert_member(group, member).await?;
        self.note(Subject::Principal, group).await
    }

    async fn insert_member(&mut self, group: &str, member: &str) -> Result<(), StoreError> {
        // The update changes nothing; with it a row that is there counts too, and only a missing principal does not.
        let done = query(
            "INSERT INTO members (group_id, member_id) SELECT $1, id FROM principals WHERE id = $2
             ON CONFLICT (group_id, member_id) DO UPDATE SET group_id = excluded.group_id",
        )
        .bind(group)
        .bind(member)
        .execute(self.connection())
        .await?;
        match done.rows_affected() {
            0 => Err(StoreError::Missing { what: "principal", id: member.to_owned() }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn members_are_set_added_and_go_with_their_principal() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::temporary(folder.path()).await;
        let row = |kind, name: &str| PrincipalRow::new(kind, name, name);
        let group = row(PrincipalKind::Group, "g");
        let users = ["a", "b", "c"].map(|name| row(PrincipalKind::User, name));
        let mut change = store.change().await.unwrap();
        for one in users.iter().chain([&group]) {
            change.put_principal(one).await.unwrap();
        }
        let [a, b, c] = users.map(|user| user.id);
        change.set_members(&group.id, &[a.clone(), b.clone(), a.clone()]).await.unwrap();
        change.set_members(&group.id, std::slice::from_ref(&b)).await.unwrap();
        change.add_member(&group.id, &c).await.unwrap();
        change.add_member(&group.id, &c).await.unwrap();
        let missing = change.add_member(&group.id, "17").await.unwrap_err();
        assert_eq!(missing.to_string(), "there is no principal `17`");
        let mut expected = vec![b.clone(), c.clone()];
        expected.sort();
        assert_eq!(change.members(&group.id).await.unwrap(), expected);
        assert_eq!(change.memberships(&c).await.unwrap(), std::slice::from_ref(&group.id));
        change.delete_principal(&c).await.unwrap();
        assert_eq!(change.members(&group.id).await.unwrap(), [b]);
        let found = change.principal_named(PrincipalKind::Group, "g").await.unwrap().unwrap();
        assert_eq!(found, group);
        assert_eq!(change.principal_named(PrincipalKind::User, "g").await.unwrap(), None);
        change.commit().await.unwrap();
    }
}
