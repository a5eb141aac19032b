//! From text to an expression that knows where in the text each part stands.
//!
//! ```text
//! or      = and { OR and }
//! and     = not { AND not }
//! not     = NOT not | ( or ) | predicate
//! predicate = operand ( = != <> < <= > >= ) operand | column IS [NOT] NULL
//!           | column [NOT] ( IN ( literal, ... ) | LIKE string | BETWEEN literal AND literal )
//! ```

use std::fmt;

/// What is wrong, and at which character, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Error {
    pub(crate) character: usize,
    pub(crate) message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}", self.character, self.message)
    }
}

pub(crate) fn error<T>(character: usize, message: impl Into<String>) -> Result<T, Error> {
    Err(Error {
        character,
        message: message.into(),
    })
}

/// A part of the text with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spanned<T> {
    pub(crate) value: T,
    pub(crate) character: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    /// The same with its sides exchanged.
    fn mirrored(self) -> Self {
        match self {
            Comparison::Equal | Comparison::NotEqual => self,
            Comparison::Less => Comparison::Greater,
            Comparison::LessOrEqual => Comparison::GreaterOrEqual,
            Comparison::Greater => Comparison::Less,
            Comparison::GreaterOrEqual => Comparison::LessOrEqual,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Literal {
    /// As written, sign included.
    Number(String),
    String(String),
    Bool(bool),
}

pub(crate) type Name = Spanned<String>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expression {
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Not(Box<Expression>),
    Compare(Name, Comparison, Spanned<Literal>),
    In(Name, Vec<Spanned<Literal>>),
    Like(Name, Spanned<String>),
    IsNull(Name),
}

/// Nesting of parentheses and NOT; the parser calls itself that often.
const MAX_DEPTH: usize = 100;

pub(crate) fn parse(text: &str) -> Result<Expression, Error> {
    let tokens = tokens(text)?;
    let end = text.chars().count() + 1;
    let mut parser = Parser {
        tokens: &tokens,
        next: 0,
        end,
        depth: 0,
    };
    let expression = parser.or()?;
    match parser.peek() {
        None => Ok(expression),
        Some(token) => error(
            token.character,
            format!("expected AND, OR or the end, found {}", token.value),
        ),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// Bare; may be a keyword.
    Word(String),
    /// In backticks; never a keyword.
    Quoted(String),
    Number(String),
    String(String),
    Compare(Comparison),
    Open,
    Close,
    Comma,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(word) | Token::Quoted(word) => write!(f, "`{word}`"),
            Token::Number(number) => f.write_str(number),
            Token::String(_) => f.write_str("a string"),
            Token::Compare(_) => f.write_str("a comparison"),
            Token::Open => f.write_str("`(`"),
            Token::Close => f.write_str("`)`"),
            Token::Comma => f.write_str("`,`"),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Spanned<Token>>, Error> {
    let characters: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = characters.get(at) {
        if first.is_whitespace() {
            at += 1;
            continue;
        }
        let (value, next) = token(&characters, at, *first)?;
        tokens.push(Spanned {
            value,
            character: at + 1,
        });
        at = next;
    }
    Ok(tokens)
}

fn token(characters: &[char], at: usize, first: char) -> Result<(Token, usize), Error> {
    let second = characters.get(at + 1).copied();
    let signed = matches!(first, '-' | '+')
        && second.is_some_and(|next| next.is_ascii_digit() || next == '.');
    Ok(match (first, second) {
        ('(', _) => (Token::Open, at + 1),
        (')', _) => (Token::Close, at + 1),
        (',', _) => (Token::Comma, at + 1),
        ('=', _) => (Token::Compare(Comparison::Equal), at + 1),
        ('!', Some('=')) | ('<', Some('>')) => (Token::Compare(Comparison::NotEqual), at + 2),
        ('<', Some('=')) => (Token::Compare(Comparison::LessOrEqual), at + 2),
        ('>', Some('=')) => (Token::Compare(Comparison::GreaterOrEqual), at + 2),
        ('<', _) => (Token::Compare(Comparison::Less), at + 1),
        ('>', _) => (Token::Compare(Comparison::Greater), at + 1),
        ('\'', _) => {
            let (text, next) = quoted(characters, at, '\'')?;
            (Token::String(text), next)
        }
        ('`', _) => {
            let (text, next) = quoted(characters, at, '`')?;
            (Token::Quoted(text), next)
        }
        ('"', _) => {
            return error(
                at + 1,
                "write strings in 'single quotes' and columns in `backticks`",
            );
        }
        _ if first.is_ascii_digit() || first == '.' || signed => number(characters, at),
        _ if first.is_alphabetic() || first == '_' || first == '$' => {
            let is_part = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '$');
            let word: String = characters[at..]
                .iter()
                .copied()
                .take_while(is_part)
                .collect();
            let next = at + word.chars().count();
            (Token::Word(word), next)
        }
        _ => return error(at + 1, format!("`{first}` has no meaning here")),
    })
}

/// The quote doubled stands for itself.
fn quoted(characters: &[char], start: usize, quote: char) -> Result<(String, usize), Error> {
    let mut text = String::new();
    let mut at = start + 1;
    loop {
        match (characters.get(at), characters.get(at + 1)) {
            (None, _) => return error(start + 1, format!("the closing {quote} is missing")),
            (Some(c), Some(next)) if *c == quote && *next == quote => {
                text.push(quote);
                at += 2;
            }
            (Some(c), _) if *c == quote => return Ok((text, at + 1)),
            (Some(c), _) => {
                text.push(*c);
                at += 1;
            }
        }
    }
}

/// Takes all that looks like a number; `literal` says whether it is one.
fn number(characters: &[char], start: usize) -> (Token, usize) {
    let mut at = start + 1;
    while let Some(c) = characters.get(at) {
        let in_exponent = matches!(c, '+' | '-') && matches!(characters[at - 1], 'e' | 'E');
        if !(c.is_ascii_alphanumeric() || *c == '.' || in_exponent) {
            break;
        }
        at += 1;
    }
    (Token::Number(characters[start..at].iter().collect()), at)
}

struct Parser<'a> {
    tokens: &'a [Spanned<Token>],
    next: usize,
    end: usize,
    depth: usize,
}

enum Operand {
    Column(Name),
    Literal(Spanned<Literal>),
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Spanned<Token>> {
        self.tokens.get(self.next)
    }

    fn place(&self) -> usize {
        self.peek().map_or(self.end, |token| token.character)
    }

    fn expected<T>(&self, what: &str) -> Result<T, Error> {
        match self.peek() {
            Some(token) => error(
                token.character,
                format!("expected {what}, found {}", token.value),
            ),
            None => error(self.end, format!("expected {what}, found the end")),
        }
    }

    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek().is_some_and(|next| next.value == *token);
        self.next += usize::from(found);
        found
    }

    fn take_word(&mut self, keyword: &str) -> bool {
        let found = matches!(self.peek(), Some(Spanned { value: Token::Word(word), .. }) if word.eq_ignore_ascii_case(keyword));
        self.next += usize::from(found);
        found
    }

    fn or(&mut self) -> Result<Expression, Error> {
        let mut parts = vec![self.and()?];
        while self.take_word("or") {
            parts.push(self.and()?);
        }
        Ok(one_or(parts, Expression::Or))
    }

    fn and(&mut self) -> Result<Expression, Error> {
        let mut parts = vec![self.not()?];
        while self.take_word("and") {
            parts.push(self.not()?);
        }
        Ok(one_or(parts, Expression::And))
    }

    fn not(&mut self) -> Result<Expression, Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return error(self.place(), format!("nested more than {MAX_DEPTH} deep"));
        }
        let expression = if self.take_word("not") {
            Expression::Not(Box::new(self.not()?))
        } else if self.take(&Token::Open) {
            let inner = self.or()?;
            if !self.take(&Token::Close) {
                return self.expected("`)`");
            }
            inner
        } else {
            self.predicate()?
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn predicate(&mut self) -> Result<Expression, Error> {
        let left = self.operand()?;
        if let Some(Spanned {
            value: Token::Compare(comparison),
            character,
        }) = self.peek()
        {
            self.next += 1;
            return match (left, self.operand()?) {
                (Operand::Column(column), Operand::Literal(literal)) => {
                    Ok(Expression::Compare(column, *comparison, literal))
                }
                (Operand::Literal(literal), Operand::Column(column)) => {
                    Ok(Expression::Compare(column, comparison.mirrored(), literal))
                }
                _ => error(*character, "compare a column with a literal"),
            };
        }
        match left {
            Operand::Column(column) => self.column_predicate(column),
            Operand::Literal(_) => self.expected("a comparison"),
        }
    }

    fn column_predicate(&mut self, column: Name) -> Result<Expression, Error> {
        if self.take_word("is") {
            let negated = self.take_word("not");
            if !self.take_word("null") {
                return self.expected("NULL");
            }
            return Ok(negate(negated, Expression::IsNull(column)));
        }
        let negated = self.take_word("not");
        let expression = if self.take_word("in") {
            self.in_list(column)?
        } else if self.take_word("like") {
            match self.literal()? {
                Spanned {
                    value: Literal::String(value),
                    character,
                } => Expression::Like(column, Spanned { value, character }),
                other => return error(other.character, "LIKE needs a string"),
            }
        } else if self.take_word("between") {
            let low = self.literal()?;
            if !self.take_word("and") {
                return self.expected("AND");
            }
            let high = self.literal()?;
            Expression::And(vec![
                Expression::Compare(column.clone(), Comparison::GreaterOrEqual, low),
                Expression::Compare(column, Comparison::LessOrEqual, high),
            ])
        } else {
            return self.expected("a comparison, IS, IN, LIKE or BETWEEN");
        };
        Ok(negate(negated, expression))
    }

    fn in_list(&mut self, column: Name) -> Result<Expression, Error> {
        if !self.take(&Token::Open) {
            return self.expected("`(`");
        }
        let mut literals = vec![self.literal()?];
        while self.take(&Token::Comma) {
            literals.push(self.literal()?);
        }
        if !self.take(&Token::Close) {
            return self.expected("`,` or `)`");
        }
        Ok(Expression::In(column, literals))
    }

    fn literal(&mut self) -> Result<Spanned<Literal>, Error> {
        let character = self.place();
        match self.operand()? {
            Operand::Literal(literal) => Ok(literal),
            Operand::Column(_) => error(character, "expected a literal, found a column"),
        }
    }

    fn operand(&mut self) -> Result<Operand, Error> {
        let Some(token) = self.peek() else {
            return self.expected("a column or a literal");
        };
        let character = token.character;
        let literal = |value| Ok(Operand::Literal(Spanned { value, character }));
        self.next += 1;
        match &token.value {
            Token::Number(number) => literal(Literal::Number(number.clone())),
            Token::String(text) => literal(Literal::String(text.clone())),
            Token::Quoted(name) => Ok(Operand::Column(Spanned {
                value: name.clone(),
                character,
            })),
            Token::Word(word) => match word.to_ascii_lowercase().as_str() {
                "true" => literal(Literal::Bool(true)),
                "false" => literal(Literal::Bool(false)),
                "null" => error(character, "nothing equals NULL; use IS NULL"),
                "date" | "time" | "timestamp" if self.at_string() => self.operand(),
                "and" | "or" | "not" | "is" | "in" | "like" | "between" => {
                    self.next -= 1;
                    self.expected("a column or a literal")
                }
                _ => Ok(Operand::Column(Spanned {
                    value: word.clone(),
                    character,
                })),
            },
            _ => {
                self.next -= 1;
                self.expected("a column or a literal")
            }
        }
    }

    /// `DATE '2026-01-31'`: the column's type decides, the word is a courtesy to SQL.
    fn at_string(&self) -> bool {
        matches!(
            self.peek(),
            Some(Spanned {
                value: Token::String(_),
                ..
            })
        )
    }
}

fn one_or(mut parts: Vec<Expression>, many: fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            many(parts)
        }
        None => many(parts),
    }
}

fn negate(negated: bool, expression: Expression) -> Expression {
    if negated {
        Expression::Not(Box::new(expression))
    } else {
        expression
    }
}
