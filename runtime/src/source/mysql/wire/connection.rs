//! One connection for reading result sets.

use std::collections::HashMap;
use std::fmt;

use mysql_common::constants::CapabilityFlags;
use mysql_common::io::ParseBuf;
use mysql_common::packets::{
    AuthPlugin, ComStmtClose, HandshakePacket, HandshakeResponse, SslRequest, StmtPacket,
};
use mysql_common::proto::MySerialize;
use tokio::net::TcpStream;

use super::super::connection::{CONNECT_TIMEOUT, REACHABLE};
use super::auth::{self, Challenge};
use super::channel::{Channel, Stream};
use super::definition::Definition;
use super::error::{ServerError, corrupt, unavailable};
use super::tls;
use crate::config::{SourceConfig, SourceType, TlsMode};
use crate::error::{Error, ErrorKind, Result};

const COM_QUIT: u8 = 0x01;
const COM_QUERY: u8 = 0x03;
const COM_STMT_PREPARE: u8 = 0x16;
const COM_STMT_EXECUTE: u8 = 0x17;

const OK: u8 = 0x00;
const LOCAL_INFILE: u8 = 0xfb;
const END: u8 = 0xfe;
const ERR: u8 = 0xff;

/// A packet of ours is never larger; the server's may be as large as it likes.
const MAX_PACKET_BYTES: u32 = 1 << 30;

/// utf8mb4_general_ci, which both families know; `SET NAMES` chooses the session's own.
const HANDSHAKE_COLLATION: u8 = 45;

const WANTED: CapabilityFlags = CapabilityFlags::CLIENT_LONG_PASSWORD
    .union(CapabilityFlags::CLIENT_LONG_FLAG)
    .union(CapabilityFlags::CLIENT_PROTOCOL_41)
    .union(CapabilityFlags::CLIENT_TRANSACTIONS)
    .union(CapabilityFlags::CLIENT_SECURE_CONNECTION)
    .union(CapabilityFlags::CLIENT_PLUGIN_AUTH)
    .union(CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA)
    .union(CapabilityFlags::CLIENT_CONNECT_ATTRS)
    .union(CapabilityFlags::CLIENT_DEPRECATE_EOF);

/// §7a of the recipes: one zone, no mode that changes what SELECT returns, no limit on what it may read, whatever the
/// server gives sessions (DEFAULT is its global value), time-outs that survive a destination slower than the source
/// (pitfall 71), and never a write. Without autocommit a SELECT would keep its moment for the next one. A cut may stand at
/// a date that no calendar has.
const SESSION: &str = "SET SESSION time_zone = '+00:00', sql_mode = 'NO_ENGINE_SUBSTITUTION,ALLOW_INVALID_DATES', \
     net_write_timeout = 600, net_read_timeout = 600, wait_timeout = 28800, lock_wait_timeout = 60, \
     sql_select_limit = 18446744073709551615, sql_big_selects = 1, sql_auto_is_null = 0, autocommit = 1";

/// What only one family has, or names in its own way.
const SESSION_MYSQL: &str = "SET SESSION max_execution_time = 0, information_schema_stats_expiry = 0 \
     /*!80030 , show_gipk_in_create_table_and_information_schema = ON */";
const SESSION_MARIADB: &str =
    "SET SESSION max_statement_time = 0, system_versioning_asof = DEFAULT";

/// Every SELECT sees one moment, and nothing can be written.
const SESSION_READ_ONLY: &str =
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY";

/// A connection whose results come as packets.
pub struct WireConn {
    channel: Channel,
    config: SourceConfig,
    connection_id: u64,
    ends_by_ok: bool,
    state: State,
    statement: Option<u32>,
    /// Of the last answer with rows.
    definitions: Vec<Definition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// Row packets of a binary result are due.
    Rows,
    /// An answer was left half read; nothing can be asked any more.
    Broken,
}

