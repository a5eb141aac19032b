//! From text to an expression that knows where in the text each part stands.
//!
//! ```text
//! or        = and { OR and }
//! and       = not { AND not }
//! not       = NOT not | predicate
//! predicate = sum [ ( = != <> < <= > >= ) sum | IS [NOT] ( NULL | TRUE | FALSE | UNKNOWN )
//!                 | [NOT] ( IN ( or, ... ) | LIKE sum | BETWEEN sum AND sum ) ]
//! sum       = product { ( + - || ) product }
//! product   = unary { ( * / % ) unary }
//! unary     = - unary | primary
//! primary   = literal | column | function ( or, ... ) | CAST ( or AS type ) | CASE ... END | ( or )
//! ```

use crate::lex::{Token, tokens};
use crate::syntax::{Comparison, Error, Expr, Literal, Node, Operator, Spanned, error};
use crate::vector::Kind;

/// Nesting of parentheses, functions and NOT; the parser calls itself that often.
const MAX_DEPTH: usize = 100;

/// Words that are no column unless they stand in backticks.
const KEYWORDS: [&str; 14] = [
    "and", "or", "not", "is", "in", "like", "between", "case", "when", "then", "else", "end", "as",
    "from",
];

/// Functions that look at more than one row.
const AGGREGATES: [&str; 12] = [
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "group_concat",
    "any_value",
    "bit_and",
    "bit_or",
    "bit_xor",
    "std",
    "variance",
];

/// Reads an expression.
///
/// # Errors
/// What is wrong, and where.
pub fn parse(text: &str) -> Result<Expr, Error> {
    let tokens = tokens(text)?;
    let mut parser = Parser::new(&tokens, text);
    let expression = parser.or()?;
    parser.refuse_clauses()?;
    match parser.peek() {
        None => Ok(expression),
        Some(token) => error(
            token.character,
            format!("expected AND, OR or the end, found {}", token.value),
        ),
    }
}

