//! Going on where a pipe was: proves that both ends still hold the past that the checkpoint stands on.

use super::lost::{self, Standing};
use super::operate::has_met;
use super::record::{Records, Skip, TableRecord};
use super::session::Session;
use super::setup::{raise_term, recorded};
use super::store::PipeStore;
use super::supervisor::Pipe;
use super::swap::{clear_beside, end_begun, tell_of_history};
use super::table_state::{TableEvent, TableState};
use super::{ddl, pinned, strayed};
use crate::batch::{MAX_STREAM_OFFSET, TableName};
use crate::destination::clickhouse::Owner;
use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::source::mysql::past::{self, Past};
use crate::source::mysql::position::{Position, StreamPlace};
use crate::source::mysql::snapshot::SnapshotSession;

use super::lifecycle::{PipeEvent, PipeState};

/// A term is raised at the next connection once it has used up half of its offsets: at a gigabyte a second of row
/// events that is after 39 hours without one reconnection, and the other half is still there.
const OFFSET_TO_RAISE_AT: u64 = MAX_STREAM_OFFSET / 2;

/// Connects a pipe that is set up, and binds its tables as they were at their places.
///
/// # Errors
/// `SourceDiverged` when the source lacks what we have applied; `DestinationLost` when ClickHouse lacks what it had
/// acknowledged and the pipe cannot go back behind it; `DestinationRejected` when a target was altered by someone else.
pub(super) async fn attach(pipe: &Pipe) -> Result<Attached> {
    loop {
        if let Some(attached) = attach_once(pipe).await? {
            return Ok(attached);
        }
    }
}

/// The same; none where tables begin anew first.
async fn attach_once(pipe: &Pipe) -> Result<Option<Attached>> {
    rejoin(&pipe.store).await?;
    end_begun(pipe).await?;
    let (session, changed) = bound(pipe).await?;
    let replaying = replaying(&session, &pipe.store, &changed);
    if replaying.is_empty() {
        take_present(&session, &pipe.store, &changed).await?;
    }
    session.destination.widen_checkpoints().await?;
    // Before the targets: what was lost of all of them is no single table's trouble.
    let standing = lost::compare(&session, &pipe.store).await?;
    ensure_targets(&session, &pipe.store).await?;
    ensure_source_past(&session, &pipe.store).await?;
    // Before a term is raised, which records the server whose coordinates it counts.
    let strayed = strayed::find(&session, &pipe.store).await?;
    if !strayed.is_empty() {
        strayed::load_anew(pipe, strayed).await?;
        return Ok(None);
    }
    claim_where_needed(&session, &pipe.store, standing).await?;
    if replaying.is_empty() {
        session.keep_plugins(&pipe.store).await?;
        if !changed.is_empty() {
            take_up_plugins(&session, &pipe.store, changed).await?;
        }
        pinned::forget_others(&pipe.store).await?;
        begin_afresh(&pipe.store).await?;
    }
    claim_for_returning(&session, &pipe.store).await?;
    Ok(Some(Attached { session, replaying }))
}

/// A connected pipe.
pub(super) struct Attached {
    pub(super) session: Session,
    /// Tables whose rows up to *sent* pass through the plugins that they passed before. The run ends when they have, and the
    /// next one takes the present plugins up.
    pub(super) replaying: Vec<TableName>,
}

/// The changed tables, where rows of one have been sent beyond its place, and the former plugins of each are kept and did
/// not fail.
fn replaying(session: &Session, store: &PipeStore, changed: &[TableName]) -> Vec<TableName> {
    let records = store.records();
    let is_ahead = changed.iter().any(|name| pinned::is_ahead(&records, name));
    let can_replay = |name: &TableName| {
        let table = records.tables.get(name);
        session.is_kept(name) && table.is_some_and(|table| !table.failed_in_plugin)
    };
    match is_ahead && changed.iter().all(can_replay) {
        true => changed.to_vec(),
        false => Vec::new(),
    }
}

/// The present plugins are taken up: whether they let rows pass is seen from here on.
async fn begin_afresh(store: &PipeStore) -> Result<()> {
    let failed = |table: &TableRecord| {
        table.failed_in_plugin && !matches!(table.state, TableState::Quarantined(_))
    };
    let names = store.records().names_where(failed);
    store
        .commit(|draft| {
            for name in &names {
                draft.table_mut(name).failed_in_plugin = false;
            }
            Ok(())
        })
        .await
}

