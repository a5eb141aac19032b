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
    /// The columns there that the key refers to; none where the text does not tell.
    pub columns: Vec<String>,
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
    let columns = listed(rest);
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
        columns,
    })
}

/// The names in the parentheses that the tokens begin with.
fn listed(tokens: &[Token]) -> Vec<String> {
    let Some((Token::Mark(b'('), list)) = tokens.split_first() else {
        return Vec::new();
    };
    let end = list.iter().position(|token| *token == Token::Mark(b')'));
    let names = list.get(..end.unwrap_or_default()).unwrap_or_default();
    let name = |token: &Token| Some(String::from_utf8_lossy(token.name()?).into_owned());
    names.iter().filter_map(name).collect()
}

/// The columns of what SHOW CREATE TABLE prints, in order: each begins an entry with a quoted name, as no other does.
pub fn column_names(text: &str) -> Vec<String> {
    let tokens = tokens(text.as_bytes(), Quoting::default()).unwrap_or_default();
    let mut depth = 0_usize;
    let mut begins = false;
    let mut names = Vec::new();
    for token in &tokens {
        match token {
            Token::Mark(b'(') => {
                depth += 1;
                begins = depth == 1;
                continue;
            }
            Token::Mark(b')') => depth = depth.saturating_sub(1),
            Token::Mark(b',') => {
                begins = depth == 1;
                continue;
            }
            Token::Name(name) if begins => names.push(String::from_utf8_lossy(name).into_owned()),
            Token::Name(_) | Token::Word(_) | Token::Text(_) | Token::Mark(_) => {}
        }
        begins = false;
    }
    names
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
        let cascade = |(database, table), columns: &[&str], on_delete, on_update| Cascade {
            parent: TableName::new(database, table),
            on_delete,
            on_update,
            columns: columns.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(
            cascades("d", text),
            [
                cascade(("d", "the `parent"), &["a", "b"], true, false),
                cascade(("other", "t"), &["id"], false, true),
                cascade(("d", "s"), &["id"], true, true),
            ]
        );
        let text = text.replace(
            "`p` int, `q` int",
            "`p` decimal(9,2) DEFAULT 0, `a,b` enum('x','`y`)')",
        );
        assert_eq!(column_names(&text), ["id", "p", "a,b"]);
    }

    #[test]
    fn a_reference_needs_no_list_of_columns() {
        let text = "CREATE TABLE c (p INT REFERENCES parent ON DELETE CASCADE, q INT REFERENCES other, \
             r INT CHECK (r > 0), s INT REFERENCES d2.last MATCH FULL ON UPDATE SET NULL)";
        let cascade = |database: &str, table: &str, on_delete| Cascade {
            parent: TableName::new(database, table),
            on_delete,
            on_update: !on_delete,
            columns: Vec::new(),
        };
        assert_eq!(
            cascades("d", text),
            [cascade("d", "parent", true), cascade("d2", "last", false)]
        );
    }
}
