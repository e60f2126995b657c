//! The server's settings: what was typed, and what is used after it was checked.
//!
//! The only place of this crate that reads the environment.

mod budgets;
mod file;
mod typed;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};

pub use file::{ConfigFile, Declared, DeclaredEndpoint, DeclaredPrincipal, FileError, Place, PrincipalName, Setting};

use crate::endpoints::{EndpointError, check_name};
use crate::gate::{Access, Aides, Origin, Origins, TokenHash};
use crate::secrets::KeySource;
use crate::store::StoreLocation;

/// The environment variable of the token.
pub const TOKEN_VARIABLE: &str = "HEARTH_TOKEN";

const MEBIBYTE: usize = 1 << 20;

/// The environment variable of the key of secrets.
pub const SECRETS_KEY_VARIABLE: &str = "HEARTH_SECRETS_KEY";

/// The embedded store, in the folder of the state.
const STORE_FILE: &str = "hearth.db";

/// The key of secrets, in the folder of the state.
const SECRETS_KEY_FILE: &str = "secrets.key";

/// What was typed.
#[derive(Clone)]
pub struct ServeSettings {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port to listen on; 0 takes any free one.
    pub port: u16,
    /// The token that callers must send; none makes the caller the local admin, on a loopback address only.
    pub token: Option<String>,
    /// Longest request body, in bytes.
    pub body_limit: usize,
    /// Bytes of all long bodies together while they are being read.
    pub bodies_limit: usize,
    /// Most texts of one embedding request, or documents of one reranking request.
    pub texts: usize,
    /// Most choices of one request: prompts times `n` (or `best_of`).
    pub choices: usize,
    /// How many connections there may be, and how long they may do nothing.
    pub connections: ConnectionLimits,
    /// How long a request may take; zero for any time.
    pub request_timeout: Duration,
    /// The folder of the store and of what belongs to it; none: `hearth` where the system keeps the state of programs.
    pub state: Option<PathBuf>,
    /// A Postgres database, which takes the place of a file in the folder.
    pub database: Option<String>,
    /// The sites whose pages may call from a browser.
    pub origins: Vec<Origin>,
    /// The endpoints that guardrails ask.
    pub aides: Aides,
    /// The certificate for TLS; none: connections are not encrypted.
    pub tls: Option<TlsFiles>,
    /// The key of secrets in base64, which goes before the one in the folder.
    pub secrets_key: Option<SecretString>,
}

impl Default for ServeSettings {
    fn default() -> Self {
        Self {
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8080,
            token: None,
            body_limit: 16 * MEBIBYTE,
            bodies_limit: 512 * MEBIBYTE,
            texts: 2048,
            choices: 128,
            connections: ConnectionLimits::default(),
            request_timeout: Duration::from_secs(600),
            state: None,
            database: None,
            origins: Vec::new(),
            aides: Aides::default(),
            tls: None,
            secrets_key: None,
        }
    }
}

impl ServeSettings {
    /// The defaults, with the token, the key and the folders of the environment.
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var(name).ok();
        let token = variable(TOKEN_VARIABLE);
        let secrets_key = variable(SECRETS_KEY_VARIABLE).map(SecretString::from);
        Self { token, secrets_key, state: state_folder(), ..Self::default() }
    }

    /// Checks what was typed.
    pub fn check(self) -> Result<ServeConfig, ConfigError> {
        let token = self.token.map(checked_token).transpose()?;
        let token = token.map(|token| TokenHash::of(token.as_bytes()));
        let named = [&self.aides.judge, &self.aides.topics].into_iter().flatten();
        named.map(String::as_str).try_for_each(check_name)?;
        let access =
            Access { local: self.host.is_loopback(), token, origins: Origins::new(self.origins), aides: self.aides };
        let limits = Limits {
            body: at_least_one("the longest request body", self.body_limit)?,
            bodies: at_least_one("the room for request bodies", self.bodies_limit)?,
            texts: at_least_one("the number of texts of a request", self.texts)?,
            choices: at_least_one("the number of choices of a request", self.choices)?,
            request_timeout: (!self.request_timeout.is_zero()).then_some(self.request_timeout),
        };
        let connections = self.connections.check()?;
        let state = self.state.ok_or(ConfigError::NoState)?;
        let given = self.secrets_key.map(|key| key.expose_secret().parse()).transpose();
        let given = given.map_err(|_| ConfigError::SecretsKey)?;
        let secrets_key = KeySource { given, file: state.join(SECRETS_KEY_FILE) };
        let store = self.database.map_or_else(|| StoreLocation::File(state.join(STORE_FILE)), StoreLocation::Postgres);
        let address = SocketAddr::new(self.host, self.port);
        Ok(ServeConfig { address, access, limits, connections, state, store, secrets_key, tls: self.tls })
    }
}

/// How many connections there may be, and how long they may do nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections with a request at the same time. There are a few more places, where health checks are still answered
    /// and all else is refused; when those are full too, a newcomer sends away whoever has been idle longest.
    pub most: usize,
    /// How long a connection may be without a complete head of a request, before the first one and between two.
    pub idle_timeout: Duration,
    /// How long nothing may come of a body that is not complete. In all it gets ten times that.
    pub body_timeout: Duration,
    /// How long a client may take nothing of an answer that waits for it.
    pub write_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            // Far more than models can answer at a time. One that is idle was measured to take 21 KB, so all take 90 MB.
            most: 4096,
            // Longer than the 60 seconds for which load balancers keep connections, so that they do not send a request
            // into a connection that is being closed.
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
        }
    }
}

