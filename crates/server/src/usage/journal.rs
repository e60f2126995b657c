//! The journal of usage: entries on their way to the store, in files that outlive the process.
//!
//! Owns the folder of these files: which are written, which wait, and which other processes have left behind. What is written
//! here is there after `kill -9`; the system brings it to the disk within seconds, so a power cut may lose what had not come to
//! the store by then. Knows no database.

use std::collections::VecDeque;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::segment::{AppendError, Segment};
use super::{Entry, line};
use crate::metrics;

/// Bytes of a segment after which the next one is begun.
const SEGMENT: u64 = 64 << 20;

/// The journal of a process in a folder that it may share with others. A clone is the same one.
#[derive(Clone)]
pub struct Journal(Arc<Inner>);

struct Inner {
    folder: PathBuf,
    segment_bytes: u64,
    files: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    /// What is written now; none before the first entry.
    active: Option<Arc<Segment>>,
    /// What is only read any more, oldest first.
    sealed: VecDeque<Arc<Segment>>,
    /// Whether the last entry was lost.
    failing: bool,
}

/// Entries that are not in the store yet.
pub struct Batch {
    /// In the order in which they were written.
    pub entries: Vec<Entry>,
    segment: Arc<Segment>,
    upto: u64,
    lost: u64,
}

impl Journal {
    /// The journal in `folder`, which is made where there is none, with what processes have left there that are gone.
    ///
    /// # Errors
    /// Where the folder cannot be used, or has no locks.
    pub fn open(folder: &Path) -> io::Result<Self> {
        Self::with_segments(folder, SEGMENT)
    }

    fn with_segments(folder: &Path, segment_bytes: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        // Whether entries can be written shows now, and not at the first request.
        Segment::create(folder)?.remove()?;
        let journal = Self(Arc::new(Inner { folder: folder.to_owned(), segment_bytes, files: Mutex::default() }));
        journal.take_over()?;
        Ok(journal)
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        // No change leaves the list half made, so a poisoned lock still guards a sound value.
        self.0.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an entry; it is there when this returns, whatever becomes of the process. One that the disk has no room for is
    /// lost, which the log and the metrics say.
    pub fn append(&self, entry: &Entry) {
        let line = line::written(entry).map_err(io::Error::from);
        let (outcome, was_failing) = {
            let mut files = self.files();
            let outcome = line.and_then(|line| self.write(&mut files, &line));
            let failing = outcome.is_err();
            (outcome, std::mem::replace(&mut files.failing, failing))
        };
        match outcome {
            Ok(()) if was_failing => tracing::info!("usage is written down again"),
            Ok(()) => {}
            Err(error) => {
                metrics::usage_lost(1);
                // Told once: the metrics go on counting.
                if !was_failing {
                    tracing::error!(%error, "usage cannot be written down: requests are answered and not accounted for");
                }
            }
        }
    }

    fn write(&self, files: &mut Files, line: &[u8]) -> io::Result<()> {
        let full = |active: &Arc<Segment>| active.length() >= self.0.segment_bytes;
        if let Some(full) = files.active.take_if(|active| full(active)) {
            files.sealed.push_back(full);
        }
        let active = match files.active.take() {
            Some(active) => active,
            None => Arc::new(Segment::create(&self.0.folder)?),
        };
        let outcome = active.append(line);
        match &outcome {
            Err(AppendError::Torn(_)) => files.sealed.push_back(active),
            _ => files.active = Some(active),
        }
        outcome.map_err(|(AppendError::Whole(error) | AppendError::Torn(error))| error)
    }

    /// Takes over what processes have left behind that are gone.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn take_over(&self) -> io::Result<()> {
        let left = Segment::left_behind(&self.0.folder)?;
        self.files().sealed.extend(left.into_iter().map(Arc::new));
        Ok(())
    }

    /// The next entries that are not in the store, oldest first; `None` where all are. Until they are settled, the same ones
    /// come again.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn next(&self) -> io::Result<Option<Batch>> {
        let segments: Vec<_> = {
            let files = self.files();
            files.sealed.iter().chain(&files.active).cloned().collect()
        };
        let waiting = segments.iter().map(|segment| segment.waiting()).sum();
        metrics::usage_waiting(waiting);
        let Some(segment) = segments.into_iter().find(|segment| segment.waiting() > 0) else { return Ok(None) };
        let lines = segment.read()?;
        Ok(Some(Batch { entries: lines.entries, segment, upto: lines.upto, lost: lines.lost }))
    }

    /// Notes that entries are in the store, and removes the files that have no others.
    ///
    /// # Errors
    /// Where a file cannot be removed.
    pub fn settle(&self, batch: &Batch) -> io::Result<()> {
        if batch.lost > 0 {
            metrics::usage_lost(batch.lost);
            tracing::error!(lines = batch.lost, "lines of the journal of usage cannot be read: their requests are lost");
        }
        batch.segment.settle(batch.upto);
        self.remove_settled()
    }

    fn remove_settled(&self) -> io::Result<()> {
        let mut files = self.files();
        while let Some(first) = files.sealed.front().filter(|first| first.waiting() == 0) {
            first.remove()?;
            files.sealed.pop_front();
        }
        Ok(())
    }

    /// Removes the file that is written, where all of it is in the store and it has `least` bytes or more. The next entry
    /// begins another one.
    ///
    /// # Errors
    /// Where a file cannot be removed.
    pub fn tidy(&self, least: u64) -> io::Result<()> {
        self.remove_settled()?;
        let mut files = self.files();
        if let Some(active) = files.active.take_if(|active| active.waiting() == 0 && active.length() >= least) {
            active.remove()?;
        }
        Ok(())
    }

    /// Writes the files to the disk itself, for when it takes long until their entries come to the store.
    ///
    /// # Errors
    /// Where the disk fails.
    pub fn sync(&self) -> io::Result<()> {
        let active = self.files().active.clone();
        active.map_or(Ok(()), |active| active.sync())
    }
}
