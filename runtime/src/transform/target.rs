//! The targets of a binding of cardinality `any`, checked: where rows go, what of them is passed and what is made, and what
//! identifies a row there.

use std::collections::HashSet;
use std::sync::Arc;

use super::binding::{Refusal, column, column_name, ensure_columns, named};
use super::version::{GuestShape, GuestTarget, GuestTargetColumn};
use crate::batch::TableSchema;

/// One target of a binding.
#[derive(Debug)]
pub(super) struct Target {
    /// None: the table's own.
    pub(super) name: Option<String>,
    /// Its columns and its key.
    pub(super) schema: Arc<TableSchema>,
    /// Where each column comes from.
    pub(super) columns: Vec<Origin>,
}

/// Where a target's column comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The input's column of that index, with the parent's value.
    Passed(usize),
    /// The plugin makes it.
    Made,
}

impl Target {
    /// The input's columns that its rows take along.
    pub(super) fn passed(&self) -> impl Iterator<Item = usize> + '_ {
        self.columns.iter().filter_map(|origin| match origin {
            Origin::Passed(index) => Some(*index),
            Origin::Made => None,
        })
    }

    /// The places of the columns that the plugin makes.
    pub(super) fn made(&self) -> impl Iterator<Item = usize> + '_ {
        let columns = self.columns.iter().enumerate();
        columns
            .filter(|(_, origin)| **origin == Origin::Made)
            .map(|(place, _)| place)
    }
}

/// Checks a shape's targets against the table that they are made of.
pub(super) fn targets(input: &TableSchema, shape: &GuestShape) -> Result<Vec<Target>, Refusal> {
    let mut targets: Vec<Target> = Vec::with_capacity(shape.targets.len());
    let mut names = HashSet::new();
    for declared in &shape.targets {
        let name = declared.name.as_deref();
        name.map(|name| named("a target", name)).transpose()?;
        if !names.insert(name) {
            let what = name.map_or("its table's own target".to_owned(), |name| {
                format!("target `{name}`")
            });
            return Err(Refusal::Broken(format!("it declares {what} twice")));
        }
        targets.push(target(input, declared)?);
    }
    Ok(targets)
}

fn target(input: &TableSchema, declared: &GuestTarget) -> Result<Target, Refusal> {
    let mut schema = TableSchema {
        columns: Vec::with_capacity(declared.columns.len()),
        key: Vec::new(),
        ..input.clone()
    };
    schema.columns.clear();
    let mut columns = Vec::with_capacity(declared.columns.len());
    for declared in &declared.columns {
        match declared {
            GuestTargetColumn::Passed(index) => {
                let index = *index as usize;
                let passed = input.columns.get(index).ok_or_else(|| {
                    Refusal::Broken(format!("it passes column {index}, past the last"))
                })?;
                schema.columns.push(passed.clone());
                columns.push(Origin::Passed(index));
            }
            GuestTargetColumn::Made(field) => {
                let name = column_name(input, field)?;
                let column_type = field.column_type.map_err(|type_name| {
                    Refusal::NotYet(format!("makes column `{name}` of type `{type_name}`"))
                })?;
                schema.columns.push(column(field, column_type, None));
                columns.push(Origin::Made);
            }
        }
    }
    ensure_columns(&schema)?;
    schema.key = key(input, declared, &schema, &columns)?;
    Ok(Target {
        name: declared.name.clone(),
        schema: Arc::new(schema),
        columns,
    })
}

