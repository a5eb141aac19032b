//! A proxy before a source that alters events of the binlog on their way, or breaks every binlog off: what no real server can
//! be made to do.
//!
//! It takes apart the packets of a connection that has asked for a binlog. An altered event gets its length and its
//! checksum anew, so that whoever receives it cannot tell it from one that the server has written so. Connections must be
//! neither encrypted nor compressed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::proxy::both_ends;

const BUFFER_BYTES: usize = 64 << 10;

/// A packet of this length is followed by the rest of what it holds.
const PACKET_MAX: usize = 0xff_ffff;

const COM_BINLOG_DUMP: u8 = 0x12;
const COM_BINLOG_DUMP_GTID: u8 = 0x1e;

const HEADER_BYTES: usize = 19;
const CHECKSUM_BYTES: usize = 4;
const ROTATE: u8 = 4;
const FORMAT_DESCRIPTION: u8 = 15;
const TABLE_MAP: u8 = 19;
const PARTIAL_ROW_DATA: u8 = 172;

/// The events that are shown to an alteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventPart {
    /// A TABLE_MAP event.
    Map,
    /// Rows that were written, changed or deleted.
    Rows,
}

/// What an alteration may change of an event.
#[derive(Debug)]
pub struct PassingEvent {
    /// The number of its kind.
    pub kind: u8,
    /// The flags of its header.
    pub flags: u16,
    /// What is behind the header, without a checksum.
    pub body: Vec<u8>,
    /// It comes in fragments of so many bytes, as MariaDB 12.3 writes what is large.
    pub fragment_bytes: Option<usize>,
}

/// What becomes of an event; the second argument is the table's `database.table`.
pub type Alteration = dyn Fn(EventPart, &str, &mut PassingEvent) + Send + Sync;

/// Whether binlogs are broken off, and how many were.
#[derive(Debug, Default)]
struct Cuts {
    wanted: AtomicBool,
    done: AtomicU32,
    /// The table behind so many of whose row events the wish arises.
    behind: Mutex<Option<(String, u32)>>,
}

impl Cuts {
    fn count(&self, table: &str) {
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, left)) = behind.as_mut().filter(|(counted, _)| counted == table) else {
            return;
        };
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.wanted.store(true, Ordering::SeqCst);
            *behind = None;
        }
    }
}

/// A running proxy; dropping it ends all of its connections.
#[derive(Debug)]
pub struct BinlogProxy {
    port: u16,
    altering: Arc<AtomicBool>,
    cuts: Arc<Cuts>,
    farther: Arc<AtomicU32>,
    server: watch::Sender<u16>,
    _task: JoinSet<()>,
}

impl BinlogProxy {
    /// Listens on a free port for whoever should reach `port` of this machine, and lets every event of a table pass
    /// through `alteration`.
    pub async fn before(
        port: u16,
        alteration: impl Fn(EventPart, &str, &mut PassingEvent) + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let own = listener.local_addr()?.port();
        let altering = Arc::new(AtomicBool::new(true));
        let cuts = Arc::new(Cuts::default());
        let farther = Arc::new(AtomicU32::new(0));
        let (server, behind) = watch::channel(port);
        let link = Link {
            server: behind,
            altering: Arc::clone(&altering),
            cuts: Arc::clone(&cuts),
            farther: Arc::clone(&farther),
            alteration: Arc::new(alteration),
        };
        let mut task = JoinSet::new();
        task.spawn(accept(listener, link));
        Ok(Self {
            port: own,
            altering,
            cuts,
            farther,
            server,
            _task: task,
        })
    }

    /// The port on which it answers.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on every event passes as the server has written it.
    pub fn mend(&self) {
        self.altering.store(false, Ordering::SeqCst);
    }

    /// From now on, or no longer, every binlog is broken off in place of what the server would say next: by turns with an
    /// error that names no reason, and without a word.
    pub fn break_off(&self, wanted: bool) {
        self.cuts.wanted.store(wanted, Ordering::SeqCst);
    }

    /// Breaks every binlog off, as [`Self::break_off`] does, from the moment on at which so many more row events of
    /// `database.table` have passed.
    pub fn break_off_behind(&self, table: &str, row_events: u32) {
        let mut behind = self
            .cuts
            .behind
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *behind = Some((table.to_owned(), row_events));
    }

    /// From now on events stand so many bytes farther in their file than they do, as far as their headers can say it.
    pub fn move_farther(&self, bytes: u32) {
        self.farther.store(bytes, Ordering::SeqCst);
    }

