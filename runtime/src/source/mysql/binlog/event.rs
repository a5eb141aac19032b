//! Binlog events as they come off the wire, and the few whose bodies the stream itself must understand.
//!
//! MariaDB's own events (160 to 169) are unknown to the driver, which hands them on undecoded; all bodies are therefore
//! read here. Nothing is indexed unchecked: a body that ends too early is `SourceCorrupt`.

use mysql_common::binlog::BinlogCtx;
use mysql_common::binlog::consts::BinlogVersion;
use mysql_common::binlog::events::{FormatDescriptionEvent, GtidEvent};
use mysql_common::io::ParseBuf;
use mysql_common::proto::MyDeserialize;

use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::position::Gtid;

/// Type codes of the events that the stream knows.
pub(super) mod code {
    pub(in super::super) const QUERY: u8 = 2;
    pub(in super::super) const STOP: u8 = 3;
    pub(in super::super) const ROTATE: u8 = 4;
    pub(in super::super) const INTVAR: u8 = 5;
    pub(in super::super) const APPEND_BLOCK: u8 = 9;
    pub(in super::super) const DELETE_FILE: u8 = 11;
    pub(in super::super) const RAND: u8 = 13;
    pub(in super::super) const USER_VAR: u8 = 14;
    pub(in super::super) const FORMAT_DESCRIPTION: u8 = 15;
    pub(in super::super) const XID: u8 = 16;
    pub(in super::super) const BEGIN_LOAD_QUERY: u8 = 17;
    pub(in super::super) const EXECUTE_LOAD_QUERY: u8 = 18;
    pub(in super::super) const TABLE_MAP: u8 = 19;
    pub(in super::super) const WRITE_ROWS_V0: u8 = 20;
    pub(in super::super) const WRITE_ROWS_V1: u8 = 23;
    pub(in super::super) const UPDATE_ROWS_V1: u8 = 24;
    pub(in super::super) const DELETE_ROWS_V1: u8 = 25;
    pub(in super::super) const INCIDENT: u8 = 26;
    pub(in super::super) const HEARTBEAT: u8 = 27;
    pub(in super::super) const IGNORABLE: u8 = 28;
    pub(in super::super) const ROWS_QUERY: u8 = 29;
    pub(in super::super) const WRITE_ROWS: u8 = 30;
    pub(in super::super) const UPDATE_ROWS: u8 = 31;
    pub(in super::super) const DELETE_ROWS: u8 = 32;
    pub(in super::super) const GTID: u8 = 33;
    pub(in super::super) const ANONYMOUS_GTID: u8 = 34;
    pub(in super::super) const PREVIOUS_GTIDS: u8 = 35;
    pub(in super::super) const TRANSACTION_CONTEXT: u8 = 36;
    pub(in super::super) const VIEW_CHANGE: u8 = 37;
    pub(in super::super) const XA_PREPARE: u8 = 38;
    pub(in super::super) const PARTIAL_UPDATE_ROWS: u8 = 39;
    pub(in super::super) const TRANSACTION_PAYLOAD: u8 = 40;
    pub(in super::super) const HEARTBEAT_V2: u8 = 41;
    pub(in super::super) const GTID_TAGGED: u8 = 42;
    pub(in super::super) const MARIA_ANNOTATE_ROWS: u8 = 160;
    pub(in super::super) const MARIA_BINLOG_CHECKPOINT: u8 = 161;
    pub(in super::super) const MARIA_GTID: u8 = 162;
    pub(in super::super) const MARIA_GTID_LIST: u8 = 163;
    pub(in super::super) const MARIA_START_ENCRYPTION: u8 = 164;
    pub(in super::super) const MARIA_QUERY_COMPRESSED: u8 = 165;
    pub(in super::super) const MARIA_WRITE_ROWS_COMPRESSED_V1: u8 = 166;
    pub(in super::super) const MARIA_UPDATE_ROWS_COMPRESSED_V1: u8 = 167;
    pub(in super::super) const MARIA_DELETE_ROWS_COMPRESSED_V1: u8 = 168;
    pub(in super::super) const MARIA_WRITE_ROWS_COMPRESSED: u8 = 169;
    pub(in super::super) const MARIA_UPDATE_ROWS_COMPRESSED: u8 = 170;
    pub(in super::super) const MARIA_DELETE_ROWS_COMPRESSED: u8 = 171;
    pub(in super::super) const MARIA_PARTIAL_ROW_DATA: u8 = 172;
}

