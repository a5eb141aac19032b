//! A binlog read from a place on, group by group.
//!
//! Waiting can be given up at any await and taken up again: all that has been read lives in the stream. A stream that
//! has failed is done; the caller opens another at the last place that it was handed, and reads the same groups with
//! the same offsets.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use mysql_async::Conn;
use tokio::time::Instant;

use super::TableFilter;
use super::ddl::Class;
use super::group::{GroupOptions, Grouper, Step};
use super::indirect::{Indirect, Reached, Unseen};
use super::silence::Silence;
use super::transaction::Transaction;
use super::transport::Transport;
use super::xa::{Decided, Prepared, Xid};
use crate::batch::TableName;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::Source;
use crate::source::mysql::position::{GroupGtid, Position, StreamPlace};
use crate::source::mysql::replica::reported_host;

/// Groups without anything of ours after which the place is reported although more are waiting.
const IDLE_GROUPS_MAX: u32 = 1000;

/// Heartbeats without progress after which a place is taken to lie behind the binlog's end. The source may be passing
/// over groups that we have, and says so by heartbeats as well.
const SILENCES_MAX: u32 = 3;

/// How a stream is opened.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// The replica identity that the source sees.
    pub server_id: u32,
    /// The host by whose name the source lists it.
    pub host: String,
    /// How often the source says that it has nothing to say.
    pub heartbeat: Duration,
    /// After how long without event or heartbeat, or any part of one, the connection is dead; three heartbeats at least
    /// (pitfall 70).
    pub silence: Duration,
    /// Bytes of one transaction's row events in memory; what is beyond goes to disk.
    pub memory_bytes: usize,
    /// Where it goes; the system's folder for temporary files when absent.
    pub spill_folder: Option<PathBuf>,
    /// XA transactions that are prepared and not decided at the place that is read from, with their lengths.
    pub prepared: HashMap<Xid, u64>,
}

impl StreamOptions {
    /// The defaults, for a pipe that is a replica of that id: heartbeat 10 s, dead after 30 s, 64 MiB.
    pub fn new(server_id: u32, pipe: &str) -> Self {
        Self {
            server_id,
            host: reported_host(pipe),
            heartbeat: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            memory_bytes: 64 << 20,
            spill_folder: None,
            prepared: HashMap::new(),
        }
    }
}

/// What the stream hands on, each with the place behind it.
#[derive(Debug)]
pub enum Item {
    /// Rows of replicated tables.
    Transaction(Transaction),
    /// A statement that may concern replicated tables.
    Statement(Statement),
    /// An XA transaction that waits for its decision, whosever rows it has.
    Prepared(Prepared),
    /// The decision of one.
    Decided(Decided),
    /// Nothing of ours up to this place.
    Idle(Idle),
}

impl Item {
    /// The place behind it.
    pub fn end(&self) -> &StreamPlace {
        match self {
            Item::Transaction(transaction) => &transaction.end,
            Item::Statement(statement) => &statement.end,
            Item::Prepared(prepared) => &prepared.end,
            Item::Decided(decided) => &decided.end,
            Item::Idle(idle) => &idle.end,
        }
    }
}

/// A place behind groups without anything of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    /// The place.
    pub end: StreamPlace,
    /// When the last group before it was committed; none before the first group.
    pub committed_at_us: Option<u64>,
    /// The source had nothing to send for as long as its heartbeat.
    pub caught_up: bool,
}

/// A statement that was logged as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Its own name.
    pub gtid: GroupGtid,
    /// The place behind it.
    pub end: StreamPlace,
    /// When it was committed, in microseconds since 1970 by the source's clock.
    pub committed_at_us: Option<u64>,
    /// The stream offset that versions of its effect take: above every row before it, below every row after it.
    pub offset: u64,
    /// What it does.
    pub class: Class,
    /// Every table that it names; not only replicated ones.
    pub tables: Vec<TableName>,
    /// The default database that it ran in.
    pub database: String,
    /// The text; bytes that are not UTF-8 are replaced.
    pub text: String,
    /// Whether its session refused values that do not fit (STRICT_TRANS_TABLES, STRICT_ALL_TABLES).
    pub strict: bool,
    /// Whether its session read CHAR with all of its padding (PAD_CHAR_TO_FULL_LENGTH).
    pub pads: bool,
}

