//! The order of changes: each takes a number, and whoever follows the numbers sees every one.

use sqlx::{Any, AnyConnection, Transaction, query, query_as, query_scalar};

use super::{Store, StoreError};

/// How many changes are kept for those who follow; whoever is further behind reads everything again.
const KEPT: i64 = 10_000;

/// What a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A user, a service principal or a group, with its members.
    Principal,
    /// A token.
    Token,
    /// An endpoint.
    Endpoint,
    /// The grants on an endpoint.
    Grants,
    /// A scope of secrets, with its secrets and ACLs.
    Scope,
}

const SUBJECTS: [(Subject, &str); 5] = [
    (Subject::Principal, "principal"),
    (Subject::Token, "token"),
    (Subject::Endpoint, "endpoint"),
    (Subject::Grants, "grants"),
    (Subject::Scope, "scope"),
];

impl Subject {
    fn name(self) -> &'static str {
        SUBJECTS.iter().find(|(subject, _)| *subject == self).map_or("", |(_, name)| name)
    }
}

/// One thing that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Changed {
    /// What kind of thing.
    pub subject: Subject,
    /// Which one.
    pub id: String,
}

/// What has changed since a revision.
#[derive(Debug, PartialEq, Eq)]
pub enum Changes {
    /// These things, oldest first, up to this revision.
    Of(Vec<Changed>, i64),
    /// More than is kept: everything is to be read again.
    TooMany,
}

/// A change that is being made. Changes are made one at a time, whichever process makes them; dropping one undoes it.
pub struct Change {
    transaction: Transaction<'static, Any>,
}

impl Store {
    /// Begins a change; waits until those before it are done.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn change(&self) -> Result<Change, StoreError> {
        let begin = if self.is_file { "BEGIN IMMEDIATE" } else { "BEGIN" };
        let mut transaction = self.pool.begin_with(begin).await?;
        // The row stays locked until the end, so that numbers are given in the order in which changes become visible.
        query("UPDATE revision SET value = value WHERE singleton = 1").execute(&mut *transaction).await?;
        Ok(Change { transaction })
    }

    /// The revision of the last change.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn revision(&self) -> Result<i64, StoreError> {
        Ok(query_scalar("SELECT value FROM revision WHERE singleton = 1").fetch_one(&self.pool).await?)
    }

    /// What has changed since `revision`.
    ///
    /// # Errors
    /// Where the store fails.
    pub async fn changes_since(&self, revision: i64) -> Result<Changes, StoreError> {
        let latest = self.revision().await?;
        if latest == revision {
            return Ok(Changes::Of(Vec::new(), revision));
        }
        let first: Option<i64> = query_scalar("SELECT MIN(revision) FROM changes").fetch_one(&self.pool).await?;
        if latest < revision || first.is_some_and(|first| first > revision + 1) {
            return Ok(Changes::TooMany);
        }
        let rows: Vec<(i64, String, String)> =
            query_as("SELECT revision, subject, id FROM changes WHERE revision > $1 ORDER BY revision")
                .bind(revision)
                .fetch_all(&self.pool)
                .await?;
        let upto = rows.last().map_or(latest, |(revision, ..)| latest.max(*revision));
        let changed = rows.into_iter().map(|(_, name, id)| {
            let known = SUBJECTS.iter().find(|(_, known)| *known == name).map(|(subject, _)| *subject);
            let subject = known.ok_or(StoreError::Unknown { what: "a change of", value: name })?;
            Ok(Changed { subject, id })
        });
        Ok(Changes::Of(changed.collect::<Result<_, StoreError>>()?, upto))
    }
}

impl Change {
    pub(super) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }

    /// Tells those who follow that this is not as it was.
    pub(super) async fn note(&mut self, subject: Subject, id: &str) -> Result<(), StoreError> {
        let next = query_scalar("UPDATE revision SET value = value + 1 WHERE singleton = 1 RETURNING value");
        let revision: i64 = next.fetch_one(self.connection()).await?;
        query("INSERT INTO changes (revision, subject, id) VALUES ($1, $2, $3)")
            .bind(revision)
            .bind(subject.name())
            .bind(id)
            .execute(self.connection())
            .await?;
        query("DELETE FROM changes WHERE revision <= $1").bind(revision - KEPT).execute(self.connection()).await?;
        Ok(())
    }

    /// Makes the change last.
    ///
    /// # Errors
    /// Where the store fails; nothing is changed then.
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.transaction.commit().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PrincipalKind, PrincipalRow};
    use super::*;

    async fn add(store: &Store, name: &str) -> String {
        let mut change = store.change().await.unwrap();
        let user = PrincipalRow::new(PrincipalKind::User, name, name);
        change.put_principal(&user).await.unwrap();
        change.commit().await.unwrap();
        user.id
    }

    #[tokio::test]
    async fn whoever_follows_sees_every_change_once_and_what_was_undone_never() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::temporary(folder.path()).await;
        let begun = store.revision().await.unwrap();
        let ids = [add(&store, "a@x.org").await, add(&store, "b@x.org").await];
        let mut undone = store.change().await.unwrap();
        undone.put_principal(&PrincipalRow::new(PrincipalKind::User, "c@x.org", "c")).await.unwrap();
        drop(undone);
        let Changes::Of(changed, upto) = store.changes_since(begun).await.unwrap() else { panic!("too many") };
        assert_eq!(changed.iter().map(|one| one.id.clone()).collect::<Vec<_>>(), ids);
        assert_eq!(store.changes_since(upto).await.unwrap(), Changes::Of(Vec::new(), upto));
        let last = add(&store, "d@x.org").await;
        let Changes::Of(changed, _) = store.changes_since(upto).await.unwrap() else { panic!("too many") };
        assert_eq!(changed, [Changed { subject: Subject::Principal, id: last }]);
    }

    #[tokio::test]
    async fn whoever_is_too_far_behind_reads_everything() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::temporary(folder.path()).await;
        let begun = store.revision().await.unwrap();
        add(&store, "a@x.org").await;
        add(&store, "b@x.org").await;
        query("DELETE FROM changes WHERE revision = (SELECT MIN(revision) FROM changes)")
            .execute(&store.pool)
            .await
            .unwrap();
        assert_eq!(store.changes_since(begun).await.unwrap(), Changes::TooMany);
    }
}
