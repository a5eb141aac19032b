//! The states of a pipe, and the one function that changes them.
//!
//! A state is persisted before it is published: whoever sees a state may rely on it after a crash. A crash between the
//! two repeats the transition's work, which every transition allows.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::batch::TableName;
use crate::error::{Error, ErrorKind, Result};

/// Where a pipe is in its life.
///
/// ```mermaid
/// stateDiagram-v2
///     Provisioning --> Setup: Provisioned
///     Provisioning --> Failed: Fail
///     Setup --> Snapshot: SetUpToLoad
///     Setup --> Running: SetUpToStream
///     Setup --> Failed: Fail
///     Snapshot --> Running: Loaded
///     Snapshot --> Completed: LoadedAndDone
///     Snapshot --> Pausing: Pause
///     Snapshot --> Failed: Fail
///     Running --> Pausing: Pause
///     Running --> Failed: Fail
///     Pausing --> Paused: Drained
///     Pausing --> Snapshot: Resume
///     Pausing --> Running: Resume
///     Pausing --> Failed: Fail
///     Paused --> Snapshot: Resume
///     Paused --> Running: Resume
///     Failed --> Provisioning: Start
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum PipeState {
    /// The state store is open, both ends are being connected, plugins compiled.
    Provisioning,
    /// Preflight, start place, source schemas, target tables.
    Setup,
    /// Partitions are loaded while the binlog is followed from the start place.
    Snapshot,
    /// Binlog to ClickHouse in batches.
    Running,
    /// In-flight batches are being finished and checkpointed.
    Pausing {
        /// What resuming goes back to.
        resume: Resume,
    },
    /// No connection to the source; the checkpoint stands.
    Paused {
        /// What resuming goes back to.
        resume: Resume,
    },
    /// A pipe of mode snapshot has finished.
    Completed,
    /// Stopped until a person has mended something.
    Failed {
        /// Why, with the remedy.
        failure: Failure,
    },
}

/// The states that a paused pipe may go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resume {
    /// Tables were still being loaded.
    Snapshot,
    /// All tables were streaming.
    Running,
}

/// Why a pipe failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What went wrong, for programs.
    pub kind: ErrorKind,
    /// What went wrong, for people: the whole chain, without secrets and cell values.
    pub message: String,
    /// The table concerned, if it was one table's trouble.
    pub table: Option<TableName>,
    /// What mends it.
    pub remedy: Option<String>,
    /// When, in microseconds since 1970.
    pub at_us: Option<u64>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            kind: error.kind(),
            message: error.chain(),
            table: error.table().cloned(),
            remedy: error.hint().map(str::to_owned),
            at_us: Some(super::apply::now_us()),
        }
    }
}

/// What happens to a pipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PipeEvent {
    /// Both ends answer and plugins are compiled.
    Provisioned,
    /// Targets exist; tables are to be loaded.
    SetUpToLoad,
    /// Targets exist; nothing is to be loaded.
    SetUpToStream,
    /// The checkpoint has passed every load's end place.
    Loaded,
    /// The same, and the pipe's mode asks for no more.
    LoadedAndDone,
    /// A person asks for a pause.
    Pause,
    /// Everything in flight is checkpointed.
    Drained,
    /// A person asks to go on.
    Resume,
    /// A definite error.
    Fail(Failure),
    /// A person starts a failed pipe again.
    Start,
}

impl PipeState {
    /// The state after `event`; every change of state goes through here.
    ///
    /// # Errors
    /// `IllegalCommand`, naming the state, where the event has no place.
    pub fn apply(self, event: PipeEvent) -> Result<PipeState> {
        use PipeEvent as E;
        use PipeState as S;
        match (self, event) {
            (S::Provisioning, E::Provisioned) => Ok(S::Setup),
            (S::Setup, E::SetUpToLoad) => Ok(S::Snapshot),
            (S::Setup, E::SetUpToStream) => Ok(S::Running),
            (S::Snapshot, E::Loaded) => Ok(S::Running),
            (S::Snapshot, E::LoadedAndDone) => Ok(S::Completed),
            (S::Snapshot, E::Pause) => Ok(S::Pausing {
                resume: Resume::Snapshot,
            }),
            (S::Running, E::Pause) => Ok(S::Pausing {
                resume: Resume::Running,
            }),
            (S::Pausing { resume }, E::Drained) => Ok(S::Paused { resume }),
            (S::Pausing { resume } | S::Paused { resume }, E::Resume) => Ok(match resume {
                Resume::Snapshot => S::Snapshot,
                Resume::Running => S::Running,
            }),
            (
                S::Provisioning | S::Setup | S::Snapshot | S::Running | S::Pausing { .. },
                E::Fail(failure),
            ) => Ok(S::Failed { failure }),
            (S::Failed { .. }, E::Start) => Ok(S::Provisioning),
            // A command for the present state succeeds without effect.
            (state @ (S::Pausing { .. } | S::Paused { .. }), E::Pause) => Ok(state),
            (state @ (S::Snapshot | S::Running), E::Resume) => Ok(state),
            (
                state @ (S::Provisioning
                | S::Setup
                | S::Snapshot
                | S::Running
                | S::Pausing { .. }
                | S::Paused { .. }
                | S::Completed
                | S::Failed { .. }),
                event,
            ) => Err(Error::new(
                ErrorKind::IllegalCommand,
                format!(
                    "a pipe that is {} cannot take `{}`",
                    state.name(),
                    event.name()
                ),
            )),
        }
    }

