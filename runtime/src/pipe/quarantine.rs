//! A table out of service: it keeps the place that it stands at, and the others go on.
//!
//! The pipe's checkpoint is the table's place at that moment: everything before it is durable, for every table in the
//! stream. What the table had sent beyond it is read again when it comes back, under versions above those.

use super::lifecycle::Failure;
use super::record::{Records, Skip, TablePlace};
use super::supervisor::Pipe;
use super::table_state::{TableEvent, TableState};
use crate::batch::TableName;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::position::StreamPlace;

/// Takes a table out of service because of `error`, with the others that the error names, or takes the next step towards
/// passing over what failed, where a person has allowed that. False when no table is left in service.
///
/// # Errors
/// When the store fails.
pub(super) async fn quarantine(pipe: &Pipe, name: &TableName, error: &Error) -> Result<bool> {
    let store = &pipe.store;
    let committed_at_us = store
        .records()
        .checkpoint()
        .and_then(|at| at.committed_at_us);
    let as_of_us = pipe.progress.lag.as_of(committed_at_us);
    store
        .commit(|draft| {
            let others = error.each().skip(1);
            let others = others.filter_map(|other| other.table().map(|name| (name, other)));
            for (index, (name, error)) in std::iter::once((name, error)).chain(others).enumerate() {
                let known = draft.tables.get(name);
                if index > 0 && known.is_none_or(|table| !in_service(&table.state)) {
                    continue;
                }
                if narrow(draft, name) {
                    continue;
                }
                tracing::error!(
                    pipe = store.pipe(),
                    table = %name,
                    code = error.kind().code(),
                    hint = error.hint(),
                    "taken out of service: {}",
                    error.chain()
                );
                take_out(draft, name, error)?;
                let table = draft.table_mut(name);
                if let Some(own) = &mut table.place {
                    own.as_of_us = own.as_of_us.or(as_of_us);
                }
            }
            Ok(draft.tables.values().any(|table| in_service(&table.state)))
        })
        .await
}

fn in_service(state: &TableState) -> bool {
    state.is_in_stream() || *state == TableState::CatchingUp
}

/// One step nearer to the transaction that fails, where it may be passed over.
fn narrow(draft: &mut Records, name: &TableName) -> bool {
    let table = draft.table_mut(name);
    let next = match (&table.state, table.skip) {
        (TableState::CatchingUp, Skip::Allowed) => Skip::Narrow,
        (TableState::CatchingUp, Skip::Narrow) => Skip::PassOver,
        _ => return false,
    };
    table.skip = next;
    true
}

fn take_out(draft: &mut Records, name: &TableName, error: &Error) -> Result<()> {
    let record = draft.pipe_mut();
    let at = record
        .checkpoint
        .as_ref()
        .map(|checkpoint| checkpoint.place.clone());
    let sent = record.sent.clone();
    let table = draft.table_mut(name);
    let is_in_stream = table.state.is_in_stream();
    match &mut table.place {
        // The pipe's stream may have written beyond it, in a later term than the one that it had read by itself in.
        Some(own) if is_in_stream => {
            own.term = None;
            let passes = |one: &StreamPlace, other: &StreamPlace| {
                one.position.contains(&other.position) == Some(true)
            };
            if let Some(at) = at.filter(|at| passes(at, &own.place)) {
                (own.place, own.as_of_us) = (at, None);
            }
            let further =
                |sent: &StreamPlace| own.sent.as_ref().is_none_or(|own| passes(sent, own));
            if let Some(sent) = sent.filter(further) {
                own.sent = Some(sent);
            }
        }
        Some(_) => {}
        None => {
            table.place = at.map(|place| TablePlace {
                term: None,
                place,
                sent,
                as_of_us: None,
            });
        }
    }
    table.skip = Skip::No;
    table.failed_in_plugin = error.kind().is_of_plugin();
    if error.kind() == ErrorKind::PositionPurged {
        table.inexact = Some(Failure::from(error));
    }
    draft.table_event(name, TableEvent::Quarantine(Failure::from(error)))
}

/// The error of a pipe whose last table has been taken out of service.
pub(super) fn nothing_left(error: &Error) -> Error {
    let nothing = Error::new(
        error.kind(),
        format!(
            "no table is left in service; the last one: {}",
            error.chain()
        ),
    );
    match error.hint() {
        Some(hint) => nothing.with_hint(hint),
        None => nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::lost::tests::{place, record, table};

    #[test]
    fn a_table_that_the_pipes_stream_has_carried_beyond_its_place_takes_another_term_for_it() {
        let own = TablePlace {
            term: Some(2),
            place: place(12),
            sent: None,
            as_of_us: None,
        };
        let mut draft = Records {
            pipe: Some(record()),
            ..Records::default()
        };
        let states = [TableState::Streaming, TableState::CatchingUp];
        let tables = ["carried", "alone"].into_iter().zip(states);
        draft.tables.extend(tables.map(|(name, state)| {
            table(name, |table| {
                table.state = state;
                table.place = Some(own.clone());
            })
        }));
        let error = Error::new(ErrorKind::DestinationRejected, "its target was altered");
        let terms = ["carried", "alone"].map(|name| {
            let name = TableName::new("s", name);
            take_out(&mut draft, &name, &error).expect("both were in service");
            let stands = draft.tables[&name].place.as_ref().expect("a place");
            assert_eq!(stands.place, place(12));
            stands.term
        });
        assert_eq!(terms, [None, Some(2)]);
    }
}
