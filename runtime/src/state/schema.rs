//! The tables of the state database, by version: how they are made, and how those of an earlier version become them.
//!
//! Before a folder is taken from one version to the next, the database as it was is kept beside it. Each step is one
//! transaction, so a crash leaves the one version or the other. A later version than this program's is refused, never
//! guessed at.

use std::path::Path;

use rusqlite::{Connection, Transaction};

use crate::error::{Error, ErrorKind, Result};

/// The version that this program reads and writes.
const VERSION: i64 = 3;

/// What a person does about a state that cannot be used.
pub(super) const RESTORE: &str =
    "restore the state folder from a backup, or start with an empty one and empty target tables";

/// The steps from version 1 on, in order.
const STEPS: [fn(&Transaction<'_>) -> rusqlite::Result<()>; 2] = [add_checksums, add_kept];

const KEPT: &str = "CREATE TABLE kept (pipe TEXT NOT NULL, digest TEXT NOT NULL, bytes BLOB NOT NULL, \
     PRIMARY KEY (pipe, digest)) STRICT";

/// The checksum of a record: a value under another key is damage as well.
pub(super) fn checksum(key: &str, value: &str) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key.as_bytes());
    hasher.update(&[0]);
    hasher.update(value.as_bytes());
    hasher.finalize()
}

/// Opens the database, made when absent, in the present version.
///
/// # Errors
/// `State` for a database that is damaged, cannot be written, or is of a later version.
pub(super) fn open(path: &Path) -> Result<Connection> {
    let failed = |error: rusqlite::Error| {
        Error::new(
            ErrorKind::State,
            format!("cannot open the state database `{}`", path.display()),
        )
        .with_hint(hint_for(&error))
        .with_source(error)
    };
    restrict(path).map_err(|error| {
        Error::new(
            ErrorKind::State,
            format!("cannot open the state database `{}`", path.display()),
        )
        .with_hint(super::WRITABLE)
        .with_source(error)
    })?;
    let mut connection = Connection::open(path).map_err(failed)?;
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .map_err(failed)?;
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(failed)?;
    let found: String = connection
        .pragma_query_value(None, "quick_check", |row| row.get(0))
        .map_err(failed)?;
    if found != "ok" {
        return Err(Error::new(
            ErrorKind::State,
            format!(
                "the state database `{}` is damaged: {found}",
                path.display()
            ),
        )
        .with_hint(RESTORE));
    }
    let version: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed)?;
    match version {
        0 => create(&mut connection).map_err(failed)?,
        VERSION => {}
        earlier if (1..VERSION).contains(&earlier) => {
            migrate(&mut connection, earlier, path).map_err(failed)?;
        }
        other => {
            return Err(Error::new(
                ErrorKind::State,
                format!(
                    "the state folder has version {other}; this program reads version {VERSION}"
                ),
            )
            .with_hint("run the program version that wrote it"));
        }
    }
    Ok(connection)
}

