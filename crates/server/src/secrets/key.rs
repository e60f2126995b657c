//! The master key: 32 bytes that the environment gives, or a file that nobody else may read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{Generate, Key};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretBox};

/// More than the text of a key.
const LONGEST_FILE: u64 = 256;

/// The key that all secrets of a store are sealed with. A clone is the same one; it shows in no `Debug`.
#[derive(Debug, Clone)]
pub struct MasterKey(Arc<SecretBox<[u8; 32]>>);

/// A text that is no key. Nothing of it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key of secrets is 32 bytes in base64, as `openssl rand -base64 32` writes them")]
pub struct NotAKey;

impl MasterKey {
    pub(super) fn random() -> Self {
        let key = Key::<XChaCha20Poly1305>::generate();
        Self(Arc::new(SecretBox::new(Box::new(key.into()))))
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        self.0.expose_secret()
    }

    fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.bytes()))
    }
}

impl FromStr for MasterKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| NotAKey)?);
        let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| NotAKey)?;
        Ok(Self(Arc::new(SecretBox::new(Box::new(bytes)))))
    }
}

/// Where the master key comes from.
#[derive(Debug, Clone)]
pub struct KeySource {
    /// The key of the environment, which goes before that of the file.
    pub given: Option<MasterKey>,
    /// The file of the key, made when the first secret is sealed.
    pub file: PathBuf,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("the key of the secrets, {0}, cannot be used: {1}")]
    File(PathBuf, io::Error),
    /// Others may read the file.
    #[error("the key of the secrets, {0}, has mode {1:04o}: nobody but its owner may read it (chmod 600)")]
    Exposed(PathBuf, u32),
    /// The file holds something else.
    #[error("{0} holds no key: {1}")]
    NotAKey(PathBuf, NotAKey),
}

impl KeySource {
    /// The key, if there is one.
    pub(super) fn key(&self) -> Result<Option<MasterKey>, KeyError> {
        match &self.given {
            Some(key) => Ok(Some(key.clone())),
            None => self.of_file(),
        }
    }

    /// The key; a new one where there is none.
    pub(super) fn key_or_new(&self) -> Result<MasterKey, KeyError> {
        if let Some(key) = self.key()? {
            return Ok(key);
        }
        let key = MasterKey::random();
        self.write(&key).map_err(|error| KeyError::File(self.file.clone(), error))?;
        tracing::info!(file = %self.file.display(), "a key for secrets was made; without it they cannot be opened");
        Ok(key)
    }

    fn of_file(&self) -> Result<Option<MasterKey>, KeyError> {
        let failed = |error| KeyError::File(self.file.clone(), error);
        let file = match File::open(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed(self.file.clone(), mode));
        }
        let mut text = Zeroizing::new(String::new());
        file.take(LONGEST_FILE).read_to_string(&mut text).map_err(failed)?;
        text.parse().map(Some).map_err(|error| KeyError::NotAKey(self.file.clone(), error))
    }

    /// Writes the key so that there is never half of it, and that it outlives whatever is sealed with it.
    fn write(&self, key: &MasterKey) -> io::Result<()> {
        let beside = self.file.with_extension("key.new");
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(key.text().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&beside, &self.file)?;
        File::open(self.file.parent().unwrap_or(Path::new(".")))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let source = KeySource { given: None, file: folder.path().join("secrets.key") };
        assert!(source.key().unwrap().is_none());
        let made = source.key_or_new().unwrap();
        assert_eq!(fs::metadata(&source.file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        for again in [source.key().unwrap().unwrap(), source.key_or_new().unwrap()] {
            assert_eq!(again.bytes(), made.bytes());
        }
        assert!(!format!("{source:?} {made:?}").contains(made.text().trim()));
        let given = MasterKey::random();
        let source = KeySource { given: Some(given.clone()), ..source };
        assert_eq!(source.key().unwrap().unwrap().bytes(), given.bytes());
    }

    #[test]
    fn a_file_that_others_may_read_or_that_holds_no_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let source = KeySource { given: None, file: folder.path().join("secrets.key") };
        source.key_or_new().unwrap();
        for mode in [0o640, 0o604, 0o660, 0o610] {
            fs::set_permissions(&source.file, Permissions::from_mode(mode)).unwrap();
            let error = source.key_or_new().unwrap_err().to_string();
            assert!(error.contains(&format!("has mode {mode:04o}")) && error.contains("chmod 600"), "{error}");
        }
        fs::set_permissions(&source.file, Permissions::from_mode(0o600)).unwrap();
        for text in ["", "hunter2", &STANDARD.encode([0; 31]), &STANDARD.encode([0; 33])] {
            fs::write(&source.file, text).unwrap();
            let error = source.key().unwrap_err().to_string();
            assert!(error.contains("32 bytes in base64") && !error.contains("hunter2"), "{error}");
        }
    }
}
