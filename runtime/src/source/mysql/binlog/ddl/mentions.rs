//! The names in a statement and in the text of a view, a trigger or a routine, and what may change such texts.

use std::collections::BTreeSet;

use super::Call;
use super::tokens::{Quoting, Token, tokens};
use crate::batch::TableName;

/// Whatever may be the name of a table or a routine in a text that belongs to `database`; none where the text cannot be
/// read to its end.
pub(in super::super) fn mentions(database: &str, text: &str) -> Option<BTreeSet<TableName>> {
    let mut found = BTreeSet::new();
    // In which mode it was written is not told: what is a string in one is a name in the other.
    for ansi_quotes in [false, true] {
        let quoting = Quoting {
            ansi_quotes,
            ..Quoting::default()
        };
        let tokens = tokens(text.as_bytes(), quoting).ok()?;
        found.extend(names(database, &tokens));
    }
    Some(found)
}

/// 64 characters of utf8mb3, of which names are made.
const NAME_BYTES_MAX: usize = 192;

/// Whether an unquoted word is `12`, `0xAB` or `0b01`, which statements may have by the million. A name may begin with a
/// digit, and `1e5` be one.
fn is_number(word: &[u8]) -> bool {
    let is =
        |digits: &[u8], wanted: fn(&u8) -> bool| !digits.is_empty() && digits.iter().all(wanted);
    match word {
        [b'0', b'x', digits @ ..] => is(digits, u8::is_ascii_hexdigit),
        [b'0', b'b', digits @ ..] => is(digits, |digit| matches!(digit, b'0' | b'1')),
        word => is(word, u8::is_ascii_digit),
    }
}

/// Whatever may be the name of a table or a routine: each word in `database`, and pairs around a dot. Numbers are none.
pub(super) fn names(database: &str, tokens: &[Token]) -> BTreeSet<TableName> {
    let name = |token: &Token| match token {
        Token::Word(word) if is_number(word) => None,
        token if token.name().is_some_and(|name| name.len() > NAME_BYTES_MAX) => None,
        token => Some(String::from_utf8_lossy(token.name()?).into_owned()),
    };
    let single = tokens.iter().filter_map(name);
    let single = single.map(|name| TableName::new(database, name));
    let pairs = tokens.windows(3).filter_map(|three| match three {
        [of, Token::Mark(b'.'), table] => Some(TableName::new(name(of)?, name(table)?)),
        _ => None,
    });
    single.chain(pairs).collect()
}

/// Whether views, triggers and routines, the tables that they stand on or who sees them may be others behind it.
/// Applications make temporary tables all the time, which have none of these.
pub(super) fn changes_objects(statement: &[Token]) -> bool {
    let kinds = ["CREATE", "ALTER", "DROP", "RENAME", "GRANT", "REVOKE"];
    let (first, rest) = match statement {
        [first, or, replace, rest @ ..] if or.is("OR") && replace.is("REPLACE") => (first, rest),
        [first, rest @ ..] => (first, rest),
        [] => return false,
    };
    let temporary = rest.first().is_some_and(|token| token.is("TEMPORARY"));
    !temporary && kinds.iter().any(|kind| first.is(kind))
}

/// The names in front of a parenthesis, in the database that is named or in the session's.
pub(super) fn calls(database: &[u8], statement: &[Token]) -> Vec<Call> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut found: Vec<Call> = Vec::new();
    for (index, token) in statement.iter().enumerate() {
        if *token != Token::Mark(b'(') {
            continue;
        }
        let call = match statement.get(..index) {
            Some([.., of, Token::Mark(b'.'), name]) => {
                of.name().zip(name.name()).map(|named| (named, true))
            }
            Some([.., name]) => name.name().map(|name| ((database, name), false)),
            _ => None,
        };
        let call = call.map(|((of, name), qualified)| Call {
            name: TableName::new(text(of), text(name)),
            qualified,
        });
        found.extend(call.filter(|call| !found.contains(call)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// pitfall 66
    #[test]
    fn every_name_of_a_body_is_found_in_either_mode_and_no_text() {
        let text = "BEGIN INSERT INTO `a b` VALUES ('c'); UPDATE x.\"d\" SET e = 1; END";
        let found = mentions("shop", text).unwrap();
        for (database, table) in [("shop", "a b"), ("x", "d"), ("shop", "e")] {
            assert!(
                found.contains(&TableName::new(database, table)),
                "{found:?}"
            );
        }
        assert!(!found.iter().any(|name| name.table == "c"), "{found:?}");
        assert_eq!(mentions("shop", "SELECT 'open"), None);
    }

    /// A dump has them by the million.
    #[test]
    fn numbers_and_what_is_too_long_for_one_are_no_names() {
        let long = "a".repeat(200);
        let text = format!("INSERT INTO t VALUES (0xAB12, 0b01, 12, {long}, 1e5, 0xyz)");
        let found = mentions("shop", &text).unwrap();
        let has = |name: &str| found.iter().any(|found| found.table == name);
        assert!(has("t") && has("1e5") && has("0xyz"), "{found:?}");
        assert!(
            !["0xAB12", "0b01", "12", &long].into_iter().any(has),
            "{found:?}"
        );
    }
}
