//! Compressed transactions of MySQL (pitfall 54), expanded event by event.
//!
//! A TRANSACTION_PAYLOAD event holds the events of a whole transaction, by zstd as a rule. What is small on the wire may
//! be gigabytes once expanded, so no more than one inner event is in memory at a time. The outer event promises a length,
//! and whatever does not come out at exactly that length is an error: an event left out would be rows lost.

use std::fmt;
use std::io::{BufReader, Cursor, Read};

use super::event::{Fields, RawEvent};
use crate::error::{Error, ErrorKind, Result};

/// The header of an inner event.
const HEADER_BYTES: usize = 19;

/// The largest inner event taken: what `max_allowed_packet` can be at most, twice, as an update holds two images.
const EVENT_BYTES_MAX: usize = 2 << 30;

/// A compressed transaction whose inner events are being read.
pub(super) struct Payload {
    plain: Box<dyn Read + Send + Sync>,
    bytes_left: u64,
    /// The outer event's place, the only one that counts.
    log_pos: u32,
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload")
            .field("bytes_left", &self.bytes_left)
            .finish_non_exhaustive()
    }
}

/// The fields before the compressed bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Head {
    size: u64,
    plain: Option<u64>,
    algorithm: u64,
}

const ZSTD: u64 = 0;
const UNCOMPRESSED: u64 = 255;

impl Payload {
    /// Begins to read the inner events of a TRANSACTION_PAYLOAD event.
    ///
    /// # Errors
    /// `SourceCorrupt`; `Unsupported` for an unknown compression.
    pub(super) fn open(event: &RawEvent<'_>) -> Result<Self> {
        let (head, rest) = Head::parse(event.body)?;
        let length = usize::try_from(head.size).map_err(|_| broken())?;
        let bytes = rest.get(..length).ok_or_else(broken)?.to_vec();
        let (plain, bytes_left): (Box<dyn Read + Send + Sync>, u64) = match head.algorithm {
            UNCOMPRESSED => (Box::new(Cursor::new(bytes)), head.size),
            ZSTD => {
                let decoder = zstd::stream::read::Decoder::new(Cursor::new(bytes))
                    .map_err(|error| broken().with_source(error))?;
                let buffered = BufReader::with_capacity(64 << 10, decoder);
                (Box::new(buffered), head.plain.ok_or_else(broken)?)
            }
            other => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("a transaction is compressed by algorithm {other}"),
                )
                .with_hint(
                    "SET GLOBAL binlog_transaction_compression = OFF, then resync the pipe",
                ));
            }
        };
        Ok(Self {
            plain,
            bytes_left,
            log_pos: event.log_pos,
        })
    }

    /// Reads the next inner event's header and body into `into`; false when there is none left.
    ///
    /// # Errors
    /// `SourceCorrupt` when the bytes cannot be expanded, or are more or fewer than the outer event promised.
    pub(super) fn read(&mut self, into: &mut Vec<u8>) -> Result<bool> {
        into.clear();
        if self.bytes_left == 0 {
            let more = self
                .plain
                .read(&mut [0])
                .map_err(|error| broken().with_source(error))?;
            return if more == 0 { Ok(false) } else { Err(broken()) };
        }
        into.resize(HEADER_BYTES, 0);
        self.fill(into)?;
        let size = Fields::new("TRANSACTION_PAYLOAD", into.get(9..).unwrap_or_default()).u32()?;
        let size = usize::try_from(size).map_err(|_| broken())?;
        let fits = (HEADER_BYTES..=EVENT_BYTES_MAX).contains(&size);
        if !fits || size as u64 > self.bytes_left {
            return Err(broken());
        }
        into.resize(size, 0);
        self.fill(into.get_mut(HEADER_BYTES..).unwrap_or_default())?;
        self.bytes_left -= size as u64;
        Ok(true)
    }

    /// The outer event's place.
    pub(super) fn log_pos(&self) -> u32 {
        self.log_pos
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<()> {
        self.plain
            .read_exact(into)
            .map_err(|error| broken().with_source(error))
    }
}

