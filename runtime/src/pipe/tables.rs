//! Taking further tables into a running pipe.
//!
//! An added table has a start place of its own, taken together with its definition; the pipe's stream passes over its
//! earlier events. It is always loaded, never assumed to be empty. A table that was removed before comes back in the
//! same way, loaded beside the target that it left.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::command::{self, Change, Command};
use super::document::{Reason, ReasonKind};
use super::established;
use super::journal::Note;
use super::lifecycle::PipeEvent;
use super::outside::Refused;
use super::record::{Records, TableRecord};
use super::resync;
use super::session::{LiveTable, Session};
use super::setup::{self, Matched};
use super::supervisor::{Pipe, Request};
use super::table_state::TableState;
use crate::batch::TableName;
use crate::config::{self, Mode, PipeConfig, TableConfig};
use crate::error::{Error, ErrorKind, Finding, Result, Retry};
use crate::source::mysql::{catalog, preflight};

/// How long tables may be locked that are asked for, all together: whatever else is asked of the pipe waits behind that, and
/// a restore holds a table for longer.
const FREE_WITHIN: Duration = Duration::from_secs(10);

/// The error for a table that is not the pipe's, with the one of its tables that may be meant.
pub(super) fn unknown(records: &Records, name: &TableName) -> Error {
    let known: Vec<String> = records.tables.keys().map(ToString::to_string).collect();
    let meant = config::nearest(&name.to_string(), known.iter().map(String::as_str));
    let meant = meant.map_or_else(String::new, |meant| format!("did you mean `{meant}`? "));
    Error::new(
        ErrorKind::Config,
        format!("`{name}` is no table of this pipe"),
    )
    .with_hint(format!(
        "{meant}`pipewright status PIPE` lists its tables; names are compared with case"
    ))
}

/// Where added tables stand from then on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// In the overlay: a command added them.
    Command,
    /// In the pipe file, which has them already.
    File,
}

/// Prepares the addition of what `entries` mean, and nothing else: other tables that a wildcard means by now, or that a
/// person took out, stay as they are. None is prepared where a command asks for tables that are in the pipe as asked for.
/// A command is carried out whole or not at all; of a file each table is taken in or refused by itself.
///
/// # Errors
/// `Config` for an entry that cannot be read, that means no table, or that asks for a table of the pipe otherwise than it
/// is there, or that clashes with another; `SourceUnavailable` for a table that stays locked; else everything that Setup
/// would refuse the tables for.
pub(super) async fn add(
    pipe: &Arc<Pipe>,
    entries: Vec<serde_json::Value>,
    whose: Whose,
) -> Result<Option<Change>> {
    let mut overlay = pipe.store.record().overlay;
    // A table that was added before, and has left, comes back as it is asked for now.
    let again = |known: &serde_json::Value| {
        let mut asked = entries.iter().map(|entry| &entry["source"]);
        asked.any(|source| *source == known["source"])
    };
    overlay.tables.retain(|known| !again(known));
    let count = entries.len();
    overlay.tables.extend(entries);
    let config = Arc::new(pipe.laid_over(&overlay)?);
    let session = Session::connect(
        Arc::clone(&config),
        &pipe.engine,
        &pipe.plugins,
        pipe.past().as_ref(),
    )
    .await?;
    // What is laid over comes last.
    let asked = config
        .tables
        .get(config.tables.len().saturating_sub(count)..)
        .unwrap_or_default();
    if whose == Whose::File {
        return add_what_can_be(&session, pipe, asked).await;
    }
    let records = pipe.store.records();
    let matched = matched_beside(&session, &records, asked).await?;
    let (present, new): (Matched, Matched) = matched
        .into_iter()
        .partition(|(_, name)| is_carried(&records, name));
    ensure_as_asked(pipe, &records, &present)?;
    if new.is_empty() {
        return Ok(None);
    }
    if let Some(name) = locked_among(&session, &new, (FREE_WITHIN, 1))
        .await?
        .first()
    {
        let hint = format!("{UNLOCK}, and ask again");
        return Err(locked(name).with_hint(hint));
    }
    ensure_replicable(&session, &new).await?;
    let change = take_in(&session, pipe, new).await?;
    let edit = change.edit;
    Ok(Some(Change::new(change.event, move |draft| {
        draft.pipe_mut().overlay = overlay;
        edit(draft)
    })))
}

