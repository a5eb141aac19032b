//! What has happened to a pipe: transitions, commands, errors and changes of its file, kept in the state and told to
//! whoever listens.
//!
//! Events of a transition are found by comparing the records before and after, and written together with them
//! ([`super::store::PipeStore::commit`]): after a crash the history tells of exactly the transitions that are on disk.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::difference::changed;
use super::document::{Reason, Timestamp};
use super::lifecycle::{Failure, PipeState};
use super::record::{Records, TableRecord};
use super::table_state::TableState;
use crate::batch::TableName;
use crate::error::{Error, ErrorKind};

/// Events kept of a pipe: some weeks of an ordinary one, and at most some megabytes.
pub const EVENTS_KEPT: usize = 1000;

/// Nobody reads more of a text; the answer to a request, and the status, have it whole.
const TEXT_BYTES_MAX: usize = 2048;

/// The beginning of a longer command, such as one with a thousand tables, tells what it is, and leaves room for the reason
/// why it was refused.
pub(super) const COMMAND_BYTES_MAX: usize = TEXT_BYTES_MAX / 2;

/// More tables than this changing at once are told of in one event, so that a load of thousands leaves the rest of the
/// history in place.
const TABLES_TOLD: usize = 20;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Counts up from 1 within the pipe; the id of the server-sent event too.
    pub id: u64,
    /// When.
    pub time: Timestamp,
    /// Whether somebody should look.
    pub level: Level,
    /// What kind of thing it was.
    pub kind: EventKind,
    /// The source table concerned; none when it is the whole pipe.
    pub table: Option<String>,
    /// The stable code of the error, if it was one.
    pub code: Option<ErrorKind>,
    /// What happened.
    pub text: String,
    /// What mends it, if anything is to be mended.
    pub remedy: Option<String>,
}

/// Whether somebody should look at an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// All is well.
    Info,
    /// The pipe goes on, and somebody should know.
    Warning,
    /// The pipe or a table has stopped.
    Error,
}

/// What kind of thing an event tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The pipe or a table has another state.
    Transition,
    /// Somebody asked for something.
    Command,
    /// Something failed and is tried again.
    Error,
    /// The pipe file was changed.
    File,
}

/// An event that has no number yet.
#[derive(Clone, Debug)]
pub(super) struct Note {
    level: Level,
    kind: EventKind,
    table: Option<TableName>,
    code: Option<ErrorKind>,
    text: String,
    remedy: Option<String>,
}

impl Note {
    pub(super) fn new(level: Level, kind: EventKind, text: impl Into<String>) -> Self {
        Self {
            level,
            kind,
            table: None,
            code: None,
            text: text.into(),
            remedy: None,
        }
    }

    /// What `error` says, without the chain below it; `text` is what it prevented.
    pub(super) fn over(level: Level, kind: EventKind, text: &str, error: &Error) -> Self {
        Self {
            table: error.table().cloned(),
            code: Some(error.kind()),
            remedy: error.hint().map(str::to_owned),
            ..Self::new(level, kind, format!("{text}: {error}"))
        }
    }

    /// The same for a reason that begins to stand.
    pub(super) fn standing(reason: &Reason) -> Self {
        Self {
            code: Some(reason.code),
            remedy: reason.remedy.clone(),
            ..Self::new(Level::Warning, EventKind::Error, reason.message.clone())
        }
    }

    /// The same for what of a changed file is not taken up.
    pub(super) fn of_file(reason: &Reason) -> Self {
        Self {
            kind: EventKind::File,
            ..Self::standing(reason)
        }
    }

    pub(super) fn of_table(mut self, table: &TableName) -> Self {
        self.table = Some(table.clone());
        self
    }

    fn because_of(mut self, failure: &Failure) -> Self {
        self.code = Some(failure.kind);
        self.text = format!("{}: {}", self.text, failure.message);
        self.remedy.clone_from(&failure.remedy);
        self
    }
}

/// The newest events of a pipe, oldest first.
#[derive(Debug)]
pub struct Journal {
    kept: Arc<Kept>,
    newest: watch::Sender<u64>,
}

/// Whoever listens holds the events and not their journal, and so reads the last of them when the pipe is gone.
#[derive(Debug)]
struct Kept(Mutex<VecDeque<Event>>);

