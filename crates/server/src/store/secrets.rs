//! Scopes of secrets, what is sealed in them, and who may.

use sqlx::{query, query_as, query_scalar};

use super::{Change, Store, StoreError, Subject, now};

/// What a principal may do with a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclRow {
    /// The scope.
    pub scope: String,
    /// The principal.
    pub principal_id: String,
    /// `READ`, `WRITE` or `MANAGE`.
    pub permission: String,
}

type Columns = (String, String, String);

fn read((scope, principal_id, permission): Columns) -> AclRow {
    AclRow { scope, principal_id, permission }
}

const HAS: &str = "SELECT COUNT(*) FROM secret_scopes WHERE name = $1";
const CHECK: &str = "SELECT sealed FROM secrets_check WHERE singleton = 1";

impl Store {
    /// The names of all scopes, in order.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn scopes(&self) -> Result<Vec<String>, StoreError> {
        Ok(query_scalar("SELECT name FROM secret_scopes ORDER BY name").fetch_all(&self.pool).await?)
    }

    /// Whether there is such a scope.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn has_scope(&self, name: &str) -> Result<bool, StoreError> {
        let count: i64 = query_scalar(HAS).bind(name).fetch_one(&self.pool).await?;
        Ok(count > 0)
    }

    /// The ACLs of all scopes, or of one.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn secret_acls(&self, scope: Option<&str>) -> Result<Vec<AclRow>, StoreError> {
        let all = "SELECT scope, principal_id, permission FROM secret_acls";
        let one = "SELECT scope, principal_id, permission FROM secret_acls WHERE scope = $1";
        let rows: Vec<Columns> = match scope {
            None => query_as(all).fetch_all(&self.pool).await?,
            Some(scope) => query_as(one).bind(scope).fetch_all(&self.pool).await?,
        };
        Ok(rows.into_iter().map(read).collect())
    }

    /// The keys of a scope in order, and when each was last written.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn secrets(&self, scope: &str) -> Result<Vec<(String, i64)>, StoreError> {
        let keys = query_as("SELECT key, updated FROM secrets WHERE scope = $1 ORDER BY key");
        Ok(keys.bind(scope).fetch_all(&self.pool).await?)
    }

    /// A secret, as it is sealed.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn sealed(&self, scope: &str, key: &str) -> Result<Option<String>, StoreError> {
        let sealed = query_scalar("SELECT sealed FROM secrets WHERE scope = $1 AND key = $2");
        Ok(sealed.bind(scope).bind(key).fetch_optional(&self.pool).await?)
    }

    /// The sealed known text; none where nothing was ever sealed.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn secrets_check(&self) -> Result<Option<String>, StoreError> {
        Ok(query_scalar(CHECK).fetch_optional(&self.pool).await?)
    }
}

