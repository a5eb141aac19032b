//! Whose place a stream moves: the pipe's, or that of one table that reads by itself.

use super::clock::now_us;
use super::heal::{Kinship, Silent};
use super::lifecycle::Failure;
use super::mirror::Mirroring;
use super::record::{Checkpoint, Records, TablePlace};
use super::store::PipeStore;
use crate::batch::TableName;
use crate::destination::clickhouse::Durable;
use crate::error::{ErrorKind, Result};
use crate::source::mysql::binlog::BegunFile;
use crate::source::mysql::position::StreamPlace;

use super::session::Session;

/// Whose place a stream moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Track {
    /// The pipe's checkpoint, mirrored in the destination.
    Pipe,
    /// The place of one table on its way back into the pipe's stream.
    Table(TableName),
}

impl Track {
    /// Whether the stream carries that table.
    pub(super) fn carries(&self, records: &Records, name: &TableName) -> bool {
        match self {
            Track::Pipe => records
                .tables
                .get(name)
                .is_some_and(|table| table.state.is_in_stream()),
            Track::Table(own) => own == name,
        }
    }

    /// Records that rows up to `sent` may be at the destination from now on. Where the stream is read once more, what was
    /// sent before and lies beyond stays known until it is passed.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn begin(&self, store: &PipeStore, sent: &StreamPlace) -> Result<()> {
        store
            .commit(|draft| {
                let further = |known: &mut Option<StreamPlace>| {
                    let joint = known.as_ref();
                    let joint = joint.and_then(|known| known.position.join(&sent.position));
                    *known = Some(StreamPlace {
                        position: joint.unwrap_or_else(|| sent.position.clone()),
                        ..sent.clone()
                    });
                };
                match self {
                    Track::Pipe => further(&mut draft.pipe_mut().sent),
                    Track::Table(name) => place_of(draft, name, |place| further(&mut place.sent)),
                }
                Ok(())
            })
            .await
    }

    /// Records that the stream reads from a binlog file of that name, begun at that time.
    ///
    /// # Errors
    /// `SourceDiverged` where another file of that name was read before; when the store fails.
    pub(super) async fn reads(
        &self,
        session: &Session,
        store: &PipeStore,
        (name, created): (String, u32),
    ) -> Result<()> {
        if !session.source.is_told_apart() {
            return Ok(());
        }
        let server = session.source.identity().clone();
        let file = BegunFile {
            server,
            name,
            created,
        };
        if let Some(known) = store.record().begun {
            known.ensure_same(&file)?;
            if known == file || known.is_behind(&file) {
                return Ok(());
            }
        }
        if let Track::Table(_) = self {
            return Ok(());
        }
        store
            .commit(|draft| {
                draft.pipe_mut().begun = Some(file);
                Ok(())
            })
            .await
    }

    /// Writes the mirror of a checkpoint of the pipe into the destination, before the checkpoint itself; may be repeated.
    /// `records` are those of behind it.
    ///
    /// # Errors
    /// When the write fails.
    pub(super) async fn mirror(
        &self,
        mirroring: Mirroring<'_>,
        records: &Records,
        place: &StreamPlace,
        committed_at_us: Option<u64>,
        durable: &[Durable],
    ) -> Result<()> {
        if let Track::Table(_) = self {
            return Ok(());
        }
        mirroring
            .write(records, place, committed_at_us, durable)
            .await
    }

    /// Moves the place, which has been mirrored, together with `edit`. Tables in the stream whose own place is passed by
    /// it follow the pipe's from then on.
    ///
    /// # Errors
    /// When the write fails; it may be repeated.
    pub(super) async fn checkpoint(
        &self,
        store: &PipeStore,
        place: StreamPlace,
        committed_at_us: Option<u64>,
        edit: impl FnOnce(&mut Records),
    ) -> Result<()> {
        store
            .commit(|draft| {
                match self {
                    Track::Pipe => {
                        debug_assert!(
                            goes_forward(draft.pipe_mut().checkpoint.as_ref(), &place),
                            "a run moves its checkpoint back to {}",
                            place.position
                        );
                        join_passed(draft, &place);
                        let completed = draft.names_where(|table| {
                            table.image_reach.is_some() && table.state.is_in_stream()
                        });
                        forget_images(draft, &completed, &place);
                        let record = draft.pipe_mut();
                        let before = record.checkpoint.as_ref();
                        let before = before.and_then(|before| before.committed_at_us);
                        record.checkpoint = Some(Checkpoint {
                            place,
                            committed_at_us: committed_at_us.or(before),
                            written_at_us: now_us(),
                        });
                    }
                    Track::Table(name) => {
                        forget_images(draft, std::slice::from_ref(name), &place);
                        place_of(draft, name, |own| {
                            own.place = place;
                            own.as_of_us = committed_at_us.or(own.as_of_us);
                        });
                    }
                }
                edit(draft);
                Ok(())
            })
            .await
    }

    /// Records that what ends at `end` is not applied to the table, which may differ from the source from now on.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn pass_over(
        &self,
        store: &PipeStore,
        kinship: &Kinship,
        end: &StreamPlace,
    ) -> Result<()> {
        let Track::Table(name) = self else {
            return Ok(());
        };
        tracing::warn!(pipe = store.pipe(), table = %name, end = %end.position, "passed over by command");
        store
            .commit(|draft| {
                place_of(draft, name, |own| own.place = end.clone());
                kinship.mark(draft, name, Silent::ANY, None);
                let table = draft.table_mut(name);
                table.skip = super::record::Skip::No;
                table.inexact = Some(Failure {
                    kind: ErrorKind::SchemaConflict,
                    message: format!(
                        "table `{name}`: changes up to {} were passed over by command",
                        end.position
                    ),
                    table: Some(name.clone()),
                    remedy: Some(format!(
                        "resync the table: pipewright resync --table {name}"
                    )),
                    at_us: Some(now_us()),
                });
                Ok(())
            })
            .await
    }
}

/// Whatever is done in the order of the binlog moves the checkpoint on: one that would go back has overtaken something.
fn goes_forward(checkpoint: Option<&Checkpoint>, place: &StreamPlace) -> bool {
    checkpoint.is_none_or(|checkpoint| checkpoint.place.offset <= place.offset)
}

fn place_of(draft: &mut Records, name: &TableName, edit: impl FnOnce(&mut TablePlace)) {
    if let Some(place) = &mut draft.table_mut(name).place {
        edit(place);
    }
}

/// Of rows that were read from the source the stream has met everything that they may show.
fn forget_images(draft: &mut Records, names: &[TableName], at: &StreamPlace) {
    for name in names {
        let known = draft.tables.get(name);
        let known = known.and_then(|table| table.image_reach.as_ref());
        if known.is_some_and(|known| at.position.contains(known) == Some(true)) {
            draft.table_mut(name).image_reach = None;
        }
    }
}

/// What a table had sent by itself counts too: until the stream has passed that, the place alone says that it is there.
fn join_passed(draft: &mut Records, at: &StreamPlace) {
    let has_passed = |place: &StreamPlace| at.position.contains(&place.position) == Some(true);
    let passed = draft.names_where(|table| {
        let own = table.place.as_ref().filter(|_| table.state.is_in_stream());
        own.is_some_and(|own| has_passed(&own.place) && own.sent.as_ref().is_none_or(has_passed))
    });
    for name in passed {
        draft.table_mut(&name).place = None;
    }
}
