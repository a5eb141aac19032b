//! How the process ends: the one table of exit codes.

use std::process::ExitCode;

use crate::error::ErrorKind;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// Done, or drained on request.
    Done = 0,
    /// A pipe failed, or a server refused what was asked of it.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// `plan --detailed-exitcode` has found changes.
    Changes = 3,
    /// A server is unavailable; the same command may work later.
    Unavailable = 69,
    /// A pipe file is wrong; nothing was touched.
    Config = 78,
    /// A second signal: ended at once. The next start goes on from the last checkpoint.
    Interrupted = 130,
}

impl Exit {
    /// How a process ends over an error of `kind`.
    pub(super) fn over(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Config => Exit::Config,
            ErrorKind::SourceUnavailable | ErrorKind::DestinationUnavailable => Exit::Unavailable,
            ErrorKind::Stopped => Exit::Done,
            ErrorKind::SourceDenied
            | ErrorKind::SourceSetting
            | ErrorKind::SourceIdTaken
            | ErrorKind::SourceMissing
            | ErrorKind::PositionPurged
            | ErrorKind::SourceDiverged
            | ErrorKind::SourceCorrupt
            | ErrorKind::Unsupported
            | ErrorKind::SchemaConflict
            | ErrorKind::DestinationDenied
            | ErrorKind::DestinationRejected
            | ErrorKind::DestinationOccupied
            | ErrorKind::DestinationLost
            | ErrorKind::PluginRefused
            | ErrorKind::PluginStart
            | ErrorKind::PluginTrap
            | ErrorKind::PluginTimeout
            | ErrorKind::PluginMemory
            | ErrorKind::PluginOutput
            | ErrorKind::PluginOutputSize
            | ErrorKind::PluginSchema
            | ErrorKind::PluginRowCount
            | ErrorKind::PluginKey
            | ErrorKind::PluginLog
            | ErrorKind::PluginCutDependent
            | ErrorKind::PluginHoldsUp
            | ErrorKind::PluginRejected
            | ErrorKind::LagBeyondObjective
            | ErrorKind::RetentionBelowObjective
            | ErrorKind::ReplicaStopped
            | ErrorKind::State
            | ErrorKind::Busy
            | ErrorKind::UnknownPipe
            | ErrorKind::IllegalCommand
            | ErrorKind::Internal => Exit::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}