/// The tables that are asked for, with their entries, beside those of the pipe. What else the source has, and two of it
/// may be meant to go to one target, keeps none out.
///
/// # Errors
/// Everything that stands against the tables that are asked for.
async fn matched_beside(
    session: &Session,
    records: &Records,
    asked: &[TableConfig],
) -> Result<Matched> {
    let listed = listed(session).await?;
    let is_asked_for = |name: &TableName| asked.iter().any(|entry| entry.source.matches(name));
    let mut absent = asked.to_vec();
    absent.retain(|entry| !listed.iter().any(|name| entry.source.matches(name)));
    setup::matched(&absent, &listed)?;
    let mut names = records.carried();
    names.extend(listed.into_iter().filter(is_asked_for));
    names.sort();
    names.dedup();
    let mut matched = setup::recorded(&session.config, &names)?;
    matched.retain(|(_, name)| is_asked_for(name));
    Ok(matched)
}

/// Whether the table is the pipe's, and has not left it.
fn is_carried(records: &Records, name: &TableName) -> bool {
    let table = records.tables.get(name);
    table.is_some_and(|table| table.state != TableState::Removed)
}

/// Takes in those tables of the file's new entries that can be replicated. Each of the others is refused by name, and keeps
/// no other out.
async fn add_what_can_be(
    session: &Session,
    pipe: &Pipe,
    asked: &[TableConfig],
) -> Result<Option<Change>> {
    let listed = listed(session).await?;
    let records = pipe.store.records();
    let is_new = |name: &&TableName| {
        let meant = asked.iter().any(|entry| entry.source.matches(name));
        meant && !is_carried(&records, name)
    };
    let new = listed.iter().filter(is_new).cloned();
    let Joining { able, refused } = keep_able(session, pipe, new, FREE_WITHIN).await?;
    let change = match able.is_empty() {
        true => None,
        false => Some(take_in(session, pipe, able).await?),
    };
    let follow = session.config.follow_new_tables;
    let (named, meant): (Vec<_>, Vec<_>) = refused
        .into_iter()
        .partition(|refused| refused.named || follow);
    let (missing, unmatched): (Vec<_>, Vec<_>) = absent(asked.iter(), &listed)
        .into_iter()
        .partition(|refused| refused.named);
    let looked_for = named.iter().chain(&missing);
    pipe.tell_outside(pipe.progress.outside.add(looked_for))
        .await;
    for refused in meant.iter().chain(&unmatched) {
        pipe.refuse(left_out(pipe.store.pipe(), refused)).await;
    }
    Ok(change)
}

/// The entries that mean none of the source's tables.
fn absent<'a>(
    entries: impl Iterator<Item = &'a TableConfig>,
    listed: &[TableName],
) -> Vec<Refused> {
    let mut absent = Vec::new();
    for entry in entries {
        let source = &entry.source;
        if listed.iter().any(|name| source.matches(name)) {
            continue;
        }
        if let Err(error) = setup::matched(std::slice::from_ref(entry), listed) {
            absent.push(Refused {
                name: TableName::new(source.database.as_str(), source.table.as_str()),
                error,
                named: !source.is_wildcard(),
            });
        }
    }
    absent
}

/// What is told of a table that a wildcard of a changed file means in vain, and that nobody looks at again.
fn left_out(pipe: &str, refused: &Refused) -> Reason {
    let Refused { name, error, .. } = refused;
    let hint = error.hint().unwrap_or("mend what keeps it out");
    let message = format!(
        "`tables[{name}]` of the changed pipe file is not taken in: {}",
        error.chain()
    );
    let told = Error::new(error.kind(), message).with_hint(format!(
        "{hint}; then add it, `pipewright tables add {pipe} {name}`, or give the file once without the entry and once with it"
    ));
    Reason::new(ReasonKind::Warning, &told.with_table(name))
}

/// The source's tables.
async fn listed(session: &Session) -> Result<Vec<TableName>> {
    let mut conn = session.source.control().await?;
    let listed = catalog::list_tables(&mut conn).await?;
    conn.disconnect().await.ok();
    Ok(listed.into_iter().map(|table| table.name).collect())
}

