//! Packets over a socket, out of one large buffer.
//!
//! A packet that lies whole in the buffer is handed out where it lies. A packet larger than the buffer makes the buffer
//! grow for as long as it lasts; parts of a packet of 16 MiB and more are joined in a vector of their own. Reading is
//! cancel safe: what has arrived stays in the buffer.

use std::ops::Range;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::error::{corrupt, unavailable};
use crate::error::{Error, ErrorKind, Result};

/// Bytes asked of the socket at once: a large receive buffer keeps reader and server from waking each other for every
/// few rows.
const BUFFER_BYTES: usize = 512 * 1024;

/// A packet of this length is continued by the next one.
const PART_BYTES: usize = 0xff_ff_ff;

const HEADER_BYTES: usize = 4;

/// How long the source may be silent while we wait for it, before it counts as dead. A partition's first row can take
/// a while where the split column lacks a useful index.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(300);

/// The socket, before and after TLS.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    async fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(buffer).await,
            Stream::Tls(stream) => stream.read(buffer).await,
        }
    }

    async fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.write_all(bytes).await,
            Stream::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }
}

/// Where a whole packet lies.
pub(super) enum Packet {
    Buffered(Range<usize>),
    Joined,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").finish_non_exhaustive()
    }
}

/// One connection's packets in both directions.
pub(super) struct Channel {
    stream: Stream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    sequence: u8,
    joined: Vec<u8>,
    joining: bool,
    read_at: Instant,
}