fn key(
    input: &TableSchema,
    declared: &GuestTarget,
    schema: &TableSchema,
    columns: &[Origin],
) -> Result<Vec<usize>, Refusal> {
    if declared.key.is_empty() {
        let passed = input.key.iter().map(|key| {
            let place = columns
                .iter()
                .position(|origin| *origin == Origin::Passed(*key));
            place.ok_or_else(|| {
                Refusal::Forbidden(format!(
                    "leaves out column `{}` and declares no other key",
                    input.columns[*key].name
                ))
            })
        });
        return passed.collect();
    }
    let mut key = Vec::new();
    let mut seen = HashSet::new();
    for place in &declared.key {
        let place = *place as usize;
        let Some(column) = schema.columns.get(place) else {
            return Err(Refusal::Broken(format!(
                "its key names column {place}, past the last"
            )));
        };
        if !seen.insert(place) {
            return Err(Refusal::Broken(format!(
                "its key names column `{}` twice",
                column.name
            )));
        }
        if column.column_type.elements().is_some() {
            return Err(Refusal::Broken(format!(
                "its key names column `{}`, which holds lists",
                column.name
            )));
        }
        if column.nullable {
            return Err(Refusal::Broken(format!(
                "its key names column `{}`, which may be NULL",
                column.name
            )));
        }
        key.push(place);
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::super::binding::tests::{field, refusal, schema, shape};
    use super::super::version::{Cardinality, GuestField};
    use super::*;
    use crate::batch::{ColumnType, Number};

    fn declared(name: Option<&str>, columns: Vec<GuestTargetColumn>, key: &[u32]) -> GuestTarget {
        GuestTarget {
            name: name.map(str::to_owned),
            columns,
            key: key.to_vec(),
        }
    }

    fn passed(indexes: &[u32]) -> Vec<GuestTargetColumn> {
        indexes
            .iter()
            .map(|index| GuestTargetColumn::Passed(*index))
            .collect()
    }

    fn made(name: &str, nullable: bool) -> GuestTargetColumn {
        GuestTargetColumn::Made(GuestField {
            nullable,
            ..field(name, ColumnType::Int32)
        })
    }

    fn refused(targets: Vec<GuestTarget>) -> Refusal {
        refusal(|shape| {
            shape.cardinality = Cardinality::Any;
            shape.targets = targets;
        })
    }

    #[test]
    fn columns_are_passed_or_made_and_the_key_is_the_tables_own_or_another() {
        let mut lines = passed(&[2, 0]);
        lines.push(made("number", false));
        let shape = GuestShape {
            cardinality: Cardinality::Any,
            targets: vec![
                declared(None, passed(&[0, 1]), &[]),
                declared(Some("lines"), lines, &[1, 2]),
            ],
            ..shape()
        };
        let targets = targets(&schema(), &shape).unwrap();
        assert_eq!(targets[0].schema.key, [0]);
        assert_eq!(targets[0].schema.columns.len(), 2);
        assert_eq!(targets[1].schema.key, [1, 2]);
        let origins = [Origin::Passed(2), Origin::Passed(0), Origin::Made];
        assert_eq!(targets[1].columns, origins);
        assert_eq!(targets[1].made().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_target_that_loses_the_key_without_another_is_refused() {
        let refusal = refused(vec![declared(Some("t"), passed(&[1]), &[])]);
        let words = "leaves out column `id` and declares no other key";
        assert_eq!(refusal, Refusal::Forbidden(words.to_owned()));
    }

    #[test]
    fn targets_are_bounded_one_by_one_and_together() {
        let refused = |targets| match refused(targets) {
            Refusal::Broken(what) => what,
            other => panic!("{other:?}"),
        };
        let named = |number: usize, columns: usize| {
            let made = (0..columns).map(|column| made(&format!("c{column}"), false));
            declared(Some(&format!("t{number}")), made.collect(), &[0])
        };
        let many = (0..1_001).map(|number| named(number, 1)).collect();
        assert!(refused(many).contains("1001 targets, of at most 1000"));
        assert!(refused(vec![named(0, 8_193)]).contains("have 8193 columns, of at most 8192"));
        let together = (0..17).map(|number| named(number, 8_000)).collect();
        assert!(refused(together).contains("136000 columns together, of at most 131072"));
    }

    #[test]
    fn targets_that_contradict_themselves_are_refused() {
        let broken = |targets| matches!(refused(targets), Refusal::Broken(_));
        assert!(broken(vec![declared(None, passed(&[0, 9]), &[])]));
        assert!(broken(vec![declared(None, passed(&[0, 0]), &[])]));
        assert!(broken(vec![declared(Some(""), passed(&[0]), &[])]));
        let twice = || declared(Some("t"), passed(&[0]), &[]);
        assert!(broken(vec![twice(), twice()]));
        assert!(broken(vec![declared(None, passed(&[0]), &[4])]));
        assert!(broken(vec![declared(None, passed(&[0]), &[0, 0])]));
        assert!(broken(vec![declared(None, vec![made("n", true)], &[0])]));
        let list = GuestTargetColumn::Made(GuestField {
            nullable: false,
            ..field("l", ColumnType::List(Number::Int64))
        });
        assert!(broken(vec![declared(None, vec![list], &[0])]));
    }
}
