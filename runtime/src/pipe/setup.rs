//! Setup: everything is checked before anything is made.
//!
//! The start place and the definitions that hold there ([`start_place`]) are persisted before the first target table is
//! made, so a crash in between repeats the rest with the same start place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::append;
use super::attach::pin;
use super::established;
use super::lifecycle::PipeEvent;
use super::mirror::{self, position_text};
use super::record::{Checkpoint, Records, TableRecord, random_id, random_server_id};
use super::session::{LiveTable, Session, completes_rows};
use super::start_place;
use super::store::PipeStore;
use super::table_state::TableState;
use super::target_findings;
use crate::batch::TableName;
use crate::config::{Mode, PipeConfig, TableConfig, match_each, match_tables};
use crate::destination::clickhouse::{MirrorRow, Owner, TARGETS_A_QUERY, TargetTable};
use crate::error::{Error, ErrorKind, Finding, Result, Retry, Severity};
use crate::fault;
use crate::source::mysql::catalog::{self, SourceTable};
use crate::source::mysql::position::{Position, StreamPlace};
use crate::source::mysql::preflight;
use crate::source::mysql::types::ensure_images_whole;
use crate::source::mysql::{ServerIdentity, Source};

/// How often it is told how many target tables have been made.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// What Setup has found out, before it makes anything.
pub(super) struct Prepared {
    pub(super) tables: Vec<LiveTable>,
    pub(super) findings: Vec<Finding>,
}

/// The tables that the pipe file means, as the source has them now, without those that are `out`: their targets are free.
pub(super) async fn matched_tables(session: &Session, out: &[TableName]) -> Result<Matched> {
    let listed = listed(&session.source).await?;
    let (out, names): (Vec<_>, Vec<_>) = listed.into_iter().partition(|name| out.contains(name));
    let means = |entry: &TableConfig, names: &[TableName]| {
        let mut names = names.iter();
        names.any(|name| entry.source.matches(name))
    };
    let mut entries = session.config.tables.clone();
    entries.retain(|entry| means(entry, &names) || !means(entry, &out));
    matched(&entries, &names)
}

/// The recorded tables with their entries. An entry whose tables the pipe has yet to take in means none of them.
pub(super) fn recorded(config: &PipeConfig, names: &[TableName]) -> Result<Matched> {
    let entries: Vec<TableConfig> = config
        .tables
        .iter()
        .filter(|entry| names.iter().any(|name| entry.source.matches(name)))
        .cloned()
        .collect();
    matched(&entries, names)
}

/// The entries with the tables that they mean, or everything that stands against that as one error.
pub(super) fn matched(
    tables: &[TableConfig],
    names: &[TableName],
) -> Result<Vec<(TableConfig, TableName)>> {
    match_tables(tables, names).map_err(|findings| match refuse(&findings) {
        Err(error) => error,
        Ok(()) => Error::new(
            ErrorKind::Config,
            "the tables of the pipe file cannot be told",
        ),
    })
}

/// Checks both ends and binds every table as it is now; makes nothing.
///
/// # Errors
/// Only what keeps the checks themselves from being made; what they find is in the findings.
pub(super) async fn prepare(session: &Session, owner: &Owner) -> Result<Prepared> {
    let Looked {
        tables: described,
        mut findings,
    } = look_at_source(&session.source, &session.config).await?;
    let keyless = told(&findings, |told| told.check == "key");
    let mut tables = Vec::new();
    for (entry, source) in described {
        let name = source.name().clone();
        let bound = session.bind(&entry, Arc::new(source), Arc::default()).await;
        match bound {
            Ok(table) => tables.push(table),
            // A table without a key has been told of.
            Err(error)
                if error.kind() == ErrorKind::Unsupported
                    && keyless.contains(&name.to_string()) => {}
            Err(error) => findings.push(finding(&error.with_table(&name))),
        }
    }
    findings.extend(target_findings::shared(&Records::default(), &tables));
    findings.extend(tables.iter().flat_map(target_findings::narrower_keys));
    let targets = tables.iter().flat_map(LiveTable::targets);
    let targets: Vec<_> = targets.cloned().collect();
    findings.extend(
        session
            .destination
            .preflight(&session.config, &targets, owner)
            .await?,
    );
    Ok(Prepared { tables, findings })
}

/// What the source shows of the tables that the pipe file means.
pub(super) struct Looked {
    /// Those that can be replicated as far as it is concerned, each with its entry.
    tables: Vec<(TableConfig, SourceTable)>,
    pub(super) findings: Vec<Finding>,
}

