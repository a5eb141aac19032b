//! The connection of a binlog stream: how it is asked for, and its events with their checksums verified.
//!
//! The driver brings the bytes: authentication, TLS, packets, and the expansion of compressed transactions. Three
//! things it leaves to us. It verifies no checksum. A compressed transaction that it cannot expand it drops without a
//! word, so the lengths of the inner events are counted against the length that the outer one promises. And it knows no
//! silence: a peer that vanished looks like one that has nothing to say, which the heartbeat tells apart (pitfall 70).

use futures_util::StreamExt;
use mysql_async::prelude::Queryable;
use mysql_async::{BinlogStreamRequest, Conn, GnoInterval, Sid};
use mysql_common::binlog::consts::BinlogChecksumAlg;
use mysql_common::binlog::events::Event;
use mysql_common::packets::Tag;

use super::ddl::Dialect;
use super::event::{Fields, RawEvent, code};
use super::refusal::{diverged, lost_domains, purged, stream_error};
use super::stream::StreamOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::connection::query_error;
use crate::source::mysql::position::{GtidList, GtidSet, Position};
use crate::source::mysql::{Flavor, Source};

/// How long a transaction that we have read may take until the source shows it as executed: the dump may run ahead of
/// the commit by the acknowledgement of a semi-synchronous replica.
const EXECUTED_WAIT_SECONDS: u32 = 10;

/// Set in the header of the event that opens a file still being written, and left out of its checksum.
const FLAG_BINLOG_IN_USE: u16 = 1;

/// An open stream of events.
pub(super) struct Transport {
    stream: mysql_async::BinlogStream,
    place: Position,
    payload: Option<Payload>,
}

/// A compressed transaction whose inner events are being read.
#[derive(Clone, Copy, Debug)]
struct Payload {
    bytes_left: u64,
    log_pos: u32,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Transport {
    /// Asks for the events behind `place`, after having made sure that the source has all of them.
    pub(super) async fn open(
        source: &Source,
        place: &Position,
        options: &StreamOptions,
    ) -> Result<(Self, Dialect)> {
        ensure_same_server(source, place)?;
        let mut conn = source.binlog().await?;
        let dialect = dialect(&mut conn).await?;
        match source.flavor() {
            Flavor::MySql => prepare_mysql(&mut conn, place, options).await?,
            Flavor::MariaDb => prepare_maria(&mut conn, place, options).await?,
        }
        let request = BinlogStreamRequest::new(options.server_id);
        let stream = match place {
            Position::Gtid { set } => {
                conn.get_binlog_stream(request.with_gtid().with_gtid_set(sids(set)?))
                    .await
            }
            // The place stands in a session variable.
            Position::MariaGtid { .. } => conn.get_binlog_stream(request).await,
            Position::File { file, offset, .. } => {
                ensure_offset_fits(*offset)?;
                conn.get_binlog_stream(request.with_filename(file.as_bytes()).with_pos(*offset))
                    .await
            }
        }
        .map_err(|error| stream_error(error, place))?;
        let transport = Self {
            stream,
            place: place.clone(),
            payload: None,
        };
        Ok((transport, dialect))
    }

    /// The next event. Cancel-safe: what has been received stays in the driver.
    pub(super) async fn next(&mut self) -> Result<Event> {
        let event = match self.stream.next().await {
            Some(Ok(event)) => event,
            Some(Err(error)) => return Err(stream_error(error, &self.place)),
            None => {
                return Err(Error::new(
                    ErrorKind::SourceUnavailable,
                    "the source ended the binlog stream",
                ));
            }
        };
        let is_inner = !event.footer().get_checksum_enabled();
        if is_inner {
            self.count_inner(&event)?;
        } else {
            verify_checksum(&event)?;
            self.on_outer(&event)?;
        }
        Ok(event)
    }

    /// The event's fields; inside a compressed transaction with the outer event's place, the only one that counts
    /// (pitfall 54).
    pub(super) fn raw<'a>(&self, event: &'a Event) -> RawEvent<'a> {
        let header = event.header();
        let inner = !event.footer().get_checksum_enabled();
        RawEvent {
            kind: header.event_type_raw(),
            timestamp: header.timestamp(),
            server_id: header.server_id(),
            log_pos: match self.payload {
                Some(payload) if inner => payload.log_pos,
                _ => header.log_pos(),
            },
            flags: header.flags_raw(),
            body: event.data(),
        }
    }

    /// Ends the connection.
    pub(super) async fn close(self) {
        // The server notices at its next write at the latest; nothing depends on the answer.
        self.stream.close().await.ok();
    }

    fn count_inner(&mut self, event: &Event) -> Result<()> {
        let length = u64::from(event.header().event_size());
        let payload = self.payload.as_mut().ok_or_else(broken_payload)?;
        payload.bytes_left = payload
            .bytes_left
            .checked_sub(length)
            .ok_or_else(broken_payload)?;
        Ok(())
    }

    fn on_outer(&mut self, event: &Event) -> Result<()> {
        if self.payload.is_some_and(|payload| payload.bytes_left > 0) {
            return Err(broken_payload());
        }
        self.payload = None;
        if event.header().event_type_raw() == code::TRANSACTION_PAYLOAD {
            self.payload = Some(Payload {
                bytes_left: payload_length(event.data())?,
                log_pos: event.header().log_pos(),
            });
        }
        Ok(())
    }
}

