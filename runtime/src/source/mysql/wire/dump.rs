//! A connection that has become a binlog stream.

use mysql_common::packets::{ComBinlogDump, ComBinlogDumpGtid, ComRegisterSlave, Sid};
use mysql_common::proto::MySerialize;
use tokio::time::Instant;

use super::channel::Channel;
use super::connection::WireConn;
use super::error::{ServerError, corrupt};
use crate::error::Result;

/// From where events are asked for.
#[derive(Clone, Debug)]
pub enum DumpStart<'a> {
    /// Everything that these sets lack.
    Gtids(Vec<Sid<'a>>),
    /// From an offset of a file on; an empty name leaves the place to the session's variables.
    File {
        /// The file's name.
        name: &'a str,
        /// Where in it.
        offset: u32,
    },
}

/// The events of a binlog, one packet each.
#[derive(Debug)]
pub struct Dump {
    channel: Channel,
}

impl WireConn {
    /// Registers as the replica `server_id` of the name `host` and asks for the binlog.
    ///
    /// # Errors
    /// What the server refuses with, or a broken connection. A place that it refuses it tells by [`Dump::next`].
    pub async fn dump(mut self, server_id: u32, host: &str, start: DumpStart<'_>) -> Result<Dump> {
        let mut request = Vec::new();
        ComRegisterSlave::new(server_id)
            .with_hostname(host.as_bytes())
            .serialize(&mut request);
        self.command(&request).await?;
        request.clear();
        match start {
            DumpStart::Gtids(sids) => ComBinlogDumpGtid::new(server_id)
                .with_pos(4_u64)
                .with_sids(sids)
                .serialize(&mut request),
            DumpStart::File { name, offset } => ComBinlogDump::new(server_id)
                .with_pos(offset)
                .with_filename(name.as_bytes())
                .serialize(&mut request),
        }
        let mut channel = self.into_channel();
        channel.send_command(&request).await?;
        Ok(Dump { channel })
    }
}

impl Dump {
    /// When bytes came last, also of an event that has not come whole.
    pub fn read_at(&self) -> Instant {
        self.channel.read_at()
    }

    /// The next event, from its header on; none when the source has ended the stream. Cancel safe.
    ///
    /// # Errors
    /// The server's, with [`ServerError`] underneath; a broken connection.
    pub async fn next(&mut self) -> Result<Option<&[u8]>> {
        let packet = self.channel.receive().await?;
        match packet {
            [0, event @ ..] => Ok(Some(event)),
            [0xff, ..] => Err(ServerError::parse(packet).into()),
            [0xfe, ..] if packet.len() < 8 => Ok(None),
            _ => Err(corrupt("a packet that is no event in a binlog")),
        }
    }
}
