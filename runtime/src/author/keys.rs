//! Whether the rows of a case stay apart: where a plugin says what identifies a row at a target, rows of different keys at
//! the source must not become one there, or the last one written would hide the others.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::Value;

use super::check::Difference;
use super::rows::row_to_json;
use crate::batch::{ChangeBatch, Changes, Op, TableSchema};
use crate::transform::{Applied, Chain};

/// The rows that live at the targets, case row by case row.
#[derive(Default)]
pub(super) struct Living {
    /// By target and key there: the key at the source, and which row of the case gave it last.
    rows: BTreeMap<(Option<String>, String), (String, usize)>,
}

impl Living {
    /// Takes in what became of one row of the case; the first key that another row of the source has there already.
    pub(super) fn take(
        &mut self,
        row: usize,
        source: &ChangeBatch,
        chain: &Chain,
        applied: &Applied,
    ) -> Option<Difference> {
        if source.schema.key.is_empty() {
            return None;
        }
        let of_source = key(&source.schema, source, 0);
        // Whatever it was, its image of now takes its place.
        self.rows.retain(|_, (living, _)| *living != of_source);
        for (output, batch) in &applied.batches {
            let target = chain.outputs().get(*output)?.target.clone();
            for given in (0..batch.row_count).filter(|row| lives(batch, *row)) {
                let at_target = key(&batch.schema, batch, given);
                match self.rows.entry((target.clone(), at_target)) {
                    Entry::Vacant(place) => {
                        place.insert((of_source.clone(), row));
                    }
                    Entry::Occupied(place) if place.get().0 != of_source => {
                        let (target, at_target) = place.key();
                        return Some(told(target.as_deref(), at_target, place.get().1, row));
                    }
                    Entry::Occupied(_) => {}
                }
            }
        }
        None
    }
}

fn told(target: Option<&str>, key: &str, first: usize, second: usize) -> Difference {
    let target = target.map_or("the table's own target".to_owned(), |name| {
        format!("target `{name}`")
    });
    Difference {
        what: format!(
            "rows {} and {} of the case become one in {target}, where both have {key}: what identifies a row there must \
             tell apart whatever the source's key does",
            first + 1,
            second + 1
        ),
        expected: None,
        got: None,
    }
}

fn lives(batch: &ChangeBatch, row: usize) -> bool {
    match &batch.changes {
        Changes::Load => true,
        Changes::Stream { ops, .. } => ops[row] != Op::Delete,
    }
}

/// The key's columns with their values, as JSON.
fn key(schema: &TableSchema, batch: &ChangeBatch, row: usize) -> String {
    let mut object = row_to_json(schema, &batch.columns, row);
    let names: Vec<&str> = schema
        .key
        .iter()
        .map(|place| schema.columns[*place].name.as_str())
        .collect();
    object.retain(|name, _| names.contains(&name.as_str()));
    Value::Object(object).to_string()
}
