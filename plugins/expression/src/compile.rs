//! From an expression to a typed one over a table's columns.

use pipewright_sdk::{DataType, Field, Read, Shape, Table};

use crate::calendar;
use crate::cast::{Target, literal_as, target};
use crate::condition::{Condition, compile_condition};
use crate::functions::{self, Function};
use crate::literal;
use crate::syntax::{Comparison, Error, Expr, Literal, Node, Operator, error};
use crate::vector::{Kind, kind_of};

/// An expression over columns that are bound.
#[derive(Clone, Debug)]
pub(crate) struct Typed {
    pub(crate) kind: Kind,
    pub(crate) code: Code,
    /// What a column of it holds, where the expression says so itself.
    pub(crate) declared: Option<DataType>,
    /// Whether it is a number that stands for a truth, as MySQL stores them: TINYINT(1), which BOOL is another name for.
    pub(crate) is_truth: bool,
    pub(crate) character: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Code {
    Column(Read),
    Number(i128),
    Float(f64),
    Text(Vec<u8>),
    Moment(i64),
    Null,
    /// A truth value.
    Condition(Box<Condition>),
    /// Operands of one kind, but for products.
    Arithmetic(Operator, Box<Typed>, Box<Typed>),
    Negate(Box<Typed>),
    Cast(Box<Typed>, Target, bool),
    Call(Function, Vec<Typed>),
    /// Conditions with what holds where they are the first to be true, and what holds elsewhere.
    Case(Vec<(Condition, Typed)>, Box<Typed>),
    Coalesce(Vec<Typed>),
}

impl Typed {
    pub(crate) fn new(kind: Kind, character: usize, code: Code) -> Self {
        Self {
            kind,
            code,
            declared: None,
            is_truth: false,
            character,
        }
    }

    /// The same, as a choice among others: a truth where all of them are.
    pub(crate) fn among(self, others: &[Typed]) -> Self {
        let is_truth = |typed: &Typed| typed.is_truth || matches!(typed.code, Code::Null);
        Self {
            is_truth: self.kind != Kind::Bool && others.iter().all(is_truth),
            ..self
        }
    }

    /// Whether all that it gives are floats of 32 bits.
    pub(crate) fn is_single(&self) -> bool {
        match &self.code {
            Code::Null | Code::Cast(_, Target::Float32, _) => true,
            Code::Column(_) => self.declared == Some(DataType::Float32),
            Code::Negate(inner) => inner.is_single(),
            Code::Coalesce(all) => all.iter().all(Self::is_single),
            Code::Case(whens, otherwise) => {
                otherwise.is_single() && whens.iter().all(|(_, value)| value.is_single())
            }
            _ => false,
        }
    }

