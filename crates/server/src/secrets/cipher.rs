//! Sealing and opening: XChaCha20-Poly1305, a random nonce for each seal, the secret's place as associated data, so that
//! what was sealed for one place opens in no other.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, Generate, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use secrecy::zeroize::Zeroizing;

use super::MasterKey;

/// What sealed texts begin with, so that another form can be told from this one.
const FORM: &str = "1:";
/// Bytes of a nonce.
const NONCE: usize = 24;

/// A cipher with its key, which is wiped when the cipher is dropped.
pub(super) struct Cipher(XChaCha20Poly1305);

/// A sealed text that does not open: it was sealed with another key or for another place, or it is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was sealed with another key or for another place, or it is broken")]
pub(super) struct Shut;

impl Cipher {
    pub(super) fn new(key: &MasterKey) -> Self {
        Self(XChaCha20Poly1305::new(key.bytes().into()))
    }

    /// Seals `value` for the place `key` of `scope`.
    pub(super) fn seal(&self, scope: &str, key: &str, value: &[u8]) -> Result<String, Shut> {
        let nonce = XNonce::generate();
        let sealed = self.0.encrypt(&nonce, Payload { msg: value, aad: &place(scope, key) }).map_err(|_| Shut)?;
        let mut text = FORM.to_owned();
        STANDARD.encode_string([nonce.as_slice(), &sealed].concat(), &mut text);
        Ok(text)
    }

    /// Opens what was sealed for the place `key` of `scope`.
    pub(super) fn open(&self, scope: &str, key: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, Shut> {
        let bytes = sealed.strip_prefix(FORM).and_then(|text| STANDARD.decode(text).ok()).ok_or(Shut)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE>().ok_or(Shut)?;
        let opened = self.0.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &place(scope, key) });
        opened.map(Zeroizing::new).map_err(|_| Shut)
    }
}

/// No name holds a zero, so that no two places have the same bytes.
fn place(scope: &str, key: &str) -> Vec<u8> {
    [scope.as_bytes(), key.as_bytes()].join(&0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cipher() -> Cipher {
        Cipher::new(&MasterKey::random())
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_in_its_place_alone(value in prop::collection::vec(any::<u8>(), 0..300)) {
            let (one, other) = (cipher(), cipher());
            let sealed = one.seal("scope", "key", &value).unwrap();
            prop_assert_eq!(&*one.open("scope", "key", &sealed).unwrap(), &value);
            prop_assert_eq!(other.open("scope", "key", &sealed), Err(Shut));
            for (scope, key) in [("scope", "yek"), ("scop", "ekey"), ("scopek", "ey"), ("", "")] {
                prop_assert_eq!(one.open(scope, key, &sealed), Err(Shut));
            }
        }

        #[test]
        fn a_text_that_was_changed_does_not_open(at in any::<prop::sample::Index>(), by in 1_u8..128) {
            let cipher = cipher();
            let mut sealed = cipher.seal("scope", "key", b"value").unwrap().into_bytes();
            let at = at.index(sealed.len());
            sealed[at] = (sealed[at] + by) % 128;
            let sealed = String::from_utf8(sealed).unwrap();
            prop_assert_eq!(cipher.open("scope", "key", &sealed), Err(Shut));
        }
    }

    #[test]
    fn the_same_value_is_never_sealed_alike() {
        let cipher = cipher();
        assert_ne!(cipher.seal("s", "k", b"value").unwrap(), cipher.seal("s", "k", b"value").unwrap());
        for broken in ["", "1:", "1:AAAA", "value", "2:AAAA"] {
            assert_eq!(cipher.open("s", "k", broken), Err(Shut), "{broken}");
        }
    }
}