/// Sees that tables of the pipe which are asked for are there as they are asked for.
///
/// # Errors
/// `Config` for the first that is not, naming the keys.
fn ensure_as_asked(pipe: &Pipe, records: &Records, asked: &Matched) -> Result<()> {
    let config = pipe.effective_config()?;
    let running = setup::recorded(&config, &records.carried())?;
    for (entry, name) in asked {
        let Some((present, _)) = running.iter().find(|(_, running)| running == name) else {
            continue;
        };
        let keys = differing_keys(present, entry, name);
        if !keys.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("the table is in the pipe already, with another {}", keys.join(", ")),
            )
            .with_hint(format!(
                "add it as it is there, which changes nothing; or take it out first, `pipewright tables remove PIPE {name}`, \
                 and add it again as you want it, which loads it anew"
            ))
            .with_table(name));
        }
    }
    Ok(())
}

/// The keys in which two entries for one table differ, whichever of them is a wildcard.
fn differing_keys(present: &TableConfig, asked: &TableConfig, name: &TableName) -> Vec<String> {
    let written = |entry: &TableConfig| {
        let target = entry.target.clone().unwrap_or_else(|| name.table.clone());
        let mut alone = TableConfig {
            target: Some(target),
            ..entry.clone()
        };
        alone.source.clone_from(&present.source);
        serde_json::to_value(alone).unwrap_or_default()
    };
    let mut found = Vec::new();
    established::differences("", &written(present), &written(asked), &mut found);
    let keys = found.iter().map(|found| format!("`{}`", found.key));
    keys.collect()
}

/// Takes in what the pipe's wildcards have begun to match and can be replicated; none when there is nothing.
///
/// # Errors
/// As [`add`], but for what is wrong with one table alone.
pub(super) async fn follow_new(pipe: &Arc<Pipe>) -> Result<Option<Change>> {
    let session = Session::connect(
        pipe.effective_config()?,
        &pipe.engine,
        &pipe.plugins,
        pipe.past().as_ref(),
    )
    .await?;
    let joining = joining(&session, pipe).await?.able;
    if joining.is_empty() {
        return Ok(None);
    }
    let taken = async { take_in(&session, pipe, joining).await.map(Some) };
    command::modify(pipe, taken).await
}

/// What could join the pipe.
pub(super) struct Joining {
    /// The tables that can be replicated as they are.
    pub(super) able: Matched,
    /// The others, and what is wrong with each.
    pub(super) refused: Vec<Refused>,
}

/// Tables that the pipe has never had and an entry names, or a wildcard means where it follows those, tables that had gone
/// and are there again, and tables that the file no longer excludes; one that a person took out stays out.
///
/// # Errors
/// What keeps the checks themselves from being made; what is wrong with a table is told beside it.
pub(super) async fn joining(session: &Session, pipe: &Pipe) -> Result<Joining> {
    let records = pipe.store.records();
    let follow = session.config.follow_new_tables;
    let listed = listed(session).await?;
    let unseen = listed
        .iter()
        .filter(|name| match records.tables.get(*name) {
            Some(table) => comes_back(table),
            None => follow || is_named(&session.config, name),
        });
    // They are looked at again soon.
    let mut joining = keep_able(session, pipe, unseen.cloned(), Duration::ZERO).await?;
    let unmet = unmet(&session.config, &records);
    joining.refused.extend(absent(unmet, &listed));
    Ok(joining)
}

/// Whether an entry means this table and no other.
pub(super) fn is_named(config: &PipeConfig, name: &TableName) -> bool {
    let mut sources = config.tables.iter().map(|entry| &entry.source);
    sources.any(|source| !source.is_wildcard() && source.matches(name))
}

/// The entries that name a table which the pipe has never had.
pub(super) fn unmet<'a>(
    config: &'a PipeConfig,
    records: &'a Records,
) -> impl Iterator<Item = &'a TableConfig> {
    config.tables.iter().filter(|entry| {
        let source = &entry.source;
        !source.is_wildcard() && !records.tables.keys().any(|name| source.matches(name))
    })
}