    /// The state's name as users know it.
    pub fn name(&self) -> &'static str {
        match self {
            PipeState::Provisioning => "Provisioning",
            PipeState::Setup => "Setup",
            PipeState::Snapshot => "Snapshot",
            PipeState::Running => "Running",
            PipeState::Pausing { .. } => "Pausing",
            PipeState::Paused { .. } => "Paused",
            PipeState::Completed => "Completed",
            PipeState::Failed { .. } => "Failed",
        }
    }
}

impl fmt::Display for PipeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PipeEvent {
    /// The event's name, as the diagram has it.
    pub fn name(&self) -> &'static str {
        match self {
            PipeEvent::Provisioned => "Provisioned",
            PipeEvent::SetUpToLoad => "SetUpToLoad",
            PipeEvent::SetUpToStream => "SetUpToStream",
            PipeEvent::Loaded => "Loaded",
            PipeEvent::LoadedAndDone => "LoadedAndDone",
            PipeEvent::Pause => "Pause",
            PipeEvent::Drained => "Drained",
            PipeEvent::Resume => "Resume",
            PipeEvent::Fail(_) => "Fail",
            PipeEvent::Start => "Start",
        }
    }
}

/// Where one table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableState {
    /// Its load has not begun.
    Pending,
    /// Its partitions are being read, or the checkpoint has not passed its end place yet.
    Snapshotting,
    /// Equal to the source at the pipe's checkpoint.
    Streaming,
}

impl TableState {
    /// The state's name as users know it.
    pub fn name(self) -> &'static str {
        match self {
            TableState::Pending => "Pending",
            TableState::Snapshotting => "Snapshotting",
            TableState::Streaming => "Streaming",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn states() -> Vec<PipeState> {
        let failure = Failure {
            kind: ErrorKind::Internal,
            message: String::new(),
            table: None,
            remedy: None,
            at_us: None,
        };
        let mut states = vec![
            PipeState::Provisioning,
            PipeState::Setup,
            PipeState::Snapshot,
            PipeState::Running,
            PipeState::Completed,
            PipeState::Failed { failure },
        ];
        for resume in [Resume::Snapshot, Resume::Running] {
            states.push(PipeState::Pausing { resume });
            states.push(PipeState::Paused { resume });
        }
        states
    }

    fn events() -> Vec<PipeEvent> {
        let failure = Failure {
            kind: ErrorKind::Internal,
            message: String::new(),
            table: None,
            remedy: None,
            at_us: None,
        };
        vec![
            PipeEvent::Provisioned,
            PipeEvent::SetUpToLoad,
            PipeEvent::SetUpToStream,
            PipeEvent::Loaded,
            PipeEvent::LoadedAndDone,
            PipeEvent::Pause,
            PipeEvent::Drained,
            PipeEvent::Resume,
            PipeEvent::Fail(failure),
            PipeEvent::Start,
        ]
    }

    #[test]
    fn the_diagram_shows_every_transition_and_no_other() {
        let mut drawn = BTreeSet::new();
        for line in include_str!("lifecycle.rs").lines() {
            let Some(line) = line.trim().strip_prefix("/// ") else {
                continue;
            };
            let Some((from, rest)) = line.trim().split_once(" --> ") else {
                continue;
            };
            let (to, event) = rest.split_once(": ").expect("an arrow has a label");
            drawn.insert((from.to_owned(), event.to_owned(), to.to_owned()));
        }
        let mut made = BTreeSet::new();
        for state in states() {
            for event in events() {
                let after = state.clone().apply(event.clone());
                match after {
                    Ok(after) if after == state => {}
                    Ok(after) => {
                        made.insert((
                            state.name().to_owned(),
                            event.name().to_owned(),
                            after.name().to_owned(),
                        ));
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::IllegalCommand);
                        assert!(
                            error.message().contains(state.name()),
                            "{error:?} names the state"
                        );
                    }
                }
            }
        }
        assert_eq!(drawn, made);
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
}
