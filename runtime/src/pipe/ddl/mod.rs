//! Statements of the binlog that change replicated tables, followed to an end state.
//!
//! What a statement leads to is judged first, for each replicated table that it names. Three things can be done while
//! the stream stands at the statement: nothing, a TRUNCATE's tombstones, and an alteration in place that keeps every
//! value. Everything else changes the set of tables: one is loaded anew beside the live one, or has gone. That ends the
//! present run at the checkpoint before the statement and is recorded; when the statement is met again, the tables
//! concerned stand behind it or are no longer in the stream.
//!
//! The caller has made everything before the statement durable. Each step here may be repeated: an alteration is marked
//! before it begins, since a target between two forms fits neither definition, and the new definition is persisted in
//! the same write as the checkpoint that moves past the statement.

mod copies;
mod forecast;
mod gone;
mod judge;
mod kept;
mod kinds;
mod merge_tables;
mod moves;
mod shape;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::command::Command;
use super::follow::Passed;
use super::heal::Kinship;
use super::journal::{EventKind, Level, Note};
use super::mirror::Mirroring;
use super::session::Session;
use super::store::PipeStore;
use super::track::Track;
use crate::batch::{TableName, Version};
use crate::config::{DdlAction, Mode};
use crate::destination::clickhouse::{Alteration, Durable, Owner, TargetTable};
use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::source::mysql::Flavor;
use crate::source::mysql::binlog::Statement;
use crate::source::mysql::binlog::ddl::{Alter, Class, Clause};
use crate::source::mysql::catalog::{SourceTable, exists};

pub(super) use copies::{Copy, is_ghost};
pub use forecast::{Forecast, forecast};
pub(super) use gone::{follow, retire_gone};
use judge::Altered;
use kinds::Kinds;
pub(super) use merge_tables::warn_of_merge;
use moves::{moved, unvalidated};

/// What has become of a statement.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is applied, and the checkpoint stands behind it.
    Applied,
    /// The supervisor has to change the set of tables first.
    Ask(Command),
}

/// What a statement leads to for one table.
#[derive(Debug)]
enum Verdict {
    Nothing,
    Truncate,
    Alter(Box<Altered>),
    /// Only a fresh load can follow, for this reason.
    Reload(String),
    /// The source has the table no longer.
    Gone,
}

/// What becomes of a table that cannot go on as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is loaded anew beside the live one.
    Reload,
    /// It leaves the pipe, until it is there again.
    Gone,
}

/// The stream that met a statement.
#[derive(Clone, Copy)]
pub(super) struct Stand<'a> {
    pub(super) session: &'a Session,
    pub(super) store: &'a PipeStore,
    pub(super) track: &'a Track,
    pub(super) kinship: &'a Kinship,
    pub(super) term: u16,
    /// Tables that stand ahead of the stream.
    pub(super) passed: &'a Passed,
}

