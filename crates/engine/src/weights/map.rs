//! The memory map under every tensor. Owns the map and the bounds of the ranges cut from it; must not know what the bytes mean.
#![expect(unsafe_code, reason = "mapping a file is unsafe: nothing can stop another process from changing it")]

use std::fmt;
use std::fs::{self, File};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use super::error::{Fault, Part, WeightsError};

/// A whole file, mapped read-only, or bytes in memory that stand for one.
pub struct WeightMap {
    file: PathBuf,
    bytes: Backing,
}

enum Backing {
    File(Mmap),
    Memory(Vec<u8>),
}

impl WeightMap {
    /// Maps `file`. The pages are read when they are first used.
    ///
    /// # Errors
    /// The file cannot be opened, or is not a regular file (opening a pipe could block for ever).
    pub fn open(file: &Path) -> Result<Arc<Self>, WeightsError> {
        Self::map(file).map(Arc::new).map_err(|fault| fault.of(file, Part::File))
    }

    /// Takes bytes in memory as a file called `label` in messages: for checkpoints that are made and not stored.
    pub fn from_bytes(label: impl Into<PathBuf>, bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { file: label.into(), bytes: Backing::Memory(bytes) })
    }

    fn map(file: &Path) -> Result<Self, Fault> {
        if !fs::metadata(file)?.is_file() {
            return Err(Fault::NotAFile);
        }
        let handle = File::open(file)?;
        // SAFETY: the map is private to this value and read-only, and its bytes are only ever read as plain numbers,
        // for which every bit pattern is valid. What remains is that another process shortens the file while it is in
        // use; that raises SIGBUS and ends this process. Checkpoints are written under another name and renamed when
        // whole, and an operator who edits one in place is told not to.
        let map = unsafe { Mmap::map(&handle) }?;
        Ok(Self { file: file.to_path_buf(), bytes: Backing::File(map) })
    }

    /// The path this was opened by.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// All bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Backing::File(map) => map,
            Backing::Memory(bytes) => bytes,
        }
    }

    /// The number of bytes in the file.
    pub fn size(&self) -> u64 {
        self.bytes().len() as u64
    }

    /// Tells the system that the pages under `range` are not needed soon. They are read from the file again if they are.
    fn release(&self, range: Range<usize>) {
        let Backing::File(map) = &self.bytes else { return };
        #[cfg(unix)]
        {
            // SAFETY: the map is of a file, shared and read-only: dropping its pages loses nothing, they are read again.
            let released =
                unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
            if let Err(error) = released {
                tracing::debug!(file = %self.file.display(), %error, "pages are kept");
            }
        }
        #[cfg(not(unix))]
        let _ = (map, range);
    }

    /// All bytes; they keep the map alive.
    #[must_use]
    pub fn whole(self: &Arc<Self>) -> MappedBytes {
        MappedBytes { map: Arc::clone(self), range: 0..self.bytes().len() }
    }

    /// The `length` bytes from `offset`; they keep the map alive.
    ///
    /// # Errors
    /// [`Fault::Truncated`] where the file ends before them, whatever the two numbers are.
    pub(super) fn cut(self: &Arc<Self>, offset: u64, length: u64) -> Result<MappedBytes, Fault> {
        let truncated = || Fault::Truncated { needed: length, offset, size: self.size() };
        let end = offset.checked_add(length).filter(|&end| end <= self.size()).ok_or_else(truncated)?;
        // Both fit `usize`: they are at most the length of a slice.
        Ok(MappedBytes { map: Arc::clone(self), range: offset as usize..end as usize })
    }
}

impl fmt::Debug for WeightMap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "WeightMap({}, {} bytes)", self.file.display(), self.size())
    }
}

/// A range of a [`WeightMap`], which it keeps alive. Cloning copies no weights.
#[derive(Clone)]
pub struct MappedBytes {
    map: Arc<WeightMap>,
    /// Within the map: [`WeightMap::cut`] makes one, and a part of it lies within it.
    range: Range<usize>,
}

impl MappedBytes {
    /// Lets the system take back the memory of a part of these bytes, which have been read and are not needed soon.
    pub(crate) fn release(&self, part: Range<usize>) {
        self.map.release(self.range.start + part.start..self.range.start + part.end.min(self.range.len()));
    }

    /// The bytes `part` of these, counted from their own beginning; `None` where they end before it.
    pub(crate) fn part(&self, part: Range<usize>) -> Option<Self> {
        let inside = part.start <= part.end && part.end <= self.range.len();
        let range = self.range.start.checked_add(part.start)?..self.range.start.checked_add(part.end)?;
        inside.then(|| Self { map: Arc::clone(&self.map), range })
    }

    /// The file these bytes lie in.
    pub fn file(&self) -> &Path {
        self.map.file()
    }
}

impl Deref for MappedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map.bytes()[self.range.clone()]
    }
}

impl fmt::Debug for MappedBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "MappedBytes({}, {:?})", self.file().display(), self.range)
    }
}
