//! Whether a PARTITION BY expression depends on sorting-key columns alone.
//!
//! Versions never merge across partitions: two versions of a row that lie in different ones would both stay visible.
//! So each column of the expression must be part of the key, which both versions share.

use crate::error::{Error, ErrorKind, Result};

/// Words that are neither columns nor functions.
const KEYWORDS: &[&str] = &[
    "and", "or", "not", "div", "mod", "in", "between", "case", "when", "then", "else", "end",
    "true", "false",
];

/// Refuses an expression that names a column outside of `key`, or that is more than an expression.
///
/// # Errors
/// `Config`, naming the column or the character.
pub(super) fn ensure_key_only(expression: &str, key: &[&str]) -> Result<()> {
    let refuse = |message: String| {
        Err(Error::new(ErrorKind::Config, message).with_hint(format!(
            "write `partition_by` over the columns of `order_by` only ({}), or add the column to `order_by`",
            key.join(", ")
        )))
    };
    let tokens = match tokens(expression) {
        Ok(tokens) => tokens,
        Err(problem) => return refuse(format!("`partition_by` `{expression}` {problem}")),
    };
    let mut named = 0;
    for (index, token) in tokens.iter().enumerate() {
        let name = match token {
            Token::Quoted(name) => name,
            Token::Word(word) => {
                let call = matches!(tokens.get(index + 1), Some(Token::Sign('(')));
                if call || KEYWORDS.contains(&word.to_ascii_lowercase().as_str()) {
                    continue;
                }
                word
            }
            Token::Sign(_) | Token::Literal => continue,
        };
        if !key.contains(&name.as_str()) {
            return refuse(format!(
                "`partition_by` names `{name}`, which is not in `order_by`"
            ));
        }
        named += 1;
    }
    if named == 0 {
        return refuse(format!("`partition_by` `{expression}` names no column"));
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// A column, function or keyword.
    Word(String),
    /// A name in backticks or double quotes: a column.
    Quoted(String),
    /// A number or string.
    Literal,
    /// Anything else.
    Sign(char),
}

fn tokens(text: &str) -> std::result::Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut depth = 0_u32;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            _ if c.is_whitespace() => {}
            '`' | '"' | '\'' => {
                let mut name = String::new();
                loop {
                    match rest.next() {
                        None => return Err("has an open quote"),
                        Some('\\') => return Err("has a backslash"),
                        Some(end) if end == c => break,
                        Some(inner) => name.push(inner),
                    }
                }
                tokens.push(if c == '\'' {
                    Token::Literal
                } else {
                    Token::Quoted(name)
                });
            }
            _ if c.is_alphanumeric() || c == '_' => {
                let mut word = String::from(c);
                while let Some(next) = rest.next_if(|n| n.is_alphanumeric() || *n == '_') {
                    word.push(next);
                }
                tokens.push(if c.is_ascii_digit() {
                    Token::Literal
                } else {
                    Token::Word(word)
                });
            }
            '(' | ')' => {
                depth = if c == '(' {
                    depth + 1
                } else {
                    depth
                        .checked_sub(1)
                        .ok_or("closes a parenthesis too many")?
                };
                tokens.push(Token::Sign(c));
            }
            '-' if rest.peek() == Some(&'-') => return Err("has a comment"),
            '/' if rest.peek() == Some(&'*') => return Err("has a comment"),
            '+' | '-' | '*' | '/' | '%' | ',' | '=' | '<' | '>' | '!' | '.' => {
                tokens.push(Token::Sign(c))
            }
            _ => return Err("has a character that no expression needs"),
        }
    }
    if depth != 0 {
        return Err("leaves a parenthesis open");
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(expression: &str) -> Option<String> {
        ensure_key_only(expression, &["tenant_id", "created", "an id"])
            .err()
            .map(|error| error.message().to_owned())
    }

    #[test]
    fn expressions_over_key_columns_pass() {
        for expression in [
            "tenant_id % 16",
            "toYYYYMM(created)",
            "(toYear(created), intDiv(tenant_id, 1000))",
            "`an id`",
            "tenant_id = 1 and created > '2020-01-01'",
            "case when tenant_id < 10 then 0 else 1.5 end",
        ] {
            assert_eq!(problem(expression), None, "{expression}");
        }
    }

    #[test]
    fn a_column_outside_of_the_key_is_named() {
        let message = problem("toYYYYMM(updated)").expect("refused");
        assert!(message.contains("`updated`"), "{message}");
        assert!(problem("\"Tenant_id\"").is_some(), "case matters");
    }

    #[test]
    fn what_is_more_than_an_expression_is_refused() {
        for expression in [
            "tenant_id; DROP TABLE x",
            "tenant_id) ORDER BY (tenant_id",
            "(tenant_id",
            "tenant_id -- hm",
            "tenant_id /* hm */",
            "'open",
            "1",
            "",
            "rand()",
        ] {
            assert!(problem(expression).is_some(), "{expression}");
        }
    }
}
