//! Files from the hub, through its own cache so that its other clients share them.
//!
//! Owns: reachability, access refused, resuming, and the check of what came. Must not know the catalogue.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::cache::ManifestFile;
use super::card::{FileName, HubSource};
use super::checksum::hash_file;
use super::error::HubError;
use super::progress::Progress;
use super::reach::reach;
use super::selection::choose_files;
use crate::config::HubConfig;

const PUBLIC_HUB: &str = "https://huggingface.co";
/// Past this the hub counts as unreachable and the next source is tried.
const REACH_LIMIT: Duration = Duration::from_secs(3);
/// Attempts in a row that bring no byte before a file is given up.
const FRUITLESS_ATTEMPTS: u32 = 3;

/// A file of the model, and where it lies in the hub's cache.
type Found = (FileName, PathBuf);

/// One repository, seen through the hub's cache and its API.
pub(super) struct Remote<'a> {
    source: &'a HubSource,
    config: &'a HubConfig,
    cache: Cache,
}

impl<'a> Remote<'a> {
    pub(super) fn new(source: &'a HubSource, config: &'a HubConfig) -> Self {
        let home = config.hf_home.clone().unwrap_or_else(|| config.cache.join("huggingface"));
        Self { source, config, cache: Cache::new(home.join("hub")) }
    }

    /// The model's files if the hub's cache has all of them, without any network.
    pub(super) fn on_disk(&self) -> Option<Vec<Found>> {
        let cached = self.cache.repo(self.repo());
        if !self.source.files.is_empty() {
            return self.source.files.iter().map(|name| Some((name.clone(), cached.get(name.as_str())?))).collect();
        }
        let config = cached.get("config.json")?;
        let snapshot = config.parent()?;
        let files = choose_files(&list_folder(snapshot)).ok()?;
        let found: Vec<Found> = files.into_iter().map(|name| (name.clone(), snapshot.join(name.as_str()))).collect();
        all_shards_present(&found).then_some(found)
    }

    /// Downloads what the hub's cache lacks.
    pub(super) fn download(&self, progress: &mut dyn Progress) -> Result<Vec<Found>, HubError> {
        let endpoint = self.config.endpoint.as_deref().unwrap_or(PUBLIC_HUB);
        let host = self.config.proxy.as_deref().unwrap_or(endpoint);
        reach(host, REACH_LIMIT).map_err(|reason| HubError::Unreachable { reason })?;
        let api = ApiBuilder::from_cache(self.cache.clone())
            .with_endpoint(endpoint.to_owned())
            .with_token(self.config.token.clone())
            .with_progress(false)
            .build()
            .map_err(|error| self.explain("the API", &error))?;
        let repository = api.repo(self.repo());
        let files = self.files(&repository)?;
        let transfer = Transfer { remote: self, api, repository };
        files.into_iter().map(|name| Ok((name.clone(), transfer.get(&name, progress)?))).collect()
    }

    fn repo(&self) -> Repo {
        Repo::with_revision(self.source.repo.clone(), RepoType::Model, self.source.revision.clone())
    }

    fn files(&self, repository: &ApiRepo) -> Result<Vec<FileName>, HubError> {
        if !self.source.files.is_empty() {
            return Ok(self.source.files.clone());
        }
        let listing = repository.info().map_err(|error| self.explain("the listing", &error))?.siblings;
        // A name that would leave the folder is no file of the model.
        let names: Vec<FileName> =
            listing.into_iter().filter_map(|file| FileName::try_from(file.rfilename).ok()).collect();
        choose_files(&names).map_err(|reason| HubError::NoWeights { repository: self.source.repo.clone(), reason })
    }

    fn explain(&self, file: &str, error: &ApiError) -> HubError {
        let repository = self.source.repo.clone();
        match status(error) {
            Some(status @ (401 | 403)) => HubError::Gated { repository, status },
            _ => HubError::Download { repository, file: file.to_owned(), reason: error.to_string() },
        }
    }
}

/// An open way to one repository.
struct Transfer<'a> {
    remote: &'a Remote<'a>,
    api: Api,
    repository: ApiRepo,
}

impl Transfer<'_> {
    /// Gets one file, going on where a broken connection stopped.
    fn get(&self, name: &FileName, progress: &mut dyn Progress) -> Result<PathBuf, HubError> {
        if let Some(path) = self.remote.cache.repo(self.remote.repo()).get(name.as_str()) {
            return Ok(path);
        }
        let mut fruitless = 0;
        loop {
            let mut counted = Counted { progress: &mut *progress, resumed: true, received: 0 };
            // The client's own retries append at the wrong place when a resumed file breaks again before its first
            // byte, so each attempt here is a new call: it asks the part file on disk where to go on.
            let error = match self.repository.download_with_progress(name.as_str(), &mut counted) {
                Ok(path) => return Ok(path),
                Err(error) => error,
            };
            fruitless = if counted.received > 0 { 0 } else { fruitless + 1 };
            let unusable_part = matches!(error, ApiError::InvalidResume) || status(&error) == Some(416);
            if fruitless == FRUITLESS_ATTEMPTS || !(unusable_part || is_passing(&error)) {
                return Err(self.remote.explain(name.as_str(), &error));
            }
            if unusable_part {
                self.discard_part(name);
            }
            progress.message(&format!("{name}: {error}; going on"));
            thread::sleep(Duration::from_millis(250) * 2_u32.pow(fruitless));
        }
    }

    /// Removes a part file that is longer than, or already as long as, the file itself.
    fn discard_part(&self, name: &FileName) {
        if let Ok(metadata) = self.api.metadata(&self.repository.url(name.as_str())) {
            let blob = self.remote.cache.repo(self.remote.repo()).blob_path(metadata.etag());
            // If it cannot be removed the next attempt fails in the same way and ends the loop.
            let _ = fs::remove_file(blob.with_extension("part"));
        }
    }
}

