//! How far a table was read beside the stream, recorded before what was read is written.
//!
//! Rows of a load, and rows that complete partial images, show what the source had committed when they were read, which may
//! be far ahead of the stream. A source that loses some of that, or one that takes over without it, has no event that
//! would take it back. What was recorded tells ([`super::strayed`]).

use tokio::sync::Mutex;

use super::record::TableRecord;
use super::store::PipeStore;
use crate::batch::TableName;
use crate::error::Result;
use crate::source::mysql::Source;
use crate::source::mysql::position::Position;
use crate::source::mysql::snapshot::Reach;

/// Opened before the first of the SELECTs that it speaks of.
#[derive(Debug)]
pub(super) struct Reaching(Option<Mutex<Reach>>);

/// What of a table was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Rows of its load.
    Load,
    /// Rows that complete images.
    Images,
}

impl Reaching {
    /// Asks nobody: rows of an interrupted load that reads one moment never count.
    pub(super) const NOT: Self = Self(None);

    /// # Errors
    /// As [`Reach::open`].
    pub(super) async fn open(source: &Source) -> Result<Self> {
        Ok(Self(Reach::open(source).await?.map(Mutex::new)))
    }

    /// Whether the session still stands.
    pub(super) async fn stands(&self) -> bool {
        match &self.0 {
            None => true,
            Some(reach) => reach.lock().await.now().await.is_ok(),
        }
    }

    /// Records that everything which has been read of the table by now may be at the destination.
    ///
    /// # Errors
    /// A broken connection: then what was read is not to be written. When the store fails.
    pub(super) async fn record(
        &self,
        store: &PipeStore,
        name: &TableName,
        read: Read,
    ) -> Result<()> {
        let Some(reach) = &self.0 else {
            return Ok(());
        };
        // Held until it is recorded, so that no older place comes behind a newer one.
        let mut reach = reach.lock().await;
        let now = reach.now().await?;
        store
            .commit(|draft| {
                let known = read.place_in(draft.table_mut(name));
                *known = Some(farther(known.take(), now));
                Ok(())
            })
            .await
    }
}

/// What was read by either. A server that has lost some of what is known does not make it unread.
fn farther(known: Option<Position>, now: Position) -> Position {
    known.and_then(|known| known.join(&now)).unwrap_or(now)
}

impl Read {
    fn place_in(self, table: &mut TableRecord) -> &mut Option<Position> {
        match self {
            Read::Load => &mut table.load_reach,
            Read::Images => &mut table.image_reach,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_stays_known_where_the_server_has_lost_some_of_it() {
        const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let place = |numbers: &str| Position::Gtid {
            set: format!("{SERVER}:{numbers}").parse().expect("a set"),
        };
        assert_eq!(farther(None, place("1-5")), place("1-5"));
        assert_eq!(farther(Some(place("1-5")), place("1-8")), place("1-8"));
        assert_eq!(farther(Some(place("1-8")), place("1-5")), place("1-8"));
        assert_eq!(farther(Some(place("1-5")), place("1-3:9")), place("1-5:9"));
    }
}
