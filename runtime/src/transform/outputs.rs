//! From the answers of a binding of cardinality `any` to one batch a target.
//!
//! Each row image goes through the plugin by itself, as a function of that image alone: the last image of a deleted row, the
//! image before an update and the one after. What a last image gives are tombstones at its own version. An update's two
//! images stand one after the other in the binlog, so what the image after gives again outranks the tombstone that the image
//! before has left, and what it does not give is gone: the destination converges whatever the plugin made of the row.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array, new_empty_array};
use arrow::compute::{concat, take};
use arrow::datatypes::ArrowNativeType;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};

use super::passing::Gone;
use super::target::{Origin, Target};
use super::verdict::{Answer, Breach, Routed};
use super::{addresses, convert, verdict};
use crate::batch::{ChangeBatch, Changes, Op};
use crate::error::ErrorKind;

/// Why an answer's rows cannot be used.
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

/// Rows that give nothing, by place in the batch; none while all do: those that the guest rejected or failed on, and images
/// that a plugin before has left out, also when they were to be taken back.
pub(super) fn barren(batch: &ChangeBatch, answers: &[Answer], gone: &Gone) -> Option<Vec<bool>> {
    let mut barren: Option<Vec<bool>> = gone.dropped.as_ref().map(|dropped| dropped.to_vec());
    for (row, _) in verdict::bad_rows(answers) {
        barren.get_or_insert_with(|| vec![false; batch.row_count])[row] = true;
    }
    barren
}

/// Bytes that an answer's rows copy of columns which the plugin only passes, beyond one copy of each row.
pub(super) fn copied_bytes(
    targets: &[Target],
    batch: &ChangeBatch,
    range: &Range<usize>,
    answer: &Answer,
) -> u64 {
    if answer.output_rows() <= range.len() {
        return 0;
    }
    let columns: BTreeMap<usize, Vec<u64>> = targets
        .iter()
        .flat_map(Target::passed)
        .collect::<BTreeSet<usize>>()
        .into_iter()
        .map(|index| (index, row_bytes(&batch.columns[index], range)))
        .collect();
    let passed = targets.iter().zip(&answer.outputs).map(|(target, routed)| {
        let of_target = target.passed().filter_map(|index| columns.get(&index));
        let of_column = |bytes: &Vec<u64>| -> u64 {
            let parents = routed.parents.iter();
            parents.map(|parent| bytes[*parent as usize]).sum()
        };
        of_target.map(of_column).sum::<u64>()
    });
    let own: u64 = columns.values().flatten().sum();
    passed.sum::<u64>().saturating_sub(own)
}

/// Bytes of each row of a column.
fn row_bytes(column: &ArrayRef, range: &Range<usize>) -> Vec<u64> {
    let between = |offsets: &[i32], width: usize| -> Vec<u64> {
        let rows = offsets[range.start..=range.end].windows(2);
        rows.map(|two| ((two[1] - two[0]).as_usize() * width + size_of::<i32>()) as u64)
            .collect()
    };
    if let Some(binary) = column.as_binary_opt::<i32>() {
        return between(binary.value_offsets(), 1);
    }
    if let Some(lists) = column.as_list_opt::<i32>() {
        return between(lists.value_offsets(), convert::width(lists.values()));
    }
    vec![convert::width(column) as u64; range.len()]
}

/// The rows of one target: the `place`-th of the binding. With `settles` without tombstones of keys that the next image has
/// again.
pub(super) fn join(
    target: &Target,
    place: usize,
    batch: &ChangeBatch,
    answers: &[Answer],
    barren: Option<&[bool]>,
    settles: bool,
) -> Result<ChangeBatch, ArrowError> {
    let parents = parents(place, answers, barren);
    let mut made = made(target, place, answers, barren)?.into_iter();
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
    match settles {
        true => settle(target, parents.values(), joined),
        false => Ok(joined),
    }
}

