//! The tables behind one of the engine MERGE, as the server prints it: what is written into it is theirs.

use super::tokens::{Quoting, Token, tokens};
use crate::batch::TableName;

/// The tables that a table of `database` has in its UNION, by what SHOW CREATE TABLE prints or by its own statement.
pub fn merged(database: &str, text: &str) -> Vec<TableName> {
    let tokens = tokens(text.as_bytes(), Quoting::default()).unwrap_or_default();
    // Options stand behind the columns.
    let union = tokens.iter().rposition(|token| token.is("UNION"));
    let behind = union.and_then(|union| tokens.get(union + 1..));
    let list = match behind {
        Some(
            [Token::Mark(b'='), Token::Mark(b'('), list @ ..] | [Token::Mark(b'('), list @ ..],
        ) => list,
        _ => &[],
    };
    let end = list.iter().position(|token| *token == Token::Mark(b')'));
    let list = end.and_then(|end| list.get(..end)).unwrap_or_default();
    let name = |token: &Token| String::from_utf8(token.name()?.to_vec()).ok();
    let tables = list.split(|token| *token == Token::Mark(b','));
    let tables = tables.map(|table| match table {
        [of, Token::Mark(b'.'), table] => Some(TableName::new(name(of)?, name(table)?)),
        [table] => Some(TableName::new(database, name(table)?)),
        _ => None,
    });
    // What else stands in parentheses behind the word is a SELECT.
    tables.collect::<Option<_>>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_a_union_are_found_in_their_databases() {
        let text = "CREATE TABLE `m` (\n  `UNION` int(11) COMMENT 'UNION=(`z`)'\n) ENGINE=MRG_MyISAM DEFAULT \
             CHARSET=utf8mb4 INSERT_METHOD=LAST UNION=(`a``b`,`other`.`c`)";
        let expected = [TableName::new("d", "a`b"), TableName::new("other", "c")];
        assert_eq!(merged("d", text), expected);
        assert!(merged("d", "CREATE TABLE `t` (`a` int) ENGINE=InnoDB").is_empty());
        let selected = "CREATE TABLE t SELECT 1 UNION (SELECT a, b FROM c)";
        assert!(merged("d", selected).is_empty());
    }
}