/// Everything that the source and the pipe file have against each other. One table's trouble keeps no other from being
/// looked at.
///
/// # Errors
/// Only what keeps the checks themselves from being made.
pub(super) async fn look_at_source(source: &Source, config: &PipeConfig) -> Result<Looked> {
    let mut conn = source.control().await?;
    let mut findings = preflight::preflight(source, &mut conn, config).await?;
    conn.disconnect().await.ok();
    let tables = match described(source, config, &mut findings).await {
        Ok(tables) => tables,
        Err(error) if error.kind().retry() == Retry::Backoff => return Err(error),
        Err(error) => {
            findings.push(finding(&error));
            Vec::new()
        }
    };
    Ok(Looked { tables, findings })
}

/// The tables that can be told, with their entries; what stands against the others joins the findings.
async fn described(
    source: &Source,
    config: &PipeConfig,
    findings: &mut Vec<Finding>,
) -> Result<Vec<(TableConfig, SourceTable)>> {
    let (matched, unmatched) = match_each(&config.tables, &listed(source).await?);
    let definitions = definition_of_each(source, config, &matched).await?;
    // Preflight has told of entries without a table.
    let unmatched = unmatched.into_iter();
    findings.extend(unmatched.filter(|finding| finding.kind != ErrorKind::SourceMissing));
    let missing = told(findings, |told| told.kind == ErrorKind::SourceMissing);
    let mut tables = Vec::new();
    for ((entry, name), definition) in matched.into_iter().zip(definitions) {
        match definition {
            Ok(table) => tables.push((entry, table)),
            Err(error)
                if error.kind() == ErrorKind::SourceMissing
                    && missing.contains(&name.to_string()) => {}
            Err(error) => findings.push(finding(&error.with_table(&name))),
        }
    }
    Ok(tables)
}

/// What preflight has refused, a table or a column of it, in its own words by a finding like that. A warning does not keep
/// the pipe from being set up.
fn told(findings: &[Finding], like: impl Fn(&Finding) -> bool) -> BTreeSet<String> {
    let refused = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error && like(finding));
    // Every other part stands between quotes.
    let quoted = refused.flat_map(|finding| finding.found.split('`').skip(1).step_by(2));
    quoted.map(str::to_owned).collect()
}

/// All tables of the source that can be replicated.
async fn listed(source: &Source) -> Result<Vec<TableName>> {
    let mut conn = source.control().await?;
    let listed = catalog::list_tables(&mut conn).await?;
    conn.disconnect().await.ok();
    Ok(listed.into_iter().map(|table| table.name).collect())
}

/// Entries of the pipe file with the tables that they mean.
pub(super) type Matched = Vec<(TableConfig, TableName)>;

/// The entry that means each table.
fn by_name(matched: &[(TableConfig, TableName)]) -> BTreeMap<&TableName, &TableConfig> {
    matched
        .iter()
        .map(|(config, name)| (name, config))
        .collect()
}

pub(super) async fn bind_all(
    session: &Session,
    matched: &[(TableConfig, TableName)],
    sources: Vec<SourceTable>,
) -> Vec<(Result<LiveTable>, TableName)> {
    let entries = by_name(matched);
    let mut bound = Vec::new();
    for source in sources {
        let name = source.name().clone();
        if let Some(config) = entries.get(&name) {
            bound.push((
                session.bind(config, Arc::new(source), Arc::default()).await,
                name,
            ));
        }
    }
    bound
}

pub(super) fn finding(error: &Error) -> Finding {
    Finding {
        severity: Severity::Error,
        check: error.kind().code(),
        found: error.chain(),
        needed: "a table that can be replicated as the pipe file says".to_owned(),
        remedy: error.hint().unwrap_or("change the pipe file").to_owned(),
        kind: error.kind(),
    }
}

/// Turns the findings that refuse the pipe into one error that says all of them.
pub(super) fn refuse(findings: &[Finding]) -> Result<()> {
    let refusing: Vec<&Finding> = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .collect();
    let Some(deciding) = Finding::deciding(findings) else {
        return Ok(());
    };
    let message = refusing
        .iter()
        .map(|finding| {
            format!(
                "{}: {}; needed: {}",
                finding.check, finding.found, finding.needed
            )
        })
        .collect::<Vec<_>>()
        .join(" | ");
    let remedy = refusing
        .iter()
        .map(|finding| finding.remedy.as_str())
        .collect::<Vec<_>>()
        .join(" | ");
    Err(Error::new(deciding.kind, message).with_hint(remedy))
}