impl fmt::Debug for WireConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WireConn")
            .field("connection_id", &self.connection_id)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl WireConn {
    /// Connects, authenticates and sets the session up for reading.
    ///
    /// # Errors
    /// `SourceUnavailable` where no connection came about, `SourceDenied` on refused credentials, `SourceSetting` where
    /// TLS is not as configured.
    pub async fn connect(config: &SourceConfig) -> Result<WireConn> {
        in_time(config, Self::open(config)).await
    }

    /// Sees that the server lets this account in, and goes away. What keeps a pipe out is told here by name, where the
    /// driver would call a server without TLS unreachable, and panic on MariaDB's PARSEC (pitfall 92).
    ///
    /// # Errors
    /// As [`WireConn::connect`]; `Unsupported` for a method of authentication that is not known.
    pub async fn knock(config: &SourceConfig) -> Result<()> {
        let (mut channel, _) = in_time(config, shake_hands(config)).await?;
        channel.send_command(&[COM_QUIT]).await
    }

    async fn open(config: &SourceConfig) -> Result<WireConn> {
        let (channel, ends_by_ok) = shake_hands(config).await?;
        let mut conn = WireConn {
            channel,
            config: config.clone(),
            connection_id: 0,
            ends_by_ok,
            state: State::Idle,
            statement: None,
            definitions: Vec::new(),
        };
        // Literals of ours are UTF-8; results come as they are stored, and are decoded as row images are.
        conn.query_ok("SET NAMES utf8mb4, character_set_results = NULL")
            .await?;
        conn.query_ok(SESSION).await?;
        conn.query_ok(match config.source_type {
            SourceType::Mysql => SESSION_MYSQL,
            SourceType::Mariadb => SESSION_MARIADB,
        })
        .await?;
        conn.query_ok(SESSION_READ_ONLY).await?;
        // Not the handshake's number: a proxy may have its own, and MySQL cuts it to 32 bits.
        conn.connection_id = conn
            .query_value("SELECT CONNECTION_ID()")
            .await?
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| corrupt("the source returned no connection id"))?;
        Ok(conn)
    }

    /// The server's number of this connection.
    pub fn connection_id(&self) -> u64 {
        self.connection_id
    }

    /// What ends this connection's running statement from outside.
    pub fn kill_handle(&self) -> KillHandle {
        KillHandle {
            config: self.config.clone(),
            connection_id: self.connection_id,
        }
    }

    /// Runs a statement that returns no rows.
    ///
    /// # Errors
    /// What the server says, with [`ServerError`] underneath, or a broken connection.
    pub async fn query_ok(&mut self, sql: &str) -> Result<()> {
        self.query_text(sql).await.map(drop)
    }

    /// Runs a statement, and returns its few rows as text.
    ///
    /// # Errors
    /// As [`WireConn::query_ok`].
    pub async fn query_text(&mut self, sql: &str) -> Result<Vec<Vec<Option<Vec<u8>>>>> {
        self.begin().await?;
        self.send(COM_QUERY, sql.as_bytes()).await?;
        let columns = self.result_head().await?;
        let mut rows = Vec::new();
        if columns > 0 {
            loop {
                let packet = self.channel.receive().await?;
                match *packet {
                    [ERR, ..] => {
                        let error = ServerError::parse(packet);
                        self.state = State::Idle;
                        return Err(error.into());
                    }
                    // A row whose first value begins in this way is longer than 16 MiB.
                    [END, ..] if packet.len() < 0xff_ff_ff => break,
                    _ => rows.push(text_row(packet, columns)?),
                }
            }
        }
        self.state = State::Idle;
        Ok(rows)
    }

    /// Runs a statement, and returns the first value of its first row; none where that is NULL or missing.
    ///
    /// # Errors
    /// As [`WireConn::query_ok`].
    pub async fn query_value(&mut self, sql: &str) -> Result<Option<String>> {
        let value = self
            .query_text(sql)
            .await?
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next())
            .flatten();
        Ok(value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Runs a SELECT by the binary protocol, and returns the number of its columns. Its rows are then due by
    /// [`WireConn::next_rows`].
    ///
    /// # Errors
    /// As [`WireConn::query_ok`].
    pub async fn execute(&mut self, sql: &str) -> Result<usize> {
        self.begin().await?;
        self.send(COM_STMT_PREPARE, sql.as_bytes()).await?;
        let packet = self.channel.receive().await?;
        if let [ERR, ..] = packet {
            let error = ServerError::parse(packet);
            self.state = State::Idle;
            return Err(error.into());
        }
        let prepared: StmtPacket = ParseBuf(packet)
            .parse(())
            .map_err(|error| corrupt("unreadable answer to a prepare").with_source(error))?;
        self.statement = Some(prepared.statement_id());
        self.skip_definitions(usize::from(prepared.num_params()))
            .await?;
        self.skip_definitions(usize::from(prepared.num_columns()))
            .await?;

        let mut body = prepared.statement_id().to_le_bytes().to_vec();
        body.push(0); // no cursor
        body.extend_from_slice(&1u32.to_le_bytes()); // one iteration
        self.send(COM_STMT_EXECUTE, &body).await?;
        let columns = self.result_head().await?;
        self.state = if columns > 0 {
            State::Rows
        } else {
            State::Idle
        };
        Ok(columns)
    }

    /// Hands every row that has arrived to `on_row`, waiting for the first; false when the result has ended. A row is
    /// a packet's whole payload: the byte 0, the NULL bitmap, the values.
    ///
    /// Cancel safe: rows that were not handed out stay in the buffer.
    ///
    /// # Errors
    /// Of `on_row`; of the server in mid-result; a broken connection.
    pub async fn next_rows<F>(&mut self, mut on_row: F) -> Result<bool>
    where
        F: FnMut(&[u8]) -> Result<()>,
    {
        if self.state != State::Rows {
            return Ok(false);
        }
        loop {
            let mut any = false;
            while let Some(packet) = self
                .channel
                .buffered()
                .inspect_err(|_| self.state = State::Broken)?
            {
                let payload = self.channel.payload(&packet);
                match *payload {
                    [OK, ..] => {
                        any = true;
                        if let Err(error) = on_row(payload) {
                            self.state = State::Broken;
                            return Err(error);
                        }
                    }
                    [END, ..] => {
                        self.state = State::Idle;
                        return Ok(false);
                    }
                    [ERR, ..] => {
                        self.state = State::Idle;
                        return Err(ServerError::parse(payload).into());
                    }
                    _ => {
                        self.state = State::Broken;
                        return Err(corrupt("a packet that is no row in a result"));
                    }
                }
            }
            if any {
                return Ok(true);
            }
            self.channel.fill().await?;
        }
    }

    /// Sends a command whose answer has no rows.
    ///
    /// # Errors
    /// As [`WireConn::query_ok`].
    pub(super) async fn command(&mut self, payload: &[u8]) -> Result<()> {
        self.begin().await?;
        self.channel.send_command(payload).await?;
        self.result_head().await?;
        self.state = State::Idle;
        Ok(())
    }

    /// The packets alone, for a connection whose further answers are no results.
    pub(super) fn into_channel(self) -> Channel {
        self.channel
    }

    /// The columns of the last answer that had rows.
    pub fn definitions(&self) -> &[Definition] {
        &self.definitions
    }

    /// Whether rows of a result are still due.
    pub fn is_reading(&self) -> bool {
        self.state == State::Rows
    }

    /// Says good-bye, so that the server does not log an aborted connection.
    pub async fn quit(mut self) {
        if self.state == State::Idle {
            self.channel.send_command(&[COM_QUIT]).await.ok();
        }
    }

    /// Before a command: the last answer must have been read, and its statement is given back.
    async fn begin(&mut self) -> Result<()> {
        if self.state != State::Idle {
            return Err(Error::new(
                ErrorKind::Internal,
                "a statement was sent while the last one's answer was not read",
            ));
        }
        // Until the answer has been read whole, a cancelled call leaves the connection unusable.
        self.state = State::Broken;
        if let Some(id) = self.statement.take() {
            let mut payload = Vec::new();
            ComStmtClose::new(id).serialize(&mut payload);
            self.channel.send_command(&payload).await?;
        }
        Ok(())
    }

    async fn send(&mut self, command: u8, body: &[u8]) -> Result<()> {
        let mut payload = Vec::with_capacity(body.len() + 1);
        payload.push(command);
        payload.extend_from_slice(body);
        self.channel.send_command(&payload).await
    }

    /// Reads what comes before the rows; 0 for an answer without.
    async fn result_head(&mut self) -> Result<usize> {
        let packet = self.channel.receive().await?;
        let columns = match *packet {
            [OK, ..] => return Ok(0),
            [ERR, ..] => {
                let error = ServerError::parse(packet);
                self.state = State::Idle;
                return Err(error.into());
            }
            [LOCAL_INFILE, ..] => return Err(corrupt("the source asked for a file of ours")),
            _ => length(&mut &*packet)
                .flatten()
                .ok_or_else(|| corrupt("unreadable head of a result"))?,
        };
        self.definitions.clear();
        for _ in 0..columns {
            let definition = Definition::parse(self.channel.receive().await?)
                .ok_or_else(|| corrupt("unreadable column definition"))?;
            self.definitions.push(definition);
        }
        if columns > 0 && !self.ends_by_ok {
            self.channel.receive().await?;
        }
        Ok(columns)
    }

    async fn skip_definitions(&mut self, count: usize) -> Result<()> {
        let ends = usize::from(count > 0 && !self.ends_by_ok);
        for _ in 0..count + ends {
            self.channel.receive().await?;
        }
        Ok(())
    }
}