/// Set on statements of which a temporary table took part, which may have the name of a table that is none; and on every
/// DELETE from several tables.
pub(super) const FLAG_THREAD_SPECIFIC: u16 = 0x4;
/// Set by the server on events that it makes up for this connection.
pub(super) const FLAG_ARTIFICIAL: u16 = 0x20;
/// Set on events that a reader may skip without knowing them.
pub(super) const FLAG_IGNORABLE: u16 = 0x80;

/// One event: the header's fields, and the body without checksum.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawEvent<'a> {
    /// The type code, one of [`code`] or unknown.
    pub(super) kind: u8,
    /// Seconds since 1970; 0 in events that the server makes up.
    pub(super) timestamp: u32,
    /// The server that wrote it.
    pub(super) server_id: u32,
    /// The place after the event, modulo 2^32; 0 where the server does not say. For an event inside a compressed
    /// transaction the enclosing event's.
    pub(super) log_pos: u32,
    /// What it takes in its file; 0 for an event inside a compressed transaction.
    pub(super) length: u32,
    /// The header's flags.
    pub(super) flags: u16,
    /// The body without checksum.
    pub(super) body: &'a [u8],
}

impl<'a> RawEvent<'a> {
    /// Header and body of an event without checksum.
    ///
    /// # Errors
    /// `SourceCorrupt`.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut fields = Fields::new("binlog", bytes);
        let (timestamp, kind, server_id) = (fields.u32()?, fields.u8()?, fields.u32()?);
        let (size, log_pos, flags) = (fields.u32()?, fields.u32()?, fields.u16()?);
        if size as usize != bytes.len() {
            return Err(truncated("binlog"));
        }
        Ok(RawEvent {
            kind,
            timestamp,
            server_id,
            log_pos,
            length: size,
            flags,
            body: fields.rest(),
        })
    }
}

/// Reads little-endian fields off the front of a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Fields<'a> {
    /// Reads from `body`; `what` names the event in errors.
    pub(super) fn new(what: &'static str, body: &'a [u8]) -> Self {
        Self { rest: body, what }
    }

    /// All that has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// `SourceCorrupt` when the body is shorter; so do all the others.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(truncated(self.what)),
        }
    }

    /// An unsigned integer of `size` bytes, at most 8.
    pub(super) fn uint(&mut self, size: usize) -> Result<u64> {
        let mut value = [0; 8];
        for (to, from) in value.iter_mut().zip(self.take(size)?) {
            *to = *from;
        }
        Ok(u64::from_le_bytes(value))
    }

    /// One byte.
    pub(super) fn u8(&mut self) -> Result<u8> {
        self.take(1)?
            .first()
            .copied()
            .ok_or_else(|| truncated(self.what))
    }

    /// Two bytes.
    pub(super) fn u16(&mut self) -> Result<u16> {
        Ok(u16::try_from(self.uint(2)?).expect("two bytes fit"))
    }

    /// Four bytes.
    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::try_from(self.uint(4)?).expect("four bytes fit"))
    }

    /// An integer in the protocol's length encoding.
    pub(super) fn lenenc(&mut self) -> Result<u64> {
        match self.u8()? {
            small @ 0..=250 => Ok(u64::from(small)),
            252 => self.uint(2),
            253 => self.uint(3),
            254 => self.uint(8),
            251 | 255 => Err(truncated(self.what)),
        }
    }

    /// Bytes behind their length in the protocol's length encoding.
    pub(super) fn lenenc_bytes(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.lenenc()?).map_err(|_| truncated(self.what))?;
        self.take(length)
    }
}

/// The error of a body that ends too early or contradicts itself.
pub(super) fn truncated(what: &str) -> Error {
    Error::new(
        ErrorKind::SourceCorrupt,
        format!("the source sent a malformed {what} event"),
    )
    .with_hint(
        "set binlog_checksum = CRC32 at the source, which tells apart what was damaged on the way; where the event comes again \
         so, load the table anew, and report it with the server's version",
    )
}

/// What a MySQL GTID event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MySqlGtid {
    /// The transaction; all zero for an anonymous one.
    pub(super) gtid: Gtid,
    /// Commit time on the server we read from.
    pub(super) committed_at_us: Option<u64>,
}

