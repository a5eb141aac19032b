//! The states of one table of a pipe, and the one function that changes them.
//!
//! A table's trouble is its own: it leaves the stream at the pipe's checkpoint and keeps that place, while the others go
//! on. It comes back by catching up from its place in a stream of its own, or by a load beside the live table.

use serde::{Deserialize, Serialize};

use super::lifecycle::Failure;
use crate::error::{Error, ErrorKind, Result};

/// Where one table is.
///
/// ```mermaid
/// stateDiagram-v2
///     Pending --> Snapshotting: Planned
///     Pending --> Streaming: Loaded
///     Pending --> Quarantined: Quarantine
///     Pending --> Removed: Remove
///     Snapshotting --> Pending: Resync
///     Snapshotting --> Streaming: Loaded
///     Snapshotting --> Quarantined: Quarantine
///     Snapshotting --> Removed: Remove
///     Streaming --> Pending: Resync
///     Streaming --> Quarantined: Quarantine
///     Streaming --> Removed: Remove
///     Quarantined --> Pending: Resync
///     Quarantined --> CatchingUp: Retry
///     Quarantined --> Removed: Remove
///     CatchingUp --> Streaming: Met
///     CatchingUp --> Pending: MetLoading
///     CatchingUp --> Pending: Resync
///     CatchingUp --> Quarantined: Quarantine
///     CatchingUp --> Removed: Remove
///     Removed --> Pending: Add
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableState {
    /// Its load has not begun.
    Pending,
    /// Its partitions are being read, or the checkpoint has not passed its end place yet.
    Snapshotting,
    /// Equal to the source at the pipe's checkpoint.
    Streaming,
    /// Out of the stream since its own place, until a person decides.
    Quarantined(Failure),
    /// Read again from its own place, in a stream of its own, until that meets the pipe's.
    CatchingUp,
    /// No longer replicated; the target stays as it is.
    Removed,
}

/// What happens to a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableEvent {
    /// Its partitions are known.
    Planned,
    /// The checkpoint has passed its load's end place.
    Loaded,
    /// A definite error of this table.
    Quarantine(Failure),
    /// A person asks to go on from the table's own place.
    Retry,
    /// Its own stream has arrived at the pipe's checkpoint.
    Met,
    /// The same, and its load goes on where it broke off.
    MetLoading,
    /// A person asks to load it again.
    Resync,
    /// A person takes it out of the pipe.
    Remove,
    /// A person takes it in again.
    Add,
}

impl TableState {
    /// The state after `event`; every change of a table's state goes through here.
    ///
    /// # Errors
    /// `IllegalCommand`, naming the state, where the event has no place.
    pub fn apply(self, event: TableEvent) -> Result<TableState> {
        use TableEvent as E;
        use TableState as S;
        match (self, event) {
            (S::Pending, E::Planned) => Ok(S::Snapshotting),
            (S::Pending | S::Snapshotting, E::Loaded) | (S::CatchingUp, E::Met) => Ok(S::Streaming),
            (
                S::Pending | S::Snapshotting | S::Streaming | S::CatchingUp,
                E::Quarantine(failure),
            ) => Ok(S::Quarantined(failure)),
            (S::Quarantined(_), E::Retry) => Ok(S::CatchingUp),
            (
                S::Pending | S::Snapshotting | S::Streaming | S::Quarantined(_) | S::CatchingUp,
                E::Resync,
            )
            | (S::CatchingUp, E::MetLoading)
            | (S::Removed, E::Add) => Ok(S::Pending),
            (
                S::Pending
                | S::Snapshotting
                | S::Streaming
                | S::Quarantined(_)
                | S::CatchingUp
                | S::Removed,
                E::Remove,
            ) => Ok(S::Removed),
            // What is already so succeeds without effect.
            (state @ S::Snapshotting, E::Planned)
            | (state @ (S::Streaming | S::CatchingUp), E::Retry) => Ok(state),
            (
                state @ (S::Pending
                | S::Snapshotting
                | S::Streaming
                | S::Quarantined(_)
                | S::CatchingUp
                | S::Removed),
                event,
            ) => Err(Error::new(
                ErrorKind::IllegalCommand,
                format!(
                    "a table that is {} cannot take `{}`",
                    state.name(),
                    event.name()
                ),
            )),
        }
    }

    /// The state's name as users know it.
    pub fn name(&self) -> &'static str {
        match self {
            TableState::Pending => "Pending",
            TableState::Snapshotting => "Snapshotting",
            TableState::Streaming => "Streaming",
            TableState::Quarantined(_) => "Quarantined",
            TableState::CatchingUp => "CatchingUp",
            TableState::Removed => "Removed",
        }
    }

    /// Whether the pipe's own stream carries the table.
    pub fn is_in_stream(&self) -> bool {
        match self {
            TableState::Pending | TableState::Snapshotting | TableState::Streaming => true,
            TableState::Quarantined(_) | TableState::CatchingUp | TableState::Removed => false,
        }
    }

    /// Whether a stream carries it, the pipe's or its own.
    pub fn is_in_service(&self) -> bool {
        self.is_in_stream() || *self == TableState::CatchingUp
    }

    /// Whether its load is not over.
    pub fn is_loading(&self) -> bool {
        matches!(self, TableState::Pending | TableState::Snapshotting)
    }
}

impl TableEvent {
    /// The event's name, as the diagram has it.
    pub fn name(&self) -> &'static str {
        match self {
            TableEvent::Planned => "Planned",
            TableEvent::Loaded => "Loaded",
            TableEvent::Quarantine(_) => "Quarantine",
            TableEvent::Retry => "Retry",
            TableEvent::Met => "Met",
            TableEvent::MetLoading => "MetLoading",
            TableEvent::Resync => "Resync",
            TableEvent::Remove => "Remove",
            TableEvent::Add => "Add",
        }
    }
}
