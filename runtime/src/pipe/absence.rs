//! What becomes of a pipe whose file is gone from a folder that is watched.

use tokio::sync::oneshot;

use super::Handle;
use super::command::Command;
use super::lifecycle::{PipeEvent, PipeState};
use super::supervisor::Request;

/// What becomes of a pipe whose file is gone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Absence {
    /// It is paused for that, and only for that.
    Pauses,
    /// It is not at work anyway: a person paused it, or it has failed or is done.
    Rests,
    /// It goes on until its state takes a pause.
    Waits,
}

impl Absence {
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Absence::Pauses => {
                "put the file back to resume the pipe, or drop the pipe: pipewright drop"
            }
            Absence::Rests => "put the file back, or drop the pipe: pipewright drop",
            Absence::Waits => {
                "put the file back, or the pipe is paused as soon as its state allows; or drop the pipe: pipewright drop"
            }
        }
    }
}

/// Pauses the pipe for that, as far as its state allows.
pub(super) async fn pause(handle: &Handle) -> Absence {
    let records = handle.pipe.store.records();
    let of_file = records.applied.as_ref().is_some_and(|applied| applied.gone);
    match records.state() {
        PipeState::Pausing { .. } | PipeState::Paused { .. } if of_file => return Absence::Pauses,
        PipeState::Pausing { .. }
        | PipeState::Paused { .. }
        | PipeState::Completed
        | PipeState::Failed { .. } => return Absence::Rests,
        // Asked in vain twice a second, the history would be full of it.
        state if state.clone().apply(PipeEvent::Pause).is_err() => return Absence::Waits,
        _ => {}
    }
    let (answer, answered) = oneshot::channel();
    let command = Command::PauseWithoutFile;
    let request = Request { command, answer };
    if handle.commands.send(request).await.is_err() {
        return Absence::Rests;
    }
    if !matches!(answered.await, Ok(Ok(()))) {
        return Absence::Waits;
    }
    let records = handle.pipe.store.records();
    match &records.applied {
        Some(applied) if applied.gone => Absence::Pauses,
        _ => Absence::Rests,
    }
}