/// Refuses two rows of one image with one key in the answer to one call, over these rows of the batch. Rows that the guest
/// rejected give nothing.
pub(super) fn ensure_distinct(
    target: &Target,
    place: usize,
    batch: &ChangeBatch,
    range: &Range<usize>,
    answer: &Answer,
) -> Result<(), Unfit> {
    let Routed { parents, columns } = &answer.outputs[place];
    if parents.windows(2).all(|two| two[0] != two[1]) {
        return Ok(());
    }
    let of_batch = UInt32Array::from(parents.clone());
    let keys = keys(target, |column| match target.columns[column] {
        Origin::Passed(index) => {
            let passed = batch.columns[index].slice(range.start, range.len());
            take(&passed, &of_batch, None)
        }
        Origin::Made => {
            let before = target.made().take_while(|made| *made < column);
            Ok(ArrayRef::clone(&columns[before.count()]))
        }
    })?;
    let bad: HashSet<u32> = answer.bad.iter().map(|bad| bad.row as u32).collect();
    let mut seen = HashSet::new();
    for mut image in images(parents) {
        seen.clear();
        let is_used = image.len() > 1 && !bad.contains(&parents[image.start]);
        if is_used && !image.all(|row| seen.insert(keys.row(row))) {
            let name = target.name.as_deref().unwrap_or("its table's own target");
            let what = format!("made two rows of one with the same key for `{name}`");
            return Err(Unfit::Breach(Breach::new(ErrorKind::PluginKey, what)));
        }
    }
    Ok(())
}

/// By place in the batch, over all calls.
fn parents(place: usize, answers: &[Answer], barren: Option<&[bool]>) -> Vec<u32> {
    let mut all = Vec::with_capacity(answers.iter().map(|a| a.outputs[place].parents.len()).sum());
    for (start, answer) in with_starts(answers) {
        let parents = answer.outputs[place].parents.iter();
        all.extend(
            parents
                .map(|parent| start + parent)
                .filter(|row| gives(barren, *row)),
        );
    }
    all
}

/// Each answer with the place of its first row in the batch.
fn with_starts(answers: &[Answer]) -> impl Iterator<Item = (u32, &Answer)> {
    let mut next = 0;
    answers.iter().map(move |answer| {
        let start = next;
        next += u32::try_from(answer.row_count).expect("a call has at most 65,536 rows");
        (start, answer)
    })
}

fn gives(barren: Option<&[bool]>, row: u32) -> bool {
    barren.is_none_or(|barren| !barren[row as usize])
}

fn made(
    target: &Target,
    place: usize,
    answers: &[Answer],
    barren: Option<&[bool]>,
) -> Result<Vec<ArrayRef>, ArrowError> {
    let mut columns = Vec::new();
    for (nth, column) in target.made().enumerate() {
        let mut parts: Vec<ArrayRef> = Vec::new();
        for (start, answer) in with_starts(answers) {
            let routed = &answer.outputs[place];
            let Some(part) = routed.columns.get(nth) else {
                continue;
            };
            parts.push(match barren {
                None => ArrayRef::clone(part),
                Some(_) => {
                    let parents = routed.parents.iter();
                    let giving = parents.map(|parent| Some(gives(barren, start + parent)));
                    arrow::compute::filter(part, &giving.collect::<BooleanArray>())?
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

/// Leaves out tombstones of keys that the next image has again: they would lose to it.
fn settle(
    target: &Target,
    parents: &[u32],
    joined: ChangeBatch,
) -> Result<ChangeBatch, ArrowError> {
    let ops = match &joined.changes {
        Changes::Stream { ops, .. } if ops.contains(&Op::Delete) => ops,
        Changes::Load | Changes::Stream { .. } => return Ok(joined),
    };
    let keys = keys(target, |column| {
        Ok(ArrayRef::clone(&joined.columns[column]))
    })?;
    let images = images(parents);
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
        false => joined.keep(&BooleanArray::from(needed)),
    }
}

/// The rows that each image gave.
fn images(parents: &[u32]) -> Vec<Range<usize>> {
    let mut start = 0;
    let images = parents.chunk_by(|one, next| one == next).map(|image| {
        let range = start..start + image.len();
        start = range.end;
        range
    });
    images.collect()
}

/// The key's values in a form that compares as bytes do; `values` gives those of a target's column.
fn keys(
    target: &Target,
    values: impl Fn(usize) -> Result<ArrayRef, ArrowError>,
) -> Result<Rows, ArrowError> {
    let mut columns = Vec::with_capacity(target.schema.key.len());
    for &place in &target.schema.key {
        let column_type = target.schema.columns[place].column_type;
        columns.push(addresses::as_seen(&values(place)?, column_type));
    }
    let fields = columns
        .iter()
        .map(|column: &ArrayRef| SortField::new(column.data_type().clone()));
    RowConverter::new(fields.collect())?.convert_columns(&columns)
}
