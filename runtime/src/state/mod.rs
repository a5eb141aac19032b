//! What a pipe must remember: a key-value store with compare-and-set, in SQLite, in a folder of its own.
//!
//! Every write is one SQLite transaction with `synchronous = FULL`: after `Ok` it survives a power cut. A folder
//! belongs to one process at a time, held by a file lock that the kernel releases when the process ends in whatever
//! way; a revision on each key catches a second writer that the lock missed (a network file system without locks).
//! The store knows nothing of what it stores: values are JSON documents of [`crate::pipe`]. Each carries a checksum, so
//! that a record that a disk or an editor has changed is reported and never believed. Beside them stand bytes under their
//! digests: plugins and what they were told, for which the database is readable by its account alone.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod lock;
mod schema;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rusqlite::{Connection, OptionalExtension};
#[cfg(test)]
pub(crate) use schema::tests::earlier;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};

/// What a person does about a folder that takes no writes.
const WRITABLE: &str = "check the disk that holds the state folder: full, read-only or damaged; and that the folder \
     belongs to this account";

/// The state folder of one process.
#[derive(Debug)]
pub struct StateStore {
    connection: Mutex<Connection>,
    folder: PathBuf,
    /// Held for as long as the store lives.
    _lock: File,
}

/// A value with the revision that a write of it must name.
#[derive(Clone, Debug)]
pub struct Entry<T> {
    /// The value.
    pub value: T,
    /// 0 for a key that does not exist yet; grows by one with each write.
    pub revision: i64,
}

/// One key's part of an atomic write.
#[derive(Debug)]
pub struct Write {
    key: String,
    value: Option<String>,
    /// None where whatever is there is replaced.
    expected: Option<i64>,
}

impl Write {
    /// Writes `value` under `key`, whose revision must still be `expected`; 0 means that the key must not exist.
    ///
    /// # Errors
    /// When the value does not serialise.
    pub fn put<T: Serialize>(key: impl Into<String>, value: &T, expected: i64) -> Result<Self> {
        let text = serde_json::to_string(value).map_err(|error| {
            Error::new(ErrorKind::Internal, "a state record does not serialise").with_source(error)
        })?;
        Ok(Self {
            key: key.into(),
            value: Some(text),
            expected: Some(expected),
        })
    }

    /// Writes bytes under `key`, whatever was there: for parts that mean nothing until a record names them.
    pub fn bytes(key: impl Into<String>, bytes: &[u8]) -> Self {
        Self {
            key: key.into(),
            value: Some(BASE64.encode(bytes)),
            expected: None,
        }
    }

    /// Removes `key`, whose revision must still be `expected`.
    pub fn delete(key: impl Into<String>, expected: i64) -> Self {
        Self {
            key: key.into(),
            value: None,
            expected: Some(expected),
        }
    }

    /// Whether it removes its key.
    pub fn is_delete(&self) -> bool {
        self.value.is_none()
    }
}

impl StateStore {
    /// Opens the folder, made when absent, and takes its lock.
    ///
    /// # Errors
    /// `Busy` when another process has it, `State` when it cannot be written or is of another version.
    pub fn open(folder: &Path) -> Result<Arc<Self>> {
        let lock = lock::take(folder)?;
        let connection = schema::open(&folder.join("state.sqlite"))?;
        Ok(Arc::new(Self {
            connection: Mutex::new(connection),
            folder: folder.to_owned(),
            _lock: lock,
        }))
    }

    /// The folder, for caches that may live beside the state.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Reads one key.
    ///
    /// # Errors
    /// `State` when the store fails or holds something that is no such record.
    pub async fn get<T: DeserializeOwned>(self: &Arc<Self>, key: &str) -> Result<Option<Entry<T>>> {
        let wanted = key.to_owned();
        let row: Option<(String, i64, u32)> = self
            .run(move |connection| {
                connection
                    .query_row(
                        "SELECT value, revision, checksum FROM entries WHERE key = ?1",
                        [wanted],
                        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
                    )
                    .optional()
            })
            .await?;
        row.map(|(text, revision, checksum)| {
            Ok(Entry {
                value: parse(key, &text, checksum)?,
                revision,
            })
        })
        .transpose()
    }

