//! A condition over a batch, column by column: each part gives a truth a row.
//!
//! With false, unknown and true as 0, 1 and 2, AND is the smaller, OR the larger, NOT the distance from 2: SQL's logic.
//! Above that stand failures, which count only where the other side does not decide.

use std::cmp::Ordering;

use pipewright_sdk::{Batch, Booleans, Bytes, Column, Failure, Value};

use crate::arithmetic::power;
use crate::compile::Typed;
use crate::condition::{Condition, Pattern, PatternPart, Test, Tests};
use crate::evaluate as compute;
use crate::syntax::Comparison;
use crate::vector::{Data, Kind, NULL, OVERFLOW, VALUE, Vector};

/// The row does not match.
pub const FALSE: u8 = 0;
/// NULL has a part in it.
pub const UNKNOWN: u8 = 1;
/// The row matches.
pub const TRUE: u8 = 2;

pub(crate) fn evaluate(condition: &Condition, batch: &Batch) -> Result<Vec<u8>, Failure> {
    match condition {
        Condition::Constant(value) => Ok(vec![truth(*value); batch.len()]),
        Condition::NoValue(typed) => {
            let vector = compute::evaluate(typed, batch)?;
            let rows = 0..batch.len();
            Ok(rows
                .map(|row| state_truth(vector.state(row), VALUE))
                .collect())
        }
        Condition::Truth(typed) => Ok(truths(&compute::evaluate(typed, batch)?, batch.len())),
        Condition::Compare(left, comparison, right) => compared(left, *comparison, right, batch),
        Condition::Like(typed, pattern) => {
            let vector = compute::evaluate(typed, batch)?;
            let texts = vector.texts();
            Ok(decided(&vector.states, batch.len(), |row| {
                matches(pattern, texts.text(row))
            }))
        }
        Condition::And(parts) => fold(parts, batch, TRUE, u8::min),
        Condition::Or(parts) => fold(parts, batch, FALSE, u8::max),
        Condition::Not(inner) => {
            let mut truth = evaluate(inner, batch)?;
            let negate = |truth: u8| if truth > TRUE { truth } else { TRUE - truth };
            truth.iter_mut().for_each(|truth| *truth = negate(*truth));
            Ok(truth)
        }
        Condition::IsNull(read) => {
            let column = batch.column(*read);
            Ok((0..batch.len())
                .map(|row| truth(column.is_null(row)))
                .collect())
        }
        Condition::Any(read, tests) => {
            let column = batch.column(*read);
            let mut truth = any(column, tests)?;
            mark_nulls(column, &mut truth);
            Ok(truth)
        }
    }
}

fn fold(
    parts: &[Condition],
    batch: &Batch,
    start: u8,
    join: impl Fn(u8, u8) -> u8,
) -> Result<Vec<u8>, Failure> {
    let mut all = vec![start; batch.len()];
    for part in parts {
        let part = evaluate(part, batch)?;
        // One look at the whole keeps the loop of a condition that cannot fail free of branches.
        let failed = has_failed(&all) || has_failed(&part);
        for (left, right) in all.iter_mut().zip(part) {
            *left = if failed {
                join_failed(*left, right, start, &join)
            } else {
                join(*left, right)
            };
        }
    }
    Ok(all)
}

/// Whether any row's truth could not be told: the highest of all, which a loop without an exit finds many rows at a time.
pub(crate) fn has_failed(truth: &[u8]) -> bool {
    truth.iter().copied().max().is_some_and(|most| most > TRUE)
}

/// `start` leaves the other side as it is; its opposite decides whatever the other side is.
fn join_failed(left: u8, right: u8, start: u8, join: impl Fn(u8, u8) -> u8) -> u8 {
    let decisive = TRUE - start;
    match (left, right) {
        _ if left == decisive || right == decisive => decisive,
        _ if left > TRUE || right > TRUE => left.max(right),
        _ => join(left, right),
    }
}

/// The truth of a state: true where there is no value.
fn state_truth(state: u8, value: u8) -> u8 {
    if state >= OVERFLOW {
        failed(state)
    } else {
        truth(state != value)
    }
}

fn failed(state: u8) -> u8 {
    TRUE + state - NULL
}