impl ConnectionLimits {
    fn check(self) -> Result<Self, ConfigError> {
        at_least_one("the number of connections", self.most)?;
        longer_than_nothing("the time for which a connection may be idle", self.idle_timeout)?;
        longer_than_nothing("the time for which a body may stall", self.body_timeout)?;
        longer_than_nothing("the time for which a client may read nothing", self.write_timeout)?;
        Ok(self)
    }
}

/// What is used.
#[derive(Debug)]
pub struct ServeConfig {
    /// Where to listen.
    pub address: SocketAddr,
    /// Who may come in.
    pub access: Access,
    /// How much one request may ask for.
    pub limits: Limits,
    /// How many connections there may be, and how long they may do nothing.
    pub connections: ConnectionLimits,
    /// The folder of what belongs to the store.
    pub state: PathBuf,
    /// Where the store is.
    pub store: StoreLocation,
    /// Where the key of its secrets is.
    pub secrets_key: KeySource,
    /// The certificate for TLS.
    pub tls: Option<TlsFiles>,
}

/// The files of a certificate, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those between it and an authority that clients know.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How much one request may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body.
    pub body: usize,
    /// Bytes of all bodies that are being read, but for the beginning of each that is always taken in.
    pub bodies: usize,
    /// Texts of an embedding request, or documents of a reranking request.
    pub texts: usize,
    /// Prompts times choices.
    pub choices: usize,
    /// From a request's arrival to the end of its answer; any time without one.
    pub request_timeout: Option<Duration>,
}

impl Limits {
    /// When a request that arrives now has to be answered.
    pub fn deadline(self) -> Option<Instant> {
        self.request_timeout.and_then(|timeout| Instant::now().checked_add(timeout))
    }
}

/// Settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Others can reach the address.
    #[error(
        "the address {host} can be reached from other machines, so a token is required: make one with \
         `hearth token create --user NAME --admin`, set {TOKEN_VARIABLE}, or listen on 127.0.0.1"
    )]
    TokenRequired {
        /// The address.
        host: IpAddr,
    },
    /// Nobody says where the store is to be.
    #[error("the folder for the store is not known: set --state, or HOME")]
    NoState,
    /// The token cannot be sent.
    #[error("the token in {TOKEN_VARIABLE} must be visible ASCII without blanks, and not empty")]
    Token,
    /// The key of secrets is none.
    #[error("the key in {SECRETS_KEY_VARIABLE} must be 32 bytes in base64, as `openssl rand -base64 32` writes them")]
    SecretsKey,
    /// An endpoint that guardrails are to ask cannot be.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A limit of 0 refuses everything.
    #[error("{what} must be at least 1, not 0")]
    Zero {
        /// Which limit.
        what: &'static str,
    },
    /// A time of 0 ends everything before it begins.
    #[error("{what} must be longer than 0 seconds")]
    NoTime {
        /// Which time.
        what: &'static str,
    },
}

/// Where the system keeps the state of programs.
fn state_folder() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    base.map(|base| base.join("hearth"))
}

fn checked_token(token: String) -> Result<String, ConfigError> {
    // What no header can carry would lock everybody out, and an empty token would let everybody in.
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ConfigError::Token);
    }
    Ok(token)
}

fn at_least_one(what: &'static str, value: usize) -> Result<usize, ConfigError> {
    if value == 0 { Err(ConfigError::Zero { what }) } else { Ok(value) }
}

fn longer_than_nothing(what: &'static str, time: Duration) -> Result<(), ConfigError> {
    if time.is_zero() { Err(ConfigError::NoTime { what }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{Directory, Gate};

    fn stateful() -> ServeSettings {
        ServeSettings { state: Some("/nowhere".into()), ..ServeSettings::default() }
    }

    #[test]
    fn an_address_that_others_reach_needs_a_token() {
        let open = ServeSettings { host: IpAddr::V4(Ipv4Addr::UNSPECIFIED), ..stateful() };
        let gate = |settings: ServeSettings| Gate::new(settings.check().unwrap().access, Directory::built_in());
        assert!(!gate(open.clone()).is_open_to_somebody());
        let closed = gate(ServeSettings { token: Some("abc".into()), ..open });
        assert!(closed.is_open_to_somebody() && !closed.is_open_to_all());
        assert!(gate(stateful()).is_open_to_all());
    }

    #[test]
    fn a_token_must_fit_into_a_header() {
        for bad in ["", "a b", "ü", "a\n"] {
            let settings = ServeSettings { token: Some(bad.into()), ..ServeSettings::default() };
            assert_eq!(settings.check().unwrap_err(), ConfigError::Token, "{bad:?}");
        }
    }

    #[test]
    fn a_limit_of_nothing_is_refused() {
        let settings = ServeSettings { body_limit: 0, ..ServeSettings::default() };
        assert!(settings.check().unwrap_err().to_string().contains("longest request body"));
        let none = ConnectionLimits { most: 0, ..ConnectionLimits::default() };
        let settings = ServeSettings { connections: none, ..ServeSettings::default() };
        assert!(settings.check().unwrap_err().to_string().contains("the number of connections"));
        let no_time = ConnectionLimits { body_timeout: Duration::ZERO, ..ConnectionLimits::default() };
        let settings = ServeSettings { connections: no_time, ..ServeSettings::default() };
        assert!(settings.check().unwrap_err().to_string().contains("may stall must be longer than 0 seconds"));
    }
}
