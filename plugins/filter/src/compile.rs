//! From an expression to tests on typed columns: literals are converted once, when a table is bound.

use pipewright_sdk::{DataType, Field, I256, Read, Shape, Table};

use crate::literal::{self, Bound, saturated};
use crate::parse::{Comparison, Error, Expression, Literal, Name, Spanned, error};

/// An expression over columns that are bound.
#[derive(Clone, Debug)]
pub(crate) enum Condition {
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
    IsNull(Read),
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

pub(crate) fn compile(
    expression: &Expression,
    table: &Table,
    shape: &mut Shape,
) -> Result<Condition, Error> {
    let mut all = |parts: &[Expression]| -> Result<Vec<Condition>, Error> {
        parts
            .iter()
            .map(|part| compile(part, table, shape))
            .collect()
    };
    match expression {
        Expression::And(parts) => Ok(Condition::And(all(parts)?)),
        Expression::Or(parts) => Ok(Condition::Or(all(parts)?)),
        Expression::Not(inner) => Ok(Condition::Not(Box::new(compile(inner, table, shape)?))),
        Expression::IsNull(name) => {
            let (index, _) = column(name, table)?;
            Ok(Condition::IsNull(shape.read(index)))
        }
        Expression::Compare(name, comparison, literal) => {
            let (index, field) = column(name, table)?;
            let tests = tests(field, name, &[(*comparison, literal)])?;
            Ok(Condition::Any(shape.read(index), tests))
        }
        Expression::In(name, literals) => {
            let (index, field) = column(name, table)?;
            let literals: Vec<_> = literals
                .iter()
                .map(|literal| (Comparison::Equal, literal))
                .collect();
            Ok(Condition::Any(
                shape.read(index),
                tests(field, name, &literals)?,
            ))
        }
        Expression::Like(name, pattern) => {
            let (index, field) = column(name, table)?;
            if field.data_type != DataType::Utf8 {
                return error(
                    name.character,
                    format!(
                        "LIKE needs text, and column `{}` is `{}`",
                        field.name, field.source_type
                    ),
                );
            }
            Ok(Condition::Any(
                shape.read(index),
                Tests::Like(compile_pattern(&pattern.value)),
            ))
        }
    }
}

fn column<'a>(name: &Name, table: &'a Table) -> Result<(usize, &'a Field), Error> {
    match table.index_of(&name.value) {
        Some(index) => Ok((index, &table.fields[index])),
        None => error(
            name.character,
            format!(
                "column `{}` does not exist in table `{}.{}`",
                name.value, table.database, table.name
            ),
        ),
    }
}

type Comparisons<'a> = [(Comparison, &'a Spanned<Literal>)];

fn tests(field: &Field, name: &Name, literals: &Comparisons<'_>) -> Result<Tests, Error> {
    let integers = |scale: usize, zone: fn(&str) -> Option<i64>, form: &'static str| {
        literals
            .iter()
            .map(|(comparison, literal)| {
                Ok((*comparison, number(field, literal, scale, zone, form)?))
            })
            .collect::<Result<Vec<_>, Error>>()
    };
    let whole = || integers(0, |_| None, "a number");
    Ok(match field.data_type {
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
                name.character,
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
    literal: &Spanned<Literal>,
    scale: usize,
    from_text: fn(&str) -> Option<i64>,
    form: &str,
) -> Result<Bound, Error> {
    let takes_text = from_text("2026-01-31").is_some() || from_text("12:00:00").is_some();
    let bound = match &literal.value {
        Literal::Number(text) if !takes_text => literal::bound(text, scale),
        Literal::Bool(value) if !takes_text => {
            literal::bound(if *value { "1" } else { "0" }, scale)
        }
        Literal::String(text) => from_text(text).map(|value| Bound {
            floor: i128::from(value).into(),
            exact: true,
        }),
        Literal::Number(_) | Literal::Bool(_) => None,
    };
    bound.map_or_else(|| mismatch(field, literal, form), Ok)
}

fn mismatch<T>(field: &Field, literal: &Spanned<Literal>, form: &str) -> Result<T, Error> {
    error(
        literal.character,
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
            let value = match &literal.value {
                Literal::Number(text) => text.parse().ok().filter(|value: &f64| value.is_finite()),
                Literal::Bool(value) => Some(f64::from(u8::from(*value))),
                Literal::String(_) => None,
            };
            match value {
                Some(value) => Ok(Test::Compare(*comparison, value)),
                None => mismatch(field, literal, "a number"),
            }
        })
        .collect()
}

fn bytes(field: &Field, literals: &Comparisons<'_>) -> Result<Vec<Test<Vec<u8>>>, Error> {
    literals
        .iter()
        .map(|(comparison, literal)| match &literal.value {
            Literal::String(text) => Ok(Test::Compare(*comparison, text.clone().into_bytes())),
            _ => mismatch(field, literal, "a string in 'single quotes'"),
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
