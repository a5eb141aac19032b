//! From events to groups: which events belong together, where a group ends, and what its rows' versions are.
//!
//! A group is what one GTID stands for: a transaction or a statement. Everything that moves does so at a group's end and
//! nowhere else: the position, the stream offset, what is handed on. So a connection that breaks in mid-group leaves
//! the group's start behind as the place to go on from, and the second reading gives the same numbers as the first.
//!
//! The stream offset (DESIGN §7) starts from the place's value; a group adds one, a statement in it one more, a row event
//! the length of its uncompressed body. A row image's version is the offset before its event plus the image's own place
//! in the body, which is never 0 and always below the length; so all images differ from each other and from every
//! statement. Compressed events count as if they were plain: a server that begins to compress changes no version.
//!
//! An XA transaction is two groups: its rows come with the PREPARE, and take the places of the decision ([`super::xa`]).
//!
//! The states are few: no group; a group whose first content is awaited; a group that has begun and ends with XID,
//! COMMIT, ROLLBACK or XA PREPARE. A MySQL group begins with BEGIN; a MariaDB group with its GTID unless that is
//! flagged STANDALONE (pitfalls 56, 81). An event that fits none of them is an error and never passed over.

mod control;
mod files;
mod text;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::ddl::{Class, Dialect};
use super::event::{
    FLAG_ARTIFICIAL, FLAG_IGNORABLE, Fields, MariaGtidEvent, MySqlGtid, Query, RawEvent, code,
};
use super::fragments::Fragments;
use super::indirect::Indirect;
use super::maps::Maps;
use super::refusal::{goes_back, incident, unexpected, without_gtid};
use super::shape::RowShape;
use super::transaction::{RowBuffer, RowEvent, Transaction};
use super::xa::{Decided, Prepared, Xid};
use super::{Statement, TableFilter};
use crate::batch::{MAX_STREAM_OFFSET, TableName};
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::position::{GroupGtid, MariaGtid, Position, StreamPlace};

/// What an event brought about.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing that can be seen from outside.
    Nothing,
    /// A group or file without anything of ours has ended.
    Moved,
    /// The server has nothing more to send just now.
    Heartbeat,
    /// A group with rows of ours has been committed.
    Transaction(Transaction),
    /// A statement that may concern us has ended its group.
    Statement(Statement),
    /// A transaction waits for its decision.
    Prepared(Prepared),
    /// A transaction of an earlier group has been decided.
    Decided(Decided),
}

/// What the grouping must know beside the events.
#[derive(Clone, Debug)]
pub(super) struct GroupOptions {
    pub(super) dialect: Dialect,
    /// The binlog files of the server.
    pub(super) files: Vec<String>,
    pub(super) memory_bytes: usize,
    pub(super) spill_folder: Option<PathBuf>,
    /// What was prepared before the first group and not decided, with its length.
    pub(super) prepared: HashMap<Xid, u64>,
}

/// Puts events together into groups.
#[derive(Debug)]
pub(super) struct Grouper {
    options: GroupOptions,
    filter: Arc<TableFilter>,
    /// Behind the last whole group.
    place: StreamPlace,
    /// The commit time of the last whole group.
    committed_at_us: Option<u64>,
    /// The stream offset within the open group.
    counter: u64,
    /// Where in its file the last event ended.
    reached: u64,
    group: Option<Group>,
    maps: Maps,
    /// Whether a format event has been read: before it nobody knows whether bodies end with a checksum.
    format_known: bool,
    /// The name of the file whose format event comes next.
    named: Option<String>,
    /// Name and time of the file that is being read, until somebody takes them.
    begun: Option<(String, u32)>,
    plain: Vec<u8>,
    /// What is prepared and not decided, with the bytes of its row events.
    prepared: HashMap<Xid, u64>,
    /// A row event that comes in pieces.
    fragments: Option<Fragments>,
    /// Row changes in text form that wait for a word of the catalog.
    question: Option<Indirect>,
    /// Those that reach no table of ours, as long as no statement may have changed that.
    harmless: HashSet<Indirect>,
}

