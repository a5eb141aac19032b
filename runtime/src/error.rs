//! One error for the whole runtime, and the one place that says what each kind means for a pipe.
//!
//! Three questions are answered once each: what stops (the table, if the error names one, else the pipe), whether the
//! same input would fail again (`ErrorKind::retry`), and what a person does about it (`hint`). Secrets and cell values
//! never enter a message; names of pipes, tables and columns do. What a plugin says of rows may hold their values, so it
//! is kept apart from the message, and shown to whoever may see rows.

use std::fmt;

use crate::batch::TableName;

/// The result of everything that can fail in the runtime.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure with what it concerns and how to mend it.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    table: Option<TableName>,
    hint: Option<String>,
    words: Option<String>,
    others: Vec<Error>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What went wrong, as far as a program needs to know.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The pipe file, or a command line, asks for something that cannot be.
    Config,
    /// The source does not answer, or the connection broke.
    SourceUnavailable,
    /// The source refused the credentials or lacks a grant.
    SourceDenied,
    /// A setting of the source server makes replication wrong or impossible.
    SourceSetting,
    /// Another replica of the source has our number: it ends our stream, and we would end its.
    SourceIdTaken,
    /// A table or column of the pipe file does not exist at the source.
    SourceMissing,
    /// The source no longer has the binlog from our position on.
    PositionPurged,
    /// The source does not contain transactions that we have already applied, or is another server.
    SourceDiverged,
    /// Bytes from the source that break its own protocol: bad checksum, truncated event, impossible length.
    SourceCorrupt,
    /// A type, event or statement that this build cannot replicate exactly.
    Unsupported,
    /// A table's definition and its row events contradict each other.
    SchemaConflict,
    /// ClickHouse does not answer, is overloaded, or a disk is full.
    DestinationUnavailable,
    /// ClickHouse refused the credentials or lacks a grant.
    DestinationDenied,
    /// ClickHouse refused a statement or rows for a reason that will not go away by itself.
    DestinationRejected,
    /// A target table exists, and is not this pipe's own.
    DestinationOccupied,
    /// ClickHouse has lost rows that it had durably acknowledged.
    DestinationLost,
    /// A plugin that cannot be used: not a component, another contract version, forbidden imports, refused configuration.
    PluginRefused,
    /// A plugin that had started before has failed as one more instance of it started: no row is at fault.
    PluginStart,
    /// A plugin trapped.
    PluginTrap,
    /// A plugin used more time than its limit.
    PluginTimeout,
    /// A plugin asked for more memory than its limit.
    PluginMemory,
    /// A plugin returned bytes that are no sound columns, or an answer that its contract does not have.
    PluginOutput,
    /// A plugin returned more bytes or rows than its limit.
    PluginOutputSize,
    /// A plugin returned columns other than those that it was bound with.
    PluginSchema,
    /// A plugin returned another number of rows than it was given, or than it declared.
    PluginRowCount,
    /// A plugin returned rows of no parent, or two rows of one image with one key.
    PluginKey,
    /// A plugin wrote more log bytes in one call than its limit.
    PluginLog,
    /// A plugin failed on rows together and on none of them alone: its result depends on how rows are cut into batches.
    PluginCutDependent,
    /// The search for the rows on which a plugin fails took so much of the time that all tables of the pipe fell behind.
    PluginHoldsUp,
    /// A plugin rejected rows.
    PluginRejected,
    /// The stream is further behind than the pipe file allows; nothing failed.
    LagBeyondObjective,
    /// The source holds what is yet to be read for less time than the pipe file asks; nothing failed.
    RetentionBelowObjective,
    /// The source is a replica that receives or applies nothing, or a former primary; nothing failed here.
    ReplicaStopped,
    /// The state folder cannot be read or written.
    State,
    /// The state folder or the pipe belongs to another process.
    Busy,
    /// No pipe of the process has that name.
    UnknownPipe,
    /// An illegal command for the present state.
    IllegalCommand,
    /// The process is shutting down; nothing went wrong.
    Stopped,
    /// A broken assumption of ours.
    Internal,
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The environment is at fault: try again with exponential back-off, without a state change.
    Backoff,
    /// The same input fails again until a person has mended something.
    AfterOperator,
    /// Nothing is left to try.
    Never,
}

/// What a definite error stops when it names a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// That table alone; the others go on.
    Table,
    /// The whole pipe, although one table was the first to show it.
    Pipe,
}

impl ErrorKind {
    /// The one place that answers "what does it stop?".
    pub fn scope(self) -> Scope {
        match self {
            ErrorKind::Config
            | ErrorKind::SourceSetting
            | ErrorKind::SourceMissing
            | ErrorKind::PositionPurged
            | ErrorKind::SourceCorrupt
            | ErrorKind::Unsupported
            | ErrorKind::SchemaConflict
            | ErrorKind::DestinationRejected
            | ErrorKind::DestinationOccupied
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
            | ErrorKind::Internal => Scope::Table,
            // Credentials and grants are an account's, and the next table would be refused as well.
            ErrorKind::SourceDenied
            | ErrorKind::DestinationDenied
            | ErrorKind::SourceUnavailable
            | ErrorKind::SourceIdTaken
            | ErrorKind::SourceDiverged
            | ErrorKind::DestinationUnavailable
            | ErrorKind::DestinationLost
            | ErrorKind::PluginRefused
            | ErrorKind::LagBeyondObjective
            | ErrorKind::RetentionBelowObjective
            | ErrorKind::ReplicaStopped
            | ErrorKind::State
            | ErrorKind::Busy
            | ErrorKind::UnknownPipe
            | ErrorKind::IllegalCommand
            | ErrorKind::Stopped => Scope::Pipe,
        }
    }

