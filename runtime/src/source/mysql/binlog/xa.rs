//! XA transactions: rows that the binlog shows at PREPARE and readers of the source at COMMIT (pitfall 96).
//!
//! A prepared transaction is a group of its own, and its decision another, perhaps days and server restarts later. The rows
//! take the places that they would have had in the group of the XA COMMIT: its offset, and behind it each event's own
//! place among all row events of the PREPARE, whosever tables they are of. So whoever has read the PREPARE gives the same
//! versions, and none is that of another row.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::TableMap;
use super::event::{Fields, truncated};
use super::transaction::{RowBuffer, RowEvents, append_record};
#[cfg(test)]
use super::transaction::{RowEvent, RowKind};
use crate::batch::TableName;
use crate::error::Result;
#[cfg(test)]
use crate::source::mysql::position::Position;
use crate::source::mysql::position::{GroupGtid, StreamPlace};

/// Bytes of rows in a packed piece; one event is never cut.
const PIECE_BYTES: usize = 1 << 20;

/// The name of an XA transaction, as the servers write it into statements: `X'61',X'',1`, in lower case but for the X.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Xid(String);

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Xid {
    /// The identifier at the end of a statement as the servers log it; none for any other text.
    pub(super) fn in_statement(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let begin = text.find("X'")?;
        let mut parts = text.get(begin..)?.split(',').map(str::trim);
        let hex = |part: &str| -> Option<String> {
            let digits = part.get(1..)?.strip_prefix('\'')?.strip_suffix('\'')?;
            let plain = digits.len().is_multiple_of(2)
                && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            plain.then(|| digits.to_ascii_lowercase())
        };
        let (global, branch) = (hex(parts.next()?)?, hex(parts.next()?)?);
        let format: i32 = parts.next()?.trim_end_matches(['\0', ' ']).parse().ok()?;
        parts
            .next()
            .is_none()
            .then(|| Self::of(&global, &branch, format))
    }

    /// The body of an XA PREPARE event: whether it committed at once, and the identifier.
    ///
    /// # Errors
    /// `SourceCorrupt`.
    pub(super) fn in_event(body: &[u8]) -> Result<(bool, Self)> {
        let mut fields = Fields::new("XA PREPARE", body);
        let one_phase = fields.u8()? != 0;
        let format = fields.u32()?.cast_signed();
        let too_long = || truncated("XA PREPARE");
        let global = usize::try_from(fields.u32()?).map_err(|_| too_long())?;
        let branch = usize::try_from(fields.u32()?).map_err(|_| too_long())?;
        let mut hex = |length: usize| -> Result<String> {
            Ok(fields
                .take(length)?
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect())
        };
        let (global, branch) = (hex(global)?, hex(branch)?);
        Ok((one_phase, Self::of(&global, &branch, format)))
    }

    fn of(global: &str, branch: &str, format: i32) -> Self {
        Self(format!("X'{global}',X'{branch}',{format}"))
    }
}

/// A transaction that is prepared and not yet decided.
#[derive(Debug)]
pub struct Prepared {
    /// The name that its decision will give.
    pub xid: Xid,
    /// What tells this PREPARE from every other, also of the same name: the group's own GTID, or the place behind it.
    pub id: String,
    /// The place behind the PREPARE.
    pub end: StreamPlace,
    /// When it was prepared, in microseconds since 1970 by the source's clock.
    pub committed_at_us: Option<u64>,
    /// Bytes of all its row events, of whatever tables: what the decision adds to the stream offset.
    pub length: u64,
    pub(super) rows: RowBuffer,
    /// The stream offset before its first row event.
    pub(super) base: u64,
}

impl Prepared {
    /// Bytes of row events of replicated tables.
    pub fn byte_count(&self) -> u64 {
        self.rows.length()
    }

    /// Bytes of them in memory.
    pub fn in_memory(&self) -> u64 {
        self.rows.in_memory() as u64
    }

    /// The tables that have rows in it, each once.
    pub fn tables(&self) -> impl Iterator<Item = &TableName> {
        self.rows.tables().iter().map(|map| &map.name)
    }

