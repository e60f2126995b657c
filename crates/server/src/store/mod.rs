//! What survives the process: principals, tokens, grants, endpoints, secrets, usage and counters, in SQLite or Postgres.
//!
//! Owns the database, its tables and the order of changes. Knows no request, no permission and no model: what the rows
//! mean is the business of `gate`, `control`, `secrets` and `usage`.

mod change;
mod counters;
mod endpoints;
mod error;
mod payloads;
mod people;
mod secrets;
mod served;
mod tokens;
mod usage;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AnyPool, ConnectOptions, Executor, SqlSafeStr};

pub use change::{Change, Changed, Changes, Subject};
pub use counters::{Count, CounterRow};
pub use endpoints::{EndpointRow, GrantRow};
pub use error::StoreError;
pub use payloads::{PayloadFilter, PayloadPlace};
pub use people::{ADMINS, BUILT_IN_ADMIN, PrincipalKind, PrincipalRow, USERS};
pub use secrets::AclRow;
pub use served::ServedEntityRow;
pub use tokens::TokenRow;
pub use usage::{Grouping, UsageFilter, UsagePlace, UsageSums, Visible};

/// Each step of the tables' history; one that was released is never changed.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "control plane", include_str!("../../migrations/0001_control_plane.sql")),
    (2, "principal details", include_str!("../../migrations/0002_principal_details.sql")),
    (3, "secrets", include_str!("../../migrations/0003_secrets.sql")),
    (4, "usage", include_str!("../../migrations/0004_usage.sql")),
    (5, "fallback", include_str!("../../migrations/0005_fallback.sql")),
    (6, "counters", include_str!("../../migrations/0006_counters.sql")),
    (7, "payloads", include_str!("../../migrations/0007_payloads.sql")),
];

/// How long a statement waits for its turn, and a caller for a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the store is.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreLocation {
    /// A file of SQLite's; made where there is none.
    File(PathBuf),
    /// A database of Postgres, `postgres://USER:PASSWORD@HOST/DATABASE`.
    Postgres(String),
}

impl std::fmt::Debug for StoreLocation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "File({})", path.display()),
            // The URL holds a password.
            Self::Postgres(_) => formatter.write_str("Postgres(..)"),
        }
    }
}

impl StoreLocation {
    fn options(&self) -> Result<AnyConnectOptions, StoreError> {
        let url = match self {
            Self::Postgres(url) => url.clone(),
            Self::File(path) => file_url(path)?,
        };
        // The parser's own error would repeat the URL.
        AnyConnectOptions::from_str(&url).map(ConnectOptions::disable_statement_logging).map_err(|_| StoreError::Url)
    }
}

fn file_url(path: &Path) -> Result<String, StoreError> {
    let path = std::path::absolute(path).map_err(|error| StoreError::Path(path.to_owned(), error))?;
    let text = path.to_str().ok_or_else(|| StoreError::PathText(path.clone()))?;
    let escaped: String = text
        .bytes()
        .map(|byte| match byte {
            b'/' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    Ok(format!("sqlite://{escaped}?mode=rwc"))
}

/// An open store. A clone is the same one.
#[derive(Clone)]
pub struct Store {
    pool: AnyPool,
    is_file: bool,
}

impl Store {
    /// Opens the store and brings its tables up to date.
    ///
    /// # Errors
    /// Where it cannot be reached, or was written by a newer version of the program.
    pub async fn open(location: &StoreLocation) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let is_file = matches!(location, StoreLocation::File(_));
        let options = AnyPoolOptions::new().max_connections(8).acquire_timeout(PATIENCE);
        let options = options.after_connect(move |connection, _| {
            Box::pin(async move {
                if is_file {
                    // Readers and one writer at a time; a commit is on the disk before it is acknowledged.
                    connection.execute("PRAGMA journal_mode = WAL").await?;
                    connection.execute("PRAGMA synchronous = FULL").await?;
                    connection.execute("PRAGMA busy_timeout = 10000").await?;
                }
                Ok(())
            })
        });
        let pool = options.connect_with(location.options()?).await?;
        let step = |(version, name, sql): &(i64, &'static str, &'static str)| {
            Migration::new(*version, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
        };
        Migrator::with_migrations(MIGRATIONS.iter().map(step).collect()).run(&pool).await?;
        Ok(Self { pool, is_file })
    }

    /// A store of its own in a new file below `folder`, for tests.
    #[cfg(test)]
    pub(crate) async fn temporary(folder: &Path) -> Self {
        Self::open(&StoreLocation::File(folder.join("hearth.db"))).await.unwrap()
    }

    /// Waits for what is being written, and closes the connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Milliseconds since 1970.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
