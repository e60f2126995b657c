//! Endpoints that the control plane has made, and the grants on all endpoints.

use sqlx::{query, query_as};

use super::{Change, Store, StoreError, Subject};

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointRow {
    /// 32 hexadecimal digits.
    pub id: String,
    /// What calls name it.
    pub name: String,
    /// Name of who made it.
    pub creator: String,
    /// Milliseconds since 1970.
    pub created: i64,
    /// Milliseconds since 1970.
    pub updated: i64,
    /// Its configuration, as `control` writes it.
    pub document: String,
}

type GrantColumns = (String, String, String, String);

fn read_grant((endpoint_id, principal_id, level, origin): GrantColumns) -> GrantRow {
    GrantRow { endpoint_id, principal_id, level, origin }
}

const GRANTS: &str = "SELECT endpoint_id, principal_id, level, origin FROM grants WHERE endpoint_id = $1";

type Columns = (String, String, String, i64, i64, String);

fn read((id, name, creator, created, updated, document): Columns) -> EndpointRow {
    EndpointRow { id, name, creator, created, updated, document }
}

const ALL: &str = "SELECT id, name, creator, created, updated, document FROM endpoints ORDER BY name";
const ONE: &str = "SELECT id, name, creator, created, updated, document FROM endpoints WHERE id = $1";

/// What a principal was granted on an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantRow {
    /// The endpoint.
    pub endpoint_id: String,
    /// The principal.
    pub principal_id: String,
    /// `CAN_VIEW`, `CAN_QUERY` or `CAN_MANAGE`.
    pub level: String,
    /// `api`, or `config`.
    pub origin: String,
}

impl Store {
    /// All endpoints, by name.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn endpoints(&self) -> Result<Vec<EndpointRow>, StoreError> {
        let rows: Vec<Columns> = query_as(ALL).fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(read).collect())
    }

    /// One endpoint.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn endpoint(&self, id: &str) -> Result<Option<EndpointRow>, StoreError> {
        let row: Option<Columns> = query_as(ONE).bind(id).fetch_optional(&self.pool).await?;
        Ok(row.map(read))
    }

    /// The grants on all endpoints, or on one.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn grants(&self, endpoint_id: Option<&str>) -> Result<Vec<GrantRow>, StoreError> {
        let all = "SELECT endpoint_id, principal_id, level, origin FROM grants";
        let rows: Vec<GrantColumns> = match endpoint_id {
            None => query_as(all).fetch_all(&self.pool).await?,
            Some(id) => query_as(GRANTS).bind(id).fetch_all(&self.pool).await?,
        };
        Ok(rows.into_iter().map(read_grant).collect())
    }
}

impl Change {
    /// An endpoint as this change finds it: no other change comes between.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn endpoint(&mut self, id: &str) -> Result<Option<EndpointRow>, StoreError> {
        let row: Option<Columns> = query_as(ONE).bind(id).fetch_optional(self.connection()).await?;
        Ok(row.map(read))
    }

    /// Adds an endpoint.
    ///
    /// # Errors
    /// Where there is one of that name; where the store fails.
    pub async fn add_endpoint(&mut self, row: &EndpointRow) -> Result<(), StoreError> {
        query("INSERT INTO endpoints (id, name, creator, created, updated, document) VALUES ($1, $2, $3, $4, $5, $6)")
            .bind(&row.id)
            .bind(&row.name)
            .bind(&row.creator)
            .bind(row.created)
            .bind(row.updated)
            .bind(&row.document)
            .execute(self.connection())
            .await?;
        self.note(Subject::Endpoint, &row.id).await
    }

    /// Gives an endpoint another configuration.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn set_endpoint(&mut self, id: &str, document: &str, updated: i64) -> Result<(), StoreError> {
        query("UPDATE endpoints SET document = $2, updated = $3 WHERE id = $1")
            .bind(id)
            .bind(document)
            .bind(updated)
            .execute(self.connection())
            .await?;
        self.note(Subject::Endpoint, id).await
    }

    /// Removes an endpoint and the grants on it.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn delete_endpoint(&mut self, id: &str) -> Result<(), StoreError> {
        query("DELETE FROM grants WHERE endpoint_id = $1").bind(id).execute(self.connection()).await?;
        query("DELETE FROM endpoints WHERE id = $1").bind(id).execute(self.connection()).await?;
        self.note(Subject::Grants, id).await?;
        self.note(Subject::Endpoint, id).await
    }

    /// The grants on an endpoint as this change finds them: no other change comes between.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn grants(&mut self, endpoint_id: &str) -> Result<Vec<GrantRow>, StoreError> {
        let rows: Vec<GrantColumns> = query_as(GRANTS).bind(endpoint_id).fetch_all(self.connection()).await?;
        Ok(rows.into_iter().map(read_grant).collect())
    }

    /// Grants a level, or takes back what was granted.
    ///
    /// # Errors
    /// Where the principal does not exist; where the store fails.
    pub async fn set_grant(&mut self, grant: &GrantRow) -> Result<(), StoreError> {
        self.set_grants(&grant.endpoint_id, std::slice::from_ref(grant), &[]).await
    }

    /// Sets grants on one endpoint, and takes back those of the principals in `gone`.
    ///
    /// # Errors
    /// Where a principal does not exist; where the store fails.
    pub async fn set_grants(
        &mut self,
        endpoint_id: &str,
        grants: &[GrantRow],
        gone: &[String],
    ) -> Result<(), StoreError> {
        for principal in gone {
            query("DELETE FROM grants WHERE endpoint_id = $1 AND principal_id = $2")
                .bind(endpoint_id)
                .bind(principal)
                .execute(self.connection())
                .await?;
        }
        for grant in grants {
            self.write_grant(endpoint_id, grant).await?;
        }
        self.note(Subject::Grants, endpoint_id).await
    }

    async fn write_grant(&mut self, endpoint_id: &str, grant: &GrantRow) -> Result<(), StoreError> {
        query(
            "INSERT INTO grants (endpoint_id, principal_id, level, origin) VALUES ($1, $2, $3, $4)
             ON CONFLICT (endpoint_id, principal_id) DO UPDATE SET level = excluded.level, origin = excluded.origin",
        )
        .bind(endpoint_id)
        .bind(&grant.principal_id)
        .bind(&grant.level)
        .bind(&grant.origin)
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Takes back what was granted on an endpoint from one origin.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn delete_grants(&mut self, endpoint_id: &str, origin: &str) -> Result<(), StoreError> {
        query("DELETE FROM grants WHERE endpoint_id = $1 AND origin = $2")
            .bind(endpoint_id)
            .bind(origin)
            .execute(self.connection())
            .await?;
        self.note(Subject::Grants, endpoint_id).await
    }
}
