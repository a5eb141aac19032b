//! Why bytes of the source are not a value.

use crate::error::{Error, ErrorKind};

/// Why bytes of the source are not a value. No cell's content is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The row ends inside a value.
    #[error("the row ends inside a value")]
    Truncated,
    /// Bytes follow the row's last value.
    #[error("bytes follow the row's last value")]
    TrailingBytes,
    /// A packet that should be a row does not begin as one.
    #[error("the packet is no row")]
    NotARow,
    /// A length that the value cannot have.
    #[error("a value has an impossible length")]
    BadLength,
    /// A value of several parts, such as a DECIMAL, a time or a geometry, one of which cannot be.
    #[error("a value has an impossible part: {0}")]
    BadValue(&'static str),
    /// A JSON document that contradicts itself.
    #[error("a binary JSON document is broken: {0}")]
    BadJson(&'static str),
    /// A geometry that is none. MariaDB stores such values when they are written as bytes.
    #[error("a geometry is broken: {0}")]
    BadGeometry(&'static str),
    /// A wire type that this build does not know.
    #[error("the row image holds values of the unknown wire type {0}")]
    UnknownWireType(u8),
    /// A wire type that is not the recorded column's.
    #[error("the row image holds values of wire type {0}, which the recorded column cannot have")]
    Mismatch(u8),
    /// An ENUM index or SET bit without a label.
    #[error("a value names a label that the recorded column does not have")]
    UnknownLabel,
    /// A key that the destination could not tell from another one: see [`Charset::decode_key`](super::Charset).
    #[error(
        "a key holds a character in a coding that is not the server's own, so it could be taken for another key"
    )]
    AmbiguousKey,
    /// An ENUM or SET of a key without a label, or with none but '', where the column declares that label.
    #[error(
        "a row's key holds a value that reads as the empty label, as another key does: '' is a label of the column, and is \
         also what a value without a label reads as"
    )]
    AmbiguousLabel,
    /// An ENUM or SET of a key with a label that the column declares twice.
    #[error(
        "a row's key holds a label that the column declares twice, so that it reads as another key does"
    )]
    RepeatedLabel,
    /// NULL in a column that the recorded schema declares NOT NULL.
    #[error("a value is NULL in a column that is recorded as NOT NULL")]
    UnexpectedNull,
    /// The image has another number of columns than the recorded table.
    #[error("the row image has {found} columns, the recorded table {recorded}")]
    ColumnCount {
        /// Columns of the event's table map.
        found: usize,
        /// Columns of the recorded schema.
        recorded: usize,
    },
    /// The image leaves out an included column (`binlog_row_image` other than FULL).
    #[error("the row image leaves out a replicated column")]
    AbsentColumn,
    /// The image leaves out a generated column, which it may do whatever `binlog_row_image` is.
    #[error("the row image leaves out a generated column")]
    AbsentGenerated,
    /// A zero, partial or impossible date in a column of the key.
    #[error(
        "a row's key holds a zero, partial or impossible date, and any date in its place could be another row's key"
    )]
    ImpossibleKeyDate,
    /// The column's bytes of one batch pass the 2 GiB that its offsets can address.
    #[error("a batch holds more than 2 GiB of one column")]
    ColumnFull,
}

impl DecodeError {
    /// The same as an error that tells which column it is of.
    pub fn of_column(self, column: &str) -> Error {
        let outer = Error::new(self.kind(), format!("column {column}: {self}"));
        match self.hint() {
            Some(hint) => outer.with_hint(hint),
            None => outer,
        }
    }

    fn kind(self) -> ErrorKind {
        match self {
            DecodeError::Truncated
            | DecodeError::TrailingBytes
            | DecodeError::NotARow
            | DecodeError::BadLength
            | DecodeError::BadValue(_)
            | DecodeError::BadJson(_) => ErrorKind::SourceCorrupt,
            DecodeError::Mismatch(_)
            | DecodeError::UnknownLabel
            | DecodeError::UnexpectedNull
            | DecodeError::ColumnCount { .. } => ErrorKind::SchemaConflict,
            DecodeError::BadGeometry(_)
            | DecodeError::UnknownWireType(_)
            | DecodeError::AbsentGenerated
            | DecodeError::AmbiguousKey
            | DecodeError::AmbiguousLabel
            | DecodeError::RepeatedLabel
            | DecodeError::ImpossibleKeyDate => ErrorKind::Unsupported,
            DecodeError::AbsentColumn => ErrorKind::SourceSetting,
            // The callers flush long before; a single value is at most 1 GiB.
            DecodeError::ColumnFull => ErrorKind::Internal,
        }
    }

    fn hint(self) -> Option<&'static str> {
        match self {
            DecodeError::Mismatch(_)
            | DecodeError::UnknownLabel
            | DecodeError::UnexpectedNull
            | DecodeError::ColumnCount { .. } => Some(
                "the table's definition changed between our reading it and this row: load the table anew",
            ),
            DecodeError::AbsentColumn => Some(
                "SET GLOBAL binlog_row_image = 'FULL', reconnect the writing sessions, and load the table anew",
            ),
            DecodeError::BadGeometry(_) => Some(
                "mend the value at the source, or name the column in this table's `exclude_columns`",
            ),
            DecodeError::AmbiguousLabel => Some(
                "give such rows a label that is not empty, at the source; or rename the label '' of the column: \
                 ALTER TABLE ... MODIFY; then load the table anew",
            ),
            DecodeError::RepeatedLabel => Some(
                "give the column labels that differ: ALTER TABLE ... MODIFY; then load the table anew",
            ),
            DecodeError::ImpossibleKeyDate => Some(
                "correct the rows at the source; or, where the column is a DATE or DATETIME, choose \
                 `date_range: string` for it below `columns`, which keeps every date as its own text",
            ),
            DecodeError::AbsentGenerated => {
                Some("name the column in this table's `exclude_columns`")
            }
            // How long the column's values are is unknown, so none behind it can be read: leaving it out does not help.
            DecodeError::UnknownWireType(_) => Some(
                "change the column's type at the source, or take the table out: `pipewright tables remove`; a newer release \
                 may know the type",
            ),
            DecodeError::Truncated
            | DecodeError::TrailingBytes
            | DecodeError::NotARow
            | DecodeError::BadLength
            | DecodeError::BadValue(_)
            | DecodeError::BadJson(_) => Some(
                "load the table anew; where it comes again so, name the column in its `exclude_columns`, and report it with \
                 the server's version and the column's type",
            ),
            DecodeError::AmbiguousKey => Some(
                "write the column's keys anew as the server codes them: UPDATE ... SET c = CONVERT(c USING utf8mb4); \
                 then load the table anew",
            ),
            DecodeError::ColumnFull => None,
        }
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        let outer = Error::new(error.kind(), error.to_string());
        match error.hint() {
            Some(hint) => outer.with_hint(hint),
            None => outer,
        }
    }
}
