//! Tokens: how they are made, described and revoked.

use uuid::Uuid;

use super::{ControlPlane, check_text, does_not_exist};
use crate::error::{ApiError, ErrorKind};
use crate::gate::{Admin, Caller, Token};
use crate::store::{Change, PrincipalKind, StoreError, TokenRow, now};
use crate::wire::FieldError;

/// Most tokens of one principal.
pub const TOKENS_PER_PRINCIPAL: i64 = 600;

/// Longest life that is given as a number of seconds: ten years. Without one a token lives for ever.
const LONGEST_LIFE: i64 = 10 * 365 * 24 * 3600;

/// What is wanted of a new token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    comment: String,
    lifetime_seconds: Option<i64>,
}

/// Whose tokens somebody may change.
#[derive(Clone, Copy)]
pub enum TokensOf<'a> {
    /// Their own.
    Caller(&'a Caller),
    /// Everybody's.
    Anybody(&'a Admin),
}

impl NewToken {
    /// A token with that comment, for so many seconds; for ever without.
    ///
    /// # Errors
    /// A comment that is too long, and a life that is too short or too long.
    pub fn new(comment: String, lifetime_seconds: Option<i64>) -> Result<Self, FieldError> {
        check_text("comment", &comment)?;
        match lifetime_seconds {
            Some(odd) if !(1..=LONGEST_LIFE).contains(&odd) => {
                Err(FieldError::value("lifetime_seconds", format!("between 1 and {LONGEST_LIFE}"), odd))
            }
            lifetime_seconds => Ok(Self { comment, lifetime_seconds }),
        }
    }

    /// Adds such a token for that principal. What is made is shown here and nowhere else.
    ///
    /// # Errors
    /// Where the principal does not exist; where the store fails.
    pub async fn add(
        self,
        change: &mut Change,
        owner_id: &str,
        created_by: &str,
    ) -> Result<(Token, TokenRow), StoreError> {
        let (token, created) = (Token::random(), now());
        let expires = self.lifetime_seconds.map(|seconds| created + seconds * 1000);
        let row = TokenRow {
            id: Uuid::new_v4().simple().to_string(),
            principal_id: owner_id.to_owned(),
            hash: token.hash().to_hex(),
            comment: self.comment,
            origin: "api".to_owned(),
            created,
            created_by: created_by.to_owned(),
            expires,
        };
        change.add_token(&row).await?;
        Ok((token, row))
    }
}

impl ControlPlane {
    /// Makes a token for the caller.
    ///
    /// # Errors
    /// 400 where the caller has too many, or where it would close the local door behind everybody.
    pub async fn create_token(&self, caller: &Caller, wanted: NewToken) -> Result<(Token, TokenRow), ApiError> {
        let owner = caller.principal();
        self.add_token(owner.id(), owner.name(), wanted).await
    }

    /// Makes a token for a service principal, which is named by its application id.
    ///
    /// # Errors
    /// As [`ControlPlane::create_token`]; 404 where there is no such service principal.
    pub async fn create_token_on_behalf(
        &self,
        _admin: &Admin,
        caller: &Caller,
        application_id: &str,
        wanted: NewToken,
    ) -> Result<(Token, TokenRow), ApiError> {
        let kind = PrincipalKind::ServicePrincipal;
        let owner = self.gate().directory().named(kind, application_id).map(|row| row.id.clone());
        let owner = owner.ok_or_else(|| does_not_exist(super::word(kind), application_id))?;
        self.add_token(&owner, caller.principal().name(), wanted).await
    }

    async fn add_token(&self, owner: &str, creator: &str, wanted: NewToken) -> Result<(Token, TokenRow), ApiError> {
        let mut change = self.store().change().await?;
        change.delete_expired_tokens(owner, now()).await?;
        let count = change.count_tokens(owner).await?;
        if count >= TOKENS_PER_PRINCIPAL {
            let text = format!("a principal has at most {TOKENS_PER_PRINCIPAL} tokens: revoke one of them first");
            return Err(ApiError::new(ErrorKind::QuotaExceeded, text));
        }
        let administrable = self.is_administrable(&mut change).await?;
        let made = wanted.add(&mut change, owner, creator).await?;
        self.stays_administrable(administrable, &mut change).await?;
        self.commit(change).await?;
        Ok(made)
    }

    /// Says something else of a token.
    ///
    /// # Errors
    /// 404 where there is no such token, 400 where the configuration file declares it.
    pub async fn describe_token(&self, of: TokensOf<'_>, id: &str, comment: &str) -> Result<TokenRow, ApiError> {
        let mut change = self.store().change().await?;
        let row = token(&mut change, of, id).await?;
        change.set_token_comment(id, comment).await?;
        self.commit(change).await?;
        Ok(TokenRow { comment: comment.to_owned(), ..row })
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// As [`ControlPlane::describe_token`]; 400 where it is the last one of all administrators and others have tokens.
    pub async fn revoke_token(&self, of: TokensOf<'_>, id: &str) -> Result<(), ApiError> {
        let mut change = self.store().change().await?;
        token(&mut change, of, id).await?;
        let administrable = self.is_administrable(&mut change).await?;
        change.delete_token(id).await?;
        self.stays_administrable(administrable, &mut change).await?;
        self.commit(change).await
    }
}

/// A token that may be changed. Somebody else's is as missing as one that is not there.
async fn token(change: &mut Change, of: TokensOf<'_>, id: &str) -> Result<TokenRow, ApiError> {
    let may = |row: &TokenRow| match of {
        TokensOf::Caller(caller) => row.principal_id == caller.principal().id(),
        TokensOf::Anybody(_) => true,
    };
    let row = change.token(id).await?.filter(may);
    let row = row.ok_or_else(|| does_not_exist("token", id))?;
    if row.origin == "config" {
        let text = format!("the token `{id}` is declared in the configuration file, and is changed there");
        return Err(ApiError::new(ErrorKind::BadRequest, text));
    }
    Ok(row)
}