/// A test of rows that have a value.
fn decided(states: &Option<Vec<u8>>, rows: usize, test: impl Fn(usize) -> bool) -> Vec<u8> {
    match states {
        None => (0..rows).map(|row| truth(test(row))).collect(),
        Some(states) => (0..rows)
            .map(|row| match states[row] {
                VALUE => truth(test(row)),
                NULL => UNKNOWN,
                state => failed(state),
            })
            .collect(),
    }
}

fn truths(vector: &Vector, rows: usize) -> Vec<u8> {
    match &vector.data {
        Data::Bool(values) => decided(&vector.states, rows, |row| values[row]),
        // Only NULL has a truth and no type.
        _ => vec![UNKNOWN; rows],
    }
}

fn compared(
    left: &Typed,
    comparison: Comparison,
    right: &Typed,
    batch: &Batch,
) -> Result<Vec<u8>, Failure> {
    let rows = batch.len();
    let scales = (scale(left), scale(right));
    let (left, right) = (
        compute::evaluate(left, batch)?,
        compute::evaluate(right, batch)?,
    );
    let Vector {
        data: right,
        states,
    } = right;
    let states = Vector::joined(left.states, states);
    Ok(match (&left.data, &right) {
        (Data::Bool(left), Data::Bool(right)) => decided(&states, rows, |row| {
            holds(comparison, &left[row], &right[row])
        }),
        (Data::Number(left), Data::Number(right)) => decided(&states, rows, |row| {
            let order = numbers_ordered(left[row], right[row], scales);
            holds(comparison, &order, &Ordering::Equal)
        }),
        (Data::Float(left), Data::Float(right)) => decided(&states, rows, |row| {
            holds(comparison, &left[row], &right[row])
        }),
        (Data::Moment(left), Data::Moment(right)) => decided(&states, rows, |row| {
            holds(comparison, &left[row], &right[row])
        }),
        (Data::Bytes(left), Data::Bytes(right)) => decided(&states, rows, |row| {
            holds(comparison, left.get(row), right.get(row))
        }),
        _ => return Err(Failure::failed("a comparison of two types")),
    })
}

fn scale(typed: &Typed) -> u8 {
    match typed.kind {
        Kind::Number { scale } => scale,
        _ => 0,
    }
}

/// Exact for all digits: the one with more of them after the point is cut, and what was cut decides where the rest is equal.
fn numbers_ordered(left: i128, right: i128, (has, other): (u8, u8)) -> Ordering {
    if has > other {
        return numbers_ordered(right, left, (other, has)).reverse();
    }
    let unit = power(other - has);
    left.cmp(&right.div_euclid(unit))
        .then_with(|| 0.cmp(&right.rem_euclid(unit)))
}

fn any(column: &Column, tests: &Tests) -> Result<Vec<u8>, Failure> {
    match tests {
        Tests::Int8(tests) => values(column, tests, |value: i8| value),
        Tests::Int16(tests) => values(column, tests, |value: i16| value),
        Tests::Int32(tests) => values(column, tests, |value: i32| value),
        Tests::Int64(tests) => values(column, tests, |value: i64| value),
        Tests::UInt8(tests) => values(column, tests, |value: u8| value),
        Tests::UInt16(tests) => values(column, tests, |value: u16| value),
        Tests::UInt32(tests) => values(column, tests, |value: u32| value),
        Tests::UInt64(tests) => values(column, tests, |value: u64| value),
        Tests::Float32(tests) => values(column, tests, |value: f32| f64::from(value)),
        Tests::Float64(tests) => values(column, tests, |value: f64| value),
        Tests::Decimal128(tests) => values(column, tests, |value: i128| value),
        Tests::Decimal256(tests) => values(column, tests, |value| value),
        Tests::Boolean(tests) => Ok(booleans(&column.booleans()?, tests)),
        Tests::Bytes(tests) => Ok(bytes(&column.bytes()?, tests, column.len())),
        Tests::Like(pattern) => {
            let strings = column.strings()?;
            Ok(strings
                .iter()
                .map(|text| truth(text.is_some_and(|text| matches(pattern, text))))
                .collect())
        }
    }
}

