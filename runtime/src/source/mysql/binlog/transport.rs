//! The connection of a binlog stream: how it is asked for, and its events with their checksums verified.
//!
//! Events lie in the receive buffer of a [`WireConn`] and are handed out where they lie; those inside a compressed
//! transaction are expanded one by one ([`Payload`]). A peer that vanished looks like one that has nothing to say, which
//! the heartbeat tells apart (pitfall 70).

use mysql_common::packets::{GnoInterval, Sid, Tag};
use tokio::time::Instant;

use super::begun::file_names;
use super::ddl::Dialect;
use super::event::{RawEvent, code, truncated};
use super::payload::Payload;
use super::refusal::{diverged, lost_domains, purged, stream_error};
use super::stream::StreamOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::connection::identity_sql;
use crate::source::mysql::past::binlog_state;
use crate::source::mysql::position::{GtidList, GtidSet, Position};
use crate::source::mysql::wire::{Dump, DumpStart, WireConn};
use crate::source::mysql::{Flavor, Source};

/// How long a transaction that we have read may take until the source shows it as executed: the dump may run ahead of
/// the commit by the acknowledgement of a semi-synchronous replica.
const EXECUTED_WAIT_SECONDS: u32 = 10;

/// How long the source waits for us to take what it sends: for as long as ClickHouse may be away (pitfall 71).
const SEND_PATIENCE_SECONDS: u32 = 7 * 24 * 3600;

/// Set in the header of the event that opens a file still being written, and left out of its checksum.
const FLAG_BINLOG_IN_USE: u16 = 1;

const HEADER_BYTES: usize = 19;
const CHECKSUM_BYTES: usize = 4;

/// An open stream of events.
#[derive(Debug)]
pub(super) struct Transport {
    dump: Dump,
    place: Position,
    /// Whether events end with a checksum; the format event says so, and comes first but for a made-up ROTATE.
    checksums: bool,
    payload: Option<Payload>,
    inner: Vec<u8>,
}

/// A stream that was asked for, and what its server said before.
pub(super) struct Opened {
    pub(super) transport: Transport,
    pub(super) dialect: Dialect,
    /// The binlog files that the server had, oldest first.
    pub(super) files: Vec<String>,
}

impl Transport {
    /// Asks for the events behind `place`, after having made sure that the source has all of them.
    pub(super) async fn open(
        source: &Source,
        place: &Position,
        options: &StreamOptions,
    ) -> Result<Opened> {
        ensure_same_server(source, place)?;
        let mut conn = WireConn::connect(source.config()).await?;
        ensure_not_replaced(&mut conn, source).await?;
        let dialect = dialect(&mut conn, source.flavor()).await?;
        let files = file_names(&mut conn).await?;
        conn.query_ok(&format!(
            "SET SESSION net_write_timeout = {SEND_PATIENCE_SECONDS}"
        ))
        .await?;
        match source.flavor() {
            Flavor::MySql => prepare_mysql(&mut conn, place, options).await?,
            Flavor::MariaDb => prepare_maria(&mut conn, place, options).await?,
        }
        let start = match place {
            Position::Gtid { set } => DumpStart::Gtids(sids(set)?),
            // The place stands in a session variable.
            Position::MariaGtid { .. } => DumpStart::File {
                name: "",
                offset: 4,
            },
            Position::File { file, offset, .. } => DumpStart::File {
                name: file,
                offset: fitting_offset(*offset)?,
            },
        };
        let transport = Self {
            dump: conn.dump(options.server_id, &options.host, start).await?,
            place: place.clone(),
            checksums: false,
            payload: None,
            inner: Vec::new(),
        };
        Ok(Opened {
            transport,
            dialect,
            files,
        })
    }

    /// When bytes came last, also of an event that has not come whole.
    pub(super) fn read_at(&self) -> Instant {
        self.dump.read_at()
    }

