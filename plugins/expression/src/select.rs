//! `SELECT *, expression AS name, ... FROM table WHERE condition`: what `sql` reads around expressions, and the clauses that
//! no transform can have.

use crate::lex::{Token, tokens};
use crate::parse::Parser;
use crate::syntax::{Error, Select, error};

/// Clauses that look at more than one row, as they begin and as they are called.
const REFUSED: [(&str, &str); 21] = [
    ("group", "GROUP"),
    ("having", "HAVING"),
    ("order", "ORDER"),
    ("limit", "LIMIT"),
    ("offset", "OFFSET"),
    ("fetch", "FETCH"),
    ("union", "UNION"),
    ("intersect", "INTERSECT"),
    ("except", "EXCEPT"),
    ("window", "WINDOW"),
    ("qualify", "QUALIFY"),
    ("distinct", "DISTINCT"),
    ("over", "OVER"),
    ("join", "JOIN"),
    ("inner", "JOIN"),
    ("left", "JOIN"),
    ("right", "JOIN"),
    ("full", "JOIN"),
    ("cross", "JOIN"),
    ("natural", "JOIN"),
    ("straight_join", "JOIN"),
];

/// Reads a SELECT over one row.
///
/// # Errors
/// What is wrong, and where; clauses that look at more than one row are refused by name.
pub fn parse_select(text: &str) -> Result<Select, Error> {
    let tokens = tokens(text)?;
    let mut parser = Parser::new(&tokens, text);
    if parser.at_word("with") {
        return parser.looks_further("WITH", parser.place());
    }
    parser.keyword("select")?;
    parser.refuse_clauses()?;
    if !parser.take(&Token::Star) {
        return error(
            parser.place(),
            "begin with `SELECT *`: a transform keeps the table's columns; `exclude_columns` in the pipe file leaves some out",
        );
    }
    let mut columns = Vec::new();
    while parser.take(&Token::Comma) {
        let value = parser.or()?;
        parser.refuse_clauses()?;
        if !parser.take_word("as") {
            return parser.expected("AS and the name of the column");
        }
        columns.push((parser.name()?, value));
    }
    if parser.take_word("from") {
        parser.table()?;
    }
    let condition = parser.take_word("where").then(|| parser.or()).transpose()?;
    parser.refuse_clauses()?;
    match parser.peek() {
        None => Ok(Select { columns, condition }),
        Some(token) => error(
            token.character,
            format!(
                "expected `,`, FROM, WHERE or the end, found {}",
                token.value
            ),
        ),
    }
}

/// What looks at more than one row, which is refused by its name wherever it stands.
impl Parser<'_> {
    pub(crate) fn refuse_clauses(&self) -> Result<(), Error> {
        match REFUSED.iter().find(|(word, _)| self.at_word(word)) {
            None => Ok(()),
            Some((_, name)) => self.looks_further(name, self.place()),
        }
    }

    pub(crate) fn looks_further<T>(&self, what: &str, at: usize) -> Result<T, Error> {
        error(
            at,
            format!(
                "{what} looks at more than one row, and a transform sees each row alone; do it in a view or a query in ClickHouse"
            ),
        )
    }

    /// What stands behind FROM is for the reader: `orders`, `shop.orders`, `orders AS o`.
    fn table(&mut self) -> Result<(), Error> {
        if self.take(&Token::Open) {
            return match self.at_word("select") {
                true => self.looks_further("a subquery", self.place()),
                false => self.expected("the table's name"),
            };
        }
        self.name()?;
        if self.take(&Token::Dot) {
            self.name()?;
        }
        let is_clause = |parser: &Self| {
            let clauses = REFUSED.iter().map(|(word, _)| *word);
            clauses.chain(["where"]).any(|word| parser.at_word(word))
        };
        let named = matches!(
            self.peek().map(|token| &token.value),
            Some(Token::Word(_) | Token::Quoted(_))
        );
        if self.take_word("as") || (named && !is_clause(self)) {
            self.name()?;
        }
        if self.peek().is_some_and(|token| token.value == Token::Comma) {
            return self.looks_further("a second table", self.place());
        }
        Ok(())
    }
}
