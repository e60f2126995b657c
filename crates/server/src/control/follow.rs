//! Following the store: what this process or another one has changed is read again, one thing at a time.

use std::sync::Arc;

use super::{ControlPlane, Directory, FOLLOW, Record};
use crate::store::{Changed, Changes, StoreError, Subject};

impl ControlPlane {
    /// Reads what has changed since the last time; everything, at the first.
    ///
    /// # Errors
    /// Where the store fails; what was read before that stands, and the next call goes on from there.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        // One at a time, so that an older state never comes after a newer one.
        let mut revision = self.inner.revision.lock().await;
        let changes = match *revision {
            ..0 => Changes::TooMany,
            seen => self.store().changes_since(seen).await?,
        };
        match changes {
            Changes::Of(changed, upto) => {
                let mut seen = std::collections::HashSet::new();
                for one in &changed {
                    // It is read as it is now, so once is enough.
                    if seen.insert(one) {
                        self.read(one).await?;
                    }
                }
                *revision = upto;
            }
            Changes::TooMany => {
                // Before the reading: what changes meanwhile is read twice.
                let upto = self.store().revision().await?;
                self.read_all().await?;
                *revision = upto;
            }
        }
        Ok(())
    }

    /// Keeps this process as the store is, for ever.
    pub async fn follow(&self) {
        let mut ticks = tokio::time::interval(FOLLOW);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            ticks.tick().await;
            match self.catch_up().await {
                Ok(()) => failing = false,
                // Told once: what is in memory goes on being right.
                Err(_) if failing => {}
                Err(error) => {
                    failing = true;
                    tracing::error!(%error, "the store cannot be read; this server goes on with what it knows");
                }
            }
        }
    }

    async fn read_all(&self) -> Result<(), StoreError> {
        let directory = Directory::load(self.store()).await?;
        *self.gate().directory_mut() = directory;
        let rows = self.store().endpoints().await?;
        let records: Vec<Record> = rows.iter().map(Record::of).collect::<Result<_, _>>()?;
        let gone: Vec<String> =
            self.records().keys().filter(|id| !records.iter().any(|record| record.id == **id)).cloned().collect();
        gone.iter().for_each(|id| self.forget(id));
        records.into_iter().for_each(|record| self.know(record));
        Ok(())
    }

    /// Takes in an endpoint as it is now.
    fn know(&self, record: Record) {
        let record = Arc::new(record);
        let before = self.records_mut().insert(record.id.clone(), Arc::clone(&record));
        if before.is_none_or(|before| before.document != record.document) {
            self.deploy(&record);
        }
    }

    fn forget(&self, id: &str) {
        if let Some(record) = self.records_mut().remove(id) {
            self.gate().registry().remove(&record.name);
            self.inner.deployments.remove(id);
        }
    }

    async fn read(&self, changed: &Changed) -> Result<(), StoreError> {
        let (store, id) = (self.store(), changed.id.as_str());
        match changed.subject {
            Subject::Principal => {
                let row = store.principal(id).await?;
                let members = store.members(Some(id)).await?.into_iter().map(|(_, member)| member).collect();
                let mut directory = self.gate().directory_mut();
                match row {
                    Some(row) => directory.put_principal(row, members),
                    None => directory.remove_principal(id),
                }
            }
            Subject::Token => {
                let row = store.token(id).await?;
                let mut directory = self.gate().directory_mut();
                directory.remove_token(id);
                if let Some(row) = row {
                    directory.put_token(row)?;
                }
            }
            Subject::Grants => {
                let rows = store.grants(Some(id)).await?;
                self.gate().directory_mut().set_grants(id, rows)?;
            }
            Subject::Endpoint => match store.endpoint(id).await? {
                Some(row) => self.know(Record::of(&row)?),
                None => self.forget(id),
            },
            Subject::Scope => {}
        }
        Ok(())
    }
}