#[derive(Debug)]
struct Group {
    gtid: GroupGtid,
    committed_at_us: Option<u64>,
    /// Ends with a commit event, not with its first statement.
    begun: bool,
    /// The decision of an XA transaction that an earlier group has prepared.
    decided: Option<Decision>,
    /// The stream offset behind the group's own one.
    base: u64,
    /// A two-phase ALTER that has only started.
    without_effect: bool,
    rows: RowBuffer,
    statement: Option<Statement>,
    /// The tables of ours that were changed by text, with the tables on which the statement was, where it was on others.
    texts: BTreeMap<TableName, Option<String>>,
    savepoints: Vec<(Vec<u8>, u64)>,
}

#[derive(Debug)]
struct Decision {
    xid: Xid,
    commit: bool,
    base: u64,
}

impl Group {
    /// A GTID without content, so far.
    fn is_empty(&self) -> bool {
        !self.begun && self.rows.is_empty() && self.statement.is_none() && self.texts.is_empty()
    }
}

impl Grouper {
    pub(super) fn new(
        from: StreamPlace,
        filter: Arc<TableFilter>,
        mut options: GroupOptions,
    ) -> Self {
        Self {
            prepared: std::mem::take(&mut options.prepared),
            options,
            filter,
            counter: from.offset,
            reached: match &from.position {
                Position::File { offset, .. } => *offset,
                Position::Gtid { .. } | Position::MariaGtid { .. } => 0,
            },
            place: from,
            committed_at_us: None,
            group: None,
            maps: Maps::default(),
            format_known: false,
            named: None,
            begun: None,
            fragments: None,
            question: None,
            harmless: HashSet::new(),
            plain: Vec::new(),
        }
    }

    /// The place behind the last whole group, and when that was committed.
    pub(super) fn place(&self) -> (&StreamPlace, Option<u64>) {
        (&self.place, self.committed_at_us)
    }

    /// Replaces the tables that are replicated, from the next group on.
    pub(super) fn set_filter(&mut self, filter: Arc<TableFilter>) {
        self.filter = filter;
        self.maps.clear();
        self.harmless.clear();
    }

    /// Takes the next event. After an error the grouping is over: the stream must be opened anew.
    pub(super) fn on_event(&mut self, event: &RawEvent<'_>) -> Result<Step> {
        if self.fragments.is_some() && event.kind != code::MARIA_PARTIAL_ROW_DATA {
            self.fragments = None;
            // A crash or a broken connection leaves an event in pieces, and is followed by a format event.
            if event.kind != code::FORMAT_DESCRIPTION && event.kind != code::ROTATE {
                return Err(unexpected("cut"));
            }
        }
        self.pass(event);
        match event.kind {
            code::GTID | code::ANONYMOUS_GTID | code::GTID_TAGGED => self.on_gtid(event),
            code::MARIA_GTID => self.on_maria_gtid(event),
            code::TABLE_MAP => self.on_table_map(event.body),
            code::WRITE_ROWS_V0..=code::DELETE_ROWS_V1
            | code::WRITE_ROWS..=code::DELETE_ROWS
            | code::PARTIAL_UPDATE_ROWS
            | code::MARIA_WRITE_ROWS_COMPRESSED_V1..=code::MARIA_DELETE_ROWS_COMPRESSED => {
                self.on_rows(event)
            }
            code::MARIA_PARTIAL_ROW_DATA => self.on_fragment(event),
            code::XID => self.on_commit(event),
            code::QUERY => self.on_query(event, &Query::parse(event.body, false)?),
            code::MARIA_QUERY_COMPRESSED => self.on_compressed_query(event),
            code::EXECUTE_LOAD_QUERY => self.on_query(event, &Query::parse(event.body, true)?),
            code::XA_PREPARE => self.on_xa_prepare(event),
            code::FORMAT_DESCRIPTION => self.on_format(event),
            code::ROTATE => self.on_rotate(event),
            code::HEARTBEAT | code::HEARTBEAT_V2 => Ok(Step::Heartbeat),
            code::PREVIOUS_GTIDS | code::MARIA_GTID_LIST | code::MARIA_BINLOG_CHECKPOINT => {
                Ok(self.on_preface(event))
            }
            code::INCIDENT => Err(incident()),
            // What the payload holds comes behind it, event by event.
            code::TRANSACTION_PAYLOAD => Ok(Step::Nothing),
            code::STOP
            | code::INTVAR
            | code::RAND
            | code::USER_VAR
            | code::APPEND_BLOCK
            | code::DELETE_FILE
            | code::BEGIN_LOAD_QUERY
            | code::IGNORABLE
            | code::ROWS_QUERY
            | code::TRANSACTION_CONTEXT
            | code::VIEW_CHANGE
            | code::MARIA_ANNOTATE_ROWS
            | code::MARIA_START_ENCRYPTION => Ok(Step::Nothing),
            _ if event.flags & FLAG_IGNORABLE != 0 => Ok(Step::Nothing),
            unknown => Err(Error::new(
                ErrorKind::Unsupported,
                format!("the binlog holds an event of the unknown type {unknown}"),
            )
            .with_hint("a newer release may know it; the rows it stands for cannot be told")),
        }
    }

