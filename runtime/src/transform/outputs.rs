//! From the answers of a binding of cardinality `any` to one batch a target.
//!
//! Each row image goes through the plugin by itself, as a function of that image alone: the last image of a deleted row, the
//! image before an update and the one after. What a last image gives are tombstones at its own version. An update's two
//! images stand one after the other in the binlog, so what the image after gives again outranks the tombstone that the image
//! before has left, and what it does not give is gone: the destination converges whatever the plugin made of the row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array, new_empty_array};
use arrow::compute::{concat, take};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};

use super::addresses;
use super::target::{Origin, Target};
use super::verdict::{Answer, Breach};
use crate::batch::{ChangeBatch, Changes, Op};
use crate::error::ErrorKind;

/// Why rows cannot be joined.
pub(super) enum Unfit {
    /// The plugin's doing.
    Breach(Breach),
    /// Ours.
    Arrow(ArrowError),
}

impl From<ArrowError> for Unfit {
    fn from(error: ArrowError) -> Self {
        Unfit::Arrow(error)
    }
}

/// The rows of one target: the `place`-th of the binding.
pub(super) fn join(
    target: &Target,
    place: usize,
    batch: &ChangeBatch,
    answers: &[Answer],
) -> Result<ChangeBatch, Unfit> {
    let parents = parents(place, answers);
    let mut made = made(target, place, answers)?.into_iter();
    let whole = parents.len() == batch.row_count && parents.windows(2).all(|two| two[0] < two[1]);
    let parents = UInt32Array::from(parents);
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(target.columns.len());
    for origin in &target.columns {
        columns.push(match origin {
            Origin::Made => made.next().expect("one for each column that is made"),
            Origin::Passed(index) if whole => ArrayRef::clone(&batch.columns[*index]),
            Origin::Passed(index) => take(&batch.columns[*index], &parents, None)?,
        });
    }
    let joined = ChangeBatch {
        schema: Arc::clone(&target.schema),
        row_count: parents.len(),
        columns,
        changes: match &batch.changes {
            Changes::Load => Changes::Load,
            Changes::Stream { ops, versions } => {
                let rows = || parents.values().iter().map(|parent| *parent as usize);
                Changes::Stream {
                    ops: rows().map(|row| ops[row]).collect(),
                    versions: rows().map(|row| versions[row]).collect(),
                }
            }
        },
    };
    settle(target, parents.values(), joined)
}

/// Over all calls; without rows that the guest rejected.
fn parents(place: usize, answers: &[Answer]) -> Vec<u32> {
    let mut all = Vec::with_capacity(answers.iter().map(|a| a.outputs[place].parents.len()).sum());
    let mut start = 0;
    for answer in answers {
        let bad = bad_rows(answer);
        let kept = answer.outputs[place].parents.iter();
        all.extend(
            kept.filter(|parent| !bad.contains(*parent))
                .map(|parent| start + parent),
        );
        start += u32::try_from(answer.row_count).expect("a call has at most 65,536 rows");
    }
    all
}

fn bad_rows(answer: &Answer) -> std::collections::HashSet<u32> {
    let rows = answer.bad.iter().map(|bad| bad.row as u32);
    rows.collect()
}

fn made(target: &Target, place: usize, answers: &[Answer]) -> Result<Vec<ArrayRef>, ArrowError> {
    let mut columns = Vec::new();
    for (nth, column) in target.made().enumerate() {
        let mut parts: Vec<ArrayRef> = Vec::new();
        for answer in answers {
            let routed = &answer.outputs[place];
            let Some(part) = routed.columns.get(nth) else {
                continue;
            };
            let bad = bad_rows(answer);
            parts.push(match bad.is_empty() {
                true => ArrayRef::clone(part),
                false => {
                    let good = routed.parents.iter().map(|parent| !bad.contains(parent));
                    arrow::compute::filter(part, &good.map(Some).collect::<BooleanArray>())?
                }
            });
        }
        columns.push(match parts.as_slice() {
            [] => new_empty_array(&target.schema.columns[column].column_type.arrow()),
            [part] => ArrayRef::clone(part),
            parts => concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())?,
        });
    }
    Ok(columns)
}

/// Refuses two rows of one image with one key, and leaves out tombstones of keys that the next image has again: they would
/// lose to it.
fn settle(target: &Target, parents: &[u32], joined: ChangeBatch) -> Result<ChangeBatch, Unfit> {
    let repeats = parents.windows(2).any(|two| two[0] == two[1]);
    let tombstones = match &joined.changes {
        Changes::Load => false,
        Changes::Stream { ops, .. } => ops.contains(&Op::Delete),
    };
    if !repeats && !tombstones {
        return Ok(joined);
    }
    let keys = keys(target, &joined)?;
    let images = images(parents);
    if repeats {
        ensure_distinct(target, &keys, &images)?;
    }
    let Changes::Stream { ops, .. } = &joined.changes else {
        return Ok(joined);
    };
    let mut needed = vec![true; parents.len()];
    for two in images.windows(2) {
        let (before, after) = (two[0].clone(), two[1].clone());
        let gone = ops[before.start] == Op::Delete && ops[after.start] != Op::Delete;
        if !gone || parents[before.start] + 1 != parents[after.start] {
            continue;
        }
        for row in before {
            needed[row] = !after.clone().any(|other| keys.row(other) == keys.row(row));
        }
    }
    match needed.iter().all(|needed| *needed) {
        true => Ok(joined),
        false => Ok(joined.keep(&BooleanArray::from(needed))?),
    }
}

/// The rows that each image gave.
fn images(parents: &[u32]) -> Vec<std::ops::Range<usize>> {
    let mut start = 0;
    let images = parents.chunk_by(|one, next| one == next).map(|image| {
        let range = start..start + image.len();
        start = range.end;
        range
    });
    images.collect()
}

fn ensure_distinct(
    target: &Target,
    keys: &Rows,
    images: &[std::ops::Range<usize>],
) -> Result<(), Unfit> {
    let mut seen = std::collections::HashSet::new();
    for image in images.iter().filter(|image| image.len() > 1) {
        seen.clear();
        if !image.clone().all(|row| seen.insert(keys.row(row))) {
            let name = target.name.as_deref().unwrap_or("its table's own target");
            let what = format!("made two rows of one with the same key for `{name}`");
            return Err(Unfit::Breach(Breach::new(ErrorKind::PluginKey, what)));
        }
    }
    Ok(())
}

/// The key's values in a form that compares as bytes do.
fn keys(target: &Target, joined: &ChangeBatch) -> Result<Rows, ArrowError> {
    let columns: Vec<ArrayRef> = target
        .schema
        .key
        .iter()
        .map(|&place| {
            addresses::as_seen(
                &joined.columns[place],
                target.schema.columns[place].column_type,
            )
        })
        .collect();
    let fields = columns
        .iter()
        .map(|column| SortField::new(column.data_type().clone()));
    RowConverter::new(fields.collect())?.convert_columns(&columns)
}
