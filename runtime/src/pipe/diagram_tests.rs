//! The diagrams in the documentation of both state enums, compared with what `apply` does over every state and event.

use std::collections::BTreeSet;

use super::lifecycle::{Failure, PipeEvent, PipeState, Resume};
use super::table_state::{TableEvent, TableState};
use crate::error::{ErrorKind, Result};

type Arrows = BTreeSet<(String, String, String)>;

/// How people call a state or an event.
type Name<T> = fn(&T) -> &'static str;

fn failure() -> Failure {
    Failure {
        kind: ErrorKind::Internal,
        message: String::new(),
        table: None,
        remedy: None,
        at_us: None,
    }
}

pub(super) fn states() -> Vec<PipeState> {
    let mut states = vec![
        PipeState::Provisioning,
        PipeState::Setup,
        PipeState::Snapshot,
        PipeState::Resync,
        PipeState::Running,
        PipeState::Degraded,
        PipeState::Completed,
        PipeState::Failed { failure: failure() },
    ];
    for resume in [Resume::Snapshot, Resume::Running] {
        states.push(PipeState::Pausing { resume });
        states.push(PipeState::Paused { resume });
        for paused in [false, true] {
            states.push(PipeState::Modifying { paused, resume });
        }
    }
    states
}

fn events() -> Vec<PipeEvent> {
    vec![
        PipeEvent::Provisioned,
        PipeEvent::SetUpToLoad,
        PipeEvent::SetUpToStream,
        PipeEvent::Loaded,
        PipeEvent::LoadedAndDone,
        PipeEvent::LoadedToSwap,
        PipeEvent::Swapped,
        PipeEvent::SwappedAndDone,
        PipeEvent::Degrade,
        PipeEvent::Recover,
        PipeEvent::Pause,
        PipeEvent::Drained,
        PipeEvent::Resume,
        PipeEvent::Resync,
        PipeEvent::Reload,
        PipeEvent::Modify,
        PipeEvent::ModifiedToLoad,
        PipeEvent::Modified,
        PipeEvent::Fail(failure()),
        PipeEvent::Start,
    ]
}

fn table_states() -> Vec<TableState> {
    vec![
        TableState::Pending,
        TableState::Snapshotting,
        TableState::Streaming,
        TableState::Quarantined(failure()),
        TableState::CatchingUp,
        TableState::Removed,
    ]
}

fn table_events() -> Vec<TableEvent> {
    vec![
        TableEvent::Planned,
        TableEvent::Loaded,
        TableEvent::Quarantine(failure()),
        TableEvent::Retry,
        TableEvent::Met,
        TableEvent::MetLoading,
        TableEvent::Resync,
        TableEvent::Remove,
        TableEvent::Add,
    ]
}

fn drawn(file: &str) -> Arrows {
    file.lines()
        .filter_map(|line| line.trim().strip_prefix("/// ")?.trim().split_once(" --> "))
        .map(|(from, rest)| {
            let (to, event) = rest.split_once(": ").expect("an arrow has a label");
            (from.to_owned(), event.to_owned(), to.to_owned())
        })
        .collect()
}

/// Every change that `apply` makes; a refusal must name the state.
fn made<S: Clone + PartialEq, E: Clone>(
    states: &[S],
    events: &[E],
    apply: impl Fn(S, E) -> Result<S>,
    names: (Name<S>, Name<E>),
) -> Arrows {
    let mut arrows = Arrows::new();
    for state in states {
        for event in events {
            let name = (names.0)(state);
            match apply(state.clone(), event.clone()) {
                Ok(after) if (names.0)(&after) == name => {}
                Ok(after) => {
                    arrows.insert((
                        name.to_owned(),
                        (names.1)(event).to_owned(),
                        (names.0)(&after).to_owned(),
                    ));
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::IllegalCommand);
                    assert!(error.message().contains(name), "{error:?} names the state");
                }
            }
        }
    }
    arrows
}

#[test]
fn the_diagram_shows_every_transition_of_a_pipe_and_no_other() {
    let made = made(
        &states(),
        &events(),
        PipeState::apply,
        (PipeState::name, PipeEvent::name),
    );
    assert_eq!(drawn(include_str!("lifecycle.rs")), made);
}

#[test]
fn the_diagram_shows_every_transition_of_a_table_and_no_other() {
    let made = made(
        &table_states(),
        &table_events(),
        TableState::apply,
        (TableState::name, TableEvent::name),
    );
    assert_eq!(drawn(include_str!("table_state.rs")), made);
}

#[test]
fn a_command_for_the_present_state_has_no_effect() {
    assert_eq!(
        PipeState::Running
            .apply(PipeEvent::Resume)
            .expect("running already"),
        PipeState::Running
    );
    let paused = PipeState::Paused {
        resume: Resume::Snapshot,
    };
    assert_eq!(
        paused
            .clone()
            .apply(PipeEvent::Pause)
            .expect("paused already"),
        paused
    );
}

#[test]
fn a_paused_pipe_is_paused_again_when_its_tables_have_changed() {
    let paused = PipeState::Paused {
        resume: Resume::Running,
    };
    let modifying = paused.clone().apply(PipeEvent::Modify).expect("allowed");
    assert_eq!(
        modifying.clone().apply(PipeEvent::Modified).expect("done"),
        paused
    );
    assert_eq!(
        modifying.apply(PipeEvent::ModifiedToLoad).expect("done"),
        PipeState::Paused {
            resume: Resume::Snapshot
        }
    );
}