    fn on_gtid(&mut self, event: &RawEvent<'_>) -> Result<Step> {
        let gtid = MySqlGtid::parse(event)?;
        let committed_at_us = gtid.committed_at_us;
        let gtid = if event.kind == code::ANONYMOUS_GTID {
            GroupGtid::None
        } else {
            GroupGtid::MySql(gtid.gtid)
        };
        self.open_group(gtid, committed_at_us)
    }

    fn on_maria_gtid(&mut self, event: &RawEvent<'_>) -> Result<Step> {
        let parsed = MariaGtidEvent::parse(event.body)?;
        let gtid = MariaGtid {
            domain: parsed.domain,
            server: event.server_id,
            sequence: parsed.sequence,
        };
        let step = self.open_group(GroupGtid::Maria(gtid), None)?;
        if let Position::MariaGtid { list } = &self.place.position {
            // A place of one number a domain would pass over whatever comes with a lower one.
            match list.iter().find(|newest| newest.domain == gtid.domain) {
                Some(newest) if newest.sequence >= gtid.sequence => {
                    return Err(goes_back(newest, gtid));
                }
                _ => {}
            }
        }
        if let Some(group) = &mut self.group {
            group.begun = !parsed.standalone;
            group.without_effect = parsed.alter_without_effect;
        }
        Ok(step)
    }

    /// A GTID without content, as a replica that filters writes it, is a group that has ended when the next begins.
    fn open_group(&mut self, gtid: GroupGtid, committed_at_us: Option<u64>) -> Result<Step> {
        let step = match self.group.take() {
            None => Step::Nothing,
            Some(group) if group.is_empty() => {
                if let Position::File { .. } = self.place.position {
                    return Err(unexpected("GTID"));
                }
                self.close(&group, 0, 0)?;
                Step::Moved
            }
            Some(_) => return Err(unexpected("GTID")),
        };
        self.maps.next_group();
        self.counter = self.place.offset;
        self.count(1)?;
        self.group = Some(Group {
            gtid,
            committed_at_us,
            begun: false,
            decided: None,
            base: self.counter,
            without_effect: false,
            rows: RowBuffer::new(self.options.memory_bytes, self.options.spill_folder.clone()),
            statement: None,
            texts: BTreeMap::new(),
            savepoints: Vec::new(),
        });
        Ok(step)
    }

    fn open(&mut self) -> Result<&mut Group> {
        if self.group.is_none() {
            // Servers that write neither GTIDs nor anonymous ones.
            self.open_group(GroupGtid::None, None)?;
        }
        self.group.as_mut().ok_or_else(|| unexpected("QUERY"))
    }