fn broken_payload() -> Error {
    Error::new(
        ErrorKind::SourceCorrupt,
        "a compressed transaction cannot be expanded",
    )
    .with_hint("SET GLOBAL binlog_transaction_compression = OFF, then resync the pipe")
}

/// The uncompressed length that a TRANSACTION_PAYLOAD event promises.
fn payload_length(body: &[u8]) -> Result<u64> {
    const END: u64 = 0;
    const PAYLOAD_SIZE: u64 = 1;
    const COMPRESSION: u64 = 2;
    const UNCOMPRESSED_SIZE: u64 = 3;
    const UNCOMPRESSED: u64 = 255;
    let mut fields = Fields::new("TRANSACTION_PAYLOAD", body);
    let (mut payload, mut plain, mut algorithm) = (0, None, 0);
    loop {
        let field = fields.lenenc()?;
        if field == END {
            break;
        }
        let mut value = Fields::new("TRANSACTION_PAYLOAD", fields.lenenc_bytes()?);
        match field {
            PAYLOAD_SIZE => payload = value.lenenc()?,
            COMPRESSION => algorithm = value.lenenc()?,
            UNCOMPRESSED_SIZE => plain = Some(value.lenenc()?),
            _ => {}
        }
    }
    match plain {
        _ if algorithm == UNCOMPRESSED => Ok(payload),
        Some(length) => Ok(length),
        None => Err(broken_payload()),
    }
}

/// CRC32 over header and body, as the source computed it (pitfall 49).
fn verify_checksum(event: &Event) -> Result<()> {
    let Some(expected) = event.checksum() else {
        return Ok(());
    };
    let header = event.header();
    let is_format = header.event_type_raw() == code::FORMAT_DESCRIPTION;
    let algorithm = event.footer().get_checksum_alg().ok().flatten();
    if is_format && algorithm != Some(BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_CRC32) {
        return Ok(());
    }
    let flags = match is_format {
        true => header.flags_raw() & !FLAG_BINLOG_IN_USE,
        false => header.flags_raw(),
    };
    let mut bytes = [0; 19];
    let fields = [
        &header.timestamp().to_le_bytes()[..],
        &[header.event_type_raw()],
        &header.server_id().to_le_bytes(),
        &header.event_size().to_le_bytes(),
        &header.log_pos().to_le_bytes(),
        &flags.to_le_bytes(),
    ];
    for (to, from) in bytes.iter_mut().zip(fields.concat()) {
        *to = from;
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes);
    hasher.update(event.data());
    if is_format {
        hasher.update(&[BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_CRC32 as u8]);
    }
    if hasher.finalize() != u32::from_le_bytes(expected) {
        return Err(Error::new(
            ErrorKind::SourceCorrupt,
            format!(
                "the checksum of a binlog event of type {} before {} is wrong",
                header.event_type_raw(),
                header.log_pos()
            ),
        )
        .with_hint("if it recurs, the binlog file is damaged: run mysqlbinlog --verify-binlog-checksum, then resync"));
    }
    Ok(())
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

fn ensure_offset_fits(offset: u64) -> Result<()> {
    if offset > u64::from(u32::MAX) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("the offset {offset} cannot be asked for: the protocol knows the first 4 GiB of a file"),
        )
        .with_hint("set `source.position: gtid`; or FLUSH BINARY LOGS at the source and resync the pipe"));
    }
    Ok(())
}

async fn dialect(conn: &mut Conn) -> Result<Dialect> {
    let case: Option<u8> = conn
        .query_first("SELECT @@lower_case_table_names")
        .await
        .map_err(query_error)?;
    Ok(Dialect {
        lower_case_names: case == Some(1),
    })
}