impl Channel {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            sequence: 0,
            joined: Vec::new(),
            joining: false,
            read_at: Instant::now(),
        }
    }

    /// When bytes came last; when it was opened, before the first ones.
    pub(super) fn read_at(&self) -> Instant {
        self.read_at
    }

    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Gives the socket out to be encrypted. Bytes that arrived before that would have come from someone in between.
    pub(super) fn into_plain(self) -> Result<(TcpStream, u8)> {
        if self.start != self.end {
            return Err(corrupt("the source sent bytes ahead of the TLS handshake"));
        }
        match self.stream {
            Stream::Plain(stream) => Ok((stream, self.sequence)),
            Stream::Tls(_) => Err(Error::new(
                ErrorKind::Internal,
                "TLS was asked for twice on one connection",
            )),
        }
    }

    /// The encrypted channel that goes on where the plain one was.
    pub(super) fn encrypted(stream: TlsStream<TcpStream>, sequence: u8) -> Self {
        let mut channel = Self::new(Stream::Tls(Box::new(stream)));
        channel.sequence = sequence;
        channel
    }

    /// Sends a command, which starts a new sequence.
    pub(super) async fn send_command(&mut self, payload: &[u8]) -> Result<()> {
        self.sequence = 0;
        self.send(payload).await
    }

    /// Sends a packet within a sequence.
    pub(super) async fn send(&mut self, payload: &[u8]) -> Result<()> {
        let mut bytes = Vec::with_capacity(payload.len() + HEADER_BYTES);
        let mut rest = payload;
        loop {
            let part = rest.get(..PART_BYTES).unwrap_or(rest);
            let length = u32::try_from(part.len()).expect("a part has at most 24 bits of length");
            bytes.extend_from_slice(length.to_le_bytes().get(..3).unwrap_or_default());
            bytes.push(self.sequence);
            bytes.extend_from_slice(part);
            self.sequence = self.sequence.wrapping_add(1);
            rest = rest.get(part.len()..).unwrap_or_default();
            if part.len() < PART_BYTES {
                break;
            }
        }
        match tokio::time::timeout(READ_TIMEOUT, self.stream.write_all(&bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(unavailable("the connection to the source broke", error)),
            Err(elapsed) => Err(unavailable(
                "the source took no command within its time",
                elapsed,
            )),
        }
    }

    /// Waits for a whole packet.
    pub(super) async fn receive(&mut self) -> Result<&[u8]> {
        loop {
            if let Some(packet) = self.buffered()? {
                return Ok(self.payload(&packet));
            }
            self.fill().await?;
        }
    }

    /// The next packet, when it has arrived whole.
    pub(super) fn buffered(&mut self) -> Result<Option<Packet>> {
        loop {
            let Some(&[low, middle, high, sequence]) = self
                .buffer
                .get(self.start..self.end)
                .and_then(|bytes| bytes.first_chunk::<HEADER_BYTES>())
            else {
                return Ok(None);
            };
            let length = usize::from(low) | usize::from(middle) << 8 | usize::from(high) << 16;
            let from = self.start + HEADER_BYTES;
            let to = from + length;
            if to > self.end {
                return Ok(None);
            }
            if sequence != self.sequence {
                return Err(corrupt(format!(
                    "packet {sequence} from the source where {} was due",
                    self.sequence
                )));
            }
            self.sequence = self.sequence.wrapping_add(1);
            self.start = to;
            if length < PART_BYTES && !self.joining {
                return Ok(Some(Packet::Buffered(from..to)));
            }
            if !self.joining {
                self.joined.clear();
            }
            self.joined
                .extend_from_slice(self.buffer.get(from..to).unwrap_or_default());
            self.joining = length == PART_BYTES;
            if !self.joining {
                return Ok(Some(Packet::Joined));
            }
        }
    }

    /// The bytes of a packet that [`Channel::buffered`] found, until the next [`Channel::fill`].
    pub(super) fn payload(&self, packet: &Packet) -> &[u8] {
        match packet {
            Packet::Buffered(range) => self.buffer.get(range.clone()).unwrap_or_default(),
            Packet::Joined => &self.joined,
        }
    }

    /// Waits for more bytes. Cancel safe.
    pub(super) async fn fill(&mut self) -> Result<()> {
        self.make_room();
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        match tokio::time::timeout(READ_TIMEOUT, self.stream.read(room)).await {
            Ok(Ok(0)) => Err(Error::new(
                ErrorKind::SourceUnavailable,
                "the source closed the connection",
            )),
            Ok(Ok(count)) => {
                self.end += count;
                self.read_at = Instant::now();
                Ok(())
            }
            Ok(Err(error)) => Err(unavailable("the connection to the source broke", error)),
            Err(elapsed) => Err(unavailable(
                format!("the source was silent for {} s", READ_TIMEOUT.as_secs()),
                elapsed,
            )),
        }
    }

    /// Moves what is left to the front, and sees to it that the packet it begins will fit.
    fn make_room(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let packet = match self.buffer.get(..self.end) {
            Some(&[low, middle, high, ..]) => {
                HEADER_BYTES
                    + (usize::from(low) | usize::from(middle) << 8 | usize::from(high) << 16)
            }
            _ => 0,
        };
        let wanted = packet.max(BUFFER_BYTES);
        if wanted > self.buffer.len() {
            self.buffer.resize(wanted, 0);
        } else if self.end < BUFFER_BYTES && wanted == BUFFER_BYTES && self.buffer.len() > wanted {
            self.buffer.truncate(wanted);
            self.buffer.shrink_to_fit();
        }
        if !self.joining && self.joined.capacity() > BUFFER_BYTES {
            self.joined = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A channel whose other end sends exactly these bytes and closes.
    async fn fed(bytes: Vec<u8>) -> Channel {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            socket.write_all(&bytes).await.ok();
        });
        Channel::new(Stream::Plain(
            TcpStream::connect(address).await.expect("a connection"),
        ))
    }

    fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_le_bytes()[..3].to_vec();
        bytes.push(sequence);
        bytes.extend_from_slice(payload);
        bytes
    }

    #[tokio::test]
    async fn packets_come_out_whole_and_in_order() {
        let mut bytes = packet(0, b"first");
        bytes.extend(packet(1, b""));
        bytes.extend(packet(2, b"third"));
        let mut channel = fed(bytes).await;
        assert_eq!(channel.receive().await.unwrap(), b"first");
        assert_eq!(channel.receive().await.unwrap(), b"");
        assert_eq!(channel.receive().await.unwrap(), b"third");
        let end = channel.receive().await.unwrap_err();
        assert_eq!(end.kind(), ErrorKind::SourceUnavailable);
    }

    #[tokio::test]
    async fn a_packet_larger_than_the_buffer_arrives_whole_and_the_buffer_shrinks_again() {
        let large: Vec<u8> = (0..3 * BUFFER_BYTES).map(|i| (i % 251) as u8).collect();
        let mut bytes = packet(0, &large);
        bytes.extend(packet(1, b"after"));
        let mut channel = fed(bytes).await;
        assert_eq!(channel.receive().await.unwrap(), large);
        assert_eq!(channel.receive().await.unwrap(), b"after");
        channel.receive().await.unwrap_err();
        assert_eq!(channel.buffer.len(), BUFFER_BYTES);
    }

    #[tokio::test]
    async fn parts_of_a_packet_past_16_mib_are_joined() {
        let whole: Vec<u8> = (0..PART_BYTES + 10).map(|i| (i % 253) as u8).collect();
        let mut bytes = packet(0, &whole[..PART_BYTES]);
        bytes.extend(packet(1, &whole[PART_BYTES..]));
        bytes.extend(packet(2, b"after"));
        let mut channel = fed(bytes).await;
        assert!(channel.receive().await.unwrap() == whole);
        assert_eq!(channel.receive().await.unwrap(), b"after");
    }

    #[tokio::test]
    async fn a_packet_of_exactly_the_part_length_is_ended_by_an_empty_one() {
        let whole = vec![7; PART_BYTES];
        let mut bytes = packet(0, &whole);
        bytes.extend(packet(1, b""));
        bytes.extend(packet(2, b"after"));
        let mut channel = fed(bytes).await;
        assert!(channel.receive().await.unwrap() == whole);
        assert_eq!(channel.receive().await.unwrap(), b"after");
    }

    #[tokio::test]
    async fn every_part_of_a_packet_counts_as_heard() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let connecting = TcpStream::connect(address);
        let (stream, accepted) = tokio::join!(connecting, listener.accept());
        let (mut sender, _) = accepted.expect("a connection");
        let mut channel = Channel::new(Stream::Plain(stream.expect("a connection")));
        let whole = packet(0, b"slowly");
        let mut heard = channel.read_at();
        for byte in whole {
            assert!(channel.buffered().unwrap().is_none());
            tokio::time::sleep(Duration::from_millis(1)).await;
            sender.write_all(&[byte]).await.expect("it is read");
            channel.fill().await.unwrap();
            assert!(channel.read_at() > heard);
            heard = channel.read_at();
        }
        assert_eq!(channel.receive().await.unwrap(), b"slowly");
        assert_eq!(channel.read_at(), heard);
    }

    #[tokio::test]
    async fn a_missing_packet_is_noticed() {
        let mut bytes = packet(0, b"first");
        bytes.extend(packet(2, b"third"));
        let mut channel = fed(bytes).await;
        channel.receive().await.unwrap();
        let error = channel.receive().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SourceCorrupt);
    }
}