/// Runs Setup to its end and moves the pipe to Snapshot or Running.
///
/// # Errors
/// Every refusing finding in one error, or whatever either end fails with. Nothing is left that a second run, with a
/// corrected file, would stumble over: target tables made so far carry this pipe's token.
pub(super) async fn set_up(session: &Session, store: &PipeStore) -> Result<()> {
    let owner = Owner::new(store.pipe(), store.record().id);
    if store.record().checkpoint.is_some() {
        let names = store.records().carried();
        let changed = session
            .bind_recorded(store, &recorded(&session.config, &names)?)
            .await?;
        // Beyond the first term, whoever attaches takes them up.
        if store.record().term == 0 && !changed.is_empty() {
            session.bind_present(store, &changed).await?;
            session.keep_plugins(store).await?;
            pin(session, store, changed).await?;
        }
    } else {
        let prepared = prepare(session, &owner).await?;
        for warning in prepared
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Warning)
        {
            tracing::warn!(
                check = warning.check,
                remedy = warning.remedy,
                "{}",
                warning.found
            );
        }
        refuse(&prepared.findings)?;
        keep_number_apart(session, store).await?;
        let matched = matched_tables(session, &[]).await?;
        let (start, sources) =
            start_place::take(session, &matched, store.record().server_id).await?;
        let mut tables = Vec::new();
        for (table, _) in bind_all(session, &matched, sources).await {
            tables.push(table?);
        }
        session.keep_plugins(store).await?;
        record_start(session, store, start, &tables).await?;
        tables.into_iter().for_each(|table| session.put(table));
    }
    if store.record().term == 0 {
        make_targets(session, store, &owner).await?;
        raise_term(session, store).await?;
    }
    let loading = store
        .records()
        .tables
        .values()
        .any(|table| table.state.is_loading());
    store
        .transition(if loading {
            PipeEvent::SetUpToLoad
        } else {
            PipeEvent::SetUpToStream
        })
        .await?;
    Ok(())
}

/// Gives the pipe another number as a replica where its random one is taken: the source would end one stream for the
/// other without end (pitfall 63). A number that the pipe file pins is a finding.
async fn keep_number_apart(session: &Session, store: &PipeStore) -> Result<()> {
    if session.config.source.server_id.is_some() {
        return Ok(());
    }
    let mut conn = session.source.control().await?;
    let replicas = session.source.replicas(&mut conn).await?;
    conn.disconnect().await.ok();
    let replicas = replicas.unwrap_or_default();
    let is_taken = |id: u32| replicas.iter().any(|replica| replica.server_id == id);
    let mut id = store.record().server_id;
    if !is_taken(id) {
        return Ok(());
    }
    while is_taken(id) {
        id = random_server_id();
    }
    store
        .commit(|draft| {
            draft.pipe_mut().server_id = id;
            Ok(())
        })
        .await
}

/// Makes all that a pipe which has written nothing yet writes to. Later what is gone has taken rows with it: whoever
/// attaches tells of that, and makes alone what a load is to fill.
async fn make_targets(session: &Session, store: &PipeStore, owner: &Owner) -> Result<()> {
    session.destination.ensure_database().await?;
    session.destination.ensure_checkpoints().await?;
    let records = store.records();
    // The live tables of such a load have the form and the names of before.
    let is_apart = |table: &LiveTable| {
        let record = records.tables.get(table.source.name());
        record.is_some_and(|record| record.is_loading_alone())
    };
    let mut wanted = session.tables();
    wanted.retain(|table| !is_apart(table));
    let targets: Vec<&TargetTable> = wanted.iter().flat_map(|table| table.targets()).collect();
    let (mut made, mut told_at) = (0, Instant::now());
    for some in targets.chunks(TARGETS_A_QUERY) {
        session.destination.create_each(some, owner).await?;
        made += some.len();
        if told_at.elapsed() > PROGRESS_INTERVAL {
            told_at = Instant::now();
            let of = targets.len();
            tracing::info!(pipe = store.pipe(), "{made} of {of} target tables made");
        }
    }
    Ok(())
}

/// The tables' definitions as the catalog has them now.
pub(super) async fn definitions(
    session: &Session,
    matched: &[(TableConfig, TableName)],
) -> Result<Vec<SourceTable>> {
    let each = definition_of_each(&session.source, &session.config, matched).await?;
    each.into_iter().collect()
}

/// The same, with what stands against each table alone in its place.
async fn definition_of_each(
    source: &Source,
    config: &PipeConfig,
    matched: &[(TableConfig, TableName)],
) -> Result<Vec<Result<SourceTable>>> {
    let mut conn = source.control().await?;
    let names: Vec<TableName> = matched.iter().map(|(_, name)| name.clone()).collect();
    let entries = by_name(matched);
    let excluded = |name: &TableName| {
        let entry = entries.get(name);
        entry
            .map(|config| config.exclude_columns.clone())
            .unwrap_or_default()
    };
    let tables = catalog::load_each(&mut conn, source, &names, excluded).await?;
    conn.disconnect().await.ok();
    let images_matter = config.mode != Mode::Snapshot && !completes_rows(config, source);
    let judged = |(table, (entry, _)): (Result<SourceTable>, &(TableConfig, TableName))| {
        let table = table?;
        if images_matter {
            ensure_images_whole(&table, source.flavor(), source.version())?;
        }
        table.with_policies(&config.types, entry)
    };
    Ok(tables.into_iter().zip(matched).map(judged).collect())
}