/// Plugins may be told secrets. SQLite gives its other files the database's own permissions.
#[cfg(unix)]
fn restrict(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let mut options = std::fs::OpenOptions::new();
    let file = options.append(true).create(true).mode(0o600).open(path)?;
    let mut permissions = file.metadata()?.permissions();
    if permissions.mode() & 0o077 != 0 {
        permissions.set_mode(permissions.mode() & !0o077);
        file.set_permissions(permissions)?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn restrict(_: &Path) -> std::io::Result<()> {
    Ok(())
}

/// A folder or disk that takes no writes is mended, not restored.
fn hint_for(error: &rusqlite::Error) -> &'static str {
    use rusqlite::ErrorCode as Code;
    match error.sqlite_error_code() {
        Some(
            Code::ReadOnly
            | Code::CannotOpen
            | Code::PermissionDenied
            | Code::DiskFull
            | Code::SystemIoFailure,
        ) => super::WRITABLE,
        _ => RESTORE,
    }
}

fn create(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(
        "CREATE TABLE entries (key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL, \
         checksum INTEGER NOT NULL) STRICT",
    )?;
    transaction.execute_batch(KEPT)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

fn migrate(connection: &mut Connection, from: i64, path: &Path) -> rusqlite::Result<()> {
    let kept = path.with_extension(format!("v{from}.sqlite"));
    if !kept.exists() {
        keep(connection, &kept)?;
    }
    for (version, step) in (1..VERSION)
        .zip(STEPS)
        .filter(|(version, _)| *version >= from)
    {
        let transaction = connection.transaction()?;
        step(&transaction)?;
        transaction.pragma_update(None, "user_version", version + 1)?;
        transaction.commit()?;
        tracing::info!(
            from = version,
            to = version + 1,
            "the state folder is of the next version"
        );
    }
    Ok(())
}

/// Copies the database, whole or not at all, and readable for nobody else.
fn keep(connection: &Connection, kept: &Path) -> rusqlite::Result<()> {
    let begun = kept.with_extension("part");
    let failed = |error: std::io::Error| {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR);
        rusqlite::Error::SqliteFailure(code, Some(format!("{}: {error}", kept.display())))
    };
    match std::fs::remove_file(&begun) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    // SQLite takes an empty file, with the permissions that it has.
    restrict(&begun).map_err(failed)?;
    connection.execute("VACUUM INTO ?1", [begun.display().to_string()])?;
    let copied = std::fs::File::open(&begun).and_then(|file| file.sync_all());
    copied
        .and_then(|()| std::fs::rename(&begun, kept))
        .map_err(failed)
}

/// Version 2: each record has a checksum.
fn add_checksums(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction
        .execute_batch("ALTER TABLE entries ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0")?;
    let mut read = transaction.prepare("SELECT key, value FROM entries")?;
    let mut write = transaction.prepare("UPDATE entries SET checksum = ?2 WHERE key = ?1")?;
    let mut rows = read.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (key, value): (String, String) = (row.get(0)?, row.get(1)?);
        found.push((checksum(&key, &value), key));
    }
    for (checksum, key) in found {
        write.execute((key, checksum))?;
    }
    Ok(())
}

/// Version 3: bytes under their digests. A table's record may also name further targets, which a program of version 2 would
/// lose; records without any stay as they are.
fn add_kept(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute_batch(KEPT)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{Entry, StateStore};
    use super::*;

    /// State folders as earlier versions of the store left them.
    const VERSIONS: [(i64, &str); 2] = [
        (1, include_str!("testdata/version_1.sql")),
        (2, include_str!("testdata/version_2.sql")),
    ];

    /// A folder of each earlier version.
    pub(crate) fn earlier() -> Vec<(i64, tempfile::TempDir)> {
        let folders = VERSIONS.iter().map(|(version, text)| {
            let folder = tempfile::tempdir().expect("a folder");
            let connection = Connection::open(folder.path().join("state.sqlite"));
            let connection = connection.expect("a database");
            connection.execute_batch(text).expect("the fixture");
            (*version, folder)
        });
        folders.collect()
    }

    #[test]
    fn a_disk_that_fails_is_no_reason_to_give_the_state_up() {
        use rusqlite::ffi;
        let hint = |code| hint_for(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        for code in [
            ffi::SQLITE_FULL,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_IOERR_WRITE,
            ffi::SQLITE_CANTOPEN,
        ] {
            assert_eq!(hint(code), super::super::WRITABLE, "{code}");
        }
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB] {
            assert_eq!(hint(code), RESTORE, "{code}");
        }
    }

    #[tokio::test]
    async fn a_folder_of_an_earlier_version_opens_and_is_kept() {
        for (version, folder) in earlier() {
            opens_and_is_kept(version, &folder).await;
        }
    }

    async fn opens_and_is_kept(version: i64, folder: &tempfile::TempDir) {
        let path = folder.path().join("state.sqlite");
        let connection = Connection::open(&path).expect("a database");
        let count = |connection: &Connection| -> i64 {
            connection
                .query_row("SELECT count(*) FROM entries", [], |row| row.get(0))
                .expect("counted")
        };
        let entries = count(&connection);
        assert!(entries > 3, "an empty fixture shows nothing");
        drop(connection);
        for _ in 0..2 {
            let store = StateStore::open(folder.path()).expect("it opens");
            let all: Vec<(String, Entry<serde_json::Value>)> =
                store.list("").await.expect("every record is whole");
            assert_eq!(all.len() as i64, entries);
            store.keep("p", "d", b"bytes").await.expect("kept");
        }
        let kept = folder.path().join(format!("state.v{version}.sqlite"));
        let kept = Connection::open(kept).expect("what was is kept");
        assert_eq!(count(&kept), entries);
    }
}
