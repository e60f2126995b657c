//! Where models lie on disk, what makes one complete, and how one gets there in a single step.
//!
//! `ROOT/models/NAME/` is a complete model with its manifest; `NAME.partial/` is work of a fetch that holds the lock
//! `NAME.lock`. Must not know where files come from.

use std::fs::{self, File, TryLockError};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::card::FileName;
use super::error::HubError;
use super::progress::Progress;

const MANIFEST: &str = "hearth-manifest.json";

/// The folder that holds the models.
#[derive(Debug, Clone)]
pub struct CacheDirectory {
    models: PathBuf,
}

/// What the cache has of a model.
#[derive(Debug)]
pub enum CacheState {
    /// Nothing.
    Absent,
    /// Something, but not what its manifest says; the reason in words.
    Damaged(String),
    /// All files with their sizes; the checksums were verified when they came.
    Complete(Manifest),
}

/// What a model's folder must contain; written last.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Where the files came from, in words.
    pub source: String,
    /// Every file of the model.
    pub files: Vec<ManifestFile>,
}

/// One file of a model on disk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// Path below the model's folder.
    pub path: FileName,
    /// Bytes.
    pub size: u64,
    /// Lower-case hexadecimal, computed when the file came.
    pub sha256: String,
}

impl Manifest {
    /// The one `.gguf` file, when that is what the model is; otherwise the model is its folder.
    pub fn gguf(&self) -> Option<&FileName> {
        match self.files.as_slice() {
            [file] if file.path.as_str().ends_with(".gguf") => Some(&file.path),
            _ => None,
        }
    }
}

impl CacheDirectory {
    /// The cache below `root`. Nothing is created until something is fetched.
    pub fn new(root: &Path) -> Self {
        Self { models: root.join("models") }
    }

    /// Where the model `name` lies once it is complete.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.models.join(name)
    }

    /// Looks at the files on disk, without reading their contents.
    pub fn state(&self, name: &str) -> CacheState {
        let folder = self.folder(name);
        let Ok(file) = File::open(folder.join(MANIFEST)) else {
            return if folder.exists() {
                CacheState::Damaged(format!("{MANIFEST} is missing"))
            } else {
                CacheState::Absent
            };
        };
        let manifest: Manifest = match serde_json::from_reader(BufReader::new(file)) {
            Ok(manifest) => manifest,
            Err(error) => return CacheState::Damaged(format!("{MANIFEST}: {error}")),
        };
        for file in &manifest.files {
            let found = fs::metadata(folder.join(file.path.as_str())).map(|metadata| metadata.len());
            match found {
                Ok(found) if found == file.size => {}
                Ok(found) => {
                    let expected = file.size;
                    let error = HubError::WrongSize { file: file.path.to_string(), expected, found };
                    return CacheState::Damaged(error.to_string());
                }
                Err(error) => return CacheState::Damaged(format!("{}: {error}", file.path)),
            }
        }
        CacheState::Complete(manifest)
    }

    /// Takes the right to fetch `name`, waiting for another process that has it. Dropping the file gives it back.
    pub(super) fn lock(&self, name: &str, progress: &mut dyn Progress) -> Result<File, HubError> {
        fs::create_dir_all(&self.models).map_err(HubError::io("creating", &self.models))?;
        let path = self.models.join(format!("{name}.lock"));
        let file = File::create(&path).map_err(HubError::io("creating", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress.message(&format!("another process is fetching {name}; waiting for it"));
                file.lock().map_err(HubError::io("locking", &path))?;
            }
            Err(TryLockError::Error(error)) => return Err(HubError::io("locking", &path)(error)),
        }
        Ok(file)
    }

    /// An empty place to gather the files of `name`. Only for the holder of the lock.
    pub(super) fn partial(&self, name: &str) -> Result<PartialModel, HubError> {
        let root = self.models.join(format!("{name}.partial"));
        let partial = PartialModel { target: self.folder(name), root };
        // Left by a process that was killed.
        if partial.root.exists() {
            fs::remove_dir_all(&partial.root).map_err(HubError::io("removing", &partial.root))?;
        }
        for folder in [partial.files(), partial.archive()] {
            fs::create_dir_all(&folder).map_err(HubError::io("creating", &folder))?;
        }
        Ok(partial)
    }
}

/// A model on its way. Dropping it removes all traces; [`PartialModel::commit`] puts it in place.
pub(super) struct PartialModel {
    root: PathBuf,
    target: PathBuf,
}