    /// The next event. Cancel-safe: what has been received stays in the buffer.
    pub(super) async fn next(&mut self) -> Result<RawEvent<'_>> {
        if let Some(payload) = &mut self.payload {
            if payload.read(&mut self.inner)? {
                let log_pos = payload.log_pos();
                let event = RawEvent::parse(&self.inner)?;
                return Ok(RawEvent {
                    log_pos,
                    length: 0,
                    ..event
                });
            }
            self.payload = None;
        }
        let bytes = match self.dump.next().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                return Err(Error::new(
                    ErrorKind::SourceUnavailable,
                    "the source ended the binlog stream",
                ));
            }
            Err(error) => return Err(stream_error(error, &self.place)),
        };
        let event = checked(bytes, &mut self.checksums)?;
        if event.kind == code::TRANSACTION_PAYLOAD {
            self.payload = Some(Payload::open(&event)?);
        }
        Ok(event)
    }
}

/// Takes the checksum off an event, and verifies it (pitfall 49). The format event tells of itself and of those behind
/// it (pitfall 48).
fn checked<'a>(bytes: &'a [u8], checksums: &mut bool) -> Result<RawEvent<'a>> {
    const CRC32: u8 = 1;
    let event = RawEvent::parse(bytes)?;
    if event.kind == code::FORMAT_DESCRIPTION {
        // The algorithm stands before the checksum, which has its room in either case.
        let (_, end) = event
            .body
            .split_at_checked(event.body.len().wrapping_sub(1 + CHECKSUM_BYTES))
            .ok_or_else(|| truncated("FORMAT_DESCRIPTION"))?;
        *checksums = end.first() == Some(&CRC32);
    }
    if !*checksums {
        return Ok(event);
    }
    let (signed, checksum) = bytes
        .split_last_chunk::<CHECKSUM_BYTES>()
        .filter(|(signed, _)| signed.len() >= HEADER_BYTES)
        .ok_or_else(|| truncated("binlog"))?;
    let body = signed.get(HEADER_BYTES..).unwrap_or_default();
    if crc(signed, &event) != u32::from_le_bytes(*checksum) {
        return Err(Error::new(
            ErrorKind::SourceCorrupt,
            format!(
                "the checksum of a binlog event of type {} before {} is wrong",
                event.kind, event.log_pos
            ),
        )
        .with_hint("if it recurs, the binlog file is damaged: run mysqlbinlog --verify-binlog-checksum, then resync"));
    }
    Ok(RawEvent { body, ..event })
}

/// CRC32 over header and body, as the source computed it.
fn crc(signed: &[u8], event: &RawEvent<'_>) -> u32 {
    let flags = match event.kind {
        code::FORMAT_DESCRIPTION => event.flags & !FLAG_BINLOG_IN_USE,
        _ => event.flags,
    };
    let (before, after) = (signed.get(..HEADER_BYTES - 2), signed.get(HEADER_BYTES..));
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(before.unwrap_or_default());
    hasher.update(&flags.to_le_bytes());
    hasher.update(after.unwrap_or_default());
    hasher.finalize()
}

/// A file and offset mean something on their own server only (pitfall 61).
fn ensure_same_server(source: &Source, place: &Position) -> Result<()> {
    match place {
        Position::File { server, .. } if server != source.identity() => Err(Error::new(
            ErrorKind::SourceDiverged,
            format!(
                "the place {place} belongs to server `{}`, and this is `{}`",
                server.0,
                source.identity().0
            ),
        )
        .with_hint("point the pipe at its own server again, or resync it")),
        _ => Ok(()),
    }
}

/// A name may lead to another server than a moment ago (pitfall 136), of which nothing has been proved yet.
async fn ensure_not_replaced(conn: &mut WireConn, source: &Source) -> Result<()> {
    let identity = conn
        .query_value(identity_sql(source.flavor(), source.version()))
        .await?;
    if identity.as_deref() == Some(source.identity().0.as_str()) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::SourceUnavailable,
        format!(
            "another server answers at {}:{} than a moment ago",
            source.config().host,
            source.config().port
        ),
    ))
}

fn fitting_offset(offset: u64) -> Result<u32> {
    u32::try_from(offset).map_err(|_| {
        Error::new(
            ErrorKind::Unsupported,
            format!("the offset {offset} cannot be asked for: the protocol knows the first 4 GiB of a file"),
        )
        .with_hint("set `source.position: gtid`; or FLUSH BINARY LOGS at the source and resync the pipe")
    })
}

