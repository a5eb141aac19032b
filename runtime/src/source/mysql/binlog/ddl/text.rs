//! What of an event's text is the statement.

use super::tokens::Token;
use crate::source::mysql::binlog::event::Query;
use crate::source::mysql::decode::{Charset, charset_of_collation};

/// Statements are logged in the client's charset, where a quote or backslash may be a part of a character; none for one
/// that is UTF-8, or is no text in the client's charset.
pub(super) fn in_utf8(query: &Query<'_>) -> Option<String> {
    let charset = Charset::named(charset_of_collation(query.client_collation.into())?)?;
    match charset {
        Charset::Utf8 => None,
        charset => charset.text(query.text),
    }
}

/// MariaDB's `SET STATEMENT a = b, ... FOR statement` is the statement (pitfall 88).
pub(super) fn without_set_statement(tokens: &[Token]) -> &[Token] {
    match tokens {
        [set, statement, rest @ ..] if set.is("SET") && statement.is("STATEMENT") => rest
            .iter()
            .position(|token| token.is("FOR"))
            .and_then(|index| rest.get(index + 1..))
            .unwrap_or_default(),
        _ => tokens,
    }
}