impl PartialModel {
    /// Folder that becomes the model's.
    pub(super) fn files(&self) -> PathBuf {
        self.root.join("files")
    }

    /// Folder for archives on the way, thrown away at the end.
    pub(super) fn archive(&self) -> PathBuf {
        self.root.join("archive")
    }

    /// Writes the manifest and moves the folder to its place, in the stead of a damaged one.
    pub(super) fn commit(self, manifest: &Manifest) -> Result<(), HubError> {
        let path = self.files().join(MANIFEST);
        let text = serde_json::to_vec_pretty(manifest).map_err(|error| HubError::io("writing", &path)(error.into()))?;
        fs::write(&path, text).map_err(HubError::io("writing", &path))?;
        if self.target.exists() {
            fs::remove_dir_all(&self.target).map_err(HubError::io("removing", &self.target))?;
        }
        fs::rename(self.files(), &self.target).map_err(HubError::io("moving into place", &self.target))
    }
}

impl Drop for PartialModel {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next fetch.
        let _ = fs::remove_dir_all(&self.root);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Silent;

    fn stored(root: &Path) -> CacheDirectory {
        let cache = CacheDirectory::new(root);
        let partial = cache.partial("tiny").unwrap();
        fs::write(partial.files().join("a.gguf"), b"abc").unwrap();
        let path = FileName::try_from("a.gguf".to_owned()).unwrap();
        let file = ManifestFile { path, size: 3, sha256: "0".repeat(64) };
        partial.commit(&Manifest { source: "a test".to_owned(), files: vec![file] }).unwrap();
        cache
    }

    #[test]
    fn a_committed_model_is_complete_and_leaves_nothing_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let cache = stored(root.path());
        let CacheState::Complete(manifest) = cache.state("tiny") else { panic!("{:?}", cache.state("tiny")) };
        assert_eq!(manifest.gguf().unwrap().as_str(), "a.gguf");
        assert_eq!(fs::read_dir(root.path().join("models")).unwrap().count(), 1);
    }

    #[test]
    fn a_truncated_file_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let cache = stored(root.path());
        fs::write(cache.folder("tiny").join("a.gguf"), b"ab").unwrap();
        let CacheState::Damaged(reason) = cache.state("tiny") else { panic!("{:?}", cache.state("tiny")) };
        assert_eq!(reason, "a.gguf has 2 bytes, expected 3");
    }

    #[test]
    fn a_missing_file_and_a_missing_manifest_are_noticed() {
        let root = tempfile::tempdir().unwrap();
        let cache = stored(root.path());
        fs::remove_file(cache.folder("tiny").join("a.gguf")).unwrap();
        assert!(matches!(cache.state("tiny"), CacheState::Damaged(reason) if reason.contains("a.gguf")));
        fs::remove_file(cache.folder("tiny").join(MANIFEST)).unwrap();
        assert!(matches!(cache.state("tiny"), CacheState::Damaged(reason) if reason.contains(MANIFEST)));
        assert!(matches!(cache.state("other"), CacheState::Absent));
    }

    #[test]
    fn a_manifest_cannot_point_out_of_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let cache = stored(root.path());
        let path = cache.folder("tiny").join(MANIFEST);
        let text = fs::read_to_string(&path).unwrap().replace("a.gguf", "../a.gguf");
        fs::write(&path, text).unwrap();
        assert!(matches!(cache.state("tiny"), CacheState::Damaged(_)));
    }

    #[test]
    fn dropping_a_partial_model_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let cache = CacheDirectory::new(root.path());
        drop(cache.partial("tiny").unwrap());
        assert_eq!(fs::read_dir(root.path().join("models")).unwrap().count(), 0);
    }

    #[test]
    fn a_second_fetch_waits_for_the_first() {
        let root = tempfile::tempdir().unwrap();
        let cache = CacheDirectory::new(root.path());
        let held = cache.lock("tiny", &mut Silent).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn({
            let cache = cache.clone();
            move || {
                let _lock = cache.lock("tiny", &mut Silent).unwrap();
                sender.send(()).unwrap();
            }
        });
        let early = receiver.recv_timeout(std::time::Duration::from_millis(100));
        assert!(early.is_err(), "the lock was had twice");
        drop(held);
        receiver.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
        waiting.join().unwrap();
    }
}
