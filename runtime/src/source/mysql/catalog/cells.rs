//! Rows of information_schema, cell by cell.

use mysql_async::{Row, Value};

use crate::error::{Error, ErrorKind, Result};

/// The cells of one row, from the left.
pub(super) struct Cells(Vec<Value>);

impl Cells {
    pub(super) fn of(row: Row) -> Self {
        Self(row.unwrap())
    }

    fn next(&mut self) -> Value {
        if self.0.is_empty() {
            Value::NULL
        } else {
            self.0.remove(0)
        }
    }

    pub(super) fn maybe_text(&mut self) -> Result<Option<String>> {
        match self.next() {
            Value::NULL => Ok(None),
            Value::Bytes(bytes) => String::from_utf8(bytes).map(Some).map_err(|_| odd()),
            _ => Err(odd()),
        }
    }

    pub(super) fn text(&mut self) -> Result<String> {
        self.maybe_text()?.ok_or_else(odd)
    }

    pub(super) fn maybe_number(&mut self) -> Result<Option<u64>> {
        match self.next() {
            Value::NULL => Ok(None),
            Value::Int(number) => u64::try_from(number).map(Some).map_err(|_| odd()),
            Value::UInt(number) => Ok(Some(number)),
            Value::Bytes(bytes) => std::str::from_utf8(&bytes)
                .ok()
                .and_then(|text| text.parse().ok())
                .map(Some)
                .ok_or_else(odd),
            _ => Err(odd()),
        }
    }
}

fn odd() -> Error {
    Error::new(
        ErrorKind::SourceCorrupt,
        "information_schema returned a value of another kind than documented",
    )
}