    /// From now on another server of this machine answers; what is open breaks off.
    pub fn turn_to(&self, port: u16) {
        self.server.send_replace(port);
    }

    /// How many binlogs were broken off.
    pub fn broken_off(&self) -> u32 {
        self.cuts.done.load(Ordering::SeqCst)
    }
}

#[derive(Clone)]
struct Link {
    /// The port of the server that answers.
    server: watch::Receiver<u16>,
    altering: Arc<AtomicBool>,
    cuts: Arc<Cuts>,
    farther: Arc<AtomicU32>,
    alteration: Arc<Alteration>,
}

async fn accept(listener: TcpListener, link: Link) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let link = link.clone();
        connections.spawn(async move {
            // Either end may go away at any moment; then so does the other.
            carry(client, link).await.ok();
        });
    }
}

async fn carry(client: TcpStream, mut link: Link) -> Result<()> {
    let port = *link.server.borrow_and_update();
    let [(from_client, to_client), (from_server, to_server)] = both_ends(client, port).await?;
    let mut server = link.server.clone();
    let dumping = Arc::new(AtomicBool::new(false));
    let events = Events {
        link,
        dumping: Arc::clone(&dumping),
        checksums: false,
        tables: HashMap::new(),
        sequence_ahead: 0,
    };
    tokio::select! {
        result = commands(from_client, to_server, dumping) => result,
        result = events.carry(from_server, to_client) => result,
        _ = server.changed() => Ok(()),
    }
}

/// Carries what the client says, and takes note of the command for a binlog, which comes as one packet of its own.
async fn commands(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    dumping: Arc<AtomicBool>,
) -> Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        if let [a, b, c, 0, COM_BINLOG_DUMP | COM_BINLOG_DUMP_GTID, ..] = buffer[..read]
            && packet_length([a, b, c]) + 4 == read
        {
            dumping.store(true, Ordering::SeqCst);
        }
        to.write_all(&buffer[..read]).await?;
    }
}

/// What the server says on one connection.
struct Events {
    link: Link,
    dumping: Arc<AtomicBool>,
    checksums: bool,
    /// The tables of the maps so far, by the id that row events refer to.
    tables: HashMap<Vec<u8>, String>,
    /// By how much packets are ahead of the server's numbering: fragments are packets of their own.
    sequence_ahead: u8,
}

impl Events {
    async fn carry(mut self, from: OwnedReadHalf, mut to: OwnedWriteHalf) -> Result<()> {
        let mut from = BufReader::with_capacity(BUFFER_BYTES, from);
        let mut continued = false;
        loop {
            let mut head = [0; 4];
            if from.read_exact(&mut head).await.is_err() {
                return Ok(());
            }
            let length = packet_length([head[0], head[1], head[2]]);
            let mut packet = vec![0; length];
            from.read_exact(&mut packet).await?;
            let dumping = self.dumping.load(Ordering::SeqCst);
            if dumping && self.link.cuts.wanted.load(Ordering::SeqCst) {
                if self
                    .link
                    .cuts
                    .done
                    .fetch_add(1, Ordering::SeqCst)
                    .is_multiple_of(2)
                {
                    let refusal = refusal();
                    let [length, ..] = u32::try_from(refusal.len())?.to_le_bytes();
                    let sequence = head[3].wrapping_add(self.sequence_ahead);
                    to.write_all(&[length, 0, 0, sequence]).await?;
                    to.write_all(&refusal).await?;
                }
                return Ok(());
            }
            let whole = length < PACKET_MAX && !continued;
            continued = length == PACKET_MAX;
            let packets = match whole && dumping && packet.first() == Some(&0) {
                true => self.event(packet)?,
                false => vec![packet],
            };
            for (place, packet) in packets.iter().enumerate() {
                if place > 0 {
                    self.sequence_ahead = self.sequence_ahead.wrapping_add(1);
                }
                let [a, b, c, ..] = u32::try_from(packet.len())?.to_le_bytes();
                let sequence = head[3].wrapping_add(self.sequence_ahead);
                to.write_all(&[a, b, c, sequence]).await?;
                to.write_all(packet).await?;
            }
        }
    }

