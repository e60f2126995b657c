//! Why the store has no answer.

use std::path::PathBuf;

/// Why the store has no answer. No text holds the location of a database, whose URL has a password in it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The location is no URL of a database.
    #[error("the location of the store must be `postgres://USER:PASSWORD@HOST/DATABASE`")]
    Url,
    /// The path of the file cannot be used.
    #[error("the file of the store, {0}, cannot be used: {1}")]
    Path(PathBuf, std::io::Error),
    /// The path is no text.
    #[error("the path of the store must be UTF-8 text, not {0}")]
    PathText(PathBuf),
    /// The database does not do what it is asked to.
    #[error("the store failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The tables cannot be brought up to date.
    #[error("the tables of the store cannot be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// Somebody else wrote what this program does not know.
    #[error("the store holds {what} `{value}`, which this version does not know")]
    Unknown {
        /// What kind of value.
        what: &'static str,
        /// The value.
        value: String,
    },
    /// What a row is to name is not there.
    #[error("there is no {what} `{id}`")]
    Missing {
        /// What kind of thing.
        what: &'static str,
        /// Its id.
        id: String,
    },
}

impl StoreError {
    /// Whether a row of that key was there already.
    pub fn is_duplicate(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.is_unique_violation())
    }

    /// Whether what the row names is gone.
    pub fn is_orphan(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.is_foreign_key_violation())
    }
}