    /// Reads every key that starts with `prefix`, in key order.
    ///
    /// # Errors
    /// As [`StateStore::get`].
    pub async fn list<T: DeserializeOwned>(
        self: &Arc<Self>,
        prefix: &str,
    ) -> Result<Vec<(String, Entry<T>)>> {
        let wanted = prefix.to_owned();
        let rows: Vec<(String, String, i64, u32)> = self
            .run(move |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT key, value, revision, checksum FROM entries WHERE substr(key, 1, length(?1)) = ?1 ORDER BY key",
                )?;
                let rows = statement.query_map([wanted], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
                rows.collect()
            })
            .await?;
        rows.into_iter()
            .map(|(key, text, revision, checksum)| {
                let value = parse(&key, &text, checksum)?;
                Ok((key, Entry { value, revision }))
            })
            .collect()
    }

    /// Reads what [`Write::bytes`] wrote; none where there is nothing.
    ///
    /// # Errors
    /// As [`StateStore::get`].
    pub async fn bytes(self: &Arc<Self>, key: &str) -> Result<Option<Vec<u8>>> {
        let wanted = key.to_owned();
        let found: Option<(String, u32)> = self
            .run(move |connection| {
                connection
                    .query_row(
                        "SELECT value, checksum FROM entries WHERE key = ?1",
                        [wanted],
                        |row| Ok((row.get(0)?, row.get(1)?)),
                    )
                    .optional()
            })
            .await?;
        let found = found.map(|(text, checksum)| {
            ensure_whole(key, &text, checksum)?;
            BASE64
                .decode(text)
                .map_err(|error| damaged(key).with_source(error))
        });
        found.transpose()
    }

    /// Removes every key that starts with `prefix`.
    ///
    /// # Errors
    /// `State` when the store fails.
    pub async fn remove(self: &Arc<Self>, prefix: &str) -> Result<()> {
        let prefix = prefix.to_owned();
        self.run(move |connection| {
            connection.execute(
                "DELETE FROM entries WHERE substr(key, 1, length(?1)) = ?1",
                [prefix],
            )
        })
        .await
        .map(drop)
    }

    /// Writes all or nothing. After `Ok` the write is on disk.
    ///
    /// # Errors
    /// `Busy` when a key has another revision than expected, which means a second writer; `State` when the store fails.
    pub async fn write(self: &Arc<Self>, writes: Vec<Write>) -> Result<()> {
        let conflict = self
            .run(move |connection| {
                let transaction = connection.transaction()?;
                for write in &writes {
                    if !write.apply(&transaction)? {
                        return Ok(Some(write.key.clone()));
                    }
                }
                transaction.commit()?;
                Ok(None)
            })
            .await?;
        match conflict {
            None => Ok(()),
            Some(key) => Err(Error::new(
                ErrorKind::Busy,
                format!("the state record `{key}` was changed by another process"),
            )
            .with_hint("make sure that one process alone uses the state folder")),
        }
    }

    /// Keeps bytes of a pipe under their digest, unless they are kept already. After `Ok` they are on disk.
    ///
    /// # Errors
    /// `State` when the store fails.
    pub async fn keep(self: &Arc<Self>, pipe: &str, digest: &str, bytes: &[u8]) -> Result<()> {
        let (pipe, digest) = (pipe.to_owned(), digest.to_owned());
        let known = (pipe.clone(), digest.clone());
        let is_kept = self
            .run(move |connection| {
                connection
                    .query_row(
                        "SELECT 1 FROM kept WHERE pipe = ?1 AND digest = ?2",
                        known,
                        |_| Ok(()),
                    )
                    .optional()
            })
            .await?;
        if is_kept.is_some() {
            return Ok(());
        }
        let bytes = bytes.to_vec();
        self.run(move |connection| {
            connection
                .execute(
                    "INSERT OR IGNORE INTO kept (pipe, digest, bytes) VALUES (?1, ?2, ?3)",
                    (pipe, digest, bytes),
                )
                .map(drop)
        })
        .await
    }

    /// The bytes of a pipe that are kept under that digest. Whoever reads them sees that they still have it.
    ///
    /// # Errors
    /// `State` when the store fails.
    pub async fn kept(self: &Arc<Self>, pipe: &str, digest: &str) -> Result<Option<Vec<u8>>> {
        let key = (pipe.to_owned(), digest.to_owned());
        self.run(move |connection| {
            connection
                .query_row(
                    "SELECT bytes FROM kept WHERE pipe = ?1 AND digest = ?2",
                    key,
                    |row| row.get(0),
                )
                .optional()
        })
        .await
    }

    /// Forgets all bytes of a pipe but those under these digests.
    ///
    /// # Errors
    /// `State` when the store fails.
    pub async fn forget_except(
        self: &Arc<Self>,
        pipe: &str,
        wanted: BTreeSet<String>,
    ) -> Result<()> {
        let pipe = pipe.to_owned();
        self.run(move |connection| {
            let transaction = connection.transaction()?;
            let mut read = transaction.prepare_cached("SELECT digest FROM kept WHERE pipe = ?1")?;
            let kept: Vec<String> = read
                .query_map([&pipe], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            drop(read);
            for digest in kept.iter().filter(|digest| !wanted.contains(*digest)) {
                transaction.execute(
                    "DELETE FROM kept WHERE pipe = ?1 AND digest = ?2",
                    (&pipe, digest),
                )?;
            }
            transaction.commit()
        })
        .await
    }

    /// Moves the newest writes, which until then stand in a file beside it, into the database itself. For the end of a
    /// process: whether every task that holds the store is gone before it ends is left to chance.
    ///
    /// # Errors
    /// `State` when the disk does not take it; then they stay where they are, and nothing is lost.
    pub async fn gather(self: &Arc<Self>) -> Result<()> {
        self.run(|connection| {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        })
        .await
    }

    /// SQLite waits for the disk, so it never runs on a thread that drives other tasks.
    async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&mut store.lock()))
            .await
            .map_err(|error| {
                Error::new(ErrorKind::Internal, "a state query panicked").with_source(error)
            })?
            .map_err(|error| {
                Error::new(ErrorKind::State, "the state store failed")
                    .with_hint(WRITABLE)
                    .with_source(error)
            })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic inside a query leaves SQLite's transaction rolled back: the connection is still good.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write {
    fn apply(&self, transaction: &rusqlite::Transaction<'_>) -> rusqlite::Result<bool> {
        let changed = match (&self.value, self.expected) {
            (Some(value), None) => transaction.execute(
                "INSERT INTO entries (key, value, revision, checksum) VALUES (?1, ?2, 1, ?3) \
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = revision + 1, \
                 checksum = excluded.checksum",
                (&self.key, value, schema::checksum(&self.key, value)),
            )?,
            (None, None) => 1,
            (Some(value), Some(0)) => transaction.execute(
                "INSERT INTO entries (key, value, revision, checksum) VALUES (?1, ?2, 1, ?3) ON CONFLICT (key) DO NOTHING",
                (&self.key, value, schema::checksum(&self.key, value)),
            )?,
            (Some(value), Some(expected)) => transaction.execute(
                "UPDATE entries SET value = ?2, revision = revision + 1, checksum = ?4 WHERE key = ?1 AND revision = ?3",
                (&self.key, value, expected, schema::checksum(&self.key, value)),
            )?,
            (None, Some(expected)) => transaction
                .execute("DELETE FROM entries WHERE key = ?1 AND revision = ?2", (&self.key, expected))?,
        };
        Ok(changed == 1)
    }
}