/// Ends a connection's running statement from another connection.
#[derive(Clone, Debug)]
pub struct KillHandle {
    config: SourceConfig,
    connection_id: u64,
}

impl KillHandle {
    /// `KILL QUERY`, which an account may always do to its own connections. A connection that is gone is no error.
    ///
    /// # Errors
    /// As [`WireConn::connect`].
    pub async fn kill_query(&self) -> Result<()> {
        const NO_SUCH_THREAD: u16 = 1094;
        let mut conn = WireConn::connect(&self.config).await?;
        let result = conn
            .query_ok(&format!("KILL QUERY {}", self.connection_id))
            .await;
        conn.quit().await;
        match result {
            Err(error)
                if ServerError::of(&error).is_some_and(|server| server.code == NO_SUCH_THREAD) =>
            {
                Ok(())
            }
            other => other,
        }
    }
}

/// A server that accepts a connection and then says nothing is not there either.
async fn in_time<T>(
    config: &SourceConfig,
    connecting: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(result) => result,
        Err(elapsed) => Err(unavailable(
            format!(
                "no answer from {}:{} in {} s",
                config.host,
                config.port,
                CONNECT_TIMEOUT.as_secs()
            ),
            elapsed,
        )
        .with_hint(REACHABLE)),
    }
}

/// From the TCP connection to the first OK; whether results end by an OK packet instead of EOF.
async fn shake_hands(config: &SourceConfig) -> Result<(Channel, bool)> {
    let stream = TcpStream::connect((config.host.as_str(), config.port))
        .await
        .map_err(|error| {
            unavailable(
                format!(
                    "cannot connect to the source at {}:{}",
                    config.host, config.port
                ),
                error,
            )
            .with_hint(REACHABLE)
        })?;
    stream.set_nodelay(true).ok();
    let mut channel = Channel::new(Stream::Plain(stream));
    let greeting = channel.receive().await?;
    if let [ERR, ..] = greeting {
        return Err(auth::refused(config, ServerError::parse(greeting)));
    }
    let greeting = ParseBuf(greeting)
        .parse::<HandshakePacket<'_>>(())
        .map_err(|error| {
            corrupt(format!(
                "what answers at {}:{} is no MySQL server",
                config.host, config.port
            ))
            .with_source(error)
        })?
        .into_owned();
    let offered = greeting.capabilities();
    let mut flags = WANTED & offered;
    if config.tls.mode != TlsMode::Disabled {
        if !offered.contains(CapabilityFlags::CLIENT_SSL) {
            return Err(Error::new(
                ErrorKind::SourceSetting,
                format!(
                    "the source at {}:{} offers no TLS",
                    config.host, config.port
                ),
            )
            .with_hint("set up TLS at the server, or set `source.tls.mode: disabled`"));
        }
        flags |= CapabilityFlags::CLIENT_SSL;
        let mut request = Vec::new();
        SslRequest::new(flags, MAX_PACKET_BYTES, HANDSHAKE_COLLATION).serialize(&mut request);
        channel.send(&request).await?;
        let (stream, sequence) = channel.into_plain()?;
        channel = Channel::encrypted(tls::encrypt(stream, config).await?, sequence);
    }

    let challenge = Challenge {
        plugin: greeting
            .auth_plugin()
            .map_or(AuthPlugin::MysqlNativePassword, AuthPlugin::into_owned),
        nonce: greeting.nonce(),
    };
    // A server whose default we cannot answer is asked for the account's own method by an answer in the oldest one.
    let challenge = if challenge.is_known() {
        challenge
    } else {
        Challenge {
            plugin: AuthPlugin::MysqlNativePassword,
            nonce: challenge.nonce,
        }
    };
    let response = HandshakeResponse::new(
        Some(challenge.answer(config.password.expose())?),
        (8, 0, 0),
        Some(config.user.as_bytes()),
        None::<&[u8]>,
        Some(challenge.plugin.clone()),
        flags,
        flags
            .contains(CapabilityFlags::CLIENT_CONNECT_ATTRS)
            .then(|| HashMap::from([("program_name".to_owned(), "pipewright".to_owned())])),
        MAX_PACKET_BYTES,
    );
    let mut payload = Vec::new();
    response.serialize(&mut payload);
    channel.send(&payload).await?;
    auth::finish(&mut channel, config, challenge).await?;
    Ok((
        channel,
        flags.contains(CapabilityFlags::CLIENT_DEPRECATE_EOF),
    ))
}