async fn dialect(conn: &mut WireConn, flavor: Flavor) -> Result<Dialect> {
    let case = conn.query_value("SELECT @@lower_case_table_names").await?;
    Ok(Dialect {
        lower_case_names: case.as_deref() == Some("1"),
        mysql: flavor == Flavor::MySql,
    })
}

/// The same number always gives the same id, so that the server ends our own older stream and nobody else's
/// (pitfall 63).
fn replica_uuid(server_id: u32) -> String {
    format!("70697065-7772-4967-8874-0000{server_id:08x}")
}

async fn prepare_mysql(
    conn: &mut WireConn,
    place: &Position,
    options: &StreamOptions,
) -> Result<()> {
    let heartbeat = options.heartbeat.as_nanos();
    let uuid = replica_uuid(options.server_id);
    conn.query_ok(&format!(
        "SET @source_binlog_checksum = @@GLOBAL.binlog_checksum, @master_binlog_checksum = @@GLOBAL.binlog_checksum, \
         @source_heartbeat_period = {heartbeat}, @master_heartbeat_period = {heartbeat}, \
         @replica_uuid = '{uuid}', @slave_uuid = '{uuid}'"
    ))
    .await?;
    match place {
        Position::Gtid { set } => ensure_gtids(conn, set).await,
        Position::File { .. } => Ok(()),
        Position::MariaGtid { .. } => Err(wrong_kind(place, "MySQL")),
    }
}

/// Ours must be executed there, and what was purged there must be ours (pitfall 60).
async fn ensure_gtids(conn: &mut WireConn, set: &GtidSet) -> Result<()> {
    let mut global = async |name: &str| -> Result<GtidSet> {
        let text = conn.query_value(&format!("SELECT @@GLOBAL.{name}")).await?;
        text.unwrap_or_default().parse()
    };
    let (executed, gone) = (global("gtid_executed").await?, global("gtid_purged").await?);
    let extra = set.difference(&executed);
    if !extra.is_empty() {
        let timed_out = conn
            .query_value(&format!(
                "SELECT WAIT_FOR_EXECUTED_GTID_SET('{extra}', {EXECUTED_WAIT_SECONDS})"
            ))
            .await?;
        if timed_out.as_deref() != Some("0") {
            return Err(diverged(&extra.to_string()));
        }
    }
    let missing = gone.difference(set);
    if !missing.is_empty() {
        return Err(purged(&missing.to_string()));
    }
    Ok(())
}

async fn prepare_maria(
    conn: &mut WireConn,
    place: &Position,
    options: &StreamOptions,
) -> Result<()> {
    let heartbeat = options.heartbeat.as_nanos();
    // Without the capability the server replaces its own events by dummies, GTIDs among them (pitfall 77).
    conn.query_ok(&format!(
        "SET @mariadb_slave_capability = 4, @master_binlog_checksum = @@GLOBAL.binlog_checksum, \
         @master_heartbeat_period = {heartbeat}"
    ))
    .await?;
    match place {
        Position::MariaGtid { list } => {
            ensure_domains(conn, list).await?;
            conn.query_ok(&format!(
                "SET @slave_connect_state = '{list}', @slave_gtid_strict_mode = 1, @slave_gtid_ignore_duplicates = 0"
            ))
            .await
        }
        Position::File { .. } => Ok(()),
        Position::Gtid { .. } => Err(wrong_kind(place, "MariaDB")),
    }
}

/// The source must have written each of ours: of a domain that it does not know it would say nothing (pitfall 79), and a
/// higher number of another server's is no proof that ours is before it. What it has purged it says itself.
async fn ensure_domains(conn: &mut WireConn, ours: &GtidList) -> Result<()> {
    let extra = binlog_state(conn).await?.lacks(ours);
    if extra.is_empty() {
        Ok(())
    } else {
        Err(lost_domains(&extra.to_string()))
    }
}

fn wrong_kind(place: &Position, family: &str) -> Error {
    Error::new(
        ErrorKind::SourceDiverged,
        format!("the place `{place}` is not one of a {family} server"),
    )
    .with_hint("resync the pipe")
}

