//! The foreign keys of a CREATE TABLE, as the server prints it: what cascades from which table.

use super::tokens::{Quoting, Token, tokens};
use crate::batch::TableName;

/// A foreign key whose rows the storage engine changes by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cascade {
    /// The table that the rows refer to.
    pub parent: TableName,
    /// Rows follow a DELETE there.
    pub on_delete: bool,
    /// Rows follow an UPDATE there.
    pub on_update: bool,
}

/// The cascading foreign keys of what SHOW CREATE TABLE prints for a table of `database`.
pub fn cascades(database: &str, text: &str) -> Vec<Cascade> {
    let tokens = tokens(text.as_bytes(), Quoting::default()).unwrap_or_default();
    let mut found = Vec::new();
    let mut rest = tokens.as_slice();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if first.is("REFERENCES")
            && let Some(cascade) = cascade(database, behind)
        {
            found.push(cascade);
        }
    }
    found
}

/// What follows REFERENCES; none where nothing cascades.
fn cascade(database: &str, tokens: &[Token]) -> Option<Cascade> {
    let name = |token: &Token| String::from_utf8(token.name()?.to_vec()).ok();
    let (parent, rest) = match tokens {
        [of, Token::Mark(b'.'), table, rest @ ..] => {
            (TableName::new(name(of)?, name(table)?), rest)
        }
        [table, rest @ ..] => (TableName::new(database, name(table)?), rest),
        [] => return None,
    };
    // Without a list of columns it refers to the parent's key.
    let rest = match rest.first() {
        Some(Token::Mark(b'(')) => {
            let close = rest.iter().position(|token| *token == Token::Mark(b')'))?;
            rest.get(close + 1..)?
        }
        _ => rest,
    };
    let is_end = |token: &Token| matches!(token, Token::Mark(b',' | b'(' | b')'));
    let end = rest.iter().position(is_end).unwrap_or(rest.len());
    let own = rest.get(..end)?;
    let follows = |event: &str| {
        own.windows(3).any(|words| match words {
            [on, of, what] => on.is("ON") && of.is(event) && (what.is("CASCADE") || what.is("SET")),
            _ => false,
        })
    };
    let (on_delete, on_update) = (follows("DELETE"), follows("UPDATE"));
    (on_delete || on_update).then_some(Cascade {
        parent,
        on_delete,
        on_update,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// pitfall 99
    #[test]
    fn cascading_keys_are_found_and_others_are_not() {
        let text = "CREATE TABLE `c` (\n  `id` int(11) NOT NULL COMMENT 'REFERENCES x ON DELETE CASCADE',\n  \
             `p` int, `q` int,\n  PRIMARY KEY (`id`),\n  \
             CONSTRAINT `one` FOREIGN KEY (`p`, `q`) REFERENCES `the ``parent` (`a`, `b`) ON DELETE CASCADE,\n  \
             CONSTRAINT `two` FOREIGN KEY (`q`) REFERENCES `other`.`t` (`id`) ON DELETE NO ACTION ON UPDATE SET NULL,\n  \
             CONSTRAINT `three` FOREIGN KEY (`q`) REFERENCES `r` (`id`),\n  \
             CONSTRAINT `four` FOREIGN KEY (`q`) REFERENCES `s` (`id`) ON DELETE CASCADE ON UPDATE CASCADE\n) ENGINE=InnoDB";
        let cascade = |database: &str, table: &str, on_delete, on_update| Cascade {
            parent: TableName::new(database, table),
            on_delete,
            on_update,
        };
        assert_eq!(
            cascades("d", text),
            [
                cascade("d", "the `parent", true, false),
                cascade("other", "t", false, true),
                cascade("d", "s", true, true),
            ]
        );
    }
    #[test]
    fn a_reference_needs_no_list_of_columns() {
        let text = "CREATE TABLE c (p INT REFERENCES parent ON DELETE CASCADE, q INT REFERENCES other, \
             r INT CHECK (r > 0), s INT REFERENCES d2.last MATCH FULL ON UPDATE SET NULL)";
        let cascade = |database: &str, table: &str, on_delete| Cascade {
            parent: TableName::new(database, table),
            on_delete,
            on_update: !on_delete,
        };
        assert_eq!(
            cascades("d", text),
            [cascade("d", "parent", true), cascade("d2", "last", false)]
        );
    }
}
