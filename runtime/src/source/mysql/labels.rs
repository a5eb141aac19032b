//! The labels of ENUM and SET columns.
//!
//! information_schema prints them as three-byte UTF-8, with `?` for every character outside of it, and so does SHOW
//! CREATE TABLE, on both servers; table maps tell them only where `binlog_row_metadata` is FULL. But the server will
//! convert a number into a column's type: the columns of a recursive CTE have the types of its first SELECT, which is
//! one NULL of the column's type here, and take what the second one gives, which is numbers. So labels outside of
//! printable ASCII are read in the column's own charset and decoded like its rows, and nothing but the right to SELECT
//! is needed.

use std::collections::{HashMap, HashSet};

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use super::Flavor;
use super::catalog::SourceColumn;
use super::connection::query_error;
use super::decode::Charset;
use super::sql::{quote_identifier, quote_table};
use crate::batch::TableName;
use crate::error::Result;

/// As many members as a SET may have.
const SET_MEMBERS_MAX: usize = 64;

/// Reads again, from the server's own storage, what information_schema may have changed of labels. A column whose
/// labels cannot be had exactly is left without.
///
/// # Errors
/// As [`query_error`] says.
pub(super) async fn complete_labels(
    conn: &mut Conn,
    flavor: Flavor,
    tables: &mut HashMap<TableName, Vec<SourceColumn>>,
) -> Result<()> {
    let mut prepared = false;
    for (table, columns) in tables {
        for column in columns {
            if column.labels.iter().all(|label| is_certain(label)) {
                continue;
            }
            if !prepared {
                conn.query_drop(allow_depth(flavor))
                    .await
                    .map_err(query_error)?;
                prepared = true;
            }
            column.labels = read_labels(conn, flavor, table, column)
                .await?
                .unwrap_or_default();
        }
    }
    Ok(())
}

/// Printable ASCII is the same in every charset, but for the question mark, which may stand for anything.
fn is_certain(label: &str) -> bool {
    label
        .bytes()
        .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'?')
}

/// An ENUM has up to 65,535 labels; both servers stop at 1,000 rounds by default, MariaDB without a word.
fn allow_depth(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::MySql => "SET SESSION cte_max_recursion_depth = 65536",
        Flavor::MariaDb => "SET SESSION max_recursive_iterations = 65536",
    }
}

async fn read_labels(
    conn: &mut Conn,
    flavor: Flavor,
    table: &TableName,
    column: &SourceColumn,
) -> Result<Option<Vec<String>>> {
    let Some(charset) = Charset::named(column.charset.as_deref().unwrap_or("binary")) else {
        return Ok(None);
    };
    let count = column.labels.len();
    let digits: Vec<Option<String>> = match (column.data_type.as_str(), flavor) {
        ("enum", _) => {
            let sql = recursive(table, &column.name, "number + 1", count);
            conn.query(sql).await.map_err(query_error)?
        }
        ("set", _) if count > SET_MEMBERS_MAX => return Ok(None),
        ("set", Flavor::MySql) => {
            let sql = recursive(table, &column.name, "1 << number", count);
            conn.query(sql).await.map_err(query_error)?
        }
        ("set", Flavor::MariaDb) => {
            let sql = compound(table, &column.name, count);
            let joined: Option<String> = conn.query_first(sql).await.map_err(query_error)?;
            let joined = joined.unwrap_or_default();
            let each = joined.split_terminator(',');
            each.map(|digits| Some(digits.to_owned())).collect()
        }
        _ => return Ok(None),
    };
    let labels: Option<Vec<String>> = digits
        .into_iter()
        .map(|digits| charset.text(&unhexed(&digits?)?))
        .collect();
    // Two labels of one text, in two codings, could not be told apart.
    let distinct = |labels: &Vec<String>| labels.iter().collect::<HashSet<_>>().len() == count;
    Ok(labels.filter(|labels| labels.len() == count && distinct(labels)))
}