/// Binds changed tables to the present plugins. Before their targets are looked at: those of a plugin that is refused are
/// not there.
///
/// # Errors
/// As [`Session::bind`] and [`ensure_rows_stay`].
pub(super) async fn take_present(
    session: &Session,
    store: &PipeStore,
    changed: &[TableName],
) -> Result<()> {
    session.bind_present(store, changed).await?;
    ensure_rows_stay(session, store, changed)
}

/// Connects a pipe that is set up, for work at the destination only, with the plugins that its rows have passed.
///
/// # Errors
/// Whatever either end or a plugin refuses with; `PluginRefused` as [`ensure_rows_stay`] where those are not kept.
pub(super) async fn connected(pipe: &Pipe) -> Result<Session> {
    let (session, mut changed) = bound(pipe).await?;
    changed.retain(|name| !session.is_kept(name));
    ensure_rows_stay(&session, &pipe.store, &changed)?;
    Ok(session)
}

/// The same with the present plugins.
///
/// # Errors
/// As [`take_present`]; `IllegalCommand` where rows have to pass through the former plugins first.
pub(super) async fn connected_anew(pipe: &Pipe) -> Result<Session> {
    let (session, changed) = bound(pipe).await?;
    if let Some(name) = replaying(&session, &pipe.store, &changed).first() {
        return Err(Error::new(
            ErrorKind::IllegalCommand,
            "what was sent before the pipe ended passes through the former plugins once more, and only then through the \
             present ones",
        )
        .with_hint("ask again in a moment; `resume` the pipe first if it is paused")
        .with_table(name));
    }
    take_present(&session, &pipe.store, &changed).await?;
    Ok(session)
}

async fn bound(pipe: &Pipe) -> Result<(Session, Vec<TableName>)> {
    let past = pipe.past();
    let session = Session::connect(
        pipe.effective_config()?,
        &pipe.engine,
        &pipe.plugins,
        past.as_ref(),
    )
    .await?;
    let names = pipe.store.records().carried();
    let matched = recorded(&session.config, &names)?;
    let changed = session.bind_recorded(&pipe.store, &matched).await?;
    Ok((session, changed))
}

/// Takes tables that have caught up back into the pipe's stream, and into their loads where these were not whole.
async fn rejoin(store: &PipeStore) -> Result<()> {
    let records = store.records();
    let met: Vec<TableName> = records
        .tables
        .keys()
        .filter(|name| has_met(&records, name))
        .cloned()
        .collect();
    if met.is_empty() {
        return Ok(());
    }
    let edit = |draft: &mut Records| {
        for name in &met {
            tracing::info!(pipe = store.pipe(), table = %name, "back in the pipe's stream");
            let table = draft.table_mut(name);
            table.skip = Skip::No;
            let event = match table.whole && !table.is_loading_alone() {
                true => TableEvent::Met,
                false => TableEvent::MetLoading,
            };
            draft.table_event(name, event)?;
        }
        Ok(())
    };
    let loads = met
        .iter()
        .filter_map(|name| records.tables.get(name))
        .any(|table| !table.whole || table.is_loading_alone());
    let event = loads.then_some(PipeEvent::Reload);
    store
        .transition_where(PipeState::is_at_work, event, edit)
        .await
        .map(drop)
}

/// Gives tables that read by themselves a term between what they have written before and what the pipe's stream writes
/// from now on. It counts from their own place, so no coordinates of another term or server take part.
async fn claim_for_returning(session: &Session, store: &PipeStore) -> Result<()> {
    let (records, term) = (store.records(), store.record().term);
    let without = records.names_where(|table| {
        let claimed = table.place.as_ref().and_then(|place| place.term);
        // At the pipe's own term a crash fell between the two claims.
        table.state == TableState::CatchingUp && claimed.is_none_or(|claimed| claimed >= term)
    });
    if without.is_empty() {
        return Ok(());
    }
    raise_term(session, store).await?;
    let claimed = store.record().term;
    store
        .commit(|draft| {
            for name in &without {
                if let Some(place) = &mut draft.table_mut(name).place {
                    place.term = Some(claimed);
                    place.place.offset = 0;
                }
            }
            Ok(())
        })
        .await?;
    raise_term(session, store).await
}

