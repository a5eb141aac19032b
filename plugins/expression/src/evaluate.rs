//! Typed expressions over a batch, a column at a time.

use pipewright_sdk::{Batch, Failure};

use crate::apply;
use crate::arithmetic;
use crate::cast;
use crate::compile::{Code, Typed};
use crate::condition::Condition;
use crate::truth::{self, FALSE, TRUE, UNKNOWN};
use crate::vector::{Data, Kind, NULL, Texts, VALUE, Vector, blank, load};

pub(crate) fn evaluate(typed: &Typed, batch: &Batch) -> Result<Vector, Failure> {
    let rows = batch.len();
    Ok(match &typed.code {
        Code::Column(read) => load(batch, *read)?,
        Code::Number(value) => Vector::new(Data::Number(vec![*value; rows])),
        Code::Float(value) => Vector::new(Data::Float(vec![*value; rows])),
        Code::Moment(value) => Vector::new(Data::Moment(vec![*value; rows])),
        Code::Text(text) => {
            let mut texts = Texts::with_capacity(rows, rows * text.len());
            for _ in 0..rows {
                texts.push(text);
            }
            Vector::new(Data::Bytes(texts))
        }
        Code::Null => Vector::nulls(typed.kind, rows),
        Code::Condition(condition) => of_condition(condition, batch)?,
        Code::Arithmetic(operator, left, right) => {
            let kinds = (left.kind, *operator, right.kind);
            let (left, right) = (evaluate(left, batch)?, evaluate(right, batch)?);
            arithmetic::calculate(kinds, left, right, rows)
        }
        Code::Negate(inner) => arithmetic::negate(evaluate(inner, batch)?),
        Code::Cast(inner, target, or_null) => {
            let from = cast::Origin {
                kind: inner.kind,
                is_single: inner.is_single(),
            };
            cast::cast(evaluate(inner, batch)?, from, *target, *or_null, rows)
        }
        Code::Call(function, arguments) => {
            let vectors: Result<Vec<Vector>, Failure> = arguments
                .iter()
                .map(|argument| evaluate(argument, batch))
                .collect();
            let kind = arguments
                .first()
                .map_or(Kind::Null, |argument| argument.kind);
            apply::apply(function, kind, vectors?, rows)
        }
        Code::Case(whens, otherwise) => case(typed.kind, whens, otherwise, batch)?,
        Code::Coalesce(parts) => {
            let vectors: Result<Vec<Vector>, Failure> =
                parts.iter().map(|part| evaluate(part, batch)).collect();
            let vectors = vectors?;
            let last = vectors.len() - 1;
            // The first that is not NULL; a failure is not NULL.
            let chosen: Vec<usize> = (0..rows)
                .map(|row| {
                    vectors
                        .iter()
                        .position(|part| part.state(row) != NULL)
                        .unwrap_or(last)
                })
                .collect();
            pick(typed.kind, &vectors, &chosen)
        }
    })
}

fn of_condition(condition: &Condition, batch: &Batch) -> Result<Vector, Failure> {
    let truth = truth::evaluate(condition, batch)?;
    let plain = truth.iter().all(|truth| matches!(*truth, FALSE | TRUE));
    let states = (!plain).then(|| {
        let state = |truth: u8| match truth {
            FALSE | TRUE => VALUE,
            UNKNOWN => NULL,
            failed => failed - TRUE + NULL,
        };
        truth.iter().map(|truth| state(*truth)).collect()
    });
    Ok(Vector {
        data: Data::Bool(truth.iter().map(|truth| *truth == TRUE).collect()),
        states,
    })
}

fn case(
    kind: Kind,
    whens: &[(Condition, Typed)],
    otherwise: &Typed,
    batch: &Batch,
) -> Result<Vector, Failure> {
    const UNDECIDED: usize = usize::MAX;
    let mut chosen = vec![UNDECIDED; batch.len()];
    let mut vectors = Vec::with_capacity(whens.len() + 1);
    let mut failed: Vec<(usize, u8)> = Vec::new();
    for (branch, (condition, value)) in whens.iter().enumerate() {
        for (row, truth) in truth::evaluate(condition, batch)?.into_iter().enumerate() {
            if chosen[row] != UNDECIDED {
                continue;
            }
            if truth == TRUE {
                chosen[row] = branch;
            } else if truth > TRUE {
                // Whether this branch holds cannot be told, so no later one may be taken.
                failed.push((row, truth - TRUE + NULL));
                chosen[row] = branch;
            }
        }
        vectors.push(evaluate(value, batch)?);
    }
    for chosen in &mut chosen {
        *chosen = (*chosen).min(whens.len());
    }
    vectors.push(evaluate(otherwise, batch)?);
    let mut picked = pick(kind, &vectors, &chosen);
    for (row, state) in failed {
        let states = picked
            .states
            .get_or_insert_with(|| vec![VALUE; batch.len()]);
        states[row] = state;
    }
    Ok(picked)
}

/// For each row the value of the vector that was chosen.
fn pick(kind: Kind, vectors: &[Vector], chosen: &[usize]) -> Vector {
    fn each<T: Copy>(chosen: &[usize], get: impl Fn(usize, usize) -> T) -> Vec<T> {
        chosen
            .iter()
            .enumerate()
            .map(|(row, vector)| get(*vector, row))
            .collect()
    }
    let data = match blank(kind, 0) {
        Data::Bool(_) => Data::Bool(each(chosen, |vector, row| vectors[vector].bools()[row])),
        Data::Number(_) => Data::Number(each(chosen, |vector, row| vectors[vector].numbers()[row])),
        Data::Float(_) => Data::Float(each(chosen, |vector, row| vectors[vector].floats()[row])),
        Data::Moment(_) => Data::Moment(each(chosen, |vector, row| vectors[vector].moments()[row])),
        Data::Bytes(_) => {
            let mut texts = Texts::with_capacity(chosen.len(), 0);
            for (row, vector) in chosen.iter().enumerate() {
                texts.push(vectors[*vector].texts().get(row));
            }
            Data::Bytes(texts)
        }
    };
    let any = vectors.iter().any(|vector| vector.states.is_some());
    Vector {
        data,
        states: any.then(|| each(chosen, |vector, row| vectors[vector].state(row))),
    }
}