/// A journal as somebody reads it who waits for more.
#[derive(Debug)]
pub struct Listener {
    kept: Arc<Kept>,
    newest: watch::Receiver<u64>,
}

impl Journal {
    /// The journal with the events that the state holds, in the order of their ids.
    pub(crate) fn new(events: Vec<Event>) -> Arc<Self> {
        let newest = events.last().map_or(0, |event| event.id);
        Arc::new(Self {
            kept: Arc::new(Kept(Mutex::new(events.into()))),
            newest: watch::Sender::new(newest),
        })
    }

    /// Up to `limit` events after the one with id `after`, oldest first.
    pub fn after(&self, after: u64, limit: usize) -> Vec<Event> {
        self.kept.after(after, limit)
    }

    /// The newest `limit` events that are no older than `since`, oldest first.
    pub fn newest(&self, since: Option<Timestamp>, limit: usize) -> Vec<Event> {
        let kept = self.kept.lock();
        let recent = kept
            .iter()
            .rev()
            .take_while(|event| since.is_none_or(|since| event.time >= since));
        let mut events: Vec<Event> = recent.take(limit).cloned().collect();
        events.reverse();
        events
    }

    /// A way to wait for what follows.
    pub fn listen(&self) -> Listener {
        Listener {
            kept: Arc::clone(&self.kept),
            newest: self.newest.subscribe(),
        }
    }

    /// Numbers and dates `notes`. The caller is the only one to write, publishes them when they are on disk, and removes
    /// the ids that come second from the state.
    pub(super) fn number(&self, notes: Vec<Note>) -> (Vec<Event>, Vec<u64>) {
        let kept = self.kept.lock();
        let first = *self.newest.borrow() + 1;
        let events: Vec<Event> = (first..)
            .zip(notes)
            .map(|(id, note)| Event {
                id,
                time: Timestamp::now(),
                level: note.level,
                kind: note.kind,
                table: note.table.map(|table| table.to_string()),
                code: note.code,
                text: shortened(note.text, TEXT_BYTES_MAX),
                remedy: note.remedy.map(|remedy| shortened(remedy, TEXT_BYTES_MAX)),
            })
            .collect();
        let surplus = (kept.len() + events.len()).saturating_sub(EVENTS_KEPT);
        let outdated = kept.iter().take(surplus).map(|event| event.id).collect();
        (events, outdated)
    }

    /// Shows events that are on disk.
    pub(crate) fn publish(&self, events: Vec<Event>) {
        let Some(newest) = events.last().map(|event| event.id) else {
            return;
        };
        let mut kept = self.kept.lock();
        kept.extend(events);
        while kept.len() > EVENTS_KEPT {
            kept.pop_front();
        }
        drop(kept);
        self.newest.send_replace(newest);
    }
}