fn parse<T: DeserializeOwned>(key: &str, text: &str, checksum: u32) -> Result<T> {
    ensure_whole(key, text, checksum)?;
    serde_json::from_str(text).map_err(|error| damaged(key).with_source(error))
}

fn ensure_whole(key: &str, text: &str, checksum: u32) -> Result<()> {
    if schema::checksum(key, text) == checksum {
        return Ok(());
    }
    Err(damaged(key).with_source("its checksum does not fit"))
}

fn damaged(key: &str) -> Error {
    Error::new(
        ErrorKind::State,
        format!("the state record `{key}` is damaged"),
    )
    .with_hint(schema::RESTORE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_write_is_all_or_nothing_and_a_stale_revision_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = StateStore::open(folder.path()).expect("an empty folder opens");
        store
            .write(vec![
                Write::put("a", &1, 0).expect("a number"),
                Write::put("b", &2, 0).expect("a number"),
            ])
            .await
            .expect("both are new");
        let stale = vec![
            Write::put("a", &10, 1).expect("a number"),
            Write::put("b", &20, 7).expect("a number"),
        ];
        assert_eq!(
            store
                .write(stale)
                .await
                .expect_err("b has revision 1")
                .kind(),
            ErrorKind::Busy
        );
        let a: Entry<i32> = store.get("a").await.expect("readable").expect("written");
        assert_eq!(
            (a.value, a.revision),
            (1, 1),
            "the failed write left nothing behind"
        );
    }

    #[tokio::test]
    async fn bytes_are_replaced_and_removed_by_their_prefix() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = StateStore::open(folder.path()).expect("opens");
        let bytes: Vec<u8> = (0..=255).collect();
        for part in [&b"before"[..], &bytes] {
            store
                .write(vec![Write::bytes("rows/a/1", part)])
                .await
                .expect("written");
        }
        store
            .write(vec![Write::bytes("rows/ab/1", b"other")])
            .await
            .expect("written");
        assert_eq!(store.bytes("rows/a/1").await.expect("read"), Some(bytes));
        store.remove("rows/a/").await.expect("removed");
        assert_eq!(store.bytes("rows/a/1").await.expect("read"), None);
        let other = store.bytes("rows/ab/1").await.expect("read");
        assert_eq!(other.as_deref(), Some(&b"other"[..]));
    }

    #[tokio::test]
    async fn a_folder_in_use_is_refused_and_a_reopened_one_has_what_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = StateStore::open(folder.path()).expect("opens");
        assert_eq!(
            StateStore::open(folder.path()).expect_err("held").kind(),
            ErrorKind::Busy
        );
        store
            .write(vec![Write::put("pipe/x/1", &"one", 0).expect("text")])
            .await
            .expect("written");
        drop(store);
        let store = StateStore::open(folder.path()).expect("opens again");
        let found: Vec<(String, Entry<String>)> = store.list("pipe/x/").await.expect("listed");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1.value, "one");
    }

    #[test]
    fn a_folder_of_another_version_is_refused_by_number() {
        let folder = tempfile::tempdir().expect("a folder");
        let connection = Connection::open(folder.path().join("state.sqlite")).expect("a database");
        connection
            .pragma_update(None, "user_version", 99)
            .expect("set");
        drop(connection);
        let error = StateStore::open(folder.path()).expect_err("a later version");
        assert!(error.message().contains("99"), "{error:?}");
    }

    #[tokio::test]
    async fn a_changed_record_is_reported_and_not_believed() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = StateStore::open(folder.path()).expect("opens");
        let put = Write::put("pipe/x", &"offset 100", 0).expect("text");
        store.write(vec![put]).await.expect("written");
        drop(store);
        let connection = Connection::open(folder.path().join("state.sqlite")).expect("a database");
        connection
            .execute("UPDATE entries SET value = '\"offset 900\"'", [])
            .expect("changed behind the store's back");
        drop(connection);
        let store = StateStore::open(folder.path()).expect("opens");
        let error = store.get::<String>("pipe/x").await.expect_err("damaged");
        assert_eq!(error.kind(), ErrorKind::State);
        assert!(error.message().contains("pipe/x"), "{error:?}");
        assert!(error.hint().is_some_and(|hint| hint.contains("backup")));
    }

    #[tokio::test]
    async fn bytes_are_kept_for_each_pipe_until_they_are_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = StateStore::open(folder.path()).expect("opens");
        for (pipe, digest, bytes) in [
            ("a", "1", b"one"),
            ("a", "2", b"two"),
            ("a", "2", b"not"),
            ("b", "1", b"one"),
        ] {
            store.keep(pipe, digest, bytes).await.expect("kept");
        }
        let kept = async |pipe, digest| store.kept(pipe, digest).await.expect("readable");
        assert_eq!(kept("a", "2").await.as_deref(), Some(&b"two"[..]));
        let wanted = BTreeSet::from(["2".to_owned()]);
        store.forget_except("a", wanted).await.expect("forgotten");
        assert_eq!(kept("a", "1").await, None);
        assert!(kept("a", "2").await.is_some() && kept("b", "1").await.is_some());
    }

    #[cfg(unix)]
    #[test]
    fn the_database_is_readable_by_its_account_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let _store = StateStore::open(folder.path()).expect("opens");
        for name in ["state.sqlite", "state.sqlite-wal"] {
            let found = std::fs::metadata(folder.path().join(name)).expect("it is there");
            assert_eq!(found.permissions().mode() & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_file_that_is_no_database_is_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(
            folder.path().join("state.sqlite"),
            "no database ".repeat(500),
        )
        .expect("written");
        let error = StateStore::open(folder.path()).expect_err("damaged");
        assert_eq!(error.kind(), ErrorKind::State);
        assert!(
            error.hint().is_some_and(|hint| hint.contains("backup")),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn a_copy_of_the_folder_is_as_good_as_the_folder() {
        let (folder, copy) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("another"),
        );
        let store = StateStore::open(folder.path()).expect("opens");
        let put = Write::put("a", &7, 0).expect("a number");
        store.write(vec![put]).await.expect("written");
        drop(store);
        for entry in std::fs::read_dir(folder.path()).expect("listed") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name");
            std::fs::copy(&path, copy.path().join(name)).expect("copied");
        }
        let store = StateStore::open(copy.path()).expect("the copy opens");
        let a: Entry<i32> = store.get("a").await.expect("readable").expect("there");
        assert_eq!((a.value, a.revision), (7, 1));
    }
}
