//! Users, service principals and groups, and who is a member of what.

use sqlx::{query, query_as};
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
}

type Columns = (String, String, String, String, i64, Option<String>, String, i64);

impl PrincipalRow {
    /// A new one, made over the API.
    pub fn new(kind: PrincipalKind, name: &str, display_name: &str) -> Self {
        // As long as the numbers that floating point holds exactly, for clients that read it as one.
        let id = (Uuid::new_v4().as_u128() % 9_000_000_000_000_000 + 10).to_string();
        let (name, display_name) = (name.to_owned(), display_name.to_owned());
        Self { id, kind, name, display_name, active: true, external_id: None, origin: "api".into(), created: now() }
    }

    fn read(columns: Columns) -> Result<Self, StoreError> {
        let (id, kind, name, display_name, active, external_id, origin, created) = columns;
        let kind = PrincipalKind::of(&kind)?;
        Ok(Self { id, kind, name, display_name, active: active != 0, external_id, origin, created })
    }
}

const ALL: &str = "SELECT id, kind, name, display_name, active, external_id, origin, created FROM principals";
const ONE: &str =
    "SELECT id, kind, name, display_name, active, external_id, origin, created FROM principals WHERE id = $1";

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
        let one = "SELECT group_id, member_id FROM members WHERE group_id = $1 ORDER BY member_id";
        Ok(match group {
            None => query_as(all).fetch_all(&self.pool).await?,
            Some(group) => query_as(one).bind(group).fetch_all(&self.pool).await?,
        })
    }
}

impl Change {
    /// Writes a principal, a new one or one that is there.
    ///
    /// # Errors
    /// Where another one has its name; where the store fails.
    pub async fn put_principal(&mut self, row: &PrincipalRow) -> Result<(), StoreError> {
        query(
            "INSERT INTO principals (id, kind, name, display_name, active, external_id, origin, created)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, display_name = excluded.display_name,
             active = excluded.active, external_id = excluded.external_id, origin = excluded.origin",
        )
        .bind(&row.id)
        .bind(row.kind.name())
        .bind(&row.name)
        .bind(&row.display_name)
        .bind(i64::from(row.active))
        .bind(&row.external_id)
        .bind(&row.origin)
        .bind(row.created)
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

    /// Sets who is a member of a group.
    ///
    /// # Errors
    /// Where a member does not exist; where the store fails.
    pub async fn set_members(&mut self, group: &str, members: &[String]) -> Result<(), StoreError> {
        query("DELETE FROM members WHERE group_id = $1").bind(group).execute(self.connection()).await?;
        for member in members {
            query("INSERT INTO members (group_id, member_id) VALUES ($1, $2)")
                .bind(group)
                .bind(member)
                .execute(self.connection())
                .await?;
        }
        self.note(Subject::Principal, group).await
    }
}