impl Head {
    fn parse(body: &[u8]) -> Result<(Self, &[u8])> {
        const END: u64 = 0;
        const PAYLOAD_SIZE: u64 = 1;
        const COMPRESSION: u64 = 2;
        const UNCOMPRESSED_SIZE: u64 = 3;
        let mut fields = Fields::new("TRANSACTION_PAYLOAD", body);
        let mut head = Self::default();
        loop {
            let field = fields.lenenc()?;
            if field == END {
                return Ok((head, fields.rest()));
            }
            let mut value = Fields::new("TRANSACTION_PAYLOAD", fields.lenenc_bytes()?);
            match field {
                PAYLOAD_SIZE => head.size = value.lenenc()?,
                COMPRESSION => head.algorithm = value.lenenc()?,
                UNCOMPRESSED_SIZE => head.plain = Some(value.lenenc()?),
                _ => {}
            }
        }
    }
}

fn broken() -> Error {
    Error::new(
        ErrorKind::SourceCorrupt,
        "a compressed transaction cannot be expanded",
    )
    .with_hint("SET GLOBAL binlog_transaction_compression = OFF, then resync the pipe")
}

#[cfg(test)]
mod tests {
    use super::super::event::code;
    use super::*;

    /// Two inner events of which the second is large, as the source would send them.
    fn inner(length: usize) -> Vec<u8> {
        let mut plain = Vec::new();
        for (kind, body) in [
            (code::QUERY, vec![1; 30]),
            (code::WRITE_ROWS, vec![7; length]),
        ] {
            let size = u32::try_from(HEADER_BYTES + body.len()).unwrap();
            plain.extend([0; 4]);
            plain.push(kind);
            plain.extend([0; 4]);
            plain.extend(size.to_le_bytes());
            plain.extend([0; 6]);
            plain.extend(body);
        }
        plain
    }

    fn lenenc(to: &mut Vec<u8>, number: u64) {
        to.push(254);
        to.extend(number.to_le_bytes());
    }

    fn outer(algorithm: u64, packed: &[u8], promised: u64) -> Vec<u8> {
        let mut body = Vec::new();
        for (field, number) in [(2, algorithm), (3, promised), (1, packed.len() as u64)] {
            body.extend([field, 9]);
            lenenc(&mut body, number);
        }
        body.push(0);
        body.extend(packed);
        body
    }

    fn read(body: &[u8]) -> Result<Vec<usize>> {
        let mut payload = Payload::open(&RawEvent {
            kind: code::TRANSACTION_PAYLOAD,
            timestamp: 0,
            server_id: 1,
            log_pos: 77,
            length: 0,
            flags: 0,
            body,
        })?;
        assert_eq!(payload.log_pos(), 77);
        let (mut event, mut lengths) = (Vec::new(), Vec::new());
        while payload.read(&mut event)? {
            lengths.push(event.len());
        }
        Ok(lengths)
    }

    /// pitfall 54
    #[test]
    fn inner_events_come_out_one_by_one_whole_or_as_an_error() {
        let plain = inner(3 << 20);
        let length = plain.len() as u64;
        let packed = zstd::encode_all(&plain[..], 3).unwrap();
        let expected = vec![HEADER_BYTES + 30, HEADER_BYTES + (3 << 20)];
        assert_eq!(read(&outer(ZSTD, &packed, length)).unwrap(), expected);
        assert_eq!(
            read(&outer(UNCOMPRESSED, &plain, length)).unwrap(),
            expected
        );
        for (what, body) in [
            ("cut", outer(ZSTD, &packed[..packed.len() - 4], length)),
            ("promised too little", outer(ZSTD, &packed, length - 1)),
            ("promised too much", outer(ZSTD, &packed, length + 1)),
            ("no zstd", outer(ZSTD, b"nothing of the kind", length)),
            (
                "more than is there",
                outer(UNCOMPRESSED, &plain[..200], length),
            ),
        ] {
            let error = read(&body).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::SourceCorrupt, "{what}");
        }
        let unknown = read(&outer(1, &packed, length)).unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::Unsupported);
        for cut in 0..20 {
            assert!(read(&outer(ZSTD, &packed, length)[..cut]).is_err());
        }
    }
}
