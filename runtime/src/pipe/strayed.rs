//! Tables that hold what the source does not: it is another server than before, and has not received that one's last
//! transactions.
//!
//! The pipe's own past is proved before, up to *sent*. A table may reach further: it passes over what lies before the place
//! that its load began at, it has read on by itself, or its load has ended later than the stream has got. Within a domain
//! MariaDB counts on from what both servers have, so that the stream, to judge by its numbers, would pass such a place with
//! other transactions than those. And rows that were read from tables carry no place of their own: what a partition showed
//! on one server stays, although no event of the other will ever mention it, and so does what completed a partial image. So
//! the place that such rows may reach is recorded before they are written ([`super::reaching`]). It tells of one server as
//! well, which came back without its last transactions, and lets a load go on at another that has them. Where there is no
//! such place, a load that has not ended is of one server. A server that has given the numbers of what it lost to others
//! before it is asked cannot be told from one that lost nothing.
//!
//! Where only the load has strayed, it alone begins anew, in another generation; what the stream has written stays. A table
//! whose own place has begins at another one, which is taken at the source as it is now.

use super::append;
use super::journal::{EventKind, Level, Note};
use super::lifecycle::{Failure, PipeEvent, PipeState};
use super::record::{Records, TableRecord};
use super::resync;
use super::session::Session;
use super::store::PipeStore;
use super::supervisor::Pipe;
use super::table_state::TableEvent;
use crate::batch::TableName;
use crate::config::Mode;
use crate::error::{Error, ErrorKind, Result};
use crate::source::mysql::ServerIdentity;
use crate::source::mysql::past;
use crate::source::mysql::position::Position;

/// What of a table has strayed; the first takes the second with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// Its own place, or what it has read by itself up to there.
    Place,
    /// Its load.
    Load,
}

/// A table that is to be loaded anew.
#[derive(Debug)]
pub(super) struct Strayed {
    name: TableName,
    part: Part,
    cause: Cause,
}

/// Why it is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cause {
    /// The source lacks these transactions, in words.
    Lacks(String),
    /// Its load has not ended, and began on another server.
    Elsewhere,
}

impl Cause {
    fn lacks(&self) -> &str {
        match self {
            Self::Lacks(transactions) => transactions,
            Self::Elsewhere => "what another server showed",
        }
    }
}

/// The tables in service that hold what the source lacks, or may.
///
/// # Errors
/// As [`past::lacked`].
pub(super) async fn find(session: &Session, store: &PipeStore) -> Result<Vec<Strayed>> {
    let (records, former) = (store.records(), store.record().server);
    let in_service: Vec<(&TableName, &TableRecord)> = records
        .tables
        .iter()
        .map(|(name, table)| (name, &**table))
        .filter(|(_, table)| table.state.is_in_service() && !takes_its_moment(table))
        .collect();
    let reached = in_service.iter().map(|(_, table)| reached(table));
    let reached: Vec<Vec<(Part, &Position)>> = reached.collect();
    let places: Vec<&Position> = reached.iter().flatten().map(|(_, place)| *place).collect();
    let lacked = match places.is_empty() {
        true => Vec::new(),
        false => past::lacked(&session.source, &places).await?,
    };
    let mut lacked = lacked.into_iter();
    let mut strayed = Vec::new();
    for ((name, table), reached) in in_service.into_iter().zip(reached) {
        let parts = reached.iter().map(|(part, _)| *part);
        let lacking = parts.zip(lacked.by_ref());
        let lacking = lacking.filter_map(|(part, lacks)| Some((part, lacks?)));
        // All of them are taken, so that the next table's come next.
        let lacking = lacking.map(|(part, lacks)| (part, Cause::Lacks(lacks)));
        let lacking: Vec<(Part, Cause)> = lacking.collect();
        let elsewhere = is_of_another(table, former.as_ref(), session.source.identity());
        let elsewhere = elsewhere.then_some((Part::Load, Cause::Elsewhere));
        let first = lacking
            .into_iter()
            .chain(elsewhere)
            .min_by_key(|(part, _)| *part);
        strayed.extend(first.map(|(part, cause)| Strayed {
            name: name.clone(),
            part,
            cause,
        }));
    }
    Ok(strayed)
}

