//! Which command has a place in which state, and what is said where it has none.

use super::command::Command;
use super::lifecycle::{PipeEvent, PipeState};
use crate::error::{Error, ErrorKind};

impl Command {
    /// What the command does to the lifecycle of a pipe in this state; none for one that any state takes, or that has
    /// rules of its own. [`PipeState::apply`] says whether the event has a place there.
    pub fn event(&self, state: &PipeState) -> Option<PipeEvent> {
        match self {
            Command::Start => Some(match state {
                PipeState::Failed { .. } | PipeState::Provisioning | PipeState::Setup => {
                    PipeEvent::Start
                }
                PipeState::Snapshot
                | PipeState::Resync
                | PipeState::Running
                | PipeState::Degraded
                | PipeState::Pausing { .. }
                | PipeState::Paused { .. }
                | PipeState::Modifying { .. }
                | PipeState::Completed => PipeEvent::Resume,
            }),
            Command::Pause | Command::PauseWithoutFile => Some(PipeEvent::Pause),
            Command::Resume => Some(PipeEvent::Resume),
            Command::Resync { .. } => Some(PipeEvent::Resync),
            // A stream asks for it, and nobody once the stream has ended.
            Command::FollowStatement { .. } => Some(PipeEvent::Reload),
            Command::AddTables { .. }
            | Command::TakeIn { .. }
            | Command::FollowNewTables
            | Command::RemoveTables { .. }
            | Command::Exclude { .. } => Some(PipeEvent::Modify),
            Command::Retry { .. }
            | Command::Skip { .. }
            | Command::Configure { .. }
            | Command::Connect { .. }
            | Command::Drop => None,
        }
    }

    /// The command as people give it.
    fn verb(&self) -> &'static str {
        match self {
            Command::Start => "start",
            Command::Pause | Command::PauseWithoutFile => "pause",
            Command::Resume => "resume",
            Command::Resync { .. } => "resync",
            Command::Retry { .. } => "retry",
            Command::Skip { .. } => "skip",
            Command::AddTables { .. } | Command::TakeIn { .. } | Command::FollowNewTables => {
                "tables add"
            }
            Command::FollowStatement { .. } => "follow a statement",
            Command::RemoveTables { .. } => "tables remove",
            Command::Exclude { .. } | Command::Configure { .. } | Command::Connect { .. } => "set",
            Command::Drop => "drop",
        }
    }

    /// A refusal in the words of who gave the command, where it is the pipe's state that does not take it.
    pub(super) fn explain(&self, refusal: Error, state: &PipeState) -> Error {
        let event = self.event(state);
        let no_place = event.is_some_and(|event| state.clone().apply(event).is_err());
        if refusal.kind() != ErrorKind::IllegalCommand || !no_place {
            return refusal;
        }
        let message = format!("a pipe that is {state} cannot take `{}`", self.verb());
        Error::new(ErrorKind::IllegalCommand, message).with_hint(remedy(state))
    }
}

/// What leads out of a state that does not take a command.
fn remedy(state: &PipeState) -> &'static str {
    match state {
        PipeState::Provisioning | PipeState::Setup => {
            "wait until the pipe is set up; `pipewright status PIPE` says what keeps it from that"
        }
        PipeState::Snapshot | PipeState::Running | PipeState::Degraded => {
            "the pipe is at work; `pipewright status PIPE` shows it"
        }
        PipeState::Resync => {
            "wait until the freshly loaded tables are exchanged, and ask again; `pipewright status PIPE` shows it"
        }
        PipeState::Modifying { .. } => {
            "wait until the change of tables is made, and ask again; `pipewright status PIPE` shows it"
        }
        PipeState::Pausing { .. } | PipeState::Paused { .. } => {
            "let it go on first: pipewright resume PIPE"
        }
        PipeState::Completed => "everything is copied; to load it again: pipewright resync PIPE",
        PipeState::Failed { .. } => {
            "mend what its reason names, then `pipewright start PIPE`; or load it again: pipewright resync PIPE"
        }
    }
}

#[cfg(test)]
#[path = "legal_tests.rs"]
mod tests;
