//! From an expression to tests on typed columns: literals are converted once, when a table is bound.
//!
//! A comparison of a column with literals, which is what most conditions are, is tested in the column's own width; all
//! else is computed first.

use pipewright_sdk::{DataType, Field, I256, Read, Shape, Table};

use crate::compile::{self, Code, Typed};
use crate::literal::{self, Bound, saturated};
use crate::syntax::{Comparison, Error, Expr, Literal, Node, error};
use crate::vector::Kind;

/// A condition over columns that are bound.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
    IsNull(Read),
    Constant(bool),
    NoValue(Box<Typed>),
    Truth(Box<Typed>),
    Compare(Box<Typed>, Comparison, Box<Typed>),
    Like(Box<Typed>, Pattern),
    /// Any of the tests is true of the column's value; NULL when there is no value.
    Any(Read, Tests),
}

/// Tests on values of one type.
#[derive(Clone, Debug)]
pub(crate) enum Tests {
    Int8(Vec<Test<i8>>),
    Int16(Vec<Test<i16>>),
    /// Dates too.
    Int32(Vec<Test<i32>>),
    /// Times and timestamps too.
    Int64(Vec<Test<i64>>),
    UInt8(Vec<Test<u8>>),
    UInt16(Vec<Test<u16>>),
    UInt32(Vec<Test<u32>>),
    UInt64(Vec<Test<u64>>),
    Float32(Vec<Test<f64>>),
    Float64(Vec<Test<f64>>),
    Decimal128(Vec<Test<i128>>),
    Decimal256(Vec<Test<I256>>),
    /// Truths, as 0 and 1.
    Boolean(Vec<Test<u8>>),
    Bytes(Vec<Test<Vec<u8>>>),
    Like(Pattern),
}

/// One test of a value that is there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Test<T> {
    Compare(Comparison, T),
    /// The literal lies outside of what the column can hold, or between two of its values.
    Always(bool),
}

/// A LIKE pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(pub(crate) Vec<PatternPart>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatternPart {
    /// `%`
    Anything,
    /// `_`
    AnyCharacter,
    Character(char),
}

/// Types an expression that is true or not; `shape` learns which columns it reads.
///
/// # Errors
/// What does not fit, and where.
pub(crate) fn compile_condition(
    expression: &Expr,
    table: &Table,
    shape: &mut Shape,
) -> Result<Condition, Error> {
    let mut all = |parts: &[Expr]| -> Result<Vec<Condition>, Error> {
        parts
            .iter()
            .map(|part| compile_condition(part, table, shape))
            .collect()
    };
    match &expression.node {
        Node::And(parts) => Ok(Condition::And(all(parts)?)),
        Node::Or(parts) => Ok(Condition::Or(all(parts)?)),
        Node::Not(inner) => Ok(Condition::Not(Box::new(compile_condition(
            inner, table, shape,
        )?))),
        Node::Literal(Literal::Bool(value)) => Ok(Condition::Constant(*value)),
        Node::IsNull(inner) => {
            if let Node::Column(name) = &inner.node {
                let (index, _) = compile::field(name, inner.character, table)?;
                return Ok(Condition::IsNull(shape.read(index)));
            }
            let inner = compile::compile(inner, table, shape)?;
            Ok(Condition::NoValue(Box::new(inner)))
        }
        Node::Compare(left, comparison, right) => compare(left, *comparison, right, table, shape),
        Node::In(value, items) => any_of(value, items, table, shape),
        Node::Like(value, pattern) => like(value, pattern, table, shape),
        _ => truth_of(compile::compile(expression, table, shape)?),
    }
}

/// The truth of a value: a number that stands for one is true when it is not zero.
///
/// # Errors
/// For what is none.
pub(crate) fn truth_of(typed: Typed) -> Result<Condition, Error> {
    let at = typed.character;
    match typed.kind {
        Kind::Bool | Kind::Null => Ok(Condition::Truth(Box::new(typed))),
        kind if typed.is_truth => {
            let zero = Box::new(Typed::new(kind, at, Code::Number(0)));
            let typed = Box::new(typed);
            Ok(Condition::Compare(typed, Comparison::NotEqual, zero))
        }
        other => {
            let what = format!("a condition is needed here, and this is {}", other.name());
            error(at, what)
        }
    }
}

fn compare(
    left: &Expr,
    comparison: Comparison,
    right: &Expr,
    table: &Table,
    shape: &mut Shape,
) -> Result<Condition, Error> {
    match (&left.node, &right.node) {
        (Node::Column(name), Node::Literal(literal)) => {
            let literals = [(comparison, (literal, right.character))];
            return column_tests(name, left.character, &literals, table, shape);
        }
        (Node::Literal(literal), Node::Column(name)) => {
            let literals = [(comparison.mirrored(), (literal, left.character))];
            return column_tests(name, right.character, &literals, table, shape);
        }
        _ => {}
    }
    let left = compile::compile(left, table, shape)?;
    let right = compile::compile(right, table, shape)?;
    let (left, right) = compile::comparable(left, right)?;
    Ok(Condition::Compare(
        Box::new(left),
        comparison,
        Box::new(right),
    ))
}