/// Those of `unseen` that an entry means, each by itself: who can join the pipe's tables, and who cannot, as one that
/// somebody has locked for longer than `patience`.
async fn keep_able(
    session: &Session,
    pipe: &Pipe,
    unseen: impl Iterator<Item = TableName>,
    patience: Duration,
) -> Result<Joining> {
    let mut known = pipe.store.records().carried();
    let mut joining = Joining {
        able: Matched::new(),
        refused: Vec::new(),
    };
    for name in unseen {
        let meant = |entry: &TableConfig| entry.source.matches(&name);
        if !session.config.tables.iter().any(meant) {
            continue;
        }
        known.push(name.clone());
        match setup::recorded(&session.config, &known) {
            Ok(matched) => {
                let entry = matched.into_iter().find(|(_, matched)| *matched == name);
                joining.able.extend(entry);
            }
            Err(error) => {
                known.pop();
                joining.refused.push(refused(session, name, error));
            }
        }
    }
    let joining = put_locked_aside(session, joining, patience).await?;
    keep_replicable(session, pipe, joining).await
}

async fn put_locked_aside(
    session: &Session,
    joining: Joining,
    patience: Duration,
) -> Result<Joining> {
    let Joining { able, mut refused } = joining;
    let held = locked_among(session, &able, (patience, able.len())).await?;
    let able = able.into_iter().filter(|(_, name)| !held.contains(name));
    let able = able.collect();
    refused.extend(held.into_iter().map(|name| {
        let error = locked(&name);
        self::refused(session, name, error)
    }));
    Ok(Joining { able, refused })
}

/// The first `most` of the tables that somebody keeps locked for longer than `patience`.
async fn locked_among(
    session: &Session,
    entries: &[(TableConfig, TableName)],
    (patience, most): (Duration, usize),
) -> Result<Vec<TableName>> {
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let mut conn = session.source.control().await?;
    let names: Vec<TableName> = entries.iter().map(|(_, name)| name.clone()).collect();
    let locked = preflight::locked(&mut conn, &names, patience, most).await?;
    conn.disconnect().await.ok();
    Ok(locked)
}

const UNLOCK: &str = "let the session that holds it end, as a restore does by itself, or end it: SHOW PROCESSLIST at the \
                      source lists it";

fn locked(name: &TableName) -> Error {
    let message = "a session of the source has it locked (LOCK TABLES, or a statement that changes it), so that nobody \
                   can read it for now";
    Error::new(ErrorKind::SourceUnavailable, message)
        .with_hint(UNLOCK)
        .with_table(name)
}

/// Moves what is refused from the tables that are able to join to the others: all are looked at together, and one by one
/// where that is refused.
async fn keep_replicable(session: &Session, pipe: &Pipe, joining: Joining) -> Result<Joining> {
    if joining.able.is_empty() {
        return Ok(joining);
    }
    match bind_beside(session, pipe, &joining.able, &mut Vec::new()).await {
        Ok(()) => return Ok(joining),
        Err(error) if error.kind().retry() == Retry::Backoff => return Err(error),
        Err(_) => {}
    }
    let (mut kept, mut bound) = (Matched::new(), Vec::new());
    let mut out = joining.refused;
    for entry in joining.able {
        match bind_beside(session, pipe, std::slice::from_ref(&entry), &mut bound).await {
            Ok(()) => kept.push(entry),
            Err(error) if error.kind().retry() == Retry::Backoff => return Err(error),
            Err(error) => out.push(refused(session, entry.1, error)),
        }
    }
    Ok(Joining {
        able: kept,
        refused: out,
    })
}

fn refused(session: &Session, name: TableName, error: Error) -> Refused {
    Refused {
        named: is_named(&session.config, &name),
        name,
        error,
    }
}