impl MySqlGtid {
    /// Reads a GTID (33), anonymous (34) or tagged (42) event.
    ///
    /// # Errors
    /// `SourceCorrupt`.
    pub(super) fn parse(event: &RawEvent<'_>) -> Result<Self> {
        if event.kind == code::GTID_TAGGED {
            return Self::parse_tagged(event.body);
        }
        let mut fields = Fields::new("GTID", event.body);
        fields.u8()?;
        let mut uuid = [0; 16];
        uuid.copy_from_slice(fields.take(16)?);
        let number = fields.uint(8)?;
        // Logical clock type 2, two clocks, then the immediate commit time, whose top bit says that the original one
        // follows.
        let timed = fields.rest().len() >= 1 + 16 + 7 && fields.u8()? == 2;
        let committed_at_us = if timed {
            fields.take(16)?;
            Some(fields.uint(7)? & !(1 << 55))
        } else {
            None
        };
        let tag = String::new();
        Ok(Self {
            gtid: Gtid { uuid, tag, number },
            committed_at_us: committed_at_us.filter(|time| *time != 0),
        })
    }

    fn parse_tagged(body: &[u8]) -> Result<Self> {
        let format = FormatDescriptionEvent::new(BinlogVersion::Version4);
        let context = BinlogCtx::new(body.len(), &format, code::GTID_TAGGED);
        let event = GtidEvent::deserialize(context, &mut ParseBuf(body))
            .map_err(|error| truncated("tagged GTID").with_source(error))?;
        let tag = event.tag().map(|tag| tag.as_str().to_owned());
        Ok(Self {
            gtid: Gtid {
                uuid: event.sid(),
                tag: tag.unwrap_or_default(),
                number: event.gno(),
            },
            committed_at_us: Some(event.immediate_commit_timestamp()).filter(|time| *time != 0),
        })
    }
}

/// What a MariaDB GTID event says; the server id stands in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MariaGtidEvent {
    /// The number within the domain.
    pub(super) sequence: u64,
    /// The domain.
    pub(super) domain: u32,
    /// `STANDALONE`: one statement, no commit event (pitfall 81).
    pub(super) standalone: bool,
    /// A two-phase ALTER that has only started, or was rolled back: it changes nothing (pitfall 89).
    pub(super) alter_without_effect: bool,
}

impl MariaGtidEvent {
    const STANDALONE: u8 = 1;
    const GROUP_COMMIT_ID: u8 = 2;
    const PREPARED_XA: u8 = 64;
    const COMPLETED_XA: u8 = 128;
    const START_ALTER: u8 = 2;
    const ROLLBACK_ALTER: u8 = 8;

    /// Reads event 162.
    ///
    /// # Errors
    /// `SourceCorrupt`.
    pub(super) fn parse(body: &[u8]) -> Result<Self> {
        let mut fields = Fields::new("MariaDB GTID", body);
        let sequence = fields.uint(8)?;
        let domain = fields.u32()?;
        let flags = fields.u8()?;
        Ok(Self {
            sequence,
            domain,
            standalone: flags & Self::STANDALONE != 0,
            alter_without_effect: Self::extra_flags(fields, flags)
                & (Self::START_ALTER | Self::ROLLBACK_ALTER)
                != 0,
        })
    }

    /// The second flag byte. Old servers end the event before it, or with bytes of 0 in its place.
    fn extra_flags(mut fields: Fields<'_>, flags: u8) -> u8 {
        let mut read = || -> Result<u8> {
            if flags & Self::GROUP_COMMIT_ID != 0 {
                fields.take(8)?;
            }
            if flags & (Self::PREPARED_XA | Self::COMPLETED_XA) != 0 {
                fields.take(4)?;
                let lengths = usize::from(fields.u8()?) + usize::from(fields.u8()?);
                fields.take(lengths)?;
            }
            fields.u8()
        };
        read().unwrap_or(0)
    }
}

/// What a QUERY event says, still as bytes (pitfall 112).
#[derive(Clone, Copy, Debug)]
pub(super) struct Query<'a> {
    /// The session's default database.
    pub(super) database: &'a [u8],
    /// The session's `sql_mode` bits.
    pub(super) sql_mode: u64,
    /// The collation id of `character_set_client`; 0 when not said.
    pub(super) client_collation: u16,
    /// The text, compressed in MariaDB's event 165.
    pub(super) text: &'a [u8],
}

impl<'a> Query<'a> {
    /// Reads the body of a QUERY event (2, 165) or, with `load`, of EXECUTE_LOAD_QUERY.
    ///
    /// # Errors
    /// `SourceCorrupt`.
    pub(super) fn parse(body: &'a [u8], load: bool) -> Result<Self> {
        let mut fields = Fields::new("QUERY", body);
        fields.take(8)?;
        let database_length = usize::from(fields.u8()?);
        fields.take(2)?;
        let status_length = usize::from(fields.u16()?);
        if load {
            fields.take(13)?;
        }
        let (sql_mode, client_collation) = status_variables(fields.take(status_length)?);
        let database = fields.take(database_length)?;
        fields.take(1)?;
        Ok(Self {
            database,
            sql_mode,
            client_collation,
            text: fields.rest(),
        })
    }
}

