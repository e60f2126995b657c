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

/// Moves entries from a journal into a store.
pub struct Ingest {
    journal: Journal,
    store: Store,
    kept: Option<Duration>,
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
    /// From `journal` into `store`, where entries are `kept` for so long; for ever without a time.
    pub fn new(journal: Journal, store: Store, kept: Option<Duration>) -> Self {
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
        let Some(kept) = self.kept.filter(|_| removed.is_none_or(|removed| removed.elapsed() >= REMOVE)) else {
            return Ok(());
        };
        let kept = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
        self.store.remove_usage(now().saturating_sub(kept)).await?;
        *removed = Some(Instant::now());
        Ok(())
    }

    /// Moves a batch; says whether there was one.
    async fn advance(&self) -> Result<bool, IngestError> {
        let Some(batch) = self.blocking(Journal::next).await? else { return Ok(false) };
        self.store.add_usage(&batch.entries).await?;
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