/// Binds tables as they are now, beside those that are bound already; makes nothing.
///
/// # Errors
/// Everything that Setup would refuse them for; then `bound` is as it was.
async fn bind_beside(
    session: &Session,
    pipe: &Pipe,
    entries: &[(TableConfig, TableName)],
    bound: &mut Vec<LiveTable>,
) -> Result<()> {
    ensure_replicable(session, entries).await?;
    let sources = setup::definitions(session, entries).await?;
    let before = bound.len();
    for (table, name) in setup::bind_all(session, entries, sources).await {
        match table {
            Ok(table) => bound.push(table),
            Err(error) => {
                bound.truncate(before);
                return Err(error.with_table(&name));
            }
        }
    }
    let checked = resync::check_targets(session, pipe, bound, before).await;
    if checked.is_err() {
        bound.truncate(before);
    }
    checked
}

/// Whether there may ever be any.
pub(super) fn may_have_unseen(session: &Session, records: &Records) -> bool {
    let mut entries = session.config.tables.iter();
    (session.config.follow_new_tables && entries.any(|entry| entry.source.is_wildcard()))
        || unmet(&session.config, records).next().is_some()
        || records.tables.values().any(|table| comes_back(table))
}

/// Whether nobody but the source or the file's `exclude` keeps the table out.
fn comes_back(table: &TableRecord) -> bool {
    table.state == TableState::Removed && (table.dropped || table.excluded)
}

impl Pipe {
    /// Lets these tables, which cannot be taken in, and no others stand against the pipe, each told of once.
    pub(super) async fn keep_outside(&self, refused: &[Refused]) {
        self.tell_outside(self.progress.outside.set(refused)).await;
    }

    async fn tell_outside(&self, reasons: Vec<Reason>) {
        for reason in reasons {
            let (pipe, hint) = (self.store.pipe(), &reason.remedy);
            tracing::warn!(pipe, hint, "{}", reason.message);
            self.note(Note::standing(&reason)).await;
        }
    }

    /// Asks the pipe's supervisor for a change, which it makes when the present run has ended.
    ///
    /// # Errors
    /// Whatever the supervisor refuses with.
    pub(super) async fn ask(&self, command: Command) -> Result<()> {
        let Some(wishes) = self.wishes.upgrade() else {
            return Ok(());
        };
        let (answer, answered) = oneshot::channel();
        // Whoever takes no wishes any more is going away.
        if wishes.send(Request { command, answer }).await.is_err() {
            return Ok(());
        }
        drop(wishes);
        answered.await.unwrap_or(Ok(()))
    }
}

async fn take_in(session: &Session, pipe: &Pipe, entries: Matched) -> Result<Change> {
    let new: Vec<TableName> = entries.iter().map(|(_, name)| name.clone()).collect();
    let fresh = resync::begin_anew(session, pipe, &new).await?;
    let names: Vec<String> = new.iter().map(ToString::to_string).collect();
    tracing::info!(
        pipe = pipe.store.pipe(),
        tables = names.join(", "),
        "taken into the pipe"
    );
    Ok(match session.config.mode {
        Mode::Cdc | Mode::Snapshot => Change::new(Some(PipeEvent::ModifiedToLoad), |draft| {
            fresh.record(draft, true)
        }),
        Mode::CdcOnly => Change::new(Some(PipeEvent::Modified), |draft| {
            fresh.record_without_load(draft)
        }),
    })
}

/// Sees that preflight has nothing against these tables; what it warns of keeps none out. Of one that somebody has locked
/// the rights are known all the same.
///
/// # Errors
/// Every refusing finding in one error, or what the source fails with.
pub(super) async fn ensure_replicable(
    session: &Session,
    entries: &[(TableConfig, TableName)],
) -> Result<()> {
    setup::refuse(&findings_of(session, entries).await?)
}

/// What preflight has to say of these tables alone.
///
/// # Errors
/// What the source fails with.
pub(super) async fn findings_of(
    session: &Session,
    entries: &[(TableConfig, TableName)],
) -> Result<Vec<Finding>> {
    let mut config = PipeConfig::clone(&session.config);
    config.tables = entries
        .iter()
        .cloned()
        .map(|(mut entry, name)| {
            entry.source.database = name.database;
            entry.source.table = name.table;
            entry.source.literal = true;
            entry
        })
        .collect();
    let mut conn = session.source.control().await?;
    preflight::pass_over_locks(&mut conn).await?;
    let findings = preflight::preflight(&session.source, &mut conn, &config).await?;
    conn.disconnect().await.ok();
    Ok(findings)
}