fn column_tests(
    name: &str,
    at: usize,
    literals: &Comparisons<'_>,
    table: &Table,
    shape: &mut Shape,
) -> Result<Condition, Error> {
    let (index, field) = compile::field(name, at, table)?;
    let tests = tests(field, at, literals)?;
    Ok(Condition::Any(shape.read(index), tests))
}

fn any_of(
    value: &Expr,
    items: &[Expr],
    table: &Table,
    shape: &mut Shape,
) -> Result<Condition, Error> {
    let literals: Option<Vec<_>> = items
        .iter()
        .map(|item| match &item.node {
            Node::Literal(literal) => Some((Comparison::Equal, (literal, item.character))),
            _ => None,
        })
        .collect();
    if let (Node::Column(name), Some(literals)) = (&value.node, literals) {
        return column_tests(name, value.character, &literals, table, shape);
    }
    let equal = items
        .iter()
        .map(|item| compare(value, Comparison::Equal, item, table, shape));
    Ok(Condition::Or(equal.collect::<Result<_, _>>()?))
}

fn like(
    value: &Expr,
    pattern: &Expr,
    table: &Table,
    shape: &mut Shape,
) -> Result<Condition, Error> {
    let Node::Literal(Literal::String(pattern)) = &pattern.node else {
        return error(pattern.character, "LIKE needs a string");
    };
    let pattern = compile_pattern(pattern);
    if let Node::Column(name) = &value.node {
        let (index, field) = compile::field(name, value.character, table)?;
        if field.data_type != DataType::Utf8 {
            return error(
                value.character,
                format!(
                    "LIKE needs text, and column `{}` is `{}`",
                    field.name, field.source_type
                ),
            );
        }
        return Ok(Condition::Any(shape.read(index), Tests::Like(pattern)));
    }
    let value = compile::compile(value, table, shape)?;
    match value.kind {
        Kind::Text | Kind::Null => {
            let value = compile::as_kind(value, Kind::Text);
            Ok(Condition::Like(Box::new(value), pattern))
        }
        other => error(
            value.character,
            format!("LIKE needs text, not {}", other.name()),
        ),
    }
}

/// Literals with their places.
type Comparisons<'a> = [(Comparison, (&'a Literal, usize))];

fn tests(field: &Field, at: usize, literals: &Comparisons<'_>) -> Result<Tests, Error> {
    let integers = |scale: usize, zone: fn(&str) -> Option<i64>, form: &'static str| {
        literals
            .iter()
            .map(|(comparison, literal)| {
                Ok((*comparison, number(field, *literal, scale, zone, form)?))
            })
            .collect::<Result<Vec<_>, Error>>()
    };
    let whole = || integers(0, |_| None, "a number");
    Ok(match field.data_type {
        DataType::Boolean => Tests::Boolean(narrow(&integers(0, |_| None, "TRUE or FALSE")?)),
        DataType::Int8 => Tests::Int8(narrow(&whole()?)),
        DataType::Int16 => Tests::Int16(narrow(&whole()?)),
        DataType::Int32 => Tests::Int32(narrow(&whole()?)),
        DataType::Int64 => Tests::Int64(narrow(&whole()?)),
        DataType::UInt8 => Tests::UInt8(narrow(&whole()?)),
        DataType::UInt16 => Tests::UInt16(narrow(&whole()?)),
        DataType::UInt32 => Tests::UInt32(narrow(&whole()?)),
        DataType::UInt64 => Tests::UInt64(narrow(&whole()?)),
        DataType::Date32 => Tests::Int32(narrow(&integers(
            0,
            literal::date,
            "a date such as '2026-01-31'",
        )?)),
        DataType::TimestampMicros { .. } => Tests::Int64(narrow(&integers(
            0,
            literal::timestamp,
            "a time such as '2026-01-31 12:00:00'",
        )?)),
        DataType::Time64Micros => Tests::Int64(narrow(&integers(
            0,
            literal::time,
            "a time such as '12:00:00'",
        )?)),
        DataType::Decimal128 { scale, .. } => {
            Tests::Decimal128(narrow(&integers(digits(scale), |_| None, "a number")?))
        }
        DataType::Decimal256 { scale, .. } => {
            let bounds = integers(digits(scale), |_| None, "a number")?;
            Tests::Decimal256(
                bounds
                    .iter()
                    .map(|(comparison, bound)| exact(*comparison, bound.exact, bound.floor))
                    .collect(),
            )
        }
        DataType::Float32 => Tests::Float32(floats(field, literals)?),
        DataType::Float64 => Tests::Float64(floats(field, literals)?),
        DataType::Utf8 | DataType::Binary => Tests::Bytes(bytes(field, literals)?),
        _ => {
            return error(
                at,
                format!(
                    "column `{}` of type `{}` cannot be compared",
                    field.name, field.source_type
                ),
            );
        }
    })
}

