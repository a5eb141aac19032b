//! Whether the source's binlog is the one that was read before (pitfall 60).
//!
//! RESET, and a data folder that is put back from a backup, give GTIDs out anew under the same identity. Once as many
//! have been given out as were read, no set tells the new ones from the old; when a file was begun does.

use serde::{Deserialize, Serialize};

use super::event::code;
use super::stream::StreamOptions;
use super::transport::Transport;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::position::{Position, split_file_name};
use crate::source::mysql::wire::{ServerError, WireConn};
use crate::source::mysql::{ServerIdentity, Source};

/// A binlog file, as its server has begun it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BegunFile {
    /// The server that writes it.
    pub server: ServerIdentity,
    /// Its name.
    pub name: String,
    /// The timestamp of its format event.
    pub created: u32,
}

impl BegunFile {
    /// Whether this file comes behind `other`; none of another server or another base name does.
    pub fn is_behind(&self, other: &BegunFile) -> bool {
        self.server == other.server && is_behind(&self.name, &other.name)
    }

    /// Refuses a file of that name that was begun at another time.
    ///
    /// # Errors
    /// `SourceDiverged`.
    pub fn ensure_same(&self, other: &BegunFile) -> Result<()> {
        let same_name = self.server == other.server && self.name == other.name;
        match same_name && self.created != other.created {
            true => Err(made_anew(&format!(
                "its file `{}` is not the one that was read under that name",
                self.name
            ))),
            false => Ok(()),
        }
    }
}

fn is_behind(name: &str, other: &str) -> bool {
    match (split_file_name(name), split_file_name(other)) {
        (Some((base, number)), Some((other_base, other_number))) => {
            base == other_base && number > other_number
        }
        _ => false,
    }
}

fn made_anew(proof: &str) -> Error {
    Error::new(
        ErrorKind::SourceDiverged,
        format!("the source's binlog was begun anew: {proof}"),
    )
    .with_hint(
        "RESET was run, or data was put back from a backup: GTIDs that were read stand for other transactions now; resync \
         the pipe",
    )
}

/// The names of the server's binlog files, oldest first; none where the account may not ask.
pub(super) async fn file_names(conn: &mut WireConn) -> Result<Vec<String>> {
    match conn.query_text("SHOW BINARY LOGS").await {
        Ok(rows) => Ok(rows
            .into_iter()
            .filter_map(|row| row.into_iter().next().flatten())
            .map(|name| String::from_utf8_lossy(&name).into_owned())
            .collect()),
        Err(error) if ServerError::of(&error).is_some() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Proves that the binlog goes on from the one that held `known`. A file that was purged meanwhile proves nothing, but
/// for one that the server has not got to yet.
///
/// # Errors
/// `SourceDiverged` where it does not; as [`super::BinlogStream::open`].
pub async fn ensure_unbroken(
    source: &Source,
    known: Option<&BegunFile>,
    options: &StreamOptions,
) -> Result<()> {
    let is_its_own = |known: &&BegunFile| known.server == *source.identity();
    let Some(known) = known.filter(is_its_own).filter(|_| source.is_told_apart()) else {
        return Ok(());
    };
    let mut conn = WireConn::connect(source.config()).await?;
    let names = file_names(&mut conn).await?;
    conn.quit().await;
    if names.contains(&known.name) {
        let created = created(source, known, options).await?;
        return known.ensure_same(&BegunFile {
            created: created.unwrap_or(known.created),
            ..known.clone()
        });
    }
    match names.last() {
        Some(newest) if is_behind(&known.name, newest) => Err(made_anew(&format!(
            "it ends with `{newest}`, and `{}` was read before",
            known.name
        ))),
        _ => Ok(()),
    }
}

/// When the file of that name was begun.
async fn created(
    source: &Source,
    file: &BegunFile,
    options: &StreamOptions,
) -> Result<Option<u32>> {
    let start = Position::File {
        server: file.server.clone(),
        file: file.name.clone(),
        offset: 4,
        created: 0,
    };
    let mut opening = Transport::open(source, &start, options).await?;
    loop {
        let event = match opening.transport.next().await {
            // Purged since it was listed.
            Err(error) if error.kind() == ErrorKind::PositionPurged => return Ok(None),
            event => event?,
        };
        if event.kind == code::FORMAT_DESCRIPTION {
            return Ok(Some(event.timestamp).filter(|at| *at != 0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(server: &str, name: &str, created: u32) -> BegunFile {
        BegunFile {
            server: ServerIdentity(server.into()),
            name: name.into(),
            created,
        }
    }

    #[test]
    fn files_of_one_server_and_base_follow_each_other_by_number() {
        let known = file("a", "binlog.000009", 1);
        assert!(file("a", "binlog.000010", 1).is_behind(&known));
        assert!(!file("a", "binlog.000009", 2).is_behind(&known));
        assert!(!file("b", "binlog.000010", 1).is_behind(&known));
        assert!(!file("a", "mysqld-bin.000010", 1).is_behind(&known));
    }

    #[test]
    fn a_file_that_was_begun_at_another_time_is_another_one() {
        let known = file("a", "binlog.000009", 1);
        let error = known
            .ensure_same(&file("a", "binlog.000009", 2))
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SourceDiverged);
        known.ensure_same(&file("a", "binlog.000009", 1)).unwrap();
        known.ensure_same(&file("b", "binlog.000009", 2)).unwrap();
    }
}
