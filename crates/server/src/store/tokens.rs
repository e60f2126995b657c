//! Tokens, by their hashes.

use sqlx::{query, query_as, query_scalar};

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
    /// A token as this change finds it: no other change comes between.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn token(&mut self, id: &str) -> Result<Option<TokenRow>, StoreError> {
        let row: Option<Columns> = query_as(ONE).bind(id).fetch_optional(self.connection()).await?;
        Ok(row.map(read))
    }

    /// How many tokens a principal has.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn count_tokens(&mut self, principal_id: &str) -> Result<i64, StoreError> {
        let count = query_scalar("SELECT COUNT(*) FROM tokens WHERE principal_id = $1");
        Ok(count.bind(principal_id).fetch_one(self.connection()).await?)
    }

    /// Whether anybody has a token, expired ones included.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn has_tokens(&mut self) -> Result<bool, StoreError> {
        let one: Option<String> =
            query_scalar("SELECT id FROM tokens LIMIT 1").fetch_optional(self.connection()).await?;
        Ok(one.is_some())
    }

    /// Whether somebody who is in the group, through other groups or not, has a token that counts at that time.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn has_token_in(&mut self, group: &str, at: i64) -> Result<bool, StoreError> {
        let one: Option<String> = query_scalar(
            "WITH RECURSIVE inside (id) AS (
                 SELECT id FROM principals WHERE id = $1
                 UNION SELECT members.member_id FROM members JOIN inside ON members.group_id = inside.id
             )
             SELECT tokens.id FROM inside
             JOIN principals ON principals.id = inside.id AND principals.active = 1
             JOIN tokens ON tokens.principal_id = inside.id AND (tokens.expires IS NULL OR tokens.expires > $2)
             LIMIT 1",
        )
        .bind(group)
        .bind(at)
        .fetch_optional(self.connection())
        .await?;
        Ok(one.is_some())
    }

    /// Says something else of a token.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn set_token_comment(&mut self, id: &str, comment: &str) -> Result<(), StoreError> {
        query("UPDATE tokens SET comment = $2 WHERE id = $1").bind(id).bind(comment).execute(self.connection()).await?;
        self.note(Subject::Token, id).await
    }

    /// Removes the tokens of a principal that came from the API and have expired by that time.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn delete_expired_tokens(&mut self, principal_id: &str, at: i64) -> Result<(), StoreError> {
        let expired: Vec<String> =
            query_scalar("SELECT id FROM tokens WHERE principal_id = $1 AND origin = 'api' AND expires <= $2")
                .bind(principal_id)
                .bind(at)
                .fetch_all(self.connection())
                .await?;
        for id in &expired {
            self.delete_token(id).await?;
        }
        Ok(())
    }

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