/// Whether a moment of the source as it is now is taken for its load in any case.
fn takes_its_moment(table: &TableRecord) -> bool {
    table.appends && table.state.is_loading() && table.load_end.is_none()
}

/// Whether rows of its load count, and the stream may not have passed the load's end.
fn is_load_open(table: &TableRecord) -> bool {
    table.state.is_loading() || !table.whole || table.is_loading_alone()
}

/// The places up to which a table holds something beside the pipe's stream.
fn reached(table: &TableRecord) -> Vec<(Part, &Position)> {
    let own = table.place.iter();
    let own = own.flat_map(|own| std::iter::once(&own.place).chain(&own.sent));
    let own = own.map(|place| &place.position).chain(&table.image_reach);
    let load = table.load_reach.iter().chain(&table.load_end);
    let load = load.filter(|_| is_load_open(table));
    own.map(|place| (Part::Place, place))
        .chain(load.map(|place| (Part::Load, place)))
        .collect()
}

/// Whether a load that has not ended, and of which nothing tells how far its rows reach, has begun on another server than
/// `present`; without a record of it, on `former`.
fn is_of_another(
    table: &TableRecord,
    former: Option<&ServerIdentity>,
    present: &ServerIdentity,
) -> bool {
    let ended = table.load_end.is_some() || table.load_reach.is_some();
    let reads = table.partitions.is_some() && !ended && is_load_open(table);
    let server = table.load_server.as_ref().or(former);
    reads && server.is_some_and(|server| server != present)
}

/// Has these tables loaded anew from the source as it is now, and tells of it.
///
/// # Errors
/// `Stopped` where something else is asked of the pipe; as [`resync::begin_anew`].
pub(super) async fn load_anew(pipe: &Pipe, strayed: Vec<Strayed>) -> Result<()> {
    let records = pipe.store.records();
    let only_streams = pipe.effective_config()?.mode == Mode::CdcOnly;
    let loads = |name: &TableName| {
        records
            .tables
            .get(name)
            .is_some_and(|table| is_load_open(table))
    };
    let (kept_out, anew): (Vec<Strayed>, Vec<Strayed>) = strayed
        .into_iter()
        .partition(|strayed| only_streams && !loads(&strayed.name));
    tell(pipe, &anew, &kept_out).await?;
    let is_connected = |strayed: &Strayed| {
        let table = records.tables.get(&strayed.name);
        strayed.part == Part::Load
            && table.is_some_and(|table| table.state.is_in_stream() && !table.appends)
    };
    let (again, apart): (Vec<Strayed>, Vec<Strayed>) = anew.into_iter().partition(is_connected);
    if !again.is_empty() {
        change(pipe, |draft| {
            for Strayed { name, .. } in &again {
                resync::load_beside(draft, name, false);
                draft.table_event(name, TableEvent::Resync)?;
            }
            Ok(())
        })
        .await?;
    }
    for strayed in &kept_out {
        append::take_out(pipe, &strayed.name, &astray(strayed)).await?;
    }
    begin_anew(pipe, &apart).await
}

async fn tell(pipe: &Pipe, anew: &[Strayed], kept_out: &[Strayed]) -> Result<()> {
    for (strayed, what) in sentences(anew, kept_out) {
        for Strayed { name, cause, .. } in &strayed {
            let (pipe, lacks) = (pipe.store.pipe(), cause.lacks());
            tracing::warn!(pipe, table = %name, lacks, "{what}");
        }
        let names: Vec<String> = strayed.iter().map(|one| one.name.to_string()).collect();
        let text = format!("{what}: {}", names.join(", "));
        let note = Note::new(Level::Warning, EventKind::Transition, text);
        let note = match strayed.as_slice() {
            [one] => note.of_table(&one.name),
            _ => note,
        };
        pipe.store.note(note).await?;
    }
    Ok(())
}

/// Each cause that there is, with what becomes of its tables.
fn sentences<'a>(
    anew: &'a [Strayed],
    kept_out: &'a [Strayed],
) -> Vec<(Vec<&'a Strayed>, &'static str)> {
    let (elsewhere, lacked): (Vec<&Strayed>, Vec<&Strayed>) = anew
        .iter()
        .partition(|strayed| strayed.cause == Cause::Elsewhere);
    let mut told = vec![
        (
            elsewhere,
            "the source is another server than the one that loads had begun to read, and they begin anew",
        ),
        (
            lacked,
            "the source lacks transactions that tables have read, and they are loaded anew",
        ),
        (
            kept_out.iter().collect(),
            "the source lacks transactions that tables have read, and as `mode: cdc_only` loads nothing by itself they are \
             taken out of service",
        ),
    ];
    told.retain(|(strayed, _)| !strayed.is_empty());
    told
}

