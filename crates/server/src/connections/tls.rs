//! TLS before HTTP: the certificate and its key, and the handshake.
//!
//! Owns what is agreed on with a client before it can send a request. Knows no HTTP but for its name.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

pub use crate::config::TlsFiles;

/// The protocol that is spoken within.
const HTTP: &[u8] = b"http/1.1";

/// A certificate with its key, as they were last read.
pub struct Tls {
    files: TlsFiles,
    config: RwLock<Arc<ServerConfig>>,
}

/// Why there is no TLS. Nothing of a key's file is repeated.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate cannot be read.
    #[error("the certificate {0} cannot be read: {1}")]
    Certificate(PathBuf, pem::Error),
    /// There is none in the file.
    #[error("there is no certificate (PEM) in {0}")]
    NoCertificate(PathBuf),
    /// The key cannot be read.
    #[error("the key {0} cannot be read: {1}")]
    Key(PathBuf, std::io::Error),
    /// There is none in the file.
    #[error("there is no private key (PEM, not encrypted) in {0}")]
    NoKey(PathBuf),
    /// They do not belong together, or are of a kind that is not used any more.
    #[error("the certificate {} cannot be used with the key {}: {error}", files.certificate.display(), files.key.display())]
    Pair {
        /// Both.
        files: TlsFiles,
        /// Why.
        error: rustls::Error,
    },
}

impl Tls {
    /// Reads the certificate and its key.
    ///
    /// # Errors
    /// The file that cannot be used.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let config = RwLock::new(Arc::new(read(&files)?));
        Ok(Self { files, config })
    }

    /// Reads them again, for connections that come from now on.
    ///
    /// # Errors
    /// The file that cannot be used; then all is as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        let config = Arc::new(read(&self.files)?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

fn read(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let TlsFiles { certificate, key } = files;
    let bad = |error| TlsError::Certificate(certificate.clone(), error);
    let chain = CertificateDer::pem_file_iter(certificate).map_err(bad)?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(bad)?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(certificate.clone()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
        pem::Error::Io(error) => TlsError::Key(key.clone(), error),
        // The others may hold a line of the file.
        _ => TlsError::NoKey(key.clone()),
    })?;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = builder.with_safe_default_protocol_versions();
    let config = config.and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private));
    let mut config = config.map_err(|error| TlsError::Pair { files: files.clone(), error })?;
    config.alpn_protocols = vec![HTTP.to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn pair(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn what_is_no_certificate_or_not_its_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name)
        };
        let load = |certificate: &PathBuf, key: &PathBuf| {
            let files = TlsFiles { certificate: certificate.clone(), key: key.clone() };
            Tls::load(files).map(drop).map_err(|error| error.to_string())
        };
        let ((certificate, key), (_, other)) = (pair("localhost"), pair("localhost"));
        let (good, good_key) = (file("good.pem", &certificate), file("good.key", &key));
        let one_file = file("both.pem", &format!("{key}{certificate}"));
        assert_eq!(load(&good, &good_key), Ok(()));
        assert_eq!(load(&one_file, &one_file), Ok(()));
        let broken = file("broken.key", &key.replace("-----END", "----END"));
        for (certificate, key, expected) in [
            (&folder.path().join("none.pem"), &good_key, "none.pem cannot be read"),
            (&good, &folder.path().join("none.key"), "none.key cannot be read"),
            (&good_key, &good_key, "no certificate (PEM) in"),
            (&good, &good, "no private key (PEM, not encrypted) in"),
            (&good, &broken, "no private key"),
            (&good, &file("other.key", &other), "cannot be used with the key"),
        ] {
            let error = load(certificate, key).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("BEGIN"), "{error}");
        }
    }

    #[test]
    fn files_are_read_again_and_broken_ones_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let files = TlsFiles { certificate: folder.path().join("c.pem"), key: folder.path().join("k.pem") };
        let write = |(certificate, key): (String, String)| {
            fs::write(&files.certificate, certificate).unwrap();
            fs::write(&files.key, key).unwrap();
        };
        write(pair("one"));
        let tls = Tls::load(files.clone()).unwrap();
        let first = tls.acceptor().config().clone();
        write((pair("two").0, pair("three").1));
        assert!(tls.reload().is_err());
        assert!(Arc::ptr_eq(&first, tls.acceptor().config()));
        write(pair("two"));
        tls.reload().unwrap();
        assert!(!Arc::ptr_eq(&first, tls.acceptor().config()));
    }
}
