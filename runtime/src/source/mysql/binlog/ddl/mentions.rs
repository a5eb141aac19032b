//! The names in the text of a view, a trigger or a routine.

use std::collections::BTreeSet;

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

/// Whatever may be the name of a table or a routine: each word in `database`, and pairs around a dot. Numbers are none.
pub(super) fn names(database: &str, tokens: &[Token]) -> BTreeSet<TableName> {
    let name = |token: &Token| match token {
        Token::Word(word) if word.iter().all(u8::is_ascii_digit) => None,
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
}