fn digits(scale: i8) -> usize {
    usize::try_from(scale).unwrap_or_default()
}

/// A literal against a column of whole units. `from_text` reads the strings that such a column takes.
fn number(
    field: &Field,
    literal: (&Literal, usize),
    scale: usize,
    from_text: fn(&str) -> Option<i64>,
    form: &str,
) -> Result<Bound, Error> {
    let takes_text = from_text("2026-01-31").is_some() || from_text("12:00:00").is_some();
    let bound = match literal.0 {
        Literal::Number(text) if !takes_text => literal::bound(text, scale),
        Literal::Bool(value) if !takes_text => {
            literal::bound(if *value { "1" } else { "0" }, scale)
        }
        Literal::String(text) => from_text(text).map(|value| Bound {
            floor: i128::from(value).into(),
            exact: true,
        }),
        Literal::Moment(kind, text) if beside(field.data_type, *kind) => {
            from_text(text).map(|value| Bound {
                floor: i128::from(value).into(),
                exact: true,
            })
        }
        Literal::Number(_) | Literal::Bool(_) | Literal::Moment(..) => None,
    };
    bound.map_or_else(|| mismatch(field, literal, form), Ok)
}

/// Whether a moment that says what it is stands beside values of this type.
fn beside(data_type: DataType, kind: Kind) -> bool {
    match data_type {
        DataType::Date32 => kind == Kind::Date,
        DataType::TimestampMicros { .. } => matches!(kind, Kind::Date | Kind::DateTime),
        DataType::Time64Micros => kind == Kind::Time,
        _ => false,
    }
}

fn mismatch<T>(field: &Field, literal: (&Literal, usize), form: &str) -> Result<T, Error> {
    error(
        literal.1,
        format!(
            "column `{}` is `{}`: compare it with {form}",
            field.name, field.source_type
        ),
    )
}

fn floats(field: &Field, literals: &Comparisons<'_>) -> Result<Vec<Test<f64>>, Error> {
    literals
        .iter()
        .map(|(comparison, literal)| {
            let value = match literal.0 {
                Literal::Number(text) => text.parse().ok().filter(|value: &f64| value.is_finite()),
                Literal::Bool(value) => Some(f64::from(u8::from(*value))),
                Literal::String(_) | Literal::Moment(..) => None,
            };
            match value {
                Some(value) => Ok(Test::Compare(*comparison, value)),
                None => mismatch(field, *literal, "a number"),
            }
        })
        .collect()
}

fn bytes(field: &Field, literals: &Comparisons<'_>) -> Result<Vec<Test<Vec<u8>>>, Error> {
    literals
        .iter()
        .map(|(comparison, literal)| match literal.0 {
            Literal::String(text) => Ok(Test::Compare(*comparison, text.clone().into_bytes())),
            _ => mismatch(field, *literal, "a string in 'single quotes'"),
        })
        .collect()
}

/// The same tests on the column's own width.
fn narrow<T: TryFrom<i128>>(bounds: &[(Comparison, Bound)]) -> Vec<Test<T>> {
    bounds
        .iter()
        .map(|(comparison, bound)| {
            let value = saturated(bound.floor);
            match T::try_from(value) {
                Ok(constant) if I256::from(value) == bound.floor => {
                    exact(*comparison, bound.exact, constant)
                }
                _ => outside(*comparison, bound.floor.high < 0),
            }
        })
        .collect()
}

/// A comparison with a literal that was rounded down to `floor`: every column value is either at most `floor`, and then
/// below the literal, or above both.
fn exact<T>(comparison: Comparison, exact: bool, floor: T) -> Test<T> {
    if exact {
        return Test::Compare(comparison, floor);
    }
    match comparison {
        Comparison::Equal => Test::Always(false),
        Comparison::NotEqual => Test::Always(true),
        Comparison::Less | Comparison::LessOrEqual => Test::Compare(Comparison::LessOrEqual, floor),
        Comparison::Greater | Comparison::GreaterOrEqual => {
            Test::Compare(Comparison::Greater, floor)
        }
    }
}

/// A comparison with a literal below, or above, all that the column can hold.
fn outside<T>(comparison: Comparison, below: bool) -> Test<T> {
    Test::Always(match comparison {
        Comparison::Equal => false,
        Comparison::NotEqual => true,
        Comparison::Less | Comparison::LessOrEqual => !below,
        Comparison::Greater | Comparison::GreaterOrEqual => below,
    })
}

fn compile_pattern(text: &str) -> Pattern {
    let mut parts = Vec::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let part = match character {
            '%' if parts.last() == Some(&PatternPart::Anything) => continue,
            '%' => PatternPart::Anything,
            '_' => PatternPart::AnyCharacter,
            '\\' => PatternPart::Character(characters.next().unwrap_or('\\')),
            other => PatternPart::Character(other),
        };
        parts.push(part);
    }
    Pattern(parts)
}