/// Makes the tables of loads, and sees that each other target is still the table that was made, with the columns that
/// will be written. What given-up loads have left is dropped.
async fn ensure_targets(session: &Session, store: &PipeStore) -> Result<()> {
    let owner = Owner::new(store.pipe(), store.record().id);
    ddl::retire_gone(session, store, &owner).await?;
    let records = store.records();
    if records
        .tables
        .values()
        .any(|table| table.state.is_loading())
    {
        session.destination.ensure_database().await?;
        session.destination.ensure_checkpoints().await?;
    }
    let mut made = ensure_each(session, &records, &owner).await?;
    made.retain(|name| records.tables.get(name).is_some_and(|table| table.unmade));
    if !made.is_empty() {
        store
            .commit(|draft| {
                for name in &made {
                    draft.table_mut(name).unmade = false;
                }
                Ok(())
            })
            .await?;
    }
    clear_given_up(session, store, &owner).await
}

/// Makes the targets of loads and looks at the others; the names of the tables of which a target was made.
async fn ensure_each(
    session: &Session,
    records: &Records,
    owner: &Owner,
) -> Result<Vec<TableName>> {
    let (mut made, mut create, mut keep) = (Vec::new(), Vec::new(), Vec::new());
    let mut loading = 0;
    let tables = session.tables();
    for table in &tables {
        let name = table.source.name();
        let record = records.tables.get(name).map(|record| &**record);
        let is = |wanted: fn(&TableRecord) -> bool| record.is_some_and(wanted);
        // What a load has written already would be missing in a table that is made once more.
        let filled = records.done.get(name).is_some_and(|done| !done.is_empty());
        let is_loading = is(|table| table.state.is_loading());
        if is(|table| table.unmade) {
            // Not the load's alone: one that was to be loaded again before it was made has no live target yet.
            create.extend(table.stream_targets());
            made.push(name.clone());
        } else if is_loading && !filled {
            create.extend(table.load_targets());
            made.push(name.clone());
        }
        loading += usize::from(is_loading);
        // One that is between two forms is looked at when the statement has been applied.
        if !is(|table| table.altering) {
            keep.extend(table.stream_targets());
        }
    }
    session.destination.create_each(&create, owner).await?;
    for _ in 0..loading {
        fault::point("load:1");
    }
    let kept = session.destination.ensure_each_unchanged(&keep, owner);
    kept.await?;
    Ok(made)
}

/// Clears away what loads that were given up have left, but for what was live before an exchange of theirs.
async fn clear_given_up(session: &Session, store: &PipeStore, owner: &Owner) -> Result<()> {
    let records = store.records();
    let left = records.tables.iter();
    for (name, table) in left.filter(|(_, table)| !table.given_up.is_empty()) {
        for beside in &table.given_up {
            let cleared = clear_beside(&session.destination, beside, owner).await;
            if let Some(kept) = cleared.map_err(|error| error.with_table(name))? {
                tell_of_history(store, name, &kept).await?;
            }
        }
        store
            .commit(|draft| {
                draft.table_mut(name).given_up.clear();
                Ok(())
            })
            .await?;
    }
    Ok(())
}

/// Takes changed plugins up for all rows from the checkpoint on. The term is raised first: rows that the former plugins
/// have written beyond the checkpoint are written again and must lose. A plugin whose rows stay gives every row image one
/// row of the same key, so that none of them stays. One that chooses targets or keys does not: what the former one made
/// of a row is not known to the present one, so such a change is taken up by a load alone.
async fn take_up_plugins(
    session: &Session,
    store: &PipeStore,
    changed: Vec<TableName>,
) -> Result<()> {
    let tables: Vec<String> = changed.iter().map(ToString::to_string).collect();
    tracing::warn!(
        pipe = store.pipe(),
        tables = tables.join(", "),
        "plugins or their configurations have changed: rows from the checkpoint on pass through the new ones, earlier \
         rows stay as they are"
    );
    raise_term(session, store).await?;
    pin(session, store, changed).await
}

/// Records the plugins that tables are bound to.
///
/// # Errors
/// When the store fails.
pub(super) async fn pin(
    session: &Session,
    store: &PipeStore,
    changed: Vec<TableName>,
) -> Result<()> {
    let pins: Vec<_> = changed
        .into_iter()
        .map(|name| {
            let table = session.table(&name);
            (name, session.pins(&table.config), table)
        })
        .collect();
    store
        .commit(|draft| {
            for (name, pins, table) in pins {
                let record = draft.table_mut(&name);
                (record.plugins, record.routing) = (pins, table.chain.is_routing());
                record.target = table.target.name().to_owned();
                record.routed = table.routed_names();
            }
            Ok(())
        })
        .await
}

