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
            tracing::error!(
                lines = batch.lost,
                "lines of the journal of usage cannot be read: their requests are lost"
            );
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

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: usize) -> Entry {
        Entry { databricks_request_id: id.to_string(), ..Entry::default() }
    }

    fn files(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    /// All entries, which are settled.
    fn all(journal: &Journal) -> Vec<usize> {
        let mut ids = Vec::new();
        while let Some(batch) = journal.next().unwrap() {
            ids.extend(batch.entries.iter().map(|entry| entry.databricks_request_id.parse::<usize>().unwrap()));
            journal.settle(&batch).unwrap();
        }
        ids
    }

    #[test]
    fn entries_come_in_their_order_through_many_files_which_go_when_they_are_settled() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::with_segments(folder.path(), 2000).unwrap();
        (0..100).for_each(|id| journal.append(&entry(id)));
        assert!(files(folder.path()) > 10);
        let again = || journal.next().unwrap().unwrap().entries;
        assert_eq!(again(), again(), "until they are settled");
        assert_eq!(all(&journal), (0..100).collect::<Vec<_>>());
        assert_eq!(files(folder.path()), 1, "the one that is written");
        journal.append(&entry(100));
        journal.tidy(0).unwrap();
        assert_eq!(files(folder.path()), 1, "what is not settled stays");
        assert_eq!(all(&journal), [100]);
        journal.tidy(u64::MAX).unwrap();
        assert_eq!(files(folder.path()), 1, "what is small may grow");
        journal.tidy(0).unwrap();
        assert_eq!(files(folder.path()), 0);
        journal.append(&entry(101));
        assert_eq!(all(&journal), [101]);
    }

    #[test]
    fn what_a_process_leaves_behind_is_taken_over_once_and_what_it_writes_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Journal::open(folder.path()).unwrap();
        let (dying, heir, other) = (open(), open(), open());
        dying.append(&entry(1));
        heir.append(&entry(2));
        heir.take_over().unwrap();
        assert_eq!(all(&heir), [2]);
        // The lock goes with the process, and with the last handle of its journal.
        drop(dying);
        heir.take_over().unwrap();
        other.take_over().unwrap();
        assert_eq!((all(&other), all(&heir)), (vec![], vec![1]));
        drop(heir);
        assert_eq!(all(&open()), [2], "not tidied, so it comes again");
    }

    #[test]
    fn a_line_that_cannot_be_read_takes_no_other_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let lines = [0, 1, 2].map(|id| line::written(&entry(id)).unwrap());
        let mut text = lines.concat();
        text[lines[0].len() + 20] ^= 1;
        std::fs::write(folder.path().join("0.journal"), text).unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        let batch = journal.next().unwrap().unwrap();
        assert_eq!((batch.entries.len(), batch.lost), (2, 1));
        assert_eq!(all(&journal), [0, 2]);
    }

    #[test]
    fn entries_that_cannot_be_written_are_lost_and_later_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage");
        let journal = Journal::open(&path).unwrap();
        std::fs::remove_dir(&path).unwrap();
        journal.append(&entry(1));
        std::fs::create_dir(&path).unwrap();
        journal.append(&entry(2));
        assert_eq!(all(&journal), [2]);
    }

    #[test]
    fn threads_write_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::with_segments(folder.path(), 5000).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let journal = &journal;
                scope.spawn(move || (0..250).for_each(|id| journal.append(&entry(250 * thread + id))));
            }
        });
        let mut ids = all(&journal);
        ids.sort_unstable();
        assert_eq!(ids, (0..1000).collect::<Vec<_>>());
    }
}