    /// The packets of an event, altered or not.
    fn event(&mut self, packet: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let (header, rest) = packet[1..]
            .split_at_checked(HEADER_BYTES)
            .context("an event without a header")?;
        let kind = header[4];
        if kind == FORMAT_DESCRIPTION {
            // The algorithm stands before the checksum.
            let algorithm = rest.len().checked_sub(1 + CHECKSUM_BYTES);
            self.checksums = algorithm.is_some_and(|at| rest[at] == 1);
        }
        let farther = self.link.farther.load(Ordering::SeqCst);
        let part = part(kind);
        // The first two events of a connection tell of no place.
        if part.is_none() && (farther == 0 || matches!(kind, FORMAT_DESCRIPTION | ROTATE)) {
            return Ok(vec![packet]);
        }
        let checksum = if self.checksums { CHECKSUM_BYTES } else { 0 };
        let mut passing = PassingEvent {
            kind,
            flags: u16::from_le_bytes([header[17], header[18]]),
            body: rest[..rest.len().saturating_sub(checksum)].to_vec(),
            fragment_bytes: None,
        };
        let id = passing.body.get(..6).unwrap_or_default().to_vec();
        if part == Some(EventPart::Map) {
            let name = table_name(&passing.body).context("a table's name")?;
            self.tables.insert(id.clone(), name);
        }
        if let (Some(part), Some(table)) = (part, self.tables.get(&id)) {
            if self.link.altering.load(Ordering::SeqCst) {
                (self.link.alteration)(part, table, &mut passing);
            }
            if part == EventPart::Rows {
                self.link.cuts.count(table);
            }
        }
        let mut header = header.to_vec();
        header[4] = passing.kind;
        header[17..19].copy_from_slice(&passing.flags.to_le_bytes());
        let end = u32::from_le_bytes([header[13], header[14], header[15], header[16]]);
        header[13..17].copy_from_slice(&end.wrapping_add(farther).to_le_bytes());
        match passing.fragment_bytes {
            None => Ok(vec![self.packed(&header, &passing.body)?]),
            Some(bytes) => self.fragments(&header, &passing.body, bytes),
        }
    }

    /// Each says how many there are and which one it is, the first also how long the event is.
    fn fragments(&self, header: &[u8], body: &[u8], bytes: usize) -> Result<Vec<Vec<u8>>> {
        let mut whole = [header, body].concat();
        let size = u32::try_from(whole.len())?;
        whole[9..13].copy_from_slice(&size.to_le_bytes());
        let total = u32::try_from(whole.chunks(bytes).count())?;
        let mut header = header.to_vec();
        header[4] = PARTIAL_ROW_DATA;
        let mut packets = Vec::new();
        for (number, part) in (1_u32..).zip(whole.chunks(bytes)) {
            let mut fragment = [total.to_le_bytes(), number.to_le_bytes()].concat();
            fragment.push(u8::from(number == 1));
            if number == 1 {
                fragment.extend(u64::from(size).to_le_bytes());
            }
            fragment.extend(part);
            packets.push(self.packed(&header, &fragment)?);
        }
        Ok(packets)
    }

    fn packed(&self, header: &[u8], body: &[u8]) -> Result<Vec<u8>> {
        let mut event = [header, body].concat();
        let checksum = if self.checksums { CHECKSUM_BYTES } else { 0 };
        let size = u32::try_from(event.len() + checksum)?;
        event[9..13].copy_from_slice(&size.to_le_bytes());
        if self.checksums {
            let checksum = crc32fast::hash(&event);
            event.extend(checksum.to_le_bytes());
        }
        event.insert(0, 0);
        Ok(event)
    }
}

/// Error 1236 with a text that no server has.
fn refusal() -> Vec<u8> {
    let mut packet = vec![0xff];
    packet.extend(1236_u16.to_le_bytes());
    packet.extend(b"#HY000out of order");
    packet
}

fn packet_length([a, b, c]: [u8; 3]) -> usize {
    usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16
}

/// Rows events have one range of numbers for each of the two versions that servers write.
fn part(kind: u8) -> Option<EventPart> {
    match kind {
        TABLE_MAP => Some(EventPart::Map),
        23..=25 | 30..=32 => Some(EventPart::Rows),
        _ => None,
    }
}

/// From behind a map's id and flags: both names, each with its length before it and a zero behind it.
fn table_name(body: &[u8]) -> Option<String> {
    let (database, rest) = name(body.get(8..)?)?;
    let (table, _) = name(rest)?;
    Some(format!("{database}.{table}"))
}

fn name(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((std::str::from_utf8(name).ok()?, rest.get(1..)?))
}