pub(crate) struct Parser<'a> {
    tokens: &'a [Spanned<Token>],
    next: usize,
    end: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    pub(crate) fn new(tokens: &'a [Spanned<Token>], text: &str) -> Self {
        Self {
            tokens,
            next: 0,
            end: text.chars().count() + 1,
            depth: 0,
        }
    }

    pub(crate) fn peek(&self) -> Option<&'a Spanned<Token>> {
        self.tokens.get(self.next)
    }

    pub(crate) fn place(&self) -> usize {
        self.peek().map_or(self.end, |token| token.character)
    }

    pub(crate) fn expected<T>(&self, what: &str) -> Result<T, Error> {
        match self.peek() {
            Some(token) => error(
                token.character,
                format!("expected {what}, found {}", token.value),
            ),
            None => error(self.end, format!("expected {what}, found the end")),
        }
    }

    pub(crate) fn take(&mut self, token: &Token) -> bool {
        let found = self.peek().is_some_and(|next| next.value == *token);
        self.next += usize::from(found);
        found
    }

    pub(crate) fn at_word(&self, keyword: &str) -> bool {
        matches!(self.peek(), Some(Spanned { value: Token::Word(word), .. }) if word.eq_ignore_ascii_case(keyword))
    }

    pub(crate) fn take_word(&mut self, keyword: &str) -> bool {
        let found = self.at_word(keyword);
        self.next += usize::from(found);
        found
    }

    pub(crate) fn keyword(&mut self, keyword: &str) -> Result<(), Error> {
        if self.take_word(keyword) {
            return Ok(());
        }
        self.expected(&keyword.to_ascii_uppercase())
    }

    fn close(&mut self, otherwise: &str) -> Result<(), Error> {
        if self.take(&Token::Close) {
            return Ok(());
        }
        self.expected(otherwise)
    }

    pub(crate) fn name(&mut self) -> Result<String, Error> {
        match self.peek().map(|token| &token.value) {
            Some(Token::Word(name) | Token::Quoted(name)) => {
                self.next += 1;
                Ok(name.clone())
            }
            _ => self.expected("a name"),
        }
    }

    fn expr(&self, character: usize, node: Node) -> Expr {
        Expr { node, character }
    }

    pub(crate) fn or(&mut self) -> Result<Expr, Error> {
        let character = self.place();
        let mut parts = vec![self.and()?];
        while self.take_word("or") {
            parts.push(self.and()?);
        }
        Ok(one_or(character, parts, Node::Or))
    }

    fn and(&mut self) -> Result<Expr, Error> {
        let character = self.place();
        let mut parts = vec![self.not()?];
        while self.take_word("and") {
            parts.push(self.not()?);
        }
        Ok(one_or(character, parts, Node::And))
    }

    fn not(&mut self) -> Result<Expr, Error> {
        let character = self.place();
        if !self.take_word("not") {
            return self.predicate();
        }
        self.enter()?;
        let inner = self.not()?;
        self.depth -= 1;
        Ok(self.expr(character, Node::Not(Box::new(inner))))
    }

    fn enter(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return error(self.place(), format!("nested more than {MAX_DEPTH} deep"));
        }
        Ok(())
    }

    fn predicate(&mut self) -> Result<Expr, Error> {
        let left = self.sum()?;
        let character = left.character;
        if let Some(Spanned {
            value: Token::Compare(comparison),
            ..
        }) = self.peek()
        {
            self.next += 1;
            if self.at_word("null") {
                return error(self.place(), "nothing equals NULL; use IS NULL");
            }
            let right = self.sum()?;
            let node = Node::Compare(Box::new(left), *comparison, Box::new(right));
            return Ok(self.expr(character, node));
        }
        if self.take_word("is") {
            let negated = self.take_word("not");
            return Ok(negate(negated, self.is(left)?));
        }
        let negated = self.take_word("not");
        let node = if self.take_word("in") {
            Node::In(Box::new(left), self.list()?)
        } else if self.take_word("like") {
            Node::Like(Box::new(left), Box::new(self.sum()?))
        } else if self.take_word("between") {
            let low = self.sum()?;
            self.keyword("and")?;
            let high = self.sum()?;
            let above = Node::Compare(
                Box::new(left.clone()),
                Comparison::GreaterOrEqual,
                Box::new(low),
            );
            let below = Node::Compare(Box::new(left), Comparison::LessOrEqual, Box::new(high));
            Node::And(vec![
                self.expr(character, above),
                self.expr(character, below),
            ])
        } else if negated {
            return self.expected("IN, LIKE or BETWEEN");
        } else {
            return Ok(left);
        };
        Ok(negate(negated, self.expr(character, node)))
    }

    /// What stands behind IS: never unknown itself.
    fn is(&mut self, left: Expr) -> Result<Expr, Error> {
        let character = left.character;
        let is_null = |inner: Expr| Expr {
            node: Node::IsNull(Box::new(inner)),
            character,
        };
        if self.take_word("null") || self.take_word("unknown") {
            return Ok(is_null(left));
        }
        let is_true = self.take_word("true");
        if !is_true && !self.take_word("false") {
            return self.expected("NULL, TRUE, FALSE or UNKNOWN");
        }
        let known = negate(true, is_null(left.clone()));
        let parts = vec![negate(!is_true, left), known];
        Ok(self.expr(character, Node::And(parts)))
    }

    /// `( or, ... )`, one at least.
    fn list(&mut self) -> Result<Vec<Expr>, Error> {
        if !self.take(&Token::Open) {
            return self.expected("`(`");
        }
        let mut items = vec![self.or()?];
        while self.take(&Token::Comma) {
            items.push(self.or()?);
        }
        self.close("`,` or `)`")?;
        Ok(items)
    }

    fn sum(&mut self) -> Result<Expr, Error> {
        let mut left = self.product()?;
        loop {
            let operator = match self.peek().map(|token| &token.value) {
                Some(Token::Plus) => Operator::Add,
                Some(Token::Minus) => Operator::Subtract,
                Some(Token::Concat) => Operator::Concat,
                _ => return Ok(left),
            };
            self.next += 1;
            let right = self.product()?;
            let character = left.character;
            left = self.expr(
                character,
                Node::Binary(Box::new(left), operator, Box::new(right)),
            );
        }
    }

    fn product(&mut self) -> Result<Expr, Error> {
        let mut left = self.unary()?;
        loop {
            let operator = match self.peek().map(|token| &token.value) {
                Some(Token::Star) => Operator::Multiply,
                Some(Token::Slash) => Operator::Divide,
                Some(Token::Percent) => Operator::Remainder,
                _ => return Ok(left),
            };
            self.next += 1;
            let right = self.unary()?;
            let character = left.character;
            left = self.expr(
                character,
                Node::Binary(Box::new(left), operator, Box::new(right)),
            );
        }
    }

    fn unary(&mut self) -> Result<Expr, Error> {
        let character = self.place();
        self.enter()?;
        let expression = if self.take(&Token::Minus) {
            match self.unary()? {
                Expr {
                    node: Node::Literal(Literal::Number(number)),
                    ..
                } if !number.starts_with('-') => self.expr(
                    character,
                    Node::Literal(Literal::Number(format!("-{number}"))),
                ),
                inner => self.expr(character, Node::Negate(Box::new(inner))),
            }
        } else if self.take(&Token::Plus) {
            self.unary()?
        } else {
            self.primary()?
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn primary(&mut self) -> Result<Expr, Error> {
        let Some(token) = self.peek() else {
            return self.expected("an expression");
        };
        let character = token.character;
        self.next += 1;
        let node = match &token.value {
            Token::Number(number) => Node::Literal(Literal::Number(number.clone())),
            Token::String(text) => Node::Literal(Literal::String(text.clone())),
            Token::Quoted(name) => {
                self.refuse_table(name)?;
                Node::Column(name.clone())
            }
            Token::Open => {
                let inner = self.or()?;
                self.close("`)`")?;
                return Ok(inner);
            }
            Token::Word(word) => return self.word(character, word),
            _ => {
                self.next -= 1;
                return self.expected("an expression");
            }
        };
        Ok(self.expr(character, node))
    }

    fn word(&mut self, character: usize, word: &str) -> Result<Expr, Error> {
        let lower = word.to_ascii_lowercase();
        let followed =
            |parser: &Self, token: &Token| parser.peek().is_some_and(|next| next.value == *token);
        let at_string = matches!(
            self.peek(),
            Some(Spanned {
                value: Token::String(_),
                ..
            })
        );
        let node = match lower.as_str() {
            "true" => Node::Literal(Literal::Bool(true)),
            "false" => Node::Literal(Literal::Bool(false)),
            "null" => Node::Null,
            "date" | "time" | "timestamp" if at_string => self.moment(&lower)?,
            "select" => return self.looks_further("a subquery", character),
            "exists" if followed(self, &Token::Open) => {
                return self.looks_further("EXISTS", character);
            }
            "case" => return self.case(character),
            "cast" | "try_cast" if followed(self, &Token::Open) => {
                return self.cast(character, lower == "try_cast");
            }
            _ if KEYWORDS.contains(&lower.as_str()) => {
                self.next -= 1;
                return self.expected("an expression");
            }
            name if followed(self, &Token::Open) && AGGREGATES.contains(&name) => {
                return self.looks_further(&format!("`{name}`"), character);
            }
            _ if followed(self, &Token::Open) => {
                let arguments = self.arguments()?;
                if self.at_word("over") {
                    return self.refuse_clauses().and(self.expected("the end"));
                }
                Node::Call(lower, arguments)
            }
            _ => {
                self.refuse_table(word)?;
                Node::Column(word.to_owned())
            }
        };
        Ok(self.expr(character, node))
    }

    /// A column is named without its table.
    fn refuse_table(&self, name: &str) -> Result<(), Error> {
        if self.peek().is_none_or(|next| next.value != Token::Dot) {
            return Ok(());
        }
        let place = self.place();
        error(
            place,
            format!("write the column without `{name}.`: there is one table"),
        )
    }

    /// `DATE '2026-01-31'`, of which the word has been read.
    fn moment(&mut self, word: &str) -> Result<Node, Error> {
        let kind = match word {
            "date" => Kind::Date,
            "time" => Kind::Time,
            _ => Kind::DateTime,
        };
        match self.peek().map(|token| &token.value) {
            Some(Token::String(text)) => {
                self.next += 1;
                Ok(Node::Literal(Literal::Moment(kind, text.clone())))
            }
            _ => self.expected("a string"),
        }
    }

    fn arguments(&mut self) -> Result<Vec<Expr>, Error> {
        self.next += 1;
        if self.take(&Token::Close) {
            return Ok(Vec::new());
        }
        self.next -= 1;
        self.list()
    }

    fn case(&mut self, character: usize) -> Result<Expr, Error> {
        let operand = if self.at_word("when") {
            None
        } else {
            Some(Box::new(self.or()?))
        };
        let mut whens = Vec::new();
        while self.take_word("when") {
            let condition = self.or()?;
            self.keyword("then")?;
            whens.push((condition, self.or()?));
        }
        if whens.is_empty() {
            return self.expected("WHEN");
        }
        let otherwise = self
            .take_word("else")
            .then(|| self.or())
            .transpose()?
            .map(Box::new);
        self.keyword("end")?;
        Ok(self.expr(
            character,
            Node::Case {
                operand,
                whens,
                otherwise,
            },
        ))
    }

    fn cast(&mut self, character: usize, or_null: bool) -> Result<Expr, Error> {
        self.next += 1;
        let value = Box::new(self.or()?);
        self.keyword("as")?;
        let place = self.place();
        let name = self.name()?.to_ascii_lowercase();
        let mut arguments = Vec::new();
        if self.take(&Token::Open) {
            loop {
                match self.peek().map(|token| &token.value) {
                    Some(Token::Number(number)) => match number.parse() {
                        Ok(number) => arguments.push(number),
                        Err(_) => return self.expected("a small number"),
                    },
                    _ => return self.expected("a number"),
                }
                self.next += 1;
                if !self.take(&Token::Comma) {
                    break;
                }
            }
            self.close("`)`")?;
        }
        self.close("`)`")?;
        let to = Spanned {
            value: (name, arguments),
            character: place,
        };
        Ok(self.expr(character, Node::Cast { value, to, or_null }))
    }
}

fn one_or(character: usize, mut parts: Vec<Expr>, many: fn(Vec<Expr>) -> Node) -> Expr {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        last => {
            parts.extend(last);
            Expr {
                node: many(parts),
                character,
            }
        }
    }
}

fn negate(negated: bool, expression: Expr) -> Expr {
    if negated {
        Expr {
            character: expression.character,
            node: Node::Not(Box::new(expression)),
        }
    } else {
        expression
    }
}