/// A length-encoded integer; `Some(None)` for NULL, `None` when there is no whole one.
pub(super) fn length(rest: &mut &[u8]) -> Option<Option<usize>> {
    let (&first, tail) = rest.split_first()?;
    let bytes = match first {
        0..=0xfa => {
            *rest = tail;
            return Some(Some(usize::from(first)));
        }
        0xfb => {
            *rest = tail;
            return Some(None);
        }
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        0xff => return None,
    };
    let mut value = [0; 8];
    value.get_mut(..bytes)?.copy_from_slice(tail.get(..bytes)?);
    *rest = tail.get(bytes..)?;
    usize::try_from(u64::from_le_bytes(value)).ok().map(Some)
}

fn text_row(packet: &[u8], columns: usize) -> Result<Vec<Option<Vec<u8>>>> {
    let cut = || corrupt("a row that ends in the middle of a value");
    let mut rest = packet;
    let mut row = Vec::with_capacity(columns.min(packet.len()));
    for _ in 0..columns {
        match length(&mut rest).ok_or_else(cut)? {
            None => row.push(None),
            Some(count) => {
                let (value, tail) = rest.split_at_checked(count).ok_or_else(cut)?;
                row.push(Some(value.to_vec()));
                rest = tail;
            }
        }
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_row_gives_values_and_nulls() {
        let row = text_row(b"\x02ab\xfb\x00", 3).unwrap();
        assert_eq!(row, [Some(b"ab".to_vec()), None, Some(Vec::new())]);
    }

    #[test]
    fn a_text_row_that_claims_more_than_it_holds_is_refused() {
        for packet in [
            &b"\x05ab"[..],
            b"\xfc\x01",
            b"\xff",
            b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            let error = text_row(packet, 1).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::SourceCorrupt);
        }
    }
}