    /// The rows as a decision at stream offset `base` makes them visible.
    ///
    /// # Errors
    /// `State` when the spill file cannot be read.
    pub fn row_events(&mut self, base: u64) -> Result<RowEvents<'_>> {
        let moved_by = base.saturating_sub(self.base);
        Ok(self.rows.read()?.moved_by(moved_by))
    }

    /// Hands out the rows in pieces of one table each, to be kept; [`Packed`] reads them. What was rolled back is marked
    /// there too.
    ///
    /// # Errors
    /// `State` when the spill file cannot be read; those of `keep`.
    pub async fn pack<F, Kept>(&mut self, mut keep: F) -> Result<()>
    where
        F: FnMut(TableName, Vec<u8>) -> Kept,
        Kept: Future<Output = Result<()>>,
    {
        let base = self.base;
        let mut open: Vec<(Arc<TableMap>, Vec<u8>)> = Vec::new();
        let mut events = self.rows.read()?;
        while let Some(event) = events.next()? {
            let index = match open
                .iter()
                .position(|(map, _)| Arc::ptr_eq(map, &event.table))
            {
                Some(index) => index,
                None => {
                    open.push((Arc::clone(&event.table), head(&event.table)));
                    open.len() - 1
                }
            };
            let Some((map, piece)) = open.get_mut(index) else {
                continue;
            };
            append_record(piece, &event, 0, event.offset.saturating_sub(base))?;
            if piece.len() >= PIECE_BYTES {
                let full = std::mem::replace(piece, head(map));
                let name = map.name.clone();
                keep(name, full).await?;
            }
        }
        for (map, piece) in open {
            if piece.len() > head(&map).len() {
                keep(map.name.clone(), piece).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
impl Prepared {
    /// One with a row event whose body has so many bytes, of which `budget` stay in memory.
    pub(crate) fn with_body(bytes: usize, budget: usize) -> Self {
        let name = TableName::new("shop", "orders");
        let table = TableMap {
            id: 1,
            name,
            formats: Vec::new(),
            unsigned: None,
            collations: Vec::new(),
            names: None,
            primary_key: None,
            labels: None,
            body: Vec::new(),
        };
        let mut rows = RowBuffer::new(budget, None);
        let event = RowEvent {
            table: Arc::new(table),
            kind: RowKind::Insert,
            extra_data: false,
            partial: false,
            body: &vec![0; bytes],
            offset: 0,
            undone: false,
        };
        // The second one makes the first go to disk.
        for _ in 0..2 {
            rows.push(&event).expect("a disk with room");
        }
        let position = Position::Gtid {
            set: Default::default(),
        };
        Self {
            xid: Xid::of("61", "", 1),
            id: "a".to_owned(),
            end: StreamPlace {
                position,
                offset: 0,
            },
            committed_at_us: None,
            length: rows.length(),
            rows,
            base: 0,
        }
    }
}

/// The table map, which every piece begins with.
fn head(map: &TableMap) -> Vec<u8> {
    let length = u32::try_from(map.body.len()).unwrap_or(u32::MAX);
    let mut head = length.to_le_bytes().to_vec();
    head.extend_from_slice(&map.body);
    head
}

/// A piece of a prepared transaction's rows, read back.
#[derive(Debug)]
pub struct Packed {
    table: [Arc<TableMap>; 1],
    records: Vec<u8>,
}

impl Packed {
    /// Reads a piece that [`Prepared::pack`] handed out.
    ///
    /// # Errors
    /// `SourceCorrupt` for bytes that are no such piece.
    pub fn read(piece: &[u8]) -> Result<Self> {
        let mut fields = Fields::new("kept XA", piece);
        let length = usize::try_from(fields.u32()?).map_err(|_| truncated("kept XA"))?;
        let map = TableMap::parse(fields.take(length)?)?;
        Ok(Self {
            table: [Arc::new(map)],
            records: fields.rest().to_vec(),
        })
    }

    /// The rows as a decision at stream offset `base` makes them visible.
    pub fn row_events(&self, base: u64) -> RowEvents<'_> {
        RowEvents::of(&self.table, &self.records).moved_by(base)
    }
}

/// XA COMMIT or XA ROLLBACK of a transaction prepared in an earlier group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Which transaction.
    pub xid: Xid,
    /// Whether its rows become visible.
    pub commit: bool,
    /// The stream offset before the rows.
    pub base: u64,
    /// The decision's own name.
    pub gtid: GroupGtid,
    /// The place behind the decision.
    pub end: StreamPlace,
    /// When it was committed, in microseconds since 1970 by the source's clock.
    pub committed_at_us: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_xa_transaction_is_the_same_in_event_and_statement() {
        let mut body = vec![0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0];
        body.extend([0xAB, 0x27, 0x00]);
        let (one_phase, prepared) = Xid::in_event(&body).unwrap();
        assert!(!one_phase);
        for text in [
            "XA COMMIT X'ab27',X'00',1",
            "XA ROLLBACK X'AB27', X'00', 1\0",
        ] {
            assert_eq!(
                Xid::in_statement(text.as_bytes()).as_ref(),
                Some(&prepared),
                "{text}"
            );
        }
        let other = Xid::in_statement(b"XA COMMIT X'ab27',X'00',-1").unwrap();
        assert_ne!(other, prepared);
        for length in 0..body.len() {
            assert!(Xid::in_event(&body[..length]).is_err());
        }
        for text in [
            "XA COMMIT 'a'",
            "XA COMMIT X'a',X'',1",
            "XA COMMIT X'61',X'',1,2",
            "XA COMMIT",
        ] {
            assert_eq!(Xid::in_statement(text.as_bytes()), None, "{text}");
        }
    }
}