/// One entry a server and tag: the driver reads no tagged set from text (pitfall 58).
fn sids(set: &GtidSet) -> Result<Vec<Sid<'static>>> {
    set.iter()
        .map(|(uuid, tag, intervals)| {
            let intervals = intervals
                .iter()
                .map(|&(first, last)| GnoInterval::new(first, last.saturating_add(1)))
                .collect();
            let sid = Sid::new(*uuid).with_intervals(intervals);
            if tag.is_empty() {
                return Ok(sid);
            }
            let tag = Tag::new(tag.to_owned()).map_err(|error| {
                Error::new(
                    ErrorKind::Internal,
                    format!("the GTID tag `{tag}` cannot be sent"),
                )
                .with_source(error)
            })?;
            Ok(sid.with_tag(tag))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event as the source sends it, with its checksum or another.
    fn sent(kind: u8, flags: u16, body: &[u8], checksum: Option<u32>) -> Vec<u8> {
        let tail = if checksum.is_some() {
            CHECKSUM_BYTES
        } else {
            0
        };
        let size = u32::try_from(HEADER_BYTES + body.len() + tail).unwrap();
        let mut bytes = vec![5, 0, 0, 0, kind, 1, 0, 0, 0];
        bytes.extend(size.to_le_bytes());
        bytes.extend([9, 0, 0, 0]);
        bytes.extend(flags.to_le_bytes());
        bytes.extend(body);
        if let Some(change) = checksum {
            let mut hasher = crc32fast::Hasher::new();
            let mut signed = bytes.clone();
            if kind == code::FORMAT_DESCRIPTION {
                signed[17] &= !1;
            }
            hasher.update(&signed);
            bytes.extend((hasher.finalize() ^ change).to_le_bytes());
        }
        bytes
    }

    /// pitfall 48, pitfall 49
    #[test]
    fn the_format_event_says_whether_events_have_checksums_and_a_wrong_one_is_an_error() {
        let mut checksums = false;
        let format = |algorithm: u8| {
            let mut body = vec![4; 60];
            body.push(algorithm);
            body
        };
        // A file that is still open has a flag which its checksum leaves out.
        let bytes = sent(code::FORMAT_DESCRIPTION, 1, &format(1), Some(0));
        assert_eq!(checked(&bytes, &mut checksums).unwrap().body.len(), 61);
        let bytes = sent(code::XID, 0, &[7; 8], Some(0));
        assert_eq!(checked(&bytes, &mut checksums).unwrap().body, [7; 8]);
        let bytes = sent(code::XID, 0, &[7; 8], Some(1));
        let wrong = checked(&bytes, &mut checksums).unwrap_err();
        assert_eq!(wrong.kind(), ErrorKind::SourceCorrupt);
        assert!(wrong.message().contains("checksum"), "{wrong}");
        // Without checksums the format event has room for one all the same.
        let mut body = format(0);
        body.extend([0; 4]);
        let bytes = sent(code::FORMAT_DESCRIPTION, 0, &body, None);
        checked(&bytes, &mut checksums).unwrap();
        let bytes = sent(code::XID, 0, &[7; 8], None);
        assert_eq!(checked(&bytes, &mut checksums).unwrap().body, [7; 8]);
        for length in 0..bytes.len() {
            assert!(
                checked(&bytes[..length], &mut checksums).is_err(),
                "{length}"
            );
        }
    }

    /// pitfall 58
    #[test]
    fn every_interval_of_every_tag_is_sent() {
        let set = "07070707-0707-0707-0707-070707070707:1-5:7:night:3-4";
        let sids = sids(&set.parse().unwrap()).unwrap();
        let intervals = |sid: &Sid<'_>| {
            let intervals = sid.intervals().iter();
            intervals
                .map(|one| (one.start(), one.end()))
                .collect::<Vec<_>>()
        };
        assert_eq!(intervals(&sids[0]), [(1, 6), (7, 8)]);
        assert_eq!(intervals(&sids[1]), [(3, 5)]);
        assert_eq!(
            sids[1].tag().map(|tag| tag.as_str().to_owned()).as_deref(),
            Some("night")
        );
    }

    #[test]
    fn an_offset_that_the_protocol_would_cut_is_refused() {
        assert_eq!(fitting_offset(u64::from(u32::MAX)).unwrap(), u32::MAX);
        let error = fitting_offset(1 << 32).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_server_id_always_gives_the_same_replica_uuid() {
        assert_eq!(replica_uuid(4242), "70697065-7772-4967-8874-000000001092");
    }
}