    /// What a column of it holds.
    ///
    /// # Errors
    /// When it is only NULL.
    pub(crate) fn data_type(&self) -> Result<DataType, Error> {
        if let Some(declared) = self.declared {
            return Ok(declared);
        }
        Ok(match self.kind {
            Kind::Null => {
                return error(
                    self.character,
                    "it is always NULL; CAST(NULL AS type) says of which type",
                );
            }
            Kind::Bool => DataType::UInt8,
            Kind::Number { scale: 0 } => DataType::Int64,
            Kind::Number { scale } => DataType::Decimal128 {
                precision: 38,
                scale: scale.cast_signed(),
            },
            Kind::Float => DataType::Float64,
            Kind::Text => DataType::Utf8,
            Kind::Bytes => DataType::Binary,
            Kind::Date => DataType::Date32,
            Kind::DateTime => DataType::TimestampMicros { utc: false },
            Kind::Timestamp => DataType::TimestampMicros { utc: true },
            Kind::Time => DataType::Time64Micros,
        })
    }
}

/// Types an expression; `shape` learns which columns it reads.
///
/// # Errors
/// What does not fit, and where.
pub(crate) fn compile(expression: &Expr, table: &Table, shape: &mut Shape) -> Result<Typed, Error> {
    let at = expression.character;
    let typed = |kind, code| Ok(Typed::new(kind, at, code));
    match &expression.node {
        Node::Column(name) => column(name, at, table, shape),
        Node::Literal(literal) => constant(literal, at),
        Node::Null => typed(Kind::Null, Code::Null),
        Node::And(_)
        | Node::Or(_)
        | Node::Not(_)
        | Node::Compare(..)
        | Node::In(..)
        | Node::Like(..)
        | Node::IsNull(_) => {
            let condition = compile_condition(expression, table, shape)?;
            typed(Kind::Bool, Code::Condition(Box::new(condition)))
        }
        Node::Binary(left, operator, right) => {
            let left = compile(left, table, shape)?;
            let right = compile(right, table, shape)?;
            binary(at, left, *operator, right)
        }
        Node::Negate(inner) => {
            let inner = counted(compile(inner, table, shape)?);
            match inner.kind {
                Kind::Number { .. } | Kind::Float | Kind::Null => {
                    typed(inner.kind, Code::Negate(Box::new(inner)))
                }
                other => error(at, format!("`-` needs a number, not {}", other.name())),
            }
        }
        Node::Call(name, arguments) => {
            let arguments: Result<Vec<Typed>, Error> = arguments
                .iter()
                .map(|argument| compile(argument, table, shape))
                .collect();
            functions::call(name, at, arguments?)
        }
        Node::Case {
            operand,
            whens,
            otherwise,
        } => case(
            expression,
            (operand.as_deref(), whens, otherwise.as_deref()),
            table,
            shape,
        ),
        Node::Cast { value, to, or_null } => {
            let value = compile(value, table, shape)?;
            let (target, declared) = target(to)?;
            target.ensure_possible(value.kind, at)?;
            Ok(Typed {
                declared: Some(declared),
                ..Typed::new(
                    target.kind(),
                    at,
                    Code::Cast(Box::new(value), target, *or_null),
                )
            })
        }
    }
}

pub(crate) fn field<'a>(
    name: &str,
    at: usize,
    table: &'a Table,
) -> Result<(usize, &'a Field), Error> {
    match table.index_of(name) {
        Some(index) => Ok((index, &table.fields[index])),
        None => error(
            at,
            format!(
                "column `{name}` does not exist in table `{}.{}`",
                table.database, table.name
            ),
        ),
    }
}

fn column(name: &str, at: usize, table: &Table, shape: &mut Shape) -> Result<Typed, Error> {
    let (index, field) = field(name, at, table)?;
    match kind_of(field.data_type) {
        Some(kind) => Ok(Typed {
            declared: Some(field.data_type),
            is_truth: field.source_type.eq_ignore_ascii_case("tinyint(1)"),
            ..Typed::new(kind, at, Code::Column(shape.read(index)))
        }),
        None => error(
            at,
            format!(
                "column `{name}` of type `{}` can only be compared with a literal",
                field.source_type
            ),
        ),
    }
}

fn constant(literal: &Literal, at: usize) -> Result<Typed, Error> {
    Ok(match literal {
        Literal::Bool(value) => Typed::new(
            Kind::Bool,
            at,
            Code::Condition(Box::new(Condition::Constant(*value))),
        ),
        Literal::String(text) => Typed::new(Kind::Text, at, Code::Text(text.clone().into_bytes())),
        Literal::Moment(kind, text) => literal_as(text.as_bytes(), at, *kind)?,
        Literal::Number(text) => {
            let scale = text
                .split_once('.')
                .map_or(0, |(_, fraction)| fraction.len());
            let exact = literal::bound(text, scale).map(|bound| literal::saturated(bound.floor));
            match (exact, u8::try_from(scale), text.parse::<f64>()) {
                (Some(value), Ok(scale), _)
                    if scale <= 30 && value.unsigned_abs() < 10_u128.pow(38) =>
                {
                    Typed::new(Kind::Number { scale }, at, Code::Number(value))
                }
                (.., Ok(value)) if value.is_finite() => {
                    Typed::new(Kind::Float, at, Code::Float(value))
                }
                _ => return error(at, format!("`{text}` is no number")),
            }
        }
    })
}

