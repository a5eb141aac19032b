//! Row events that MariaDB 12.3 cuts into fragments (pitfall 85).
//!
//! A row event larger than `binlog_row_event_fragment_threshold` comes as PARTIAL_ROW_DATA events, one behind the other, whose
//! contents joined are the event with its header: <https://mariadb.com/docs/server/reference/clientserver-protocol/replication-protocol/partial_row_data_event>.

use super::event::{Fields, truncated};
use crate::error::{Error, ErrorKind, Result};

/// The largest event that is put together, as the server's own limit for one that it does not cut.
const EVENT_BYTES_MAX: u64 = 1 << 30;

const EVENT: &str = "PARTIAL_ROW_DATA";

/// The fragments of one event, as far as they have come.
#[derive(Debug)]
pub(super) struct Fragments {
    total: u32,
    next: u32,
    size: u64,
    bytes: Vec<u8>,
}

impl Fragments {
    /// Takes the next fragment; the first one begins a new event. The whole event's header and body once it is complete.
    ///
    /// # Errors
    /// `SourceCorrupt` for a fragment that does not follow the one before, or a whole of another size than announced;
    /// `Unsupported` for one that is too large.
    pub(super) fn push(open: &mut Option<Self>, body: &[u8]) -> Result<Option<Vec<u8>>> {
        const ORIGINAL_SIZE: u8 = 1;
        let mut fields = Fields::new(EVENT, body);
        let (total, number, flags) = (fields.u32()?, fields.u32()?, fields.u8()?);
        let size = match flags & ORIGINAL_SIZE {
            0 => None,
            _ => Some(fields.uint(8)?),
        };
        let mut event = match (open.take(), number, size) {
            (None, 1, Some(size)) => Self {
                total,
                next: 1,
                size: fitting(size)?,
                bytes: Vec::new(),
            },
            (Some(event), _, _) => event,
            (None, _, _) => return Err(truncated(EVENT)),
        };
        event.bytes.extend_from_slice(fields.rest());
        let follows = event.next == number && event.total == total && number <= total;
        if !follows || event.bytes.len() as u64 > event.size {
            return Err(truncated(EVENT));
        }
        if number < total {
            event.next += 1;
            *open = Some(event);
            return Ok(None);
        }
        if event.bytes.len() as u64 != event.size {
            return Err(truncated(EVENT));
        }
        Ok(Some(event.bytes))
    }
}

fn fitting(size: u64) -> Result<u64> {
    if size <= EVENT_BYTES_MAX {
        return Ok(size);
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("the binlog holds a row event of {} MiB", size >> 20),
    )
    .with_hint("write fewer rows by one statement, then resync the table that it wrote to"))
}