/// Applies one statement and moves the checkpoint past it, or says what has to change first.
///
/// # Errors
/// `Unsupported`, naming table and statement, for what the pipe file wants to decide by hand or nothing is known of;
/// else whatever either end fails with.
pub(super) async fn apply(stand: Stand<'_>, statement: &Statement) -> Result<Outcome> {
    let verdicts = verdicts(stand, statement).await?;
    let mut fates = Vec::new();
    for (name, verdict) in &verdicts {
        if let Some(fate) = fate(stand.session, statement, name, verdict)? {
            fates.push((name.clone(), fate));
        }
    }
    if !fates.is_empty() {
        if let Some(warning) = unvalidated(statement, &fates) {
            tracing::warn!(pipe = stand.session.config.pipe, "{}", warning.chain());
            let note = Note::over(Level::Warning, EventKind::Error, "loaded anew", &warning);
            stand.store.note(note).await?;
        }
        let end = Some(statement.end.position.clone());
        return Ok(Outcome::Ask(Command::FollowStatement { fates, end }));
    }
    announce(stand, statement, &verdicts).await?;
    let mut durable = Vec::new();
    let mut definitions: Vec<(TableName, Defined)> = Vec::new();
    for (name, verdict) in verdicts {
        match verdict {
            Verdict::Truncate => truncate(stand, statement, &name, &mut durable).await?,
            Verdict::Alter(altered) => match alter(stand, &name, *altered).await? {
                Some(definition) => definitions.push((name, definition)),
                None => return ask_for_load(stand, statement, name),
            },
            Verdict::Nothing | Verdict::Reload(_) | Verdict::Gone => {}
        }
    }
    let (end, committed_at_us) = (statement.end.clone(), statement.committed_at_us);
    let Stand {
        session,
        store,
        track,
        kinship,
        ..
    } = stand;
    let mirroring = Mirroring {
        session,
        store,
        kinship,
    };
    let records = store.records();
    track
        .mirror(mirroring, &records, &end, committed_at_us, &durable)
        .await?;
    track
        .checkpoint(store, end, committed_at_us, |draft| {
            let version = Version::new(stand.term, statement.offset);
            for (name, defined) in definitions {
                let table = draft.table_mut(&name);
                (table.source, table.altering) = (defined.definition, false);
                table.renamed_values.clear();
                // Beside a load columns are only added, so that no column of before had the name: rows that the load reads
                // from here on have it, at the version of all of its rows.
                if !table.state.is_loading() {
                    let named = defined.named.into_iter();
                    table
                        .named_at
                        .extend(named.map(|column| (column, version.get())));
                }
            }
            copies::note(stand, draft, statement);
        })
        .await?;
    Ok(Outcome::Applied)
}

/// What a statement does at ClickHouse is *sent* before it is done, as rows are: a server that lacks the statement is
/// then refused, where the target would otherwise stay truncated or altered for it, unseen.
async fn announce(
    stand: Stand<'_>,
    statement: &Statement,
    verdicts: &[(TableName, Verdict)],
) -> Result<()> {
    let acts = |verdict: &Verdict| matches!(verdict, Verdict::Truncate | Verdict::Alter(_));
    if verdicts.iter().any(|(_, verdict)| acts(verdict)) {
        stand.track.begin(stand.store, &statement.end).await?;
    }
    Ok(())
}

/// The target does not hold what it held before the alteration.
fn ask_for_load(stand: Stand<'_>, statement: &Statement, name: TableName) -> Result<Outcome> {
    let why =
        "ClickHouse lost values of a column when it renamed it beside a merge (its issue 80648)";
    let verdict = Verdict::Reload(why.to_owned());
    let fate = fate(stand.session, statement, &name, &verdict)?;
    Ok(Outcome::Ask(Command::FollowStatement {
        fates: fate.map(|fate| (name, fate)).into_iter().collect(),
        end: Some(statement.end.position.clone()),
    }))
}

/// The fate that a verdict means, where the pipe file does not want to decide by hand.
fn fate(
    session: &Session,
    statement: &Statement,
    name: &TableName,
    verdict: &Verdict,
) -> Result<Option<Fate>> {
    let policies = session.config.ddl;
    let (fate, policy, why) = match verdict {
        Verdict::Nothing | Verdict::Truncate | Verdict::Alter(_) => return Ok(None),
        Verdict::Reload(why) => (Fate::Reload, policies.reload, why.as_str()),
        Verdict::Gone => (
            Fate::Gone,
            policies.drop_table,
            "the source has it no longer",
        ),
    };
    if policy == DdlAction::Quarantine {
        return Err(by_hand(statement, name, why));
    }
    if fate == Fate::Reload && session.config.mode == Mode::CdcOnly {
        let what = format!("{why}, which only a load could follow, and `mode: cdc_only` has none");
        return Err(by_hand(statement, name, &what));
    }
    tracing::info!(
        pipe = session.config.pipe,
        table = %name,
        at = %statement.end.position,
        "{}: {why}",
        match fate {
            Fate::Reload => "loaded anew beside the live table",
            Fate::Gone => "leaves the pipe",
        }
    );
    Ok(Some(fate))
}

