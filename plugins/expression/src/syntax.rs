//! What an expression is made of, and the error that says where one is wrong.

use std::fmt;

use crate::vector::Kind;

/// What is wrong, and at which character, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
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
    pub(crate) fn mirrored(self) -> Self {
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
    /// A text that says what it is: `DATE '2026-01-31'`.
    Moment(Kind, String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Concat,
}

/// An expression as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expr {
    pub(crate) node: Node,
    pub(crate) character: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Column(String),
    Literal(Literal),
    Null,
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    Compare(Box<Expr>, Comparison, Box<Expr>),
    In(Box<Expr>, Vec<Expr>),
    Like(Box<Expr>, Box<Expr>),
    IsNull(Box<Expr>),
    Binary(Box<Expr>, Operator, Box<Expr>),
    Negate(Box<Expr>),
    /// The name in lower case.
    Call(String, Vec<Expr>),
    Case {
        operand: Option<Box<Expr>>,
        whens: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    Cast {
        value: Box<Expr>,
        /// In lower case, with its arguments.
        to: Spanned<(String, Vec<u8>)>,
        /// What cannot be is NULL.
        or_null: bool,
    },
}

/// `SELECT *, expression AS name, ... FROM table WHERE condition`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Select {
    /// What is computed, by name.
    pub columns: Vec<(String, Expr)>,
    /// Which rows stay.
    pub condition: Option<Expr>,
}
