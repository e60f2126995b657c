//! Tokens, by their hashes.

use sqlx::{query, query_as};

use super::{Change, Store, StoreError, Subject};

/// A token. What its bearer sends is stored nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// What it is called.
    pub id: String,
    /// Whose it is.
    pub principal_id: String,
    /// SHA-256 of the token, in hexadecimal digits.
    pub hash: String,
    /// What its owner says of it.
    pub comment: String,
    /// `api`, or `config`.
    pub origin: String,
    /// Milliseconds since 1970.
    pub created: i64,
    /// Name of who made it.
    pub created_by: String,
    /// Milliseconds since 1970; never without.
    pub expires: Option<i64>,
}

type Columns = (String, String, String, String, String, i64, String, Option<i64>);

fn read((id, principal_id, hash, comment, origin, created, created_by, expires): Columns) -> TokenRow {
    TokenRow { id, principal_id, hash, comment, origin, created, created_by, expires }
}

const ALL: &str = "SELECT id, principal_id, hash, comment, origin, created, created_by, expires FROM tokens";
const ONE: &str =
    "SELECT id, principal_id, hash, comment, origin, created, created_by, expires FROM tokens WHERE id = $1";

impl Store {
    /// All tokens.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        let rows: Vec<Columns> = query_as(ALL).fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(read).collect())
    }

    /// One token.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn token(&self, id: &str) -> Result<Option<TokenRow>, StoreError> {
        let row: Option<Columns> = query_as(ONE).bind(id).fetch_optional(&self.pool).await?;
        Ok(row.map(read))
    }
}

impl Change {
    /// Adds a token.
    ///
    /// # Errors
    /// Where the token is there already, or its owner is not; where the store fails.
    pub async fn add_token(&mut self, row: &TokenRow) -> Result<(), StoreError> {
        query(
            "INSERT INTO tokens (id, principal_id, hash, comment, origin, created, created_by, expires)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(&row.id)
        .bind(&row.principal_id)
        .bind(&row.hash)
        .bind(&row.comment)
        .bind(&row.origin)
        .bind(row.created)
        .bind(&row.created_by)
        .bind(row.expires)
        .execute(self.connection())
        .await?;
        self.note(Subject::Token, &row.id).await
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn delete_token(&mut self, id: &str) -> Result<(), StoreError> {
        query("DELETE FROM tokens WHERE id = $1").bind(id).execute(self.connection()).await?;
        self.note(Subject::Token, id).await
    }
}
