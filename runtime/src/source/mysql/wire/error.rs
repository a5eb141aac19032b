//! Errors as the server words them, and their meaning for a pipe.

use std::fmt;

use super::super::connection::{server_error_kind, with_remedy};
use crate::error::{Error, ErrorKind};

/// An ERR packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// The server's number, such as 1146.
    pub code: u16,
    /// Its words.
    pub message: String,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server error {}: {}", self.code, self.message)
    }
}

impl std::error::Error for ServerError {}

impl ServerError {
    /// Reads the payload of an ERR packet. Before the handshake the server leaves the SQL state out.
    pub(super) fn parse(payload: &[u8]) -> ServerError {
        let code = match payload.get(1..3) {
            Some(&[low, high]) => u16::from_le_bytes([low, high]),
            _ => 0,
        };
        let rest = payload.get(3..).unwrap_or_default();
        let message = match rest {
            [b'#', tail @ ..] => tail.get(5..).unwrap_or_default(),
            all => all,
        };
        ServerError {
            code,
            message: String::from_utf8_lossy(message).into_owned(),
        }
    }

    /// The server error underneath, when the server refused a statement.
    pub fn of(error: &Error) -> Option<&ServerError> {
        std::error::Error::source(error).and_then(|source| source.downcast_ref())
    }
}

impl From<ServerError> for Error {
    fn from(error: ServerError) -> Self {
        let kind = server_error_kind(error.code);
        let refused = Error::new(kind, "the source refused a statement");
        with_remedy(refused, error.code).with_source(error)
    }
}

pub(super) fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::SourceCorrupt, message)
}

pub(super) fn unavailable(
    message: impl Into<String>,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::new(ErrorKind::SourceUnavailable, message).with_source(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_packet_gives_code_and_words_with_and_without_sql_state() {
        let with = ServerError::parse(b"\xff\x7a\x04#42S02Table 'a.b' doesn't exist");
        assert_eq!(with.code, 1146);
        assert_eq!(with.message, "Table 'a.b' doesn't exist");
        let without = ServerError::parse(b"\xff\x10\x04Too many connections");
        assert_eq!(without.code, 1040);
        assert_eq!(without.message, "Too many connections");
    }

    #[test]
    fn a_cut_error_packet_is_still_an_error() {
        assert_eq!(ServerError::parse(b"\xff\x10").code, 0);
        assert_eq!(ServerError::parse(b"\xff\x10\x04#42").message, "");
    }
}