    /// The one place that answers "will it be retried?".
    pub fn retry(self) -> Retry {
        match self {
            // A state that is damaged is told of before any pipe begins; what fails later is the disk.
            ErrorKind::SourceUnavailable | ErrorKind::DestinationUnavailable | ErrorKind::State => {
                Retry::Backoff
            }
            ErrorKind::Config
            | ErrorKind::SourceDenied
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
            | ErrorKind::Busy
            | ErrorKind::UnknownPipe
            | ErrorKind::IllegalCommand => Retry::AfterOperator,
            ErrorKind::Stopped | ErrorKind::Internal => Retry::Never,
        }
    }

    /// Whether a plugin is at fault.
    pub fn is_of_plugin(self) -> bool {
        self.code().starts_with("plugin_")
    }

    /// The stable code that programs see: `source_denied` and the like.
    pub fn code(self) -> String {
        serde_json::to_value(self)
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default()
    }
}

impl Error {
    /// A failure of `kind`; `message` is a lower-case fragment without a full stop, names quoted.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            table: None,
            hint: None,
            words: None,
            others: Vec::new(),
            source: None,
        }))
    }

    /// Adds what a person can do about it: a statement to run, a key to change.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Names the table concerned; an error without one concerns the whole pipe.
    #[must_use]
    pub fn with_table(mut self, table: &TableName) -> Self {
        self.0.table = Some(table.clone());
        self
    }

    /// Keeps what a plugin said, out of message and chain.
    #[must_use]
    pub fn with_words(mut self, words: impl Into<Option<String>>) -> Self {
        self.0.words = words.into();
        self
    }

    /// The same error with a plugin's words in its message: for an author at a terminal, beside the row itself, and where
    /// the plugin has seen no row yet.
    #[must_use]
    pub fn telling(mut self) -> Self {
        if let Some(words) = self.0.words.take() {
            self.0.message = format!("{}: {words}", self.0.message);
        }
        self
    }

    /// Keeps the error underneath, which Display leaves out and the rim prints as a chain.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error for another place that it is met in: what is underneath is kept as one line.
    #[must_use]
    pub fn again(&self) -> Self {
        let mut again = Self::new(self.kind(), self.message()).with_words(self.0.words.clone());
        again.0.table.clone_from(&self.0.table);
        again.0.hint.clone_from(&self.0.hint);
        let under: Vec<String> = self.underneath().collect();
        match under.is_empty() {
            true => again,
            false => again.with_source(under.join(": ")),
        }
    }

    /// What one step has met of several tables: the first error, with the others beside it. None without any.
    pub fn of_each(errors: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut errors = errors.into_iter();
        let mut first = errors.next()?;
        first.0.others.extend(errors);
        Some(first)
    }

    /// This one, and what the same step has met of other tables.
    pub fn each(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.0.others)
    }

    /// What went wrong, as far as a program needs to know.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message without hint or chain.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// What a plugin said, which may hold values of rows.
    pub fn words(&self) -> Option<&str> {
        self.0.words.as_deref()
    }

    /// The table concerned, if it is one table's trouble.
    pub fn table(&self) -> Option<&TableName> {
        self.0.table.as_ref()
    }

    /// Message, table and chain in one line, for logs and terminals. The hint is left to the caller.
    pub fn chain(&self) -> String {
        let texts = std::iter::once(self.to_string()).chain(self.underneath());
        texts.collect::<Vec<_>>().join(": ")
    }

    fn underneath(&self) -> impl Iterator<Item = String> {
        let errors = std::iter::successors(std::error::Error::source(self), |error| error.source());
        errors.map(ToString::to_string)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.table {
            Some(table) => write!(f, "table `{table}`: {}", self.0.message),
            None => f.write_str(&self.0.message),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.chain())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0
            .source
            .as_ref()
            .map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}

/// One thing that preflight found, with the statement that mends it.
#[derive(
    Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Finding {
    /// Whether the pipe may start all the same.
    pub severity: Severity,
    /// The stable name of the check, such as `binlog_format`.
    pub check: String,
    /// What the server has.
    pub found: String,
    /// What the pipe needs.
    pub needed: String,
    /// The exact statement or edit that mends it.
    pub remedy: String,
    /// The error that Setup ends with when this finding refuses the pipe.
    pub kind: ErrorKind,
}

impl Finding {
    /// The finding by which a refusal ends: an end that is away may come back by itself, whatever else is found; else the
    /// first that refuses. None where nothing does.
    pub fn deciding<'a>(findings: impl IntoIterator<Item = &'a Self>) -> Option<&'a Self> {
        let mut first = None;
        for finding in findings {
            if finding.severity != Severity::Error {
                continue;
            }
            if finding.kind.retry() == Retry::Backoff {
                return Some(finding);
            }
            first = first.or(Some(finding));
        }
        first
    }
}

/// Whether a finding stops Setup.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Setup is refused.
    Error,
    /// Setup goes on, and status shows it.
    Warning,
}
