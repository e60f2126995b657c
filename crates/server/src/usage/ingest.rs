//! The way from the journal into the store.
//!
//! Owns when entries are moved, what happens while the store does not answer, and how long usage is kept. Entries may come to the
//! store twice and count once, since their keys are unique.

use std::io;
use std::time::{Duration, Instant};

use super::journal::Journal;
use super::{Entry, UsageLog};
use crate::store::{Store, StoreError, now};

/// How often entries are moved.
const EACH: Duration = Duration::from_millis(250);
/// How long a store that fails is left alone at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often it is looked for what others have left behind.
const TAKE_OVER: Duration = Duration::from_secs(5);
/// How often what is too old is removed.
const REMOVE: Duration = Duration::from_secs(3600);
/// Batches that are moved before it is seen to anything else.
const BATCHES: usize = 64;
/// Bytes of a file that is removed when all of it is in the store.
const REMOVED_FILE: u64 = 1 << 20;
/// How long the last entries may take when the server ends. What does not come to the store by then does at the next start.
const LAST_ENTRIES: Duration = Duration::from_secs(5);

/// Moves entries from a journal into a store. A clone is the same one.
#[derive(Clone)]
pub struct Ingest {
    journal: Journal,
    store: Store,
    kept: Retention,
}

/// How long what is in the store stays there; for ever without a time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retention {
    /// Usage.
    pub usage: Option<Duration>,
    /// Rows of inference tables.
    pub payloads: Option<Duration>,
}