/// An open binlog.
#[derive(Debug)]
pub struct BinlogStream {
    source: Arc<Source>,
    transport: Transport,
    grouper: Grouper,
    /// What the last event brought about, until the catalog has been asked about it.
    held: Option<Step>,
    /// Where the catalog was asked last.
    catalog: Option<Conn>,
    /// It was told that triggers cannot be seen.
    warned: bool,
    silence: Silence,
    heartbeat: Duration,
    idle_groups: u32,
}

impl BinlogStream {
    /// Opens the binlog behind `from`, after having made sure that the source has all that comes next and all that
    /// came before.
    ///
    /// # Errors
    /// `PositionPurged`, `SourceDiverged`, `SourceUnavailable`, `SourceDenied`; `Unsupported` for an offset past 4 GiB.
    pub async fn open(
        source: &Arc<Source>,
        from: &StreamPlace,
        wanted: Arc<TableFilter>,
        options: &StreamOptions,
    ) -> Result<Self> {
        let opened = Transport::open(source, &from.position, options).await?;
        let grouper = Grouper::new(
            from.clone(),
            wanted,
            GroupOptions {
                dialect: opened.dialect,
                files: opened.files,
                memory_bytes: options.memory_bytes,
                spill_folder: options.spill_folder.clone(),
                prepared: options.prepared.clone(),
            },
        );
        Ok(Self {
            source: Arc::clone(source),
            transport: opened.transport,
            grouper,
            held: None,
            catalog: None,
            warned: false,
            silence: Silence::new(options.silence, Instant::now()),
            heartbeat: options.heartbeat,
            idle_groups: 0,
        })
    }

    /// The next transaction or statement of ours, or the news that the place has moved. Cancel-safe.
    ///
    /// # Errors
    /// `SourceUnavailable` when the connection broke or fell silent: open another stream. Everything else is final, and
    /// names the table where one is concerned.
    pub async fn next(&mut self) -> Result<Item> {
        loop {
            self.ask_catalog().await?;
            if let Some(step) = self.held.take()
                && let Some(item) = self.on_step(step)
            {
                return Ok(item);
            }
            let received = if self.idle_groups == 0 {
                Some(loop {
                    let read_at = self.transport.read_at();
                    let deadline = self.silence.deadline(Instant::now(), read_at);
                    match tokio::time::timeout_at(deadline, self.transport.next()).await {
                        Ok(event) => break event?,
                        Err(_) => {
                            // Else a part of an event has come meanwhile.
                            if self.transport.read_at() == read_at {
                                return Err(self.silence.error());
                            }
                        }
                    }
                })
            } else {
                self.transport.next().now_or_never().transpose()?
            };
            let Some(event) = received else {
                return Ok(self.idle(false));
            };
            let heard_before = self.silence.hears_event(Instant::now());
            match self.grouper.on_event(&event)? {
                Step::Nothing => {}
                // MySQL also sends one at once when it has passed over groups that we have.
                Step::Heartbeat if heard_before.elapsed() < self.heartbeat / 2 => {}
                step => self.held = Some(step),
            }
        }
    }

    fn on_step(&mut self, step: Step) -> Option<Item> {
        let item = match step {
            Step::Nothing => return None,
            Step::Moved if self.idle_groups >= IDLE_GROUPS_MAX => return Some(self.idle(false)),
            Step::Moved => {
                self.idle_groups += 1;
                return None;
            }
            Step::Heartbeat => return Some(self.idle(true)),
            Step::Transaction(transaction) => Item::Transaction(transaction),
            Step::Statement(statement) => Item::Statement(statement),
            Step::Prepared(prepared) => Item::Prepared(prepared),
            Step::Decided(decided) => Item::Decided(decided),
        };
        self.idle_groups = 0;
        Some(item)
    }