/// Sees that no changed plugin chooses targets or keys or takes the place of one that did. A load that is under way would
/// keep what the former one made of its first partitions; one that is begun with the present one has it recorded.
///
/// # Errors
/// `PluginRefused` for the first table where one does.
fn ensure_rows_stay(session: &Session, store: &PipeStore, changed: &[TableName]) -> Result<()> {
    let records = store.records();
    let chooses = |name: &&TableName| {
        let record = records.tables.get(*name);
        let was_routing = record.is_some_and(|record| record.routing);
        was_routing || session.table(name).chain.is_routing()
    };
    let Some(name) = changed.iter().find(chooses) else {
        return Ok(());
    };
    Err(Error::new(
        ErrorKind::PluginRefused,
        "the plugins that choose this table's targets have changed, and rows that the former ones sent out would stay where \
         they are",
    )
    .with_hint("resync the pipe, which loads every table through the present plugins; or put the former ones back")
    .with_table(name))
}

/// A process that goes on with append tables claims a term of its own first. Another one may be at work with a copy of
/// this state, at the same term: its rows would be the same, which is no harm where one replaces the other, and there
/// twice where none does.
fn claims_for_appending(store: &PipeStore) -> bool {
    let appends = |table: &TableRecord| table.appends && table.state.is_in_stream();
    !store.has_claimed() && !store.records().names_where(appends).is_empty()
}

/// Sees that the server holds everything that the pipe's stream may have applied.
async fn ensure_source_past(session: &Session, store: &PipeStore) -> Result<()> {
    let record = store.record();
    let checkpoint = record
        .checkpoint
        .expect("a pipe that is set up has a checkpoint");
    let newest = newest(record.sent, checkpoint.place.position);
    past::ensure_holds(&session.source, &newest).await?;
    SnapshotSession::open(&session.source, Some(&newest))
        .await?
        .close()
        .await;
    Ok(())
}

/// Raises the term where the server's coordinates are not those of the term, or the destination has more of the term than
/// the state knows of.
async fn claim_where_needed(
    session: &Session,
    store: &PipeStore,
    standing: Standing,
) -> Result<()> {
    let record = store.record();
    let checkpoint = record
        .checkpoint
        .expect("a pipe that is set up has a checkpoint");
    let moved = record.server.as_ref() != Some(session.source.identity());
    if moved || standing == Standing::Overtaken {
        forget_own_terms(store).await?;
    }
    if standing == Standing::Overtaken
        || moved
        || checkpoint.place.offset > OFFSET_TO_RAISE_AT
        || claims_for_appending(store)
    {
        raise_term(session, store).await?;
    }
    Ok(())
}

/// Up to where rows may be at the destination.
fn newest(sent: Option<StreamPlace>, checkpoint: Position) -> Position {
    // A checkpoint that foreign transactions have moved may be ahead of the rows last sent.
    let joint = sent.and_then(|sent| sent.position.join(&checkpoint));
    joint.unwrap_or(checkpoint)
}

impl Pipe {
    /// What was read; none before the pipe has read anything.
    pub(super) fn past(&self) -> Option<Past> {
        let records = self.store.records();
        let record = records.pipe.as_ref()?;
        let checkpoint = record.checkpoint.as_ref()?.place.position.clone();
        Some(Past {
            newest: newest(record.sent.clone(), checkpoint.clone()),
            checkpoint,
        })
    }
}

/// Offsets that were counted on another server mean nothing here, and what another state has written outranks terms that
/// this one claimed before: tables that read by themselves claim anew, also those that come back later.
async fn forget_own_terms(store: &PipeStore) -> Result<()> {
    let claimed = |table: &TableRecord| {
        let place = table.place.as_ref();
        !table.state.is_in_stream() && place.is_some_and(|place| place.term.is_some())
    };
    if store.records().names_where(claimed).is_empty() {
        return Ok(());
    }
    store
        .commit(|draft| {
            for name in draft.names_where(claimed) {
                if let Some(place) = &mut draft.table_mut(&name).place {
                    place.term = None;
                }
            }
            Ok(())
        })
        .await
}