/// `sql_mode` and the client's collation; both stand near the front, and what comes behind an unknown code is not read.
fn status_variables(variables: &[u8]) -> (u64, u16) {
    let (mut sql_mode, mut collation) = (0, 0);
    let mut fields = Fields::new("QUERY", variables);
    let mut walk = || -> Result<()> {
        while !fields.rest().is_empty() {
            match fields.u8()? {
                0 | 3 => drop(fields.take(4)?),
                1 => sql_mode = fields.uint(8)?,
                2 => {
                    let length = usize::from(fields.u8()?);
                    fields.take(length + 1)?;
                }
                4 => {
                    collation = fields.u16()?;
                    fields.take(4)?;
                }
                5 | 6 => {
                    let length = usize::from(fields.u8()?);
                    fields.take(length)?;
                }
                _ => break,
            }
        }
        Ok(())
    };
    // A malformed list costs only what it would have said.
    let _ = walk();
    (sql_mode, collation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_ends_early_is_corrupt_and_never_a_panic() {
        let mut body = [0; 42];
        body[25] = 2;
        for length in 0..25 {
            let event = RawEvent {
                kind: code::GTID,
                timestamp: 0,
                server_id: 1,
                log_pos: 0,
                length: 0,
                flags: 0,
                body: &body[..length],
            };
            assert_eq!(
                MySqlGtid::parse(&event).unwrap_err().kind(),
                ErrorKind::SourceCorrupt
            );
            assert_eq!(
                MySqlGtid::parse(&RawEvent {
                    kind: code::GTID_TAGGED,
                    ..event
                })
                .unwrap_err()
                .kind(),
                ErrorKind::SourceCorrupt
            );
        }
        for length in 0..13 {
            assert!(MariaGtidEvent::parse(&body[..length]).is_err());
            assert!(Query::parse(&body[..length], false).is_err());
        }
    }

    #[test]
    fn the_second_flag_byte_of_a_mariadb_gtid_lies_behind_the_commit_id_and_the_xid() {
        let mut body = 7_u64.to_le_bytes().to_vec();
        body.extend(3_u32.to_le_bytes());
        body.push(1 | 2 | 128);
        body.extend([0; 8]);
        body.extend([1, 0, 0, 0, 2, 1, b'a', b'b', b'c']);
        body.push(2);
        let gtid = MariaGtidEvent::parse(&body).unwrap();
        assert!(gtid.standalone && gtid.alter_without_effect);
        assert_eq!((gtid.domain, gtid.sequence), (3, 7));
        body.pop();
        assert!(!MariaGtidEvent::parse(&body).unwrap().alter_without_effect);
    }

    /// As MariaDB 10.11.18 wrote them.
    #[test]
    fn an_alter_in_two_phases_is_told_by_the_byte_behind_the_first_flags() {
        for (body, without_effect) in [
            (
                [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x29, 2, 0, 0, 0, 0, 0].as_slice(),
                true,
            ),
            (
                &[
                    5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x29, 4, 4, 0, 0, 0, 0, 0, 0, 0,
                ],
                false,
            ),
            (
                &[
                    8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x29, 8, 7, 0, 0, 0, 0, 0, 0, 0,
                ],
                true,
            ),
            (
                &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0c, 0, 0, 0, 0, 0, 0],
                false,
            ),
        ] {
            let gtid = MariaGtidEvent::parse(body).unwrap();
            assert_eq!(gtid.alter_without_effect, without_effect, "{body:?}");
        }
    }

    #[test]
    fn a_query_tells_its_database_sql_mode_and_charset() {
        let mut status = vec![0, 0, 0, 0, 0, 1];
        status.extend(4_u64.to_le_bytes());
        status.extend([6, 3, b's', b't', b'd', 4, 45, 0, 45, 0, 8, 0]);
        let mut body = vec![0; 8];
        body.push(2);
        body.extend([0, 0]);
        body.extend(u16::try_from(status.len()).unwrap().to_le_bytes());
        body.extend(&status);
        body.extend(b"db\0TRUNCATE t");
        let query = Query::parse(&body, false).unwrap();
        assert_eq!(query.database, b"db");
        assert_eq!(query.sql_mode, 4);
        assert_eq!(query.client_collation, 45);
        assert_eq!(query.text, b"TRUNCATE t");
    }
}
