//! The states of a pipe, and the one function that changes them.
//!
//! A state is persisted before it is published: whoever sees a state may rely on it after a crash. A crash between the
//! two repeats the transition's work, which every transition allows. What happens to one table alone is in
//! [`super::table_state`].

use std::fmt;

use serde::{Deserialize, Serialize};

use super::clock::now_us;
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
///     Snapshot --> Resync: LoadedToSwap
///     Snapshot --> Pausing: Pause
///     Snapshot --> Modifying: Modify
///     Snapshot --> Failed: Fail
///     Resync --> Snapshot: Resync
///     Resync --> Running: Swapped
///     Resync --> Completed: SwappedAndDone
///     Resync --> Failed: Fail
///     Running --> Snapshot: Resync
///     Running --> Snapshot: Reload
///     Running --> Degraded: Degrade
///     Running --> Pausing: Pause
///     Running --> Modifying: Modify
///     Running --> Failed: Fail
///     Degraded --> Running: Recover
///     Degraded --> Snapshot: Resync
///     Degraded --> Snapshot: Reload
///     Degraded --> Pausing: Pause
///     Degraded --> Modifying: Modify
///     Degraded --> Failed: Fail
///     Pausing --> Paused: Drained
///     Pausing --> Snapshot: Resume
///     Pausing --> Running: Resume
///     Pausing --> Snapshot: Resync
///     Pausing --> Failed: Fail
///     Paused --> Snapshot: Resume
///     Paused --> Running: Resume
///     Paused --> Snapshot: Resync
///     Paused --> Modifying: Modify
///     Paused --> Failed: Fail
///     Modifying --> Snapshot: ModifiedToLoad
///     Modifying --> Paused: ModifiedToLoad
///     Modifying --> Snapshot: Modified
///     Modifying --> Running: Modified
///     Modifying --> Paused: Modified
///     Modifying --> Failed: Fail
///     Completed --> Snapshot: Resync
///     Failed --> Provisioning: Start
///     Failed --> Snapshot: Resync
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
    /// Running, with at least one standing reason that somebody should look at.
    Degraded,
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
    /// Tables are being added or removed, or settings applied.
    Modifying {
        /// Whether the pipe was paused, and will be again.
        paused: bool,
        /// What the pipe was doing, or would have resumed to do.
        resume: Resume,
    },
    /// Freshly loaded tables are being exchanged for the live ones.
    Resync,
    /// A pipe of mode snapshot has finished.
    Completed,
    /// Stopped until a person has mended something.
    Failed {
        /// Why, with the remedy.
        failure: Failure,
    },
}

/// What a pipe does when nothing keeps it from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resume {
    /// Tables are being loaded.
    Snapshot,
    /// All tables are streaming.
    Running,
}