/// What stands at a NULL is tested too and overwritten afterwards: no branch a row.
fn values<V: Value, T: PartialOrd + Copy>(
    column: &Column,
    tests: &[Test<T>],
    widen: impl Fn(V) -> T + Copy,
) -> Result<Vec<u8>, Failure> {
    let values = column.values::<V>()?;
    let mut all: Option<Vec<u8>> = None;
    for test in tests {
        let part: Vec<u8> = match test {
            Test::Always(answer) => vec![truth(*answer); column.len()],
            Test::Compare(comparison, constant) => {
                let constant = *constant;
                let values = values.iter_raw().map(widen);
                match comparison {
                    Comparison::Equal => values.map(|value| truth(value == constant)).collect(),
                    Comparison::NotEqual => values.map(|value| truth(value != constant)).collect(),
                    Comparison::Less => values.map(|value| truth(value < constant)).collect(),
                    Comparison::LessOrEqual => {
                        values.map(|value| truth(value <= constant)).collect()
                    }
                    Comparison::Greater => values.map(|value| truth(value > constant)).collect(),
                    Comparison::GreaterOrEqual => {
                        values.map(|value| truth(value >= constant)).collect()
                    }
                }
            }
        };
        all = Some(match all {
            None => part,
            Some(mut all) => {
                for (left, right) in all.iter_mut().zip(part) {
                    *left = (*left).max(right);
                }
                all
            }
        });
    }
    Ok(all.unwrap_or_else(|| vec![FALSE; column.len()]))
}

fn booleans(values: &Booleans<'_>, tests: &[Test<u8>]) -> Vec<u8> {
    let holds = |value: bool| {
        tests.iter().any(|test| match test {
            Test::Always(answer) => *answer,
            Test::Compare(comparison, constant) => holds(*comparison, &u8::from(value), constant),
        })
    };
    let (no, yes) = (truth(holds(false)), truth(holds(true)));
    let of = |value| match value {
        Some(true) => yes,
        Some(false) => no,
        None => UNKNOWN,
    };
    values.iter().map(of).collect()
}

fn bytes(values: &Bytes<'_>, tests: &[Test<Vec<u8>>], rows: usize) -> Vec<u8> {
    (0..rows)
        .map(|row| {
            let Some(value) = values.get(row) else {
                return UNKNOWN;
            };
            truth(tests.iter().any(|test| match test {
                Test::Always(answer) => *answer,
                Test::Compare(comparison, constant) => holds(*comparison, value, constant),
            }))
        })
        .collect()
}

fn holds<T: PartialOrd + ?Sized>(comparison: Comparison, value: &T, constant: &T) -> bool {
    match comparison {
        Comparison::Equal => value == constant,
        Comparison::NotEqual => value != constant,
        Comparison::Less => value < constant,
        Comparison::LessOrEqual => value <= constant,
        Comparison::Greater => value > constant,
        Comparison::GreaterOrEqual => value >= constant,
    }
}

fn mark_nulls(column: &Column, truth: &mut [u8]) {
    if !column.has_nulls() {
        return;
    }
    for (row, truth) in truth.iter_mut().enumerate() {
        if column.is_null(row) {
            *truth = UNKNOWN;
        }
    }
}

fn truth(answer: bool) -> u8 {
    u8::from(answer) * TRUE
}

/// Goes back to the last `%` when the rest does not fit, which is enough: an earlier one could not do better.
fn matches(pattern: &Pattern, text: &str) -> bool {
    let parts = &pattern.0;
    let mut at = 0;
    let mut rest = text.chars();
    let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
    loop {
        match parts.get(at) {
            Some(PatternPart::Anything) => {
                at += 1;
                retry = Some((at, rest.clone()));
                continue;
            }
            Some(part) => {
                let mut ahead = rest.clone();
                let fits = match (ahead.next(), part) {
                    (Some(_), PatternPart::AnyCharacter) => true,
                    (Some(found), PatternPart::Character(wanted)) => found == *wanted,
                    _ => false,
                };
                if fits {
                    rest = ahead;
                    at += 1;
                    continue;
                }
            }
            None if rest.as_str().is_empty() => return true,
            None => {}
        }
        let Some((after, from)) = &mut retry else {
            return false;
        };
        if from.next().is_none() {
            return false;
        }
        at = *after;
        rest = from.clone();
    }
}