/// The label of each number, one a row.
fn recursive(table: &TableName, column: &str, value: &str, count: usize) -> String {
    format!(
        "WITH RECURSIVE labels AS (\
         SELECT t.{column} AS label, CAST(0 AS UNSIGNED) AS number FROM (SELECT 1 AS one) AS d \
         LEFT JOIN {table} AS t ON FALSE \
         UNION ALL SELECT {value}, number + 1 FROM labels WHERE number < {count}) \
         SELECT HEX(label) FROM labels WHERE number > 0 ORDER BY number",
        column = quote_identifier(column),
        table = quote_table(table),
    )
}

/// The label of each bit, joined. MariaDB gives a recursive CTE's SET eight bits and no more (seen on 10.11 and 11.8),
/// but knows variables of a column's type outside of routines.
fn compound(table: &TableName, column: &str, count: usize) -> String {
    format!(
        "BEGIN NOT ATOMIC \
         DECLARE label TYPE OF {table}.{column}; \
         DECLARE number INT DEFAULT 0; \
         DECLARE labels LONGTEXT CHARACTER SET ascii DEFAULT ''; \
         WHILE number < {count} DO \
         SET label = 1 << number; SET labels = CONCAT(labels, HEX(label), ','); SET number = number + 1; \
         END WHILE; \
         SELECT labels; \
         END",
        column = quote_identifier(column),
        table = quote_table(table),
    )
}

fn unhexed(digits: &str) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else {
        return None;
    };
    pairs
        .iter()
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// The labels in the COLUMN_TYPE of an ENUM or SET: quoted, with quotes doubled, and backslash, NUL and line breaks
/// behind a backslash, whatever the SQL mode (pitfall 14).
pub(super) fn parse_labels(column_type: &str) -> Option<Vec<String>> {
    let (_, list) = column_type.split_once('(')?;
    let mut characters = list.chars().peekable();
    let mut labels = vec![];
    loop {
        if characters.next()? != '\'' {
            return None;
        }
        let mut label = String::new();
        loop {
            match characters.next()? {
                '\'' if characters.peek() == Some(&'\'') => {
                    characters.next();
                    label.push('\'');
                }
                '\'' => break,
                '\\' => label.push(match characters.next()? {
                    'n' => '\n',
                    'r' => '\r',
                    '0' => '\0',
                    other => other,
                }),
                other => label.push(other),
            }
        }
        labels.push(label);
        match characters.next()? {
            ',' => {}
            ')' => return Some(labels),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(column_type: &str) -> Option<Vec<String>> {
        parse_labels(column_type)
    }

    fn owned(labels: &[&str]) -> Vec<String> {
        labels.iter().map(|label| (*label).to_owned()).collect()
    }

    #[test]
    fn labels_are_read_as_both_servers_print_them() {
        assert_eq!(
            labels(r#"enum('a,b','it''s','(x)','ba\\ck','n\nl','t	b','é','','q"q')"#),
            Some(owned(&[
                "a,b", "it's", "(x)", r"ba\ck", "n\nl", "t\tb", "é", "", "q\"q"
            ]))
        );
        assert_eq!(
            labels("set('x''y',')z','ü')"),
            Some(owned(&["x'y", ")z", "ü"]))
        );
        assert_eq!(labels(r"enum('\0z','\r')"), Some(owned(&["\0z", "\r"])));
        for broken in [
            "enum",
            "enum(",
            "enum('a'",
            "enum('a",
            "enum('a' 'b')",
            "enum(a)",
            "enum()",
        ] {
            assert_eq!(labels(broken), None, "{broken}");
        }
    }

    #[test]
    fn only_printable_ascii_without_a_question_mark_is_taken_as_printed() {
        assert!(is_certain("it's, \\ plain"));
        for doubtful in ["a?", "é", "tab\t", "\u{1f600}"] {
            assert!(!is_certain(doubtful), "{doubtful}");
        }
    }

    #[test]
    fn hexadecimal_digits_become_bytes() {
        assert_eq!(unhexed("00fF"), Some(vec![0, 0xff]));
        assert_eq!(unhexed(""), Some(vec![]));
        assert_eq!(unhexed("0"), None);
        assert_eq!(unhexed("0g"), None);
    }
}
