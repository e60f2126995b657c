//! SHA-256 of what is being copied or already lies on disk. Must not know what it is a checksum of.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::progress::Progress;

/// 1 MiB: large enough that the system calls cost nothing beside the hashing.
const BUFFER_BYTES: usize = 1 << 20;

/// Size and checksum of a stream that was read to its end.
pub(super) struct Hashed {
    pub bytes: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

/// Copies `from` into `to`, hashing on the way.
pub(super) fn copy_hashed(
    from: &mut dyn Read,
    to: &mut dyn Write,
    progress: &mut dyn Progress,
) -> Result<Hashed, io::Error> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut bytes = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let piece = buffer.get(..count).unwrap_or_default();
        to.write_all(piece)?;
        hasher.update(piece);
        bytes += count as u64;
        progress.advance(count as u64);
    }
    Ok(Hashed { bytes, sha256: hexadecimal(&hasher.finalize()) })
}

/// Hashes the file at `path`.
pub(super) fn hash_file(path: &Path, progress: &mut dyn Progress) -> Result<Hashed, io::Error> {
    copy_hashed(&mut File::open(path)?, &mut io::sink(), progress)
}

fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().fold(String::with_capacity(digest.len() * 2), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Silent;

    #[test]
    fn agrees_with_the_published_test_vector() {
        // FIPS 180-4 example: SHA-256("abc").
        let mut copy = Vec::new();
        let hashed = copy_hashed(&mut &b"abc"[..], &mut copy, &mut Silent).unwrap();
        assert_eq!(hashed.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!((hashed.bytes, copy.as_slice()), (3, &b"abc"[..]));
    }
}