/// What the statement leads to, for each table of the stream that it names and that does not stand behind it.
async fn verdicts(stand: Stand<'_>, statement: &Statement) -> Result<Vec<(TableName, Verdict)>> {
    let records = stand.store.records();
    let ours =
        |name: &TableName| stand.track.carries(&records, name) && !stand.passed.contains(name);
    let named: Vec<TableName> = statement
        .tables
        .iter()
        .filter(|name| ours(name))
        .cloned()
        .collect();
    let all = |why: &str| reloads(&named, why);
    let gone = |names: Vec<TableName>| {
        names
            .into_iter()
            .map(|name| (name, Verdict::Gone))
            .collect()
    };
    Ok(match &statement.class {
        Class::Truncate(name) if ours(name) => vec![(
            name.clone(),
            match stand.session.config.ddl.truncate {
                DdlAction::Quarantine => return Err(by_hand(statement, name, "TRUNCATE")),
                DdlAction::Ignore => Verdict::Nothing,
                DdlAction::Apply | DdlAction::Archive => Verdict::Truncate,
            },
        )],
        Class::AlterTable { table, alter } => {
            of_alter(stand, statement, (table, alter), &named).await?
        }
        Class::CreateTable { keeps: false, .. } => all("it was created anew"),
        Class::DropTable(_) => gone(named),
        Class::RenameTable(pairs) => renamed(stand, statement, pairs, &named).await?,
        Class::DropDatabase(database) => {
            let names = records.tables.keys();
            gone(
                names
                    .filter(|name| name.database == *database && ours(name))
                    .cloned()
                    .collect(),
            )
        }
        Class::Truncate(_) | Class::CreateTable { keeps: true, .. } => Vec::new(),
        Class::Control(_) | Class::NoEffect | Class::Rows => Vec::new(),
        Class::Unknown => {
            let mut told = statement.tables.iter();
            // Where nothing tells which tables it concerns, each of them is. Those that stand behind it, or went out of
            // service because of it, keep no others back.
            let concerned = match told.any(|name| records.tables.contains_key(name)) {
                true => named,
                false => records
                    .tables
                    .keys()
                    .filter(|name| ours(name))
                    .cloned()
                    .collect(),
            };
            match Error::of_each(concerned.iter().map(|name| unknown(statement, name))) {
                Some(error) => return Err(error),
                None => Vec::new(),
            }
        }
    })
}

/// What an ALTER TABLE, or a REPAIR, leads to for `named`, the tables of the stream that it names.
async fn of_alter(
    stand: Stand<'_>,
    statement: &Statement,
    (table, alter): (&TableName, &Alter),
    named: &[TableName],
) -> Result<Vec<(TableName, Verdict)>> {
    if let Some(moved) = moved(table, alter, named) {
        if moved
            .iter()
            .any(|(name, fate, _)| name == table && *fate == Fate::Reload)
        {
            let kinds = Kinds::of_clauses(&stand.session.table(table), [alter]);
            kinds.accept(stand, table, statement).await?;
        }
        let verdict = |(name, fate, why): (TableName, Fate, &str)| match fate {
            Fate::Reload => (name, Verdict::Reload(why.to_owned())),
            Fate::Gone => (name, Verdict::Gone),
        };
        return Ok(moved.into_iter().map(verdict).collect());
    }
    if alter.clauses.contains(&Clause::Repair) {
        let why = "rows that could not be read may have been left out by a REPAIR";
        let mut verdicts = reloads(named, why);
        verdicts.retain(|(name, _)| stand.session.table(name).source.transactional != Some(true));
        if !verdicts.is_empty() {
            return Ok(verdicts);
        }
    }
    Ok(match named.contains(table) {
        true => vec![(
            table.clone(),
            judge::altered(stand, table, alter, statement).await?,
        )],
        false => Vec::new(),
    })
}