/// Gives tables another start place, taken at the source, at once but for those that something keeps from it.
async fn begin_anew(pipe: &Pipe, strayed: &[Strayed]) -> Result<()> {
    let mut waiting = vec![strayed.iter().collect::<Vec<&Strayed>>()];
    while let Some(mut some) = waiting.pop() {
        let error = match begin_together(pipe, &some).await {
            Ok(()) => continue,
            Err(error) if !append::concerns_one_table(&error) => return Err(error),
            Err(error) => error,
        };
        match refused(&some, &error) {
            Some(index) => {
                let Strayed { name, .. } = some.remove(index);
                append::take_out(pipe, name, &error.with_table(name)).await?;
            }
            None => waiting.push(some.split_off(some.len() / 2)),
        }
        waiting.push(some);
    }
    Ok(())
}

/// Which of the tables keeps the others from beginning; none where that is not said.
fn refused(some: &[&Strayed], error: &Error) -> Option<usize> {
    match (some, error.table()) {
        ([_], _) => Some(0),
        (_, Some(named)) => some.iter().position(|one| one.name == *named),
        (_, None) => None,
    }
}

async fn begin_together(pipe: &Pipe, strayed: &[&Strayed]) -> Result<()> {
    if strayed.is_empty() {
        return Ok(());
    }
    let config = pipe.effective_config()?;
    // Through the present plugins, whichever ones what was sent has passed.
    let past = pipe.past();
    let session = Session::connect(config, &pipe.engine, &pipe.plugins, past.as_ref()).await?;
    let names: Vec<TableName> = strayed.iter().map(|one| one.name.clone()).collect();
    let fresh = resync::begin_anew(&session, pipe, &names).await?;
    let records = pipe.store.records();
    let invented = strayed.iter().filter(|strayed| {
        let table = records.tables.get(&strayed.name);
        table.is_some_and(|table| table.whole && !table.state.is_loading())
    });
    change(pipe, |draft| {
        fresh.record(draft, true)?;
        for strayed in invented {
            // Until the exchange its live table has them.
            draft.table_mut(&strayed.name).inexact = Some(Failure {
                remedy: Some("wait: the table is loaded anew by itself".to_owned()),
                ..Failure::from(&astray(strayed))
            });
        }
        Ok(())
    })
    .await
}

/// Changes the tables of a pipe that goes over to loading, unless something else has been asked of it.
async fn change(pipe: &Pipe, edit: impl FnOnce(&mut Records) -> Result<()>) -> Result<()> {
    let is_at_work = |state: &PipeState| {
        matches!(
            state,
            PipeState::Snapshot | PipeState::Running | PipeState::Degraded
        )
    };
    let changed = pipe
        .store
        .transition_where(is_at_work, Some(PipeEvent::Reload), edit);
    match changed.await? {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Stopped,
            "something else was asked of the pipe",
        )),
    }
}