/// Why entries stay in the journal.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// Its files cannot be used.
    #[error("the journal of usage: {0}")]
    Journal(#[from] io::Error),
    /// The store does not take them.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Ingest {
    /// From `journal` into `store`, where entries are `kept` for so long.
    pub fn new(journal: Journal, store: Store, kept: Retention) -> Self {
        Self { journal, store, kept }
    }

    /// The log that writes into the journal.
    pub(crate) fn log(&self) -> UsageLog {
        let journal = self.journal.clone();
        UsageLog::new(move |entry: Entry| journal.append(&entry))
    }

    /// Moves entries, for ever. While the store fails they wait in the journal.
    pub async fn run(&self) {
        let (mut pause, mut looked, mut removed) = (EACH, Instant::now(), None);
        loop {
            tokio::time::sleep(pause).await;
            let due = looked.elapsed() >= TAKE_OVER;
            looked = if due { Instant::now() } else { looked };
            match self.turn(due, &mut removed).await {
                Ok(()) if pause > EACH => {
                    tracing::info!("usage goes to the store again");
                    pause = EACH;
                }
                Ok(()) => {}
                Err(error) => {
                    // Told once for as long as it lasts.
                    if pause == EACH {
                        tracing::error!(%error, "usage stays in its journal");
                    }
                    pause = (2 * pause).min(LONGEST_PAUSE);
                    if let Err(error) = self.blocking(Journal::sync).await {
                        tracing::error!(%error, "the journal of usage cannot be brought to the disk");
                    }
                }
            }
        }
    }

    async fn turn(&self, take_over: bool, removed: &mut Option<Instant>) -> Result<(), IngestError> {
        if take_over {
            self.blocking(Journal::take_over).await?;
        }
        for _ in 0..BATCHES {
            if !self.advance().await? {
                break;
            }
        }
        self.blocking(|journal| journal.tidy(REMOVED_FILE)).await?;
        if removed.is_some_and(|removed| removed.elapsed() < REMOVE) {
            return Ok(());
        }
        let before = |kept: Duration| now().saturating_sub(i64::try_from(kept.as_millis()).unwrap_or(i64::MAX));
        if let Some(kept) = self.kept.usage {
            self.store.remove_usage(before(kept)).await?;
        }
        if let Some(kept) = self.kept.payloads {
            self.store.remove_payloads(before(kept)).await?;
        }
        *removed = Some(Instant::now());
        Ok(())
    }

    /// Moves a batch; says whether there was one.
    async fn advance(&self) -> Result<bool, IngestError> {
        let Some(batch) = self.blocking(Journal::next).await? else { return Ok(false) };
        self.store.add_usage(&batch.entries).await?;
        self.store.add_payloads(&batch.entries).await?;
        self.blocking(move |journal| journal.settle(&batch)).await?;
        Ok(true)
    }

    /// Moves all that is there.
    ///
    /// # Errors
    /// Where the journal or the store fails.
    pub async fn drain(&self) -> Result<(), IngestError> {
        while self.advance().await? {}
        Ok(self.blocking(|journal| journal.tidy(0)).await?)
    }

    /// Moves the last entries of a server that ends.
    pub(crate) async fn finish(&self) {
        let outcome = tokio::time::timeout(LAST_ENTRIES, self.drain()).await;
        let problem = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the store takes too long".to_owned(),
        };
        tracing::warn!(problem, "the last usage stays in its journal until the next start");
    }

    /// Something with the journal's files, where it stops nobody.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Journal) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let journal = self.journal.clone();
        tokio::task::spawn_blocking(move || work(&journal)).await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::line;
    use super::*;
    use crate::payloads::Payload;
    use crate::store::{PayloadFilter, StoreLocation, UsageFilter};

    fn entry(id: &str, time: i64) -> Entry {
        Entry { databricks_request_id: id.to_owned(), request_time: time, ..Entry::default() }
    }

    async fn stored(store: &Store) -> Vec<String> {
        let rows = store.usage(&UsageFilter::default(), None, 1000).await.unwrap();
        rows.into_iter().map(|row| row.databricks_request_id).collect()
    }

    #[tokio::test]
    async fn entries_come_to_the_store_once_however_often_they_are_moved() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::temporary(folder.path()).await;
        let journal = Journal::open(&folder.path().join("usage")).unwrap();
        let ingest = Ingest::new(journal.clone(), store.clone(), Retention::default());
        for (number, id) in ["a", "b", "c"].into_iter().enumerate() {
            journal.append(&entry(id, number as i64));
        }
        // The process dies after the store has them and before the journal knows.
        let batch = journal.next().unwrap().unwrap();
        store.add_usage(&batch.entries).await.unwrap();
        ingest.drain().await.unwrap();
        assert_eq!(stored(&store).await, ["c", "b", "a"]);
        assert_eq!(std::fs::read_dir(folder.path().join("usage")).unwrap().count(), 0, "nothing is left to move");
    }

    #[tokio::test]
    async fn a_store_that_fails_only_delays() {
        let folder = tempfile::tempdir().unwrap();
        let file = StoreLocation::File(folder.path().join("hearth.db"));
        let store = Store::open(&file).await.unwrap();
        let journal = Journal::open(&folder.path().join("usage")).unwrap();
        journal.append(&entry("a", 1));
        store.close().await;
        let failing = Ingest::new(journal.clone(), store, Retention::default());
        assert!(matches!(failing.drain().await, Err(IngestError::Store(_))));
        journal.append(&entry("b", 2));
        let store = Store::open(&file).await.unwrap();
        Ingest::new(journal, store.clone(), Retention::default()).drain().await.unwrap();
        assert_eq!(stored(&store).await, ["b", "a"]);
    }

    #[tokio::test]
    async fn what_is_too_old_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::temporary(folder.path()).await;
        let hours = |hours: i64| now() - hours * 3_600_000;
        store.add_usage(&[entry("old", hours(25)), entry("new", hours(23))]).await.unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        let day = Duration::from_secs(24 * 3600);
        Ingest::new(journal.clone(), store.clone(), Retention::default()).turn(false, &mut None).await.unwrap();
        assert_eq!(stored(&store).await, ["new", "old"]);
        let kept = Retention { usage: Some(day), payloads: None };
        Ingest::new(journal, store.clone(), kept).turn(false, &mut None).await.unwrap();
        assert_eq!(stored(&store).await, ["new"]);
    }

    #[tokio::test]
    async fn rows_of_inference_tables_are_kept_for_as_long_as_they_are_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::temporary(folder.path()).await;
        let payload = Some(Box::new(Payload { request: Some("{}".to_owned()), ..Payload::default() }));
        let hours = |id, hours: i64| Entry { payload: payload.clone(), ..entry(id, now() - hours * 3_600_000) };
        let journal = Journal::open(&folder.path().join("usage")).unwrap();
        [hours("old", 25), hours("new", 23)].iter().for_each(|entry| journal.append(entry));
        let kept = async |store: &Store| -> Vec<String> {
            let rows = store.payloads(&PayloadFilter::default(), None, 10).await.unwrap();
            rows.into_iter().map(|row| row.databricks_request_id).collect()
        };
        Ingest::new(journal.clone(), store.clone(), Retention::default()).turn(false, &mut None).await.unwrap();
        assert_eq!(kept(&store).await, ["old", "new"]);
        let day = Some(Duration::from_secs(24 * 3600));
        let retention = Retention { usage: None, payloads: day };
        Ingest::new(journal, store.clone(), retention).turn(false, &mut None).await.unwrap();
        assert_eq!(
            (kept(&store).await, stored(&store).await),
            (vec!["new".to_owned()], vec!["new".into(), "old".into()])
        );
    }

    /// The journal of a process that was killed while it wrote its last line, cut at every byte.
    #[tokio::test]
    async fn of_a_torn_journal_every_whole_line_is_moved_and_nothing_else() {
        let lines: Vec<Vec<u8>> = ["a", "b"].map(|id| line::written(&entry(id, 1)).unwrap()).to_vec();
        let whole = lines.concat();
        for cut in 0..=whole.len() {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("0.journal"), &whole[..cut]).unwrap();
            let expected = usize::from(cut >= lines[0].len()) + usize::from(cut >= whole.len());
            let (journal, entries) = moved(folder.path());
            assert_eq!(entries, ["a", "b"][..expected], "cut at byte {cut}");
            journal.tidy(0).unwrap();
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "cut at byte {cut}");
        }
    }

    fn moved(folder: &Path) -> (Journal, Vec<String>) {
        let (journal, mut ids) = (Journal::open(folder).unwrap(), Vec::new());
        while let Some(batch) = journal.next().unwrap() {
            ids.extend(batch.entries.iter().map(|entry| entry.databricks_request_id.clone()));
            journal.settle(&batch).unwrap();
        }
        (journal, ids)
    }
}