fn reloads(named: &[TableName], why: &str) -> Vec<(TableName, Verdict)> {
    let reload = |name: &TableName| (name.clone(), Verdict::Reload(why.to_owned()));
    named.iter().map(reload).collect()
}

/// The tables of one RENAME are exchanged in its order, all at once (pitfall 103). What counts is which table has a name
/// in the end.
async fn renamed(
    stand: Stand<'_>,
    statement: &Statement,
    pairs: &[(TableName, TableName)],
    named: &[TableName],
) -> Result<Vec<(TableName, Verdict)>> {
    let mut holders: BTreeMap<&TableName, Option<&TableName>> = BTreeMap::new();
    for (from, to) in pairs {
        let holder = holders.insert(from, None).unwrap_or(Some(from));
        holders.insert(to, holder);
    }
    let mut verdicts = Vec::with_capacity(named.len());
    for name in named {
        let verdict = match holders.get(name) {
            None => Verdict::Nothing,
            Some(None) => renamed_away(stand, name, pairs).await?,
            Some(Some(holder)) if *holder == name => Verdict::Nothing,
            // Rows that the tool copied behind the moment that the load reads are in neither.
            Some(Some(_)) if reads_one_moment(stand, name) => {
                Verdict::Reload("its load had not ended".to_owned())
            }
            Some(Some(holder)) if is_ghost(pairs, holder, name) => {
                copies::in_place(stand, name, holder, statement).await?
            }
            Some(Some(holder)) => Verdict::Reload(format!("`{holder}` has its name")),
        };
        verdicts.push((name.clone(), verdict));
    }
    Ok(verdicts)
}

/// MariaDB logs the RENAME of a temporary table, whatever the format, as that of the table whose name it hides; then the
/// catalog shows that one as before, and none under the other name.
async fn renamed_away(
    stand: Stand<'_>,
    name: &TableName,
    pairs: &[(TableName, TableName)],
) -> Result<Verdict> {
    let source = &stand.session.source;
    if source.flavor() == Flavor::MySql {
        return Ok(Verdict::Gone);
    }
    let to = pairs
        .iter()
        .find(|(from, _)| from == name)
        .map(|(_, to)| to);
    let mut conn = source.control().await?;
    let here = exists(&mut conn, name).await;
    let there = exists(&mut conn, to.unwrap_or(name)).await;
    conn.disconnect().await.ok();
    Ok(match here? && !there? {
        true => Verdict::Reload("it was renamed, and is there all the same".to_owned()),
        false => Verdict::Gone,
    })
}

/// Whether the table is an append table whose load has not ended.
fn reads_one_moment(stand: Stand<'_>, name: &TableName) -> bool {
    let records = stand.store.records();
    let table = records.tables.get(name);
    table.is_some_and(|table| table.appends && table.state.is_loading())
}

/// Rows that a partition has read before the TRUNCATE must be there to get their tombstone; a partition that is read
/// from now on sees the truncated table.
async fn truncate(
    stand: Stand<'_>,
    statement: &Statement,
    name: &TableName,
    durable: &mut Vec<Durable>,
) -> Result<()> {
    let table = stand.session.table(name);
    let _gate = table.gate.write().await;
    let _letters = stand.store.letters().lock().await;
    let version = Version::new(stand.term, statement.offset);
    let tag = |error: Error| error.with_table(name);
    let destination = &stand.session.destination;
    if stand.session.config.ddl.truncate == DdlAction::Archive {
        for target in table.targets() {
            let copied = destination.archive_below(target, version);
            durable.push(copied.await.map_err(tag)?);
        }
    }
    for target in table.stream_targets() {
        let done = destination.tombstone_below(target, version);
        durable.push(done.await.map_err(tag)?);
    }
    // A row that was hidden has no tombstone of this version, which would outrank its letter.
    let (pipe, load) = (stand.store.pipe(), &table.load);
    let closed = destination.close_letters_below(pipe, name, load, version);
    closed.await.map_err(tag)?;
    fault::point("truncate:1");
    Ok(())
}