/// Brings two operands to kinds that can be compared: numbers can, however many digits each has after the point.
pub(crate) fn comparable(left: Typed, right: Typed) -> Result<(Typed, Typed), Error> {
    match (left.kind, right.kind) {
        (Kind::Number { .. }, Kind::Number { .. }) => Ok((left, right)),
        _ => unify(left, right),
    }
}

/// Brings two operands to one kind; a string literal becomes what stands beside it.
fn unify(left: Typed, right: Typed) -> Result<(Typed, Typed), Error> {
    let kinds = (left.kind, right.kind);
    let (left, right) = match (&left.code, &right.code) {
        (Code::Text(_), Code::Text(_)) => (left, right),
        _ => (beside(left, kinds.1)?, beside(right, kinds.0)?),
    };
    let Some(kind) = common(left.kind, right.kind) else {
        return error(
            right.character,
            format!(
                "{} stands beside {}; CAST makes one the other",
                right.kind.name(),
                left.kind.name()
            ),
        );
    };
    Ok((as_kind(left, kind), as_kind(right, kind)))
}

/// A literal as what stands beside it: a string is anything, and a moment that says what it is the same one in UTC.
fn beside(typed: Typed, other: Kind) -> Result<Typed, Error> {
    let at = typed.character;
    Ok(match (&typed.code, typed.kind, other) {
        (Code::Text(text), ..) => literal_as(text, at, other)?,
        (Code::Moment(days), Kind::Date, Kind::Timestamp) => {
            let moment = calendar::midnight(*days).unwrap_or_default();
            Typed::new(other, at, Code::Moment(moment))
        }
        (Code::Moment(moment), Kind::DateTime, Kind::Timestamp) => {
            Typed::new(other, at, Code::Moment(*moment))
        }
        _ => typed,
    })
}

/// A truth as the number that it counts for.
fn counted(typed: Typed) -> Typed {
    match typed.kind {
        Kind::Bool => as_kind(typed, Kind::Number { scale: 0 }),
        _ => typed,
    }
}

fn common(left: Kind, right: Kind) -> Option<Kind> {
    Some(match (left, right) {
        (left, right) if left == right => left,
        (Kind::Null, other) | (other, Kind::Null) => other,
        (Kind::Number { scale: left }, Kind::Number { scale: right }) => Kind::Number {
            scale: left.max(right),
        },
        (Kind::Number { .. }, Kind::Float) | (Kind::Float, Kind::Number { .. }) => Kind::Float,
        (Kind::Bool, Kind::Number { scale }) | (Kind::Number { scale }, Kind::Bool) => {
            Kind::Number { scale }
        }
        (Kind::Date, Kind::DateTime) | (Kind::DateTime, Kind::Date) => Kind::DateTime,
        _ => return None,
    })
}

/// The same values as another kind, without loss of digits.
pub(crate) fn as_kind(typed: Typed, kind: Kind) -> Typed {
    if typed.kind == kind {
        return typed;
    }
    let at = typed.character;
    if typed.kind == Kind::Null {
        return Typed::new(kind, at, Code::Null);
    }
    Typed {
        is_truth: matches!((typed.kind, kind), (Kind::Bool, Kind::Number { scale: 0 })),
        ..Typed::new(
            kind,
            at,
            Code::Cast(Box::new(typed), Target::of(kind), false),
        )
    }
}

/// All of one kind.
pub(crate) fn unify_all(mut all: Vec<Typed>) -> Result<(Kind, Vec<Typed>), Error> {
    let mut kind = Kind::Null;
    for typed in &mut all {
        if matches!(
            (&typed.code, kind),
            (
                Code::Text(_),
                Kind::Date | Kind::DateTime | Kind::Timestamp | Kind::Time
            )
        ) {
            let Code::Text(text) = &typed.code else {
                continue;
            };
            *typed = literal_as(text, typed.character, kind)?;
        }
        kind = match common(kind, typed.kind) {
            Some(kind) => kind,
            None => {
                return error(
                    typed.character,
                    format!(
                        "{} stands beside {}; CAST makes one the other",
                        typed.kind.name(),
                        kind.name()
                    ),
                );
            }
        };
    }
    Ok((
        kind,
        all.into_iter().map(|typed| as_kind(typed, kind)).collect(),
    ))
}