    fn count(&mut self, amount: u64) -> Result<()> {
        self.counter += amount;
        if self.counter > MAX_STREAM_OFFSET {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("the stream offset {} does not fit 48 bits", self.counter),
            )
            .with_hint("resync the pipe: a new term begins at offset 0"));
        }
        Ok(())
    }

    fn on_table_map(&mut self, body: &[u8]) -> Result<Step> {
        self.maps.add(body, &self.filter)?;
        Ok(Step::Nothing)
    }

    fn on_fragment(&mut self, event: &RawEvent<'_>) -> Result<Step> {
        let Some(bytes) = Fragments::push(&mut self.fragments, event.body)? else {
            return Ok(Step::Nothing);
        };
        let whole = RawEvent::parse(&bytes)?;
        self.on_rows(&RawEvent {
            log_pos: event.log_pos,
            ..whole
        })
    }

    fn on_rows(&mut self, event: &RawEvent<'_>) -> Result<Step> {
        let shape = RowShape::of(event.kind)?;
        let table_id = Fields::new("rows", event.body).uint(6)?;
        let table = self.maps.find(table_id)?.cloned();
        // Of a table that is replicated it is that table's trouble alone.
        let of_table = |error: Error| match &table {
            Some(table) => error.with_table(&table.name),
            None => error,
        };
        let body = shape.read(event.body).map_err(of_table)?;
        let offset = self.counter;
        self.count(body.length() as u64)?;
        let Some(group) = &mut self.group else {
            return Err(unexpected("rows"));
        };
        let Some(table) = &table else {
            return Ok(Step::Nothing);
        };
        group.rows.push(&RowEvent {
            table: Arc::clone(table),
            kind: shape.kind,
            extra_data: shape.extra_data,
            partial: shape.partial,
            body: body.bytes(&mut self.plain).map_err(of_table)?,
            offset,
            undone: false,
        })?;
        Ok(Step::Nothing)
    }

    fn on_commit(&mut self, event: &RawEvent<'_>) -> Result<Step> {
        let Some(mut group) = self.group.take() else {
            return Err(unexpected("commit"));
        };
        self.close(&group, event.log_pos, event.timestamp)?;
        let statement = group.statement.take();
        // Rows of a table that is made of them (pitfall 111): whoever takes it in loads it.
        let creates = matches!(&statement, Some(statement) if matches!(statement.class, Class::CreateTable { keeps: false, .. }));
        let first = group.rows.first_table().filter(|_| !creates);
        let changed = first.map(|table| &table.name);
        match (statement, changed.or(group.texts.keys().next())) {
            (Some(_), Some(table)) => Err(Error::new(
                ErrorKind::Unsupported,
                "one transaction holds a definition and rows of replicated tables",
            )
            .with_hint("resync the table")
            .with_table(table)),
            (Some(mut statement), None) => {
                statement.gtid = group.gtid;
                statement.end = self.place.clone();
                statement.committed_at_us = self.committed_at_us;
                Ok(Step::Statement(statement))
            }
            (None, Some(_)) => Ok(Step::Transaction(Transaction {
                gtid: group.gtid,
                end: self.place.clone(),
                committed_at_us: self.committed_at_us,
                rows: group.rows,
                texts: group.texts,
            })),
            (None, None) => Ok(match group.decided {
                Some(Decision { xid, commit, base }) => Step::Decided(Decided {
                    xid,
                    commit,
                    base,
                    gtid: group.gtid,
                    end: self.place.clone(),
                    committed_at_us: self.committed_at_us,
                }),
                None => Step::Moved,
            }),
        }
    }

    /// Moves the place behind `group`, which ended with an event of that `log_pos` and `timestamp`.
    fn close(&mut self, group: &Group, log_pos: u32, timestamp: u32) -> Result<()> {
        match (&mut self.place.position, &group.gtid) {
            (Position::Gtid { set }, GroupGtid::MySql(gtid)) => {
                set.add(gtid.uuid, &gtid.tag, gtid.number);
            }
            (Position::MariaGtid { list }, GroupGtid::Maria(gtid)) => list.add(*gtid),
            (Position::File { offset, .. }, _) => {
                ensure_told(log_pos)?;
                *offset = self.reached;
            }
            (Position::Gtid { .. }, _) => return Err(without_gtid()),
            (Position::MariaGtid { .. }, _) => return Err(unexpected("group without a GTID")),
        }
        self.place.offset = self.counter;
        let seconds = u64::from(timestamp) * 1_000_000;
        self.committed_at_us = group
            .committed_at_us
            .or(Some(seconds).filter(|time| *time != 0));
        Ok(())
    }

    /// Takes note of where in its file the event ends. Those that a server makes up, or tells of another place, take
    /// none; a real one among them is made good by the next event's `log_pos`.
    fn pass(&mut self, event: &RawEvent<'_>) {
        let elsewhere = matches!(
            event.kind,
            code::FORMAT_DESCRIPTION
                | code::ROTATE
                | code::HEARTBEAT
                | code::HEARTBEAT_V2
                | code::MARIA_START_ENCRYPTION
        );
        if !elsewhere && event.flags & FLAG_ARTIFICIAL == 0 {
            self.reached = files::end(self.reached + u64::from(event.length), event.log_pos);
        }
    }
}

/// No offset is recorded that lengths alone tell.
fn ensure_told(log_pos: u32) -> Result<()> {
    if log_pos != 0 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        "the source does not tell the file offsets of its events",
    )
    .with_hint("set `source.position: gtid`, or SET GLOBAL binlog_legacy_event_pos = ON"))
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