/// A table's new definition, and the columns that have their names by it.
struct Defined {
    definition: SourceTable,
    named: Vec<String>,
}

/// Alters every table that the stream writes to, and lets the stream go on with the new definition, which is returned.
/// None where ClickHouse has lost values on the way.
async fn alter(stand: Stand<'_>, name: &TableName, altered: Altered) -> Result<Option<Defined>> {
    let table = stand.session.table(name);
    let gate = Arc::clone(&table.gate);
    let _held = gate.write().await;
    // A letter that is replayed would be written in the former form.
    let _letters = stand.store.letters().lock().await;
    let destination = &stand.session.destination;
    let owner = Owner::new(stand.store.pipe(), stand.store.record().id);
    let steps: Vec<(&Alteration, &TargetTable)> = altered
        .alterations
        .iter()
        .enumerate()
        .flat_map(|(output, alteration)| {
            let targets = table.stream_targets_of(output);
            targets.map(move |target| (alteration, target))
        })
        .collect();
    let tag = |error: Error| error.with_table(name);
    let held = begun(stand, name, &steps).await.map_err(tag)?;
    for (alteration, target) in &steps {
        let done = destination.alter(alteration, target, &owner);
        done.await.map_err(tag)?;
    }
    for (alteration, target) in &steps {
        let now = destination.renamed_values(alteration, target);
        if held.get(target.name()) != now.await.map_err(tag)?.as_ref() {
            return Ok(None);
        }
    }
    let records = stand.store.records();
    let definition = SourceTable::clone(&altered.live.source);
    let live = match records.tables.get(name) {
        Some(record) => altered.live.recorded_as(stand.store, record),
        None => altered.live,
    };
    stand.session.put(live);
    Ok(Some(Defined {
        definition,
        named: altered.named,
    }))
}

/// Marks that the alteration has begun. By target, what the columns held that it renames; of one that had begun before the
/// process was killed, as it was recorded then.
async fn begun(
    stand: Stand<'_>,
    name: &TableName,
    steps: &[(&Alteration, &TargetTable)],
) -> Result<BTreeMap<String, String>> {
    let destination = &stand.session.destination;
    let records = stand.store.records();
    // Once it is marked, a new column may stand there because it was added before the pipe was killed.
    if let Some(record) = records.tables.get(name)
        && record.altering
    {
        return Ok(record.renamed_values.clone());
    }
    let mut held = BTreeMap::new();
    for (alteration, target) in steps {
        destination.make_way(alteration, target).await?;
        if let Some(values) = destination.renamed_values(alteration, target).await? {
            held.insert(target.name().to_owned(), values);
        }
    }
    stand
        .store
        .commit(|draft| {
            let table = draft.table_mut(name);
            table.altering = true;
            table.renamed_values.clone_from(&held);
            Ok(())
        })
        .await?;
    Ok(held)
}

/// The error for what a person has to decide.
fn by_hand(statement: &Statement, name: &TableName, what: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "a statement before {} has to be decided by hand: {what}",
            statement.end.position
        ),
    )
    .with_hint(format!(
        "resync the table: pipewright resync --table {name}; or let `ddl` in the pipe file follow statements of this kind"
    ))
    .with_table(name)
}

fn unknown(statement: &Statement, table: &TableName) -> Error {
    let what = format!(
        "the source ran a statement of a kind that this build does not know before {}",
        statement.end.position
    );
    Error::new(ErrorKind::Unsupported, what)
        .with_hint("resync the table, so that its new definition is loaded")
        .with_table(table)
}