fn binary(at: usize, left: Typed, operator: Operator, right: Typed) -> Result<Typed, Error> {
    if operator == Operator::Concat {
        return functions::call("concat", at, vec![left, right]);
    }
    let (left, right) = (counted(left), counted(right));
    let code =
        |left: Typed, right: Typed| Code::Arithmetic(operator, Box::new(left), Box::new(right));
    let kind = match (left.kind, operator, right.kind) {
        (Kind::Date, Operator::Add | Operator::Subtract, Kind::Number { scale: 0 }) => {
            return Ok(Typed::new(Kind::Date, at, code(left, right)));
        }
        (Kind::Date, Operator::Subtract, Kind::Date) => {
            return Ok(Typed::new(Kind::Number { scale: 0 }, at, code(left, right)));
        }
        (Kind::Number { scale: left }, Operator::Multiply, Kind::Number { scale: right }) => {
            Kind::Number {
                scale: left + right,
            }
        }
        // As many digits more as MySQL gives a quotient.
        (Kind::Number { scale }, Operator::Divide, Kind::Number { .. }) => {
            Kind::Number { scale: scale + 4 }
        }
        (left, _, right) => match common(left, right) {
            Some(kind @ (Kind::Number { .. } | Kind::Float | Kind::Null)) => kind,
            _ => {
                let message = format!(
                    "{} and {} cannot be calculated with",
                    left.name(),
                    right.name()
                );
                return error(at, message);
            }
        },
    };
    if matches!(kind, Kind::Number { scale } if scale > 30) {
        return error(
            at,
            "the result has more than 30 digits after the point; CAST an operand",
        );
    }
    let keep = matches!(operator, Operator::Multiply | Operator::Divide) && kind != Kind::Float;
    let (left, right) = if keep {
        (left, right)
    } else {
        (as_kind(left, kind), as_kind(right, kind))
    };
    Ok(Typed::new(kind, at, code(left, right)))
}

/// The value beside the first condition that holds, else the last.
pub(crate) fn chosen(
    kind: Kind,
    at: usize,
    conditions: Vec<Condition>,
    mut values: Vec<Typed>,
) -> Typed {
    let typed = Typed::new(kind, at, Code::Null).among(&values);
    let otherwise = values.pop();
    let otherwise = otherwise.unwrap_or_else(|| Typed::new(kind, at, Code::Null));
    let whens = conditions.into_iter().zip(values).collect();
    Typed {
        code: Code::Case(whens, Box::new(otherwise)),
        ..typed
    }
}

type Parts<'a> = (Option<&'a Expr>, &'a [(Expr, Expr)], Option<&'a Expr>);

fn case(
    expression: &Expr,
    (operand, whens, otherwise): Parts<'_>,
    table: &Table,
    shape: &mut Shape,
) -> Result<Typed, Error> {
    let at = expression.character;
    let mut conditions = Vec::new();
    let mut values = Vec::new();
    for (when, then) in whens {
        let condition = match operand {
            None => compile_condition(when, table, shape)?,
            Some(operand) => {
                let equal = Node::Compare(
                    Box::new(operand.clone()),
                    Comparison::Equal,
                    Box::new(when.clone()),
                );
                let equal = Expr {
                    node: equal,
                    character: when.character,
                };
                compile_condition(&equal, table, shape)?
            }
        };
        conditions.push(condition);
        values.push(compile(then, table, shape)?);
    }
    values.push(match otherwise {
        Some(otherwise) => compile(otherwise, table, shape)?,
        None => Typed::new(Kind::Null, at, Code::Null),
    });
    let (kind, values) = unify_all(values)?;
    Ok(chosen(kind, at, conditions, values))
}