fn astray(strayed: &Strayed) -> Error {
    let Strayed { name, cause, .. } = strayed;
    let lacks = cause.lacks();
    Error::new(
        ErrorKind::SourceDiverged,
        format!("the source does not contain transactions that the table has read: {lacks}"),
    )
    .with_table(name)
    .with_hint(format!(
        "resync the table: pipewright resync --table {name}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::lost::tests::{place, table};
    use crate::pipe::record::TablePlace;
    use crate::pipe::table_state::TableState;

    fn reach(edit: impl FnOnce(&mut TableRecord)) -> Vec<(Part, Position)> {
        let (_, table) = table("t", edit);
        let reached = reached(&table).into_iter();
        reached.map(|(part, at)| (part, at.clone())).collect()
    }

    #[test]
    fn a_table_reaches_as_far_as_its_own_place_what_it_has_sent_and_the_end_of_a_load_that_counts()
    {
        let whole = |table: &mut TableRecord| {
            table.whole = true;
            table.load_end = Some(place(9).position);
        };
        assert_eq!(reach(whole), []);
        let own = TablePlace {
            term: Some(2),
            place: place(5),
            sent: Some(place(7)),
            as_of_us: None,
        };
        let all = |table: &mut TableRecord| {
            whole(table);
            table.state = TableState::Pending;
            table.place = Some(own);
        };
        let expected = [
            (Part::Place, place(5).position),
            (Part::Place, place(7).position),
            (Part::Load, place(9).position),
        ];
        assert_eq!(reach(all), expected);
        let read = |table: &mut TableRecord| {
            (table.image_reach, table.load_reach) =
                (Some(place(6).position), Some(place(8).position));
        };
        let expected = [
            (Part::Place, place(6).position),
            (Part::Load, place(8).position),
        ];
        assert_eq!(reach(read), expected);
        let whole = |table: &mut TableRecord| {
            read(table);
            (table.whole, table.state) = (true, TableState::Streaming);
        };
        assert_eq!(reach(whole), expected[..1]);
    }

    #[test]
    fn a_load_that_has_not_ended_is_of_the_server_that_it_began_on() {
        let [first, second] = ["a", "b"].map(|name| ServerIdentity(name.to_owned()));
        let under_way = |server: Option<&ServerIdentity>| {
            let (_, table) = table("t", |table| {
                table.state = TableState::Snapshotting;
                table.partitions = Some(Vec::new());
                table.load_server = server.cloned();
            });
            table
        };
        let strays = |table: &TableRecord| is_of_another(table, Some(&first), &second);
        assert!(strays(&under_way(Some(&first))));
        assert!(!strays(&under_way(Some(&second))));
        assert!(strays(&under_way(None)), "as a former build wrote it");
        let mut ended = TableRecord::clone(&under_way(Some(&first)));
        ended.load_end = Some(place(9).position);
        assert!(!strays(&ended), "its end tells what it has read");
        let mut placed = TableRecord::clone(&under_way(Some(&first)));
        placed.load_reach = Some(place(9).position);
        assert!(!strays(&placed), "its place tells what it has read");
        let (_, unread) = table("t", |table| table.state = TableState::Pending);
        assert!(!strays(&unread));
    }

    #[test]
    fn the_table_that_is_named_is_left_out_before_others_are_tried_apart() {
        let strayed = ["a", "b", "c"].map(|name| Strayed {
            name: TableName::new("s", name),
            part: Part::Place,
            cause: Cause::Elsewhere,
        });
        let all: Vec<&Strayed> = strayed.iter().collect();
        let error = || Error::new(ErrorKind::Unsupported, "no");
        assert_eq!(refused(&all, &error()), None);
        assert_eq!(refused(&all, &error().with_table(&all[1].name)), Some(1));
        let other = TableName::new("s", "d");
        assert_eq!(refused(&all, &error().with_table(&other)), None);
        assert_eq!(refused(&all[..1], &error()), Some(0));
    }

    #[test]
    fn each_cause_has_a_sentence_of_its_own_with_what_becomes_of_its_tables() {
        let strayed = |name: &str, part, cause| Strayed {
            name: TableName::new("s", name),
            part,
            cause,
        };
        let lacks = || Cause::Lacks("0-1-7".to_owned());
        let anew = [
            strayed("a", Part::Load, lacks()),
            strayed("b", Part::Load, Cause::Elsewhere),
            strayed("c", Part::Place, lacks()),
        ];
        let kept_out = [strayed("d", Part::Place, lacks())];
        let told: Vec<(String, &str)> = sentences(&anew, &kept_out)
            .into_iter()
            .map(|(strayed, what)| {
                let names = strayed.iter().map(|one| one.name.table.as_str());
                (names.collect(), what)
            })
            .collect();
        let [(other, is_other), (lacking, is_lacking), (out, is_out)] = told.as_slice() else {
            panic!("{told:?}");
        };
        assert!(other == "b" && is_other.contains("another server"));
        assert!(lacking == "ac" && is_lacking.contains("lacks transactions"));
        assert!(is_lacking.ends_with("loaded anew"));
        assert!(out == "d" && is_out.ends_with("taken out of service"));
        assert_eq!(sentences(&anew[1..2], &[]).len(), 1);
    }
}