/// Why a pipe failed, or a table is out of service.
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
            at_us: Some(now_us()),
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
    /// The same, and tables that were loaded beside live ones are to be exchanged for them.
    LoadedToSwap,
    /// Every exchange is done.
    Swapped,
    /// The same, and the pipe's mode asks for no more.
    SwappedAndDone,
    /// A reason stands against the pipe.
    Degrade,
    /// The last reason has gone.
    Recover,
    /// A person asks for a pause.
    Pause,
    /// Everything in flight is checkpointed.
    Drained,
    /// A person asks to go on.
    Resume,
    /// A person asks to load tables again.
    Resync,
    /// A table that had fallen out of its load is back, and the load goes on.
    Reload,
    /// A person asks for other tables or settings.
    Modify,
    /// The change is made, and asks for a load.
    ModifiedToLoad,
    /// The change is made, or refused.
    Modified,
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
            (S::Snapshot, E::Loaded) | (S::Resync, E::Swapped) | (S::Degraded, E::Recover) => {
                Ok(S::Running)
            }
            (S::Snapshot, E::LoadedAndDone) | (S::Resync, E::SwappedAndDone) => Ok(S::Completed),
            (S::Snapshot, E::LoadedToSwap) => Ok(S::Resync),
            (S::Running, E::Degrade) => Ok(S::Degraded),
            (state @ (S::Snapshot | S::Running | S::Degraded), E::Pause) => Ok(S::Pausing {
                resume: state.resume(),
            }),
            (S::Pausing { resume }, E::Drained) => Ok(S::Paused { resume }),
            (S::Pausing { resume } | S::Paused { resume }, E::Resume) => Ok(resume.into()),
            (
                S::Running
                | S::Degraded
                | S::Snapshot
                | S::Resync
                | S::Pausing { .. }
                | S::Paused { .. }
                | S::Completed
                | S::Failed { .. },
                E::Resync,
            )
            | (S::Running | S::Degraded | S::Snapshot, E::Reload) => Ok(S::Snapshot),
            (state @ (S::Snapshot | S::Running | S::Degraded), E::Modify) => Ok(S::Modifying {
                paused: false,
                resume: state.resume(),
            }),
            (S::Paused { resume }, E::Modify) => Ok(S::Modifying {
                paused: true,
                resume,
            }),
            (S::Modifying { paused: false, .. }, E::ModifiedToLoad) => Ok(S::Snapshot),
            (S::Modifying { paused: true, .. }, E::ModifiedToLoad) => Ok(S::Paused {
                resume: Resume::Snapshot,
            }),
            (
                S::Modifying {
                    paused: false,
                    resume,
                },
                E::Modified,
            ) => Ok(resume.into()),
            (
                S::Modifying {
                    paused: true,
                    resume,
                },
                E::Modified,
            ) => Ok(S::Paused { resume }),
            (
                S::Provisioning
                | S::Setup
                | S::Snapshot
                | S::Resync
                | S::Running
                | S::Degraded
                | S::Modifying { .. }
                | S::Pausing { .. }
                | S::Paused { .. },
                E::Fail(failure),
            ) => Ok(S::Failed { failure }),
            (S::Failed { .. }, E::Start) => Ok(S::Provisioning),
            // A command for the present state succeeds without effect.
            (state @ (S::Pausing { .. } | S::Paused { .. }), E::Pause) => Ok(state),
            (state @ (S::Snapshot | S::Resync | S::Running | S::Degraded), E::Resume)
            | (state @ (S::Provisioning | S::Setup), E::Start) => Ok(state),
            (
                state @ (S::Provisioning
                | S::Setup
                | S::Snapshot
                | S::Resync
                | S::Running
                | S::Degraded
                | S::Modifying { .. }
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
            PipeState::Resync => "Resync",
            PipeState::Running => "Running",
            PipeState::Degraded => "Degraded",
            PipeState::Modifying { .. } => "Modifying",
            PipeState::Pausing { .. } => "Pausing",
            PipeState::Paused { .. } => "Paused",
            PipeState::Completed => "Completed",
            PipeState::Failed { .. } => "Failed",
        }
    }

    /// Whether the pipe follows its source.
    pub(super) fn is_at_work(&self) -> bool {
        matches!(
            self,
            PipeState::Snapshot | PipeState::Running | PipeState::Degraded | PipeState::Resync
        )
    }

    /// Whether a run is at work, or ends for what was asked of the pipe: what it meets on its last way is no other trouble
    /// than before.
    pub(super) fn has_a_run(&self) -> bool {
        self.is_at_work()
            || matches!(
                self,
                PipeState::Pausing { .. } | PipeState::Modifying { paused: false, .. }
            )
    }

    /// Whether going over to `other` changes nothing of what is being done.
    pub(super) fn is_same_work(&self, other: &PipeState) -> bool {
        use PipeState as S;
        matches!(
            (self, other),
            (S::Running | S::Degraded, S::Running | S::Degraded)
                | (
                    S::Modifying { paused: false, .. },
                    S::Running | S::Degraded | S::Snapshot
                )
                | (S::Running | S::Snapshot, S::Modifying { paused: false, .. })
        )
    }

    /// What is being done, or would be resumed.
    pub(super) fn resume(&self) -> Resume {
        match self {
            PipeState::Snapshot
            | PipeState::Pausing {
                resume: Resume::Snapshot,
            }
            | PipeState::Paused {
                resume: Resume::Snapshot,
            }
            | PipeState::Modifying {
                resume: Resume::Snapshot,
                ..
            } => Resume::Snapshot,
            PipeState::Provisioning
            | PipeState::Setup
            | PipeState::Resync
            | PipeState::Running
            | PipeState::Degraded
            | PipeState::Pausing { .. }
            | PipeState::Paused { .. }
            | PipeState::Modifying { .. }
            | PipeState::Completed
            | PipeState::Failed { .. } => Resume::Running,
        }
    }
}

impl From<Resume> for PipeState {
    fn from(resume: Resume) -> Self {
        match resume {
            Resume::Snapshot => PipeState::Snapshot,
            Resume::Running => PipeState::Running,
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
            PipeEvent::LoadedToSwap => "LoadedToSwap",
            PipeEvent::Swapped => "Swapped",
            PipeEvent::SwappedAndDone => "SwappedAndDone",
            PipeEvent::Degrade => "Degrade",
            PipeEvent::Recover => "Recover",
            PipeEvent::Pause => "Pause",
            PipeEvent::Drained => "Drained",
            PipeEvent::Resume => "Resume",
            PipeEvent::Resync => "Resync",
            PipeEvent::Reload => "Reload",
            PipeEvent::Modify => "Modify",
            PipeEvent::ModifiedToLoad => "ModifiedToLoad",
            PipeEvent::Modified => "Modified",
            PipeEvent::Fail(_) => "Fail",
            PipeEvent::Start => "Start",
        }
    }
}