impl Kept {
    fn after(&self, after: u64, limit: usize) -> Vec<Event> {
        let kept = self.lock();
        let later = kept.iter().filter(|event| event.id > after);
        later.take(limit).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// The id of the newest event.
    pub fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// All events after the one with id `after`, oldest first. Those that come later end [`Listener::changed`].
    pub fn after(&mut self, after: u64) -> Vec<Event> {
        self.newest.borrow_and_update();
        self.kept.after(after, EVENTS_KEPT)
    }

    /// Waits until there are more; false once there will be none, since the pipe is gone or made anew.
    pub async fn changed(&mut self) -> bool {
        self.newest.changed().await.is_ok()
    }
}

/// At most `most` bytes of a text, which says how much it was when that is not all.
pub(super) fn shortened(mut text: String, most: usize) -> String {
    let (kept, all) = (text.floor_char_boundary(most), text.len());
    if kept < all {
        text.truncate(kept);
        text += &format!("… (cut: {kept} of {all} bytes)");
    }
    text
}

/// The transitions between two versions of a pipe's records.
pub(super) fn transitions(before: &Records, after: &Records) -> Vec<Note> {
    let mut notes = Vec::new();
    let (old, new) = (before.state(), after.state());
    if before.pipe.is_none() && after.pipe.is_some() {
        let text = "the pipe is known from now on";
        notes.push(Note::new(Level::Info, EventKind::Transition, text));
    } else if old.name() != new.name() {
        let level = match new {
            PipeState::Failed { .. } => Level::Error,
            PipeState::Degraded => Level::Warning,
            _ => Level::Info,
        };
        let text = format!("{} to {}", old.name(), new.name());
        let note = Note::new(level, EventKind::Transition, text);
        notes.push(match &new {
            PipeState::Failed { failure } => note.because_of(failure),
            _ => note,
        });
    }
    let changed: Vec<Note> = changed(&before.tables, &after.tables)
        .filter_map(|(name, table)| {
            of_table(name, before.tables.get(name).map(|old| &**old), table)
        })
        .collect();
    if changed.len() <= TABLES_TOLD {
        notes.extend(changed);
    } else {
        let count = changed.len();
        let (quiet, loud): (Vec<Note>, Vec<Note>) = changed
            .into_iter()
            .partition(|note| note.level == Level::Info);
        notes.extend(loud);
        if let Some(example) = quiet.first() {
            let text = format!(
                "{count} tables have other states: {} and more",
                example.text
            );
            notes.push(Note::new(Level::Info, EventKind::Transition, text));
        }
    }
    notes
}

fn of_table(name: &TableName, before: Option<&TableRecord>, after: &TableRecord) -> Option<Note> {
    let told = |level, text: String| Note::new(level, EventKind::Transition, text).of_table(name);
    let old = before.map(|table| table.state.name());
    let new = after.state.name();
    if old == Some(new) {
        let begins = |table: &TableRecord| table.inexact.is_some();
        let inexact = after
            .inexact
            .as_ref()
            .filter(|_| before.is_none_or(|old| !begins(old)))?;
        let text = "may differ from its source".to_owned();
        return Some(told(Level::Warning, text).because_of(inexact));
    }
    let text = match old {
        Some(old) => format!("{old} to {new}"),
        None => format!("joins the pipe as {new}"),
    };
    Some(match &after.state {
        TableState::Quarantined(failure) => told(Level::Error, text).because_of(failure),
        _ => told(Level::Info, text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(text: &str) -> Note {
        Note::new(Level::Info, EventKind::Command, text)
    }

    #[test]
    fn the_oldest_events_make_room_for_the_newest() {
        let journal = Journal::new(Vec::new());
        for number in 1..=EVENTS_KEPT as u64 + 5 {
            let (events, outdated) = journal.number(vec![note("x")]);
            assert_eq!(events[0].id, number);
            assert_eq!(
                outdated,
                number
                    .checked_sub(EVENTS_KEPT as u64 + 1)
                    .map_or(vec![], |_| vec![number - EVENTS_KEPT as u64])
            );
            journal.publish(events);
        }
        let all = journal.after(0, usize::MAX);
        assert_eq!((all.len(), all[0].id), (EVENTS_KEPT, 6));
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        let journal = Journal::new(Vec::new());
        let longest = "x".repeat(TEXT_BYTES_MAX);
        let mut huge = note(&format!("x{}", "ö".repeat(500_000)));
        huge.remedy = Some(format!("{longest}y"));
        let (events, _) = journal.number(vec![note(&longest), huge]);
        assert_eq!(events[0].text, longest);
        // Half a letter is not kept.
        let kept = format!("x{}", "ö".repeat(TEXT_BYTES_MAX / 2 - 1));
        assert_eq!(
            events[1].text,
            format!("{kept}… (cut: 2047 of 1000001 bytes)")
        );
        let remedy = format!("{longest}… (cut: 2048 of 2049 bytes)");
        assert_eq!(events[1].remedy, Some(remedy));
    }

    #[test]
    fn events_are_read_from_either_end() {
        let journal = Journal::new(Vec::new());
        let (events, _) = journal.number(["a", "b", "c"].map(note).to_vec());
        journal.publish(events);
        let texts = |events: Vec<Event>| -> Vec<String> {
            events.into_iter().map(|event| event.text).collect()
        };
        assert_eq!(texts(journal.after(1, 1)), ["b"]);
        assert_eq!(texts(journal.newest(None, 2)), ["b", "c"]);
        assert!(
            journal
                .newest(Some(Timestamp::from_micros(u64::MAX)), 9)
                .is_empty()
        );
        assert_eq!(journal.listen().newest(), 3);
    }
}