impl Change {
    /// The sealed known text, as this change finds it.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn secrets_check(&mut self) -> Result<Option<String>, StoreError> {
        Ok(query_scalar(CHECK).fetch_optional(self.connection()).await?)
    }

    /// Sets the sealed known text.
    ///
    /// # Errors
    /// Where there is one; where the store fails.
    pub async fn set_secrets_check(&mut self, sealed: &str) -> Result<(), StoreError> {
        let insert = query("INSERT INTO secrets_check (singleton, sealed) VALUES (1, $1)");
        insert.bind(sealed).execute(self.connection()).await?;
        Ok(())
    }

    /// Whether there is such a scope, as this change finds it.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn has_scope(&mut self, name: &str) -> Result<bool, StoreError> {
        let count: i64 = query_scalar(HAS).bind(name).fetch_one(self.connection()).await?;
        Ok(count > 0)
    }

    /// How many scopes there are.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn count_scopes(&mut self) -> Result<i64, StoreError> {
        Ok(query_scalar("SELECT COUNT(*) FROM secret_scopes").fetch_one(self.connection()).await?)
    }

    /// Adds a scope.
    ///
    /// # Errors
    /// Where there is one of that name; where the store fails.
    pub async fn add_scope(&mut self, name: &str) -> Result<(), StoreError> {
        let insert = query("INSERT INTO secret_scopes (name, created) VALUES ($1, $2)");
        insert.bind(name).bind(now()).execute(self.connection()).await?;
        self.note(Subject::Scope, name).await
    }

    /// Adds a scope unless it is there.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn ensure_scope(&mut self, name: &str) -> Result<(), StoreError> {
        let insert = query("INSERT INTO secret_scopes (name, created) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING");
        insert.bind(name).bind(now()).execute(self.connection()).await?;
        Ok(())
    }

    /// Removes a scope with its secrets and ACLs; false where there is none.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn delete_scope(&mut self, name: &str) -> Result<bool, StoreError> {
        let gone = query("DELETE FROM secret_scopes WHERE name = $1").bind(name).execute(self.connection()).await?;
        self.note(Subject::Scope, name).await?;
        Ok(gone.rows_affected() > 0)
    }

    /// How many secrets a scope has besides `key`.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn count_secrets_besides(&mut self, scope: &str, key: &str) -> Result<i64, StoreError> {
        let count = query_scalar("SELECT COUNT(*) FROM secrets WHERE scope = $1 AND key <> $2");
        Ok(count.bind(scope).bind(key).fetch_one(self.connection()).await?)
    }

    /// Writes a secret, a new one or one that is there.
    ///
    /// # Errors
    /// Where the scope does not exist; where the store fails.
    pub async fn put_sealed(&mut self, scope: &str, key: &str, sealed: &str) -> Result<(), StoreError> {
        query(
            "INSERT INTO secrets (scope, key, sealed, updated) VALUES ($1, $2, $3, $4)
             ON CONFLICT (scope, key) DO UPDATE SET sealed = excluded.sealed, updated = excluded.updated",
        )
        .bind(scope)
        .bind(key)
        .bind(sealed)
        .bind(now())
        .execute(self.connection())
        .await?;
        self.note(Subject::Scope, scope).await
    }

    /// Removes a secret; false where there is none.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn delete_secret(&mut self, scope: &str, key: &str) -> Result<bool, StoreError> {
        let delete = query("DELETE FROM secrets WHERE scope = $1 AND key = $2").bind(scope).bind(key);
        let gone = delete.execute(self.connection()).await?;
        self.note(Subject::Scope, scope).await?;
        Ok(gone.rows_affected() > 0)
    }

    /// The keys of a scope that begin with `prefix`.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn keys_with(&mut self, scope: &str, prefix: &str) -> Result<Vec<String>, StoreError> {
        let keys: Vec<String> = query_scalar("SELECT key FROM secrets WHERE scope = $1 AND substr(key, 1, $2) = $3")
            .bind(scope)
            .bind(i32::try_from(prefix.chars().count()).unwrap_or(i32::MAX))
            .bind(prefix)
            .fetch_all(self.connection())
            .await?;
        Ok(keys)
    }

    /// Sets what a principal may do with a scope.
    ///
    /// # Errors
    /// Where the scope or the principal does not exist; where the store fails.
    pub async fn set_secret_acl(&mut self, acl: &AclRow) -> Result<(), StoreError> {
        query(
            "INSERT INTO secret_acls (scope, principal_id, permission) VALUES ($1, $2, $3)
             ON CONFLICT (scope, principal_id) DO UPDATE SET permission = excluded.permission",
        )
        .bind(&acl.scope)
        .bind(&acl.principal_id)
        .bind(&acl.permission)
        .execute(self.connection())
        .await?;
        self.note(Subject::Scope, &acl.scope).await
    }

    /// Takes away what a principal may do with a scope; false where that was nothing.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn delete_secret_acl(&mut self, scope: &str, principal_id: &str) -> Result<bool, StoreError> {
        let delete = query("DELETE FROM secret_acls WHERE scope = $1 AND principal_id = $2");
        let gone = delete.bind(scope).bind(principal_id).execute(self.connection()).await?;
        self.note(Subject::Scope, scope).await?;
        Ok(gone.rows_affected() > 0)
    }
}