/// The same number always gives the same id, so that the server ends our own older stream and nobody else's
/// (pitfall 63).
fn replica_uuid(server_id: u32) -> String {
    format!("70697065-7772-4967-8874-0000{server_id:08x}")
}

async fn prepare_mysql(conn: &mut Conn, place: &Position, options: &StreamOptions) -> Result<()> {
    let heartbeat = options.heartbeat.as_nanos();
    let uuid = replica_uuid(options.server_id);
    conn.query_drop(format!(
        "SET @source_binlog_checksum = @@GLOBAL.binlog_checksum, @master_binlog_checksum = @@GLOBAL.binlog_checksum, \
         @source_heartbeat_period = {heartbeat}, @master_heartbeat_period = {heartbeat}, \
         @replica_uuid = '{uuid}', @slave_uuid = '{uuid}'"
    ))
    .await
    .map_err(query_error)?;
    match place {
        Position::Gtid { set } => ensure_gtids(conn, set).await,
        Position::File { .. } => Ok(()),
        Position::MariaGtid { .. } => Err(wrong_kind(place, "MySQL")),
    }
}

/// Ours must be executed there, and what was purged there must be ours (pitfall 60).
async fn ensure_gtids(conn: &mut Conn, set: &GtidSet) -> Result<()> {
    let (executed, gone): (String, String) = conn
        .query_first("SELECT @@GLOBAL.gtid_executed, @@GLOBAL.gtid_purged")
        .await
        .map_err(query_error)?
        .ok_or_else(|| Error::new(ErrorKind::SourceCorrupt, "the source told no GTIDs"))?;
    let extra = set.difference(&executed.parse()?);
    if !extra.is_empty() {
        let timed_out: Option<u8> = conn
            .exec_first(
                "SELECT WAIT_FOR_EXECUTED_GTID_SET(?, ?)",
                (extra.to_string(), EXECUTED_WAIT_SECONDS),
            )
            .await
            .map_err(query_error)?;
        if timed_out != Some(0) {
            return Err(diverged(&extra.to_string()));
        }
    }
    let missing = gone.parse::<GtidSet>()?.difference(set);
    if !missing.is_empty() {
        return Err(purged(&missing.to_string()));
    }
    Ok(())
}

async fn prepare_maria(conn: &mut Conn, place: &Position, options: &StreamOptions) -> Result<()> {
    let heartbeat = options.heartbeat.as_nanos();
    // Without the capability the server replaces its own events by dummies, GTIDs among them (pitfall 77).
    conn.query_drop(format!(
        "SET @mariadb_slave_capability = 4, @master_binlog_checksum = @@GLOBAL.binlog_checksum, \
         @master_heartbeat_period = {heartbeat}"
    ))
    .await
    .map_err(query_error)?;
    match place {
        Position::MariaGtid { list } => {
            ensure_domains(conn, list).await?;
            conn.query_drop(format!(
                "SET @slave_connect_state = '{list}', @slave_gtid_strict_mode = 1, @slave_gtid_ignore_duplicates = 0"
            ))
            .await
            .map_err(query_error)
        }
        Position::File { .. } => Ok(()),
        Position::Gtid { .. } => Err(wrong_kind(place, "MariaDB")),
    }
}

/// The source must know every domain as far as we do: of one that it does not know it would say nothing (pitfall 79).
/// What it has purged it says itself.
async fn ensure_domains(conn: &mut Conn, ours: &GtidList) -> Result<()> {
    let state: Option<String> = conn
        .query_first("SELECT @@GLOBAL.gtid_binlog_state")
        .await
        .map_err(query_error)?;
    let extra = ours.difference(&state.unwrap_or_default().parse()?);
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

    #[test]
    fn the_promised_length_of_a_compressed_transaction_is_found() {
        let zstd = [2, 1, 0, 3, 3, 252, 0, 2, 1, 1, 90, 0, 9, 9];
        assert_eq!(payload_length(&zstd).unwrap(), 512);
        let plain = [2, 3, 252, 255, 0, 1, 1, 90, 0];
        assert_eq!(payload_length(&plain).unwrap(), 90);
        for length in 0..11 {
            assert!(payload_length(&zstd[..length]).is_err());
        }
    }

    #[test]
    fn an_offset_that_the_protocol_would_cut_is_refused() {
        assert!(ensure_offset_fits(u64::from(u32::MAX)).is_ok());
        let error = ensure_offset_fits(1 << 32).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_server_id_always_gives_the_same_replica_uuid() {
        assert_eq!(replica_uuid(4242), "70697065-7772-4967-8874-000000001092");
    }
}