    /// Nothing goes on before it is known whether row changes in text form have reached a table of ours.
    async fn ask_catalog(&mut self) -> Result<()> {
        let Some((changes, filter)) = self.grouper.question() else {
            return Ok(());
        };
        let reached = self.look_up(&changes, &filter).await?;
        if let Some(Unseen {
            database,
            privilege,
        }) = reached.unseen.filter(|_| !self.warned)
        {
            self.warned = true;
            tracing::warn!(
                "{} was logged as text, and the account does not see which views, triggers or functions are there: those that \
                 write into tables of this pipe would go unnoticed; SET GLOBAL binlog_format = 'ROW' and reconnect the writing \
                 sessions, or GRANT {privilege} ON `{database}`.*",
                changes.named()
            );
        }
        self.grouper.answered(reached.tables)
    }

    /// The connection is kept: a session that logs statements writes many. Idle for long, it may have been ended.
    async fn look_up(&mut self, changes: &Indirect, filter: &TableFilter) -> Result<Reached> {
        if let Some(mut conn) = self.catalog.take()
            && let Ok(reached) = changes.reached(&mut conn, filter).await
        {
            self.catalog = Some(conn);
            return Ok(reached);
        }
        let mut conn = self.source.control().await?;
        let reached = changes.reached(&mut conn, filter).await?;
        self.catalog = Some(conn);
        Ok(reached)
    }

    /// Name and beginning of the file that is being read, once when it is known.
    pub fn take_begun(&mut self) -> Option<(String, u32)> {
        self.grouper.take_begun()
    }

    /// Replaces the tables that are replicated. Rows of the group that is being read are already chosen: call it
    /// between two items.
    pub fn set_wanted(&mut self, wanted: Arc<TableFilter>) {
        self.grouper.set_filter(wanted);
    }

    fn idle(&mut self, caught_up: bool) -> Item {
        self.idle_groups = 0;
        let (place, committed_at_us) = self.grouper.place();
        Item::Idle(Idle {
            end: place.clone(),
            committed_at_us,
            caught_up,
        })
    }
}

/// The statements between two places that name wanted tables or may concern them: whether definitions that were read at
/// `to` are those of `from`.
///
/// # Errors
/// As [`BinlogStream::open`] and [`BinlogStream::next`]; `SourceDiverged` when the binlog ends before `to`.
pub async fn statements_between(
    source: &Arc<Source>,
    from: &Position,
    to: &Position,
    wanted: Arc<TableFilter>,
    options: &StreamOptions,
) -> Result<Vec<Statement>> {
    let mut statements = Vec::new();
    if from.contains(to) == Some(true) {
        return Ok(statements);
    }
    let from = StreamPlace {
        position: from.clone(),
        offset: 0,
    };
    let mut stream = BinlogStream::open(source, &from, wanted, options).await?;
    let mut silences = 0;
    loop {
        let item = stream.next().await?;
        let arrived = item.end().position.contains(to);
        match item {
            Item::Statement(statement) => statements.push(statement),
            Item::Idle(Idle { caught_up, .. }) if caught_up => silences += 1,
            Item::Idle(_) | Item::Transaction(_) | Item::Prepared(_) | Item::Decided(_) => {
                silences = 0
            }
        }
        match arrived {
            Some(true) => break,
            Some(false) if silences < SILENCES_MAX => {}
            Some(false) | None => {
                return Err(Error::new(
                    ErrorKind::SourceDiverged,
                    format!("the source's binlog ends before the place {to}"),
                )
                .with_hint("resync the pipe"));
            }
        }
    }
    Ok(statements)
}
