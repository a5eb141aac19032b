//! Sums, products and quotients.

use crate::calendar;
use crate::syntax::Operator;
use crate::vector::{Data, Kind, NULL, OVERFLOW, VALUE, Vector, mark};

/// Ten to the power of so many digits; scales stay below 38.
pub(crate) fn power(digits: u8) -> i128 {
    10_i128.pow(digits.min(38).into())
}

/// `value / divisor`, halves away from zero, as MySQL rounds.
pub(crate) fn rounded(value: i128, divisor: i128) -> i128 {
    let (quotient, rest) = (value / divisor, value % divisor);
    let up = rest.unsigned_abs() >= divisor.unsigned_abs() - rest.unsigned_abs();
    let sign = if (value < 0) == (divisor < 0) { 1 } else { -1 };
    quotient + if up && rest != 0 { sign } else { 0 }
}

/// Digits that a result may have.
pub(crate) fn in_range(value: i128) -> bool {
    value.unsigned_abs() < 10_u128.pow(38)
}

pub(crate) fn calculate(
    (left_kind, operator, right_kind): (Kind, Operator, Kind),
    left: Vector,
    right: Vector,
    rows: usize,
) -> Vector {
    let Vector {
        data: left,
        states: left_states,
    } = left;
    let Vector {
        data: right,
        states: right_states,
    } = right;
    let mut states = Vector::joined(left_states, right_states);
    let data = match (&left, &right) {
        (Data::Float(left), Data::Float(right)) => floats(operator, left, right, &mut states),
        // Days beside days, or beside a number of them.
        (Data::Moment(left), Data::Moment(right)) => Data::Number(
            left.iter()
                .zip(right)
                .map(|(left, right)| i128::from(*left) - i128::from(*right))
                .collect(),
        ),
        (Data::Moment(left), Data::Number(right)) => {
            let sign = if operator == Operator::Subtract {
                -1
            } else {
                1
            };
            Data::Moment(moved(left, right, sign, &mut states))
        }
        (Data::Number(left), Data::Number(right)) => {
            let calculate: fn(i128, i128, i128) -> Option<i128> = match operator {
                Operator::Add => |left, right, _| left.checked_add(right),
                Operator::Subtract => |left, right, _| left.checked_sub(right),
                Operator::Multiply => |left, right, _| left.checked_mul(right),
                Operator::Remainder => |left, right, _| left.checked_rem(right),
                Operator::Divide | Operator::Concat => {
                    |left, right, factor| left.checked_mul(factor).map(|left| rounded(left, right))
                }
            };
            let factor = match (left_kind, right_kind) {
                // Four digits more than the dividend has, and as many as the divisor counts by.
                (_, Kind::Number { scale }) => power(scale + 4),
                _ => power(4),
            };
            let divides = matches!(operator, Operator::Divide | Operator::Remainder);
            Data::Number(numbers(
                (left, right),
                divides,
                &mut states,
                |left, right| calculate(left, right, factor),
            ))
        }
        // Only NULL is left, which has its states.
        _ => Data::Number(vec![0; rows]),
    };
    Vector { data, states }
}

/// Dates moved by a number of days, forwards or back.
fn moved(days: &[i64], by: &[i128], sign: i128, states: &mut Option<Vec<u8>>) -> Vec<i64> {
    let mut moved = Vec::with_capacity(days.len());
    for (row, (day, by)) in days.iter().zip(by).enumerate() {
        let day = by
            .checked_mul(sign)
            .and_then(|by| by.checked_add((*day).into()));
        let day = day.and_then(|day| i64::try_from(day).ok());
        let day = day.filter(|day| calendar::DAYS.contains(day));
        if day.is_none() && counts(states, row) {
            mark(states, days.len(), row, OVERFLOW);
        }
        moved.push(day.unwrap_or_default());
    }
    moved
}

fn numbers(
    (left, right): (&[i128], &[i128]),
    divides: bool,
    states: &mut Option<Vec<u8>>,
    calculate: impl Fn(i128, i128) -> Option<i128>,
) -> Vec<i128> {
    let rows = left.len();
    let mut values = Vec::with_capacity(rows);
    for (row, (left, right)) in left.iter().zip(right).enumerate() {
        if divides && *right == 0 {
            mark(states, rows, row, NULL);
            values.push(0);
            continue;
        }
        let value = calculate(*left, *right).filter(|value| in_range(*value));
        if value.is_none() && counts(states, row) {
            mark(states, rows, row, OVERFLOW);
        }
        values.push(value.unwrap_or_default());
    }
    values
}

/// What stands at a NULL may be anything.
fn counts(states: &Option<Vec<u8>>, row: usize) -> bool {
    states.as_ref().is_none_or(|states| states[row] == VALUE)
}

fn floats(operator: Operator, left: &[f64], right: &[f64], states: &mut Option<Vec<u8>>) -> Data {
    let calculate: fn(f64, f64) -> f64 = match operator {
        Operator::Add => |left, right| left + right,
        Operator::Subtract => |left, right| left - right,
        Operator::Multiply => |left, right| left * right,
        Operator::Remainder => |left, right| left % right,
        Operator::Divide | Operator::Concat => |left, right| left / right,
    };
    let divides = matches!(operator, Operator::Divide | Operator::Remainder);
    if divides {
        for (row, right) in right.iter().enumerate() {
            if *right == 0.0 {
                mark(states, left.len(), row, NULL);
            }
        }
    }
    let pairs = left.iter().zip(right);
    let values: Vec<f64> = pairs
        .map(|(left, right)| calculate(*left, *right))
        .collect();
    for (row, value) in values.iter().enumerate() {
        if !value.is_finite() && counts(states, row) {
            mark(states, values.len(), row, OVERFLOW);
        }
    }
    Data::Float(values)
}

pub(crate) fn negate(vector: Vector) -> Vector {
    let Vector { mut data, states } = vector;
    match &mut data {
        // What stands at a NULL may be anything.
        Data::Number(values) => values
            .iter_mut()
            .for_each(|value| *value = value.wrapping_neg()),
        Data::Float(values) => values.iter_mut().for_each(|value| *value = -*value),
        Data::Bool(_) | Data::Bytes(_) | Data::Moment(_) => {}
    }
    Vector { data, states }
}
