//! What a MODEL argument means: a catalogue name, a folder, a `.gguf` file, or a repository on the hub.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::card::Card;
use super::catalogue::Catalogue;
use super::error::HubError;

/// A model, found but not yet fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelLocation {
    /// A model of the catalogue.
    Catalogue(Box<Card>),
    /// A folder on disk in Hugging Face layout.
    Folder(PathBuf),
    /// A `.gguf` file on disk.
    GgufFile(PathBuf),
    /// A repository on the hub that has no card.
    Hub(HubRepository),
}

/// A repository on the hub at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubRepository {
    /// `org/name`.
    pub id: String,
    /// Branch, tag or commit.
    pub revision: String,
}

impl HubRepository {
    /// Reads `org/name` or `org/name@revision`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (organisation, name) = id.split_once('/')?;
        let word = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
        };
        // A revision may be a path, as in refs/pr/1.
        let fits = word(organisation) && word(name) && revision.split('/').all(word);
        fits.then(|| Self { id: id.to_owned(), revision: revision.to_owned() })
    }

    /// One folder's name for this repository at this revision.
    pub fn folder_name(&self) -> String {
        let id = self.id.replace('/', "--");
        if self.revision == "main" { id } else { format!("{id}@{}", self.revision.replace('/', "--")) }
    }
}

impl fmt::Display for HubRepository {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.id)
    }
}

impl ModelLocation {
    /// Finds out what `text` means. A catalogue name wins over a path (write `./NAME` for the path), a path over a
    /// hub id. Looks at the disk, never at the network.
    pub fn resolve(text: &str, catalogue: &Catalogue) -> Result<Self, HubError> {
        if let Some(card) = catalogue.find(text) {
            return Ok(Self::Catalogue(Box::new(card.clone())));
        }
        let path = Path::new(text);
        if path.is_dir() {
            return folder(path);
        }
        if path.is_file() {
            return file(path);
        }
        if let Some(repository) = HubRepository::parse(text) {
            return Ok(Self::Hub(repository));
        }
        Err(HubError::UnknownModel { name: text.to_owned(), near: catalogue.near(text) })
    }

    /// The name an endpoint gets when none is given: the catalogue's, the folder's, the file's without its ending, or
    /// the repository's without its organisation.
    pub fn name(&self) -> String {
        let last = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        match self {
            Self::Catalogue(card) => card.name.clone(),
            // "." and ".." have no name of their own.
            Self::Folder(path) => last(path.canonicalize().unwrap_or_else(|_| path.clone()).file_name()),
            Self::GgufFile(path) => last(path.file_stem()),
            Self::Hub(repository) => repository.id.rsplit('/').next().unwrap_or_default().to_owned(),
        }
    }
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

fn file(path: &Path) -> Result<ModelLocation, HubError> {
    if is_gguf(path) {
        Ok(ModelLocation::GgufFile(path.to_path_buf()))
    } else {
        let reason = "is a file, but not a .gguf file; give the folder for safetensors".to_owned();
        Err(HubError::NotAModel { path: path.to_path_buf(), reason })
    }
}

fn folder(path: &Path) -> Result<ModelLocation, HubError> {
    if path.join("config.json").is_file() {
        return Ok(ModelLocation::Folder(path.to_path_buf()));
    }
    let entries = fs::read_dir(path).map_err(HubError::io("reading", path))?;
    let ggufs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| is_gguf(path)).collect();
    match ggufs.as_slice() {
        [only] => Ok(ModelLocation::GgufFile(only.clone())),
        [] => Err(HubError::NotAModel {
            path: path.to_path_buf(),
            reason: "is a folder without config.json and without a .gguf file".to_owned(),
        }),
        many => Err(HubError::NotAModel {
            path: path.to_path_buf(),
            reason: format!("is a folder without config.json and with {} .gguf files; name one of them", many.len()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<ModelLocation, HubError> {
        ModelLocation::resolve(text, &Catalogue::embedded().unwrap())
    }

    #[test]
    fn a_catalogue_alias_is_its_card() {
        assert_eq!(resolve("SmolLM2").unwrap().name(), "smollm2-135m-instruct");
    }

    #[test]
    fn a_hub_id_may_carry_a_revision() {
        let ModelLocation::Hub(repository) = resolve("some-org/Some_Model.v2@refs/pr/1").unwrap() else { panic!() };
        assert_eq!((repository.id.as_str(), repository.revision.as_str()), ("some-org/Some_Model.v2", "refs/pr/1"));
        assert_eq!(repository.folder_name(), "some-org--Some_Model.v2@refs--pr--1");
        assert_eq!(resolve("some-org/model").unwrap().name(), "model");
    }

    #[test]
    fn what_is_no_hub_id_is_unknown_with_near_names() {
        for text in ["smolm2", "../a", "a/../b", "a/b/c", "/a/b", "a/b@", "a/b@../c", ""] {
            let error = resolve(text).unwrap_err();
            assert!(matches!(error, HubError::UnknownModel { .. }), "{text}: {error}");
        }
        let message = resolve("smolm2-135m").unwrap_err().to_string();
        assert!(message.contains("did you mean smollm2-135m-instruct"), "{message}");
    }

    #[test]
    fn folders_and_files_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let text = root.path().to_str().unwrap();
        let message = resolve(text).unwrap_err().to_string();
        assert!(message.contains("without config.json"), "{message}");
        fs::write(root.path().join("a.gguf"), "x").unwrap();
        assert_eq!(resolve(text).unwrap(), ModelLocation::GgufFile(root.path().join("a.gguf")));
        fs::write(root.path().join("b.gguf"), "x").unwrap();
        assert!(resolve(text).unwrap_err().to_string().contains("2 .gguf files"));
        assert_eq!(resolve(&format!("{text}/b.gguf")).unwrap().name(), "b");
        fs::write(root.path().join("config.json"), "{}").unwrap();
        assert_eq!(resolve(text).unwrap(), ModelLocation::Folder(root.path().to_path_buf()));
        assert!(resolve(&format!("{text}/config.json")).unwrap_err().to_string().contains("not a .gguf"));
    }
}