async fn record_start(
    session: &Session,
    store: &PipeStore,
    start: Position,
    tables: &[LiveTable],
) -> Result<()> {
    let state = match session.config.mode {
        Mode::Cdc | Mode::Snapshot => TableState::Pending,
        Mode::CdcOnly => TableState::Streaming,
    };
    let records: Vec<TableRecord> = tables
        .iter()
        .map(|table| TableRecord {
            target: table.target.name().to_owned(),
            routed: table.routed_names(),
            routing: table.chain.is_routing(),
            appends: table.target.is_append(),
            whole: state == TableState::Streaming,
            state: state.clone(),
            plugins: session.pins(&table.config),
            ..TableRecord::new(SourceTable::clone(&table.source))
        })
        .collect();
    let established = established::fingerprint(&session.config)?;
    let now_there = session.source.moment_us().await?;
    store
        .commit(|draft| {
            let record = draft.pipe_mut();
            record.established = Some(established);
            record.server = Some(session.source.identity().clone());
            record.checkpoint = Some(Checkpoint {
                place: StreamPlace {
                    position: start,
                    offset: 0,
                },
                committed_at_us: now_there,
                written_at_us: super::clock::now_us(),
            });
            for table in records {
                draft
                    .tables
                    .insert(table.source.name().clone(), Arc::new(table));
            }
            Ok(())
        })
        .await
}

/// Claims a term above everything that the destination has seen, and begins it at the checkpoint.
///
/// The claim is persisted as *claiming* first: a crash between the destination's row and our record claims a higher one. It
/// is made under a new id, so that whoever works with a copy of this state is another owner. What append tables have
/// beyond the checkpoint is taken out before, which may take long and burns no term, and behind the claim, from which on
/// nobody of a lower term begins an insert.
pub(super) async fn raise_term(session: &Session, store: &PipeStore) -> Result<()> {
    let record = store.record();
    let seen = session.destination.highest_term(store.pipe()).await?;
    let term = record
        .term
        .max(record.claiming.unwrap_or(0))
        .max(seen)
        .checked_add(1)
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                "the pipe has used up its 65,535 terms",
            )
            .with_hint("set the pipe up anew under another name with empty targets")
        })?;
    let checkpoint = record.checkpoint.expect("a term begins at a checkpoint");
    mirror::take_back(session, store).await?;
    append::rewind(session, record.term, &checkpoint.place).await?;
    let owner = random_id();
    store
        .commit(|draft| {
            let record = draft.pipe_mut();
            record.claiming = Some(term);
            record.claimant = Some(owner.clone());
            Ok(())
        })
        .await?;
    let place = StreamPlace {
        position: checkpoint.place.position.clone(),
        offset: 0,
    };
    let claim = MirrorRow {
        term,
        offset: place.offset,
        position: position_text(&place.position)?,
        owner: owner.clone(),
        source_committed_at: None,
        // Which rows follow those of others is known when the stream is open; until then nothing is told.
        incomplete: None,
    };
    session.destination.claim_term(store.pipe(), &claim).await?;
    append::rewind(session, record.term, &checkpoint.place).await?;
    fault::point("term:1");
    let server = session.source.identity().clone();
    let checkpoint = Checkpoint {
        place,
        ..checkpoint
    };
    store
        .commit(|draft| begin_term(draft, (term, owner), server, checkpoint))
        .await?;
    store.set_claimed();
    Ok(())
}

fn begin_term(
    draft: &mut Records,
    (term, owner): (u16, String),
    server: ServerIdentity,
    checkpoint: Checkpoint,
) -> Result<()> {
    let record = draft.pipe_mut();
    (record.term, record.owner) = (term, owner);
    (record.claiming, record.claimant, record.anew) = (None, None, false);
    record.checkpoint = Some(checkpoint);
    let former = record.server.replace(server);
    // As a former build has left it, which did not say.
    let unsaid = draft.names_where(|table| {
        table.partitions.is_some() && table.load_end.is_none() && table.load_server.is_none()
    });
    for name in unsaid {
        draft.table_mut(&name).load_server.clone_from(&former);
    }
    Ok(())
}