/// Passes the client's progress on, and knows whether anything new came.
struct Counted<'a> {
    progress: &'a mut dyn Progress,
    /// The next update tells what was on disk before.
    resumed: bool,
    received: u64,
}

impl hf_hub::api::Progress for &mut Counted<'_> {
    fn init(&mut self, size: usize, filename: &str) {
        self.progress.start(filename, Some(size as u64));
        self.resumed = true;
    }

    fn update(&mut self, size: usize) {
        self.progress.advance(size as u64);
        if !std::mem::take(&mut self.resumed) {
            self.received += size as u64;
        }
    }

    fn finish(&mut self) {
        self.progress.finish();
    }
}

fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        ApiError::TooManyRetries(error) => status(error),
        _ => None,
    }
}

/// Whether trying again may help.
fn is_passing(error: &ApiError) -> bool {
    match (status(error), error) {
        (Some(status), _) => status >= 500 || matches!(status, 408 | 429),
        (None, ApiError::IoError(error)) => {
            !matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::PermissionDenied | ErrorKind::NotFound)
        }
        (None, error) => matches!(error, ApiError::RequestError(_)),
    }
}

/// Puts the files found into the model's folder and checks them: the name of a blob in the hub's cache is its SHA-256
/// for every large file. One that fails is removed from the hub's cache, for it would fail forever.
pub(super) fn place(found: &[Found], into: &Path, progress: &mut dyn Progress) -> Result<Vec<ManifestFile>, HubError> {
    let mut files = Vec::new();
    for (name, path) in found {
        let blob = path.canonicalize().map_err(HubError::io("reading", path))?;
        let size = fs::metadata(&blob).map_err(HubError::io("reading", &blob))?.len();
        progress.start(&format!("checking {name}"), Some(size));
        let hashed = hash_file(&blob, progress).map_err(HubError::io("reading", &blob))?;
        progress.finish();
        if let Some(expected) = blob_checksum(&blob).filter(|expected| *expected != hashed.sha256) {
            fs::remove_file(&blob).map_err(HubError::io("removing", &blob))?;
            let _ = fs::remove_file(path);
            return Err(HubError::Checksum { file: name.to_string(), expected, found: hashed.sha256 });
        }
        link(&blob, &into.join(name.as_str()))?;
        files.push(ManifestFile { path: name.clone(), size: hashed.bytes, sha256: hashed.sha256 });
    }
    Ok(files)
}

fn blob_checksum(blob: &Path) -> Option<String> {
    let in_blobs = blob.parent()?.file_name()? == "blobs";
    let name = blob.file_name()?.to_str()?;
    (in_blobs && name.len() == 64 && name.chars().all(|c| c.is_ascii_hexdigit())).then(|| name.to_owned())
}

/// The cheapest way to have `blob` at `target` too: a second name, else a pointer, else a copy.
fn link(blob: &Path, target: &Path) -> Result<(), HubError> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(HubError::io("creating", parent))?;
    }
    if fs::hard_link(blob, target).is_ok() {
        return Ok(());
    }
    #[cfg(unix)]
    if std::os::unix::fs::symlink(blob, target).is_ok() {
        return Ok(());
    }
    fs::copy(blob, target).map(|_| ()).map_err(HubError::io("copying to", target))
}

/// Files in `folder` and in the folders right below it, which is as deep as a model goes.
fn list_folder(folder: &Path) -> Vec<FileName> {
    let paths = |folder: &Path| -> Vec<PathBuf> {
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let top = paths(folder);
    let below = top.iter().filter(|path| path.is_dir()).flat_map(|path| paths(path));
    let all: Vec<PathBuf> = below.chain(top.iter().cloned()).filter(|path| path.is_file()).collect();
    let name = |path: &PathBuf| {
        let relative = path.strip_prefix(folder).ok()?.to_str()?.replace(std::path::MAIN_SEPARATOR, "/");
        FileName::try_from(relative).ok()
    };
    all.iter().filter_map(name).collect()
}

/// False when an index names a shard that is not among the files: the cache has a part of the model only.
fn all_shards_present(found: &[Found]) -> bool {
    let Some((_, index)) = found.iter().find(|(name, _)| name.as_str().ends_with(".index.json")) else { return true };
    let Some(index) = fs::read(index).ok().and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok())
    else {
        return false;
    };
    let Some(map) = index.get("weight_map").and_then(serde_json::Value::as_object) else { return false };
    map.values().all(|shard| found.iter().any(|(name, _)| Some(name.as_str()) == shard.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_shards_is_not_the_model() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["model.safetensors.index.json", "pytorch_model.bin.index.json"] {
            let index = folder.path().join(name);
            fs::write(&index, r#"{"weight_map": {"a": "shard-1", "b": "shard-2"}}"#).unwrap();
            let file = |name: &str| (FileName::try_from(name.to_owned()).unwrap(), index.clone());
            assert!(!all_shards_present(&[file(name), file("shard-1")]), "{name}");
            assert!(all_shards_present(&[file(name), file("shard-1"), file("shard-2")]), "{name}");
        }
    }
}
