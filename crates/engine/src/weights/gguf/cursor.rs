//! Reading the header of a GGUF file from front to back. Owns the bounds; must not know the order of the fields.

use std::sync::Arc;

use crate::weights::error::Fault;
use crate::weights::map::{MappedBytes, WeightMap};

/// The most that is read as a header. Vocabularies and merges of the largest known models take under 20 MiB. Without it
/// a damaged count could make a multi-gigabyte stretch of weights into a list of tokens.
pub(super) const HEADER_LIMIT: u64 = 64 << 20;

/// A place in a file.
pub(super) struct Cursor<'map> {
    map: &'map Arc<WeightMap>,
    at: u64,
}

impl<'map> Cursor<'map> {
    pub(super) fn new(map: &'map Arc<WeightMap>) -> Self {
        Self { map, at: 0 }
    }

    /// The number of bytes before the cursor.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    /// The next `length` bytes, left in the map.
    pub(super) fn cut(&mut self, length: u64) -> Result<MappedBytes, Fault> {
        let bytes = self.map.cut(self.at, length)?;
        self.at += length;
        if self.at > HEADER_LIMIT {
            return Err(Fault::HeaderTooLarge { limit: HEADER_LIMIT });
        }
        Ok(bytes)
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let bytes = self.cut(N as u64)?;
        let mut array = [0; N];
        array.copy_from_slice(&bytes);
        Ok(array)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count of things that take at least `smallest` bytes each, refused where the rest of the file cannot hold them.
    pub(super) fn count(&mut self, what: &'static str, smallest: u64) -> Result<usize, Fault> {
        let count = self.u64()?;
        let bytes_left = self.map.size() - self.at;
        let possible = bytes_left / smallest;
        if count > possible {
            return Err(Fault::AbsurdCount { what, count, bytes_left, possible });
        }
        if count.saturating_mul(smallest) > HEADER_LIMIT {
            return Err(Fault::HeaderTooLarge { limit: HEADER_LIMIT });
        }
        Ok(count as usize)
    }

    /// The bytes of a string: its length as u64, then that many bytes.
    pub(super) fn text(&mut self) -> Result<MappedBytes, Fault> {
        let length = self.u64()?;
        self.cut(length)
    }

    /// A string that must be UTF-8.
    pub(super) fn string(&mut self) -> Result<String, Fault> {
        let bytes = self.text()?;
        let text = std::str::from_utf8(&bytes);
        text.map(str::to_owned).map_err(|error| Fault::NotUtf8 { valid: error.valid_up_to(), length: bytes.len() })
    }
}
