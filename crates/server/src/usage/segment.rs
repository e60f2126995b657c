//! One file of a journal: locked by the process that writes it, read by whoever brings its entries to the store.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use super::{Entry, line};

/// What the names of segments end with.
const EXTENSION: &str = "journal";

/// Bytes that are read at a time.
const WINDOW: u64 = 256 << 10;

/// Attempts at a new file: each is in vain only where another process takes the file between its making and its locking.
const ATTEMPTS: usize = 16;

/// A file of entries. It is locked for as long as this stands, and the lock goes with the process.
pub(super) struct Segment {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    length: AtomicU64,
    /// Bytes of lines that are in the store.
    settled: AtomicU64,
}

/// Entries of a segment.
pub(super) struct Lines {
    /// In the order in which they were written.
    pub(super) entries: Vec<Entry>,
    /// Where the lines end.
    pub(super) upto: u64,
    /// Lines that cannot be read.
    pub(super) lost: u64,
}

impl Segment {
    /// A new file in `folder`.
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        for _ in 0..ATTEMPTS {
            let path = folder.join(format!("{}.{EXTENSION}", Uuid::now_v7()));
            let file = OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).open(&path)?;
            if is_locked(&file)? {
                return Ok(Self { path, file, length: AtomicU64::new(0), settled: AtomicU64::new(0) });
            }
        }
        Err(io::Error::other("other processes take every new file away"))
    }

    /// The files in `folder` that nobody holds: their processes are gone.
    pub(super) fn left_behind(folder: &Path) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            let file = match OpenOptions::new().read(true).open(&path) {
                // Another process was quicker.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            if is_locked(&file)? {
                let length = file.metadata()?.len();
                found.push(Self { path, file, length: AtomicU64::new(length), settled: AtomicU64::new(0) });
            }
        }
        found.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
    }

    pub(super) fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    /// Bytes that are not in the store yet.
    pub(super) fn waiting(&self) -> u64 {
        self.length() - self.settled.load(Ordering::Acquire).min(self.length())
    }

    /// Writes a line with one call, so that a process that dies leaves it whole or as the torn end of its file.
    ///
    /// # Errors
    /// Where the line is not written as a whole. `Torn` where a piece of it could not be taken back: then nothing more may be
    /// written here.
    pub(super) fn append(&self, line: &[u8]) -> Result<(), AppendError> {
        let error = match (&self.file).write(line) {
            Ok(written) if written == line.len() => {
                self.length.fetch_add(line.len() as u64, Ordering::AcqRel);
                return Ok(());
            }
            Ok(_) => io::ErrorKind::StorageFull.into(),
            Err(error) => error,
        };
        match self.file.set_len(self.length()) {
            Ok(()) => Err(AppendError::Whole(error)),
            Err(_) => Err(AppendError::Torn(error)),
        }
    }

    /// The next lines that are not in the store.
    pub(super) fn read(&self) -> io::Result<Lines> {
        let (from, end) = (self.settled.load(Ordering::Acquire), self.length());
        let mut window = WINDOW.min(end - from);
        loop {
            let mut bytes = vec![0; usize::try_from(window).map_err(io::Error::other)?];
            self.file.read_exact_at(&mut bytes, from)?;
            if let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') {
                return Ok(Lines::of(&bytes[..last], from + last as u64 + 1));
            }
            if window == end - from {
                // The line that its process was writing when it died; nobody was told that it is written.
                return Ok(Lines { entries: Vec::new(), upto: end, lost: 0 });
            }
            window = (2 * window).min(end - from);
        }
    }

    /// The lines up to there are in the store.
    pub(super) fn settle(&self, upto: u64) {
        self.settled.fetch_max(upto, Ordering::AcqRel);
    }

    /// Writes the file to the disk itself.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Removes the file.
    pub(super) fn remove(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Lines {
    fn of(text: &[u8], upto: u64) -> Self {
        let mut lines = Self { entries: Vec::new(), upto, lost: 0 };
        for line in text.split(|byte| *byte == b'\n') {
            match line::read(line) {
                Some(entry) => lines.entries.push(entry),
                None => lines.lost += 1,
            }
        }
        lines
    }
}

/// Why a line was not written.
pub(super) enum AppendError {
    /// The file is as it was.
    Whole(io::Error),
    /// The file ends with a piece of the line.
    Torn(io::Error),
}

/// Whether the file could be locked, and is still where it was found or made.
fn is_locked(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        // Whoever held it before may have removed it.
        Ok(()) => Ok(file.metadata()?.nlink() > 0),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(path: &str) -> Segment {
        let file = OpenOptions::new().read(true).append(true).open(path).unwrap();
        Segment { path: path.into(), file, length: AtomicU64::new(0), settled: AtomicU64::new(0) }
    }

    #[test]
    fn a_full_disk_is_told_and_counts_nothing() {
        // Every write to it finds no room, and it cannot be cut.
        let full = segment("/dev/full");
        assert!(
            matches!(full.append(b"x\n"), Err(AppendError::Torn(error)) if error.kind() == io::ErrorKind::StorageFull)
        );
        assert_eq!(full.waiting(), 0);
    }

    #[test]
    fn a_line_is_read_that_is_longer_than_what_is_read_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let segment = Segment::create(folder.path()).unwrap();
        let long = Entry { requester: "x".repeat(3 * WINDOW as usize), ..Entry::default() };
        for entry in [&Entry::default(), &long, &Entry::default()] {
            assert!(segment.append(&line::written(entry).unwrap()).is_ok());
        }
        let mut entries = Vec::new();
        while segment.waiting() > 0 {
            let lines = segment.read().unwrap();
            segment.settle(lines.upto);
            entries.extend(lines.entries);
        }
        assert_eq!(entries, [Entry::default(), long, Entry::default()]);
    }
}
