//! A shape that the host has checked: what a plugin may do to one table.
//!
//! Key columns decide which row is which. A plugin whose rows stay may read them and never write them, so that a transform
//! can make two rows one in no configuration. One of cardinality `any` says for each target what identifies a row there.

use std::collections::HashSet;
use std::sync::Arc;

use super::instance::Plugin;
use super::limits::{COLUMNS, COLUMNS_OF_TARGETS, TARGETS};
use super::target::{Target, targets};
use super::version::{Cardinality, GuestField, GuestShape};
use crate::batch::{Column, ColumnType, Number, TableSchema};
use crate::config::OnRejected;
use crate::error::{Error, ErrorKind, Result};
use crate::one_line::one_line;

/// What a plugin does to one table.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) input: Arc<TableSchema>,
    pub(super) output: Arc<TableSchema>,
    /// Indexes into the input's columns.
    pub(super) reads: Vec<usize>,
    pub(super) may_drop: bool,
    pub(super) writes: Vec<Write>,
    /// Where rows go, for a binding of cardinality `any`; none where they stay.
    pub(super) targets: Vec<Target>,
}

/// A column that the plugin makes.
#[derive(Debug)]
pub(super) struct Write {
    /// Index into the output's columns.
    pub(super) place: usize,
    pub(super) kind: WriteKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteKind {
    /// Stands in for an input column of the same type: when it is not answered, that one stays.
    Replaced,
    /// Stands in for an input column of another type, or that could be NULL: it must be answered.
    Retyped,
    /// Comes behind the others: when it is not answered, it is NULL.
    Added,
}

impl Binding {
    pub(super) fn new(plugin: &Plugin, input: Arc<TableSchema>, shape: GuestShape) -> Result<Self> {
        let keeps_old = plugin.on_rejected == OnRejected::KeepOld;
        if keeps_old && shape.cardinality == Cardinality::Any {
            let name = plugin.name();
            return Err(Error::new(
                ErrorKind::PluginRefused,
                format!("plugin `{name}` makes rows of its own, of which no old one can be kept"),
            )
            .with_hint(format!("set `transforms.{name}.on_rejected` to hide"))
            .with_table(&input.name));
        }
        Self::checked(input, shape).map_err(|(input, refusal)| {
            let name = plugin.name();
            let error = match refusal {
                Refusal::NotYet(what) => Error::new(
                    ErrorKind::PluginRefused,
                    format!("plugin `{name}` {what}, which this build does not support"),
                )
                .with_hint(format!("take `{name}` out of the table's `transforms`")),
                Refusal::Forbidden(what) => Error::new(
                    ErrorKind::PluginRefused,
                    format!("plugin `{name}` {what}: what identifies a row may be read, not written or lost"),
                )
                .with_hint(format!(
                    "edit `transforms.{name}.config`, or take `{name}` out of the table's `transforms`"
                )),
                Refusal::Broken(what) => plugin.output_error(format!("binds wrongly: {what}")),
            };
            error.with_table(&input.name)
        })
    }

    fn checked(
        input: Arc<TableSchema>,
        shape: GuestShape,
    ) -> Result<Self, (Arc<TableSchema>, Refusal)> {
        let checked = ensure_consistent(&shape)
            .and_then(|()| ensure_bounded(&shape))
            .and_then(|()| reads(&input, &shape))
            .and_then(|reads| Ok((reads, writes(&input, &shape)?, targets(&input, &shape)?)));
        match checked {
            Ok((reads, (output, writes), targets)) => Ok(Self {
                output: Arc::new(output),
                reads,
                may_drop: shape.cardinality == Cardinality::MayDrop,
                writes,
                targets,
                input,
            }),
            Err(refusal) => Err((input, refusal)),
        }
    }
}

/// Why a shape is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The contract has it, this build does not.
    NotYet(String),
    /// It would touch the key.
    Forbidden(String),
    /// The plugin contradicts itself or the table.
    Broken(String),
}

fn ensure_consistent(shape: &GuestShape) -> Result<(), Refusal> {
    let broken = |what: &str| Err(Refusal::Broken(what.to_owned()));
    match shape.cardinality {
        Cardinality::Any if shape.targets.is_empty() => {
            broken("its rows may become several (`any`), and it declares no target")
        }
        Cardinality::Any if !shape.writes.is_empty() => {
            broken("it makes columns of its table and of targets, which are made by target")
        }
        Cardinality::SameRows | Cardinality::MayDrop if !shape.targets.is_empty() => {
            broken("it declares targets, and its rows stay in their table")
        }
        _ => Ok(()),
    }
}

/// Before anything is made of it: the guest chose how much it declares.
fn ensure_bounded(shape: &GuestShape) -> Result<(), Refusal> {
    let broken = |what: String| Err(Refusal::Broken(what));
    let (writes, targets) = (shape.writes.len(), &shape.targets);
    if writes > COLUMNS {
        return broken(format!("it makes {writes} columns, of at most {COLUMNS}"));
    }
    if targets.len() > TARGETS {
        let declared = targets.len();
        return broken(format!(
            "it declares {declared} targets, of at most {TARGETS}"
        ));
    }
    let all: usize = targets.iter().map(|target| target.columns.len()).sum();
    if all > COLUMNS_OF_TARGETS {
        return broken(format!(
            "it declares targets of {all} columns together, of at most {COLUMNS_OF_TARGETS}"
        ));
    }
    Ok(())
}

fn reads(input: &TableSchema, shape: &GuestShape) -> Result<Vec<usize>, Refusal> {
    let mut reads = Vec::new();
    let mut seen = HashSet::new();
    for read in &shape.reads {
        let read = *read as usize;
        if read >= input.columns.len() {
            return Err(Refusal::Broken(format!(
                "it reads column {read}, past the last"
            )));
        }
        if !seen.insert(read) {
            return Err(Refusal::Broken(format!("it reads column {read} twice")));
        }
        reads.push(read);
    }
    Ok(reads)
}

fn writes(input: &TableSchema, shape: &GuestShape) -> Result<(TableSchema, Vec<Write>), Refusal> {
    let mut output = input.clone();
    let mut writes: Vec<Write> = Vec::with_capacity(shape.writes.len());
    let mut replaced_columns = HashSet::new();
    for (replaced, field) in &shape.writes {
        let name = column_name(input, field)?;
        let column_type = field.column_type.map_err(|type_name| {
            Refusal::NotYet(format!("makes column `{name}` of type `{type_name}`"))
        })?;
        ensure_key_untouched(input, *replaced)?;
        if field.key {
            return Err(Refusal::Forbidden(format!(
                "makes a key of column `{name}` where rows stay in their table"
            )));
        }
        let (place, kind, source_type) = match replaced {
            Some(replaced) => {
                let place = *replaced as usize;
                let Some(old) = input.columns.get(place) else {
                    return Err(Refusal::Broken(format!(
                        "it replaces column {place}, past the last"
                    )));
                };
                if !replaced_columns.insert(place) {
                    return Err(Refusal::Broken(format!("it replaces column {place} twice")));
                }
                let same = crossing(old.column_type) == crossing(column_type);
                let kind = if same && (field.nullable || !old.nullable) {
                    WriteKind::Replaced
                } else {
                    WriteKind::Retyped
                };
                (place, kind, same.then(|| old.source_type.clone()))
            }
            None => {
                output.columns.push(column(field, column_type, None));
                (output.columns.len() - 1, WriteKind::Added, None)
            }
        };
        let column_type = match kind {
            // Digits of a fraction are the source's affair; a label that was rewritten is a label no more, nor is a UUID.
            WriteKind::Replaced => replaced_type(input.columns[place].column_type),
            WriteKind::Retyped | WriteKind::Added => column_type,
        };
        output.columns[place] = column(field, column_type, source_type);
        writes.push(Write { place, kind });
    }
    ensure_columns(&output)?;
    Ok((output, writes))
}

fn ensure_key_untouched(input: &TableSchema, replaced: Option<u32>) -> Result<(), Refusal> {
    let key_column = replaced
        .map(|replaced| replaced as usize)
        .filter(|replaced| input.key.contains(replaced))
        .and_then(|replaced| input.columns.get(replaced));
    match key_column {
        Some(column) => Err(Refusal::Forbidden(format!(
            "replaces column `{}`",
            column.name
        ))),
        None => Ok(()),
    }
}

/// Bytes of a name: MySQL's 64 characters, of four bytes each.
const NAME_BYTES: usize = 256;

/// A column of the source keeps its name, whatever is in it.
pub(super) fn column_name<'a>(
    input: &TableSchema,
    field: &'a GuestField,
) -> Result<&'a str, Refusal> {
    let name = &field.name;
    named("a column", name).or_else(|refusal| {
        let mut columns = input.columns.iter();
        match columns.any(|column| column.name == *name) {
            true => Ok(name.as_str()),
            false => Err(refusal),
        }
    })
}

/// A name of the guest's: it reaches errors, statuses and statements for ClickHouse.
pub(super) fn named<'a>(what: &str, name: &'a str) -> Result<&'a str, Refusal> {
    let broken = |how: &str| Err(Refusal::Broken(format!("it makes {what} {how}")));
    match one_line(name, NAME_BYTES) {
        _ if name.is_empty() => broken("without a name"),
        plain if plain != name => broken(&format!(
            "with a name of more than {NAME_BYTES} bytes, or with control characters in it"
        )),
        _ => Ok(name),
    }
}

pub(super) fn ensure_columns(output: &TableSchema) -> Result<(), Refusal> {
    let width = output.columns.len();
    if width > COLUMNS {
        let what = format!("its rows have {width} columns, of at most {COLUMNS}");
        return Err(Refusal::Broken(what));
    }
    let mut names = HashSet::with_capacity(output.columns.len());
    let mut columns = output.columns.iter();
    match columns.find(|column| !names.insert(column.name.as_str())) {
        Some(column) => {
            let what = format!("it makes a second column `{}`", column.name);
            Err(Refusal::Broken(what))
        }
        None => Ok(()),
    }
}

pub(super) fn column(
    field: &GuestField,
    column_type: ColumnType,
    source_type: Option<String>,
) -> Column {
    Column {
        name: field.name.clone(),
        column_type,
        nullable: field.nullable,
        source_type: source_type.unwrap_or_else(|| one_line(&field.source_type, NAME_BYTES)),
    }
}

/// What of a type crosses the boundary.
fn crossing(column_type: ColumnType) -> ColumnType {
    match column_type {
        ColumnType::Text
        | ColumnType::Label
        | ColumnType::Json
        | ColumnType::Uuid
        | ColumnType::Inet4
        | ColumnType::Inet6 => ColumnType::Text,
        ColumnType::Vector => ColumnType::List(Number::Float32),
        ColumnType::DateTime { .. } => ColumnType::DateTime { digits: 6 },
        ColumnType::Timestamp { .. } => ColumnType::Timestamp { digits: 6 },
        ColumnType::Time { .. } => ColumnType::Time { digits: 6 },
        other => other,
    }
}

fn replaced_type(column_type: ColumnType) -> ColumnType {
    match column_type {
        ColumnType::Label
        | ColumnType::Json
        | ColumnType::Uuid
        | ColumnType::Inet4
        | ColumnType::Inet6 => ColumnType::Text,
        other => other,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::batch::TableName;

    pub(in super::super) fn schema() -> Arc<TableSchema> {
        let column = |name: &str, column_type, nullable| Column {
            name: name.to_owned(),
            column_type,
            nullable,
            source_type: "as the server says".to_owned(),
        };
        Arc::new(TableSchema {
            name: TableName::new("shop", "customers"),
            columns: vec![
                column("id", ColumnType::Int64, false),
                column("email", ColumnType::Text, true),
                column("state", ColumnType::Label, false),
            ],
            key: vec![0],
        })
    }

    pub(in super::super) fn field(name: &str, column_type: ColumnType) -> GuestField {
        GuestField {
            name: name.to_owned(),
            column_type: Ok(column_type),
            nullable: true,
            key: false,
            source_type: String::new(),
        }
    }

    pub(in super::super) fn shape() -> GuestShape {
        GuestShape {
            reads: vec![1],
            cardinality: Cardinality::SameRows,
            writes: Vec::new(),
            targets: Vec::new(),
        }
    }

    pub(in super::super) fn refusal(change: impl FnOnce(&mut GuestShape)) -> Refusal {
        let mut shape = shape();
        change(&mut shape);
        Binding::checked(schema(), shape).unwrap_err().1
    }

    #[test]
    fn replaced_and_added_columns_make_the_output() {
        let mut shape = shape();
        shape
            .writes
            .push((Some(2), field("state", ColumnType::Text)));
        shape.writes.push((None, field("total", ColumnType::Int64)));
        shape
            .writes
            .push((Some(1), field("email", ColumnType::Int64)));
        let binding = Binding::checked(schema(), shape).unwrap();
        let types: Vec<_> = binding
            .output
            .columns
            .iter()
            .map(|column| column.column_type)
            .collect();
        let expected = [
            ColumnType::Int64,
            ColumnType::Int64,
            ColumnType::Text,
            ColumnType::Int64,
        ];
        assert_eq!(types, expected);
        assert_eq!(binding.output.columns[2].source_type, "as the server says");
        let kinds: Vec<_> = binding
            .writes
            .iter()
            .map(|write| (write.place, write.kind))
            .collect();
        let expected = [
            (2, WriteKind::Replaced),
            (3, WriteKind::Added),
            (1, WriteKind::Retyped),
        ];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn a_key_column_is_never_written() {
        let refusal = refusal(|shape| shape.writes.push((Some(0), field("id", ColumnType::Int64))));
        assert_eq!(
            refusal,
            Refusal::Forbidden("replaces column `id`".to_owned())
        );
    }

    #[test]
    fn a_key_is_declared_by_targets_only() {
        let refusal = refusal(|shape| {
            let key = GuestField {
                key: true,
                ..field("k", ColumnType::Int64)
            };
            shape.writes.push((None, key));
        });
        assert!(
            matches!(refusal, Refusal::Forbidden(what) if what.contains("a key of column `k`"))
        );
    }

    #[test]
    fn what_this_build_lacks_is_refused_by_name() {
        let not_yet = |refusal| match refusal {
            Refusal::NotYet(what) => what,
            other => panic!("{other:?}"),
        };
        let texts = refusal(|shape| {
            let column_type = Err("list-of what is no number");
            shape.writes.push((
                None,
                GuestField {
                    column_type,
                    ..field("tags", ColumnType::Int8)
                },
            ));
        });
        assert!(not_yet(texts).contains("`list-of what is no number`"));
    }

    #[test]
    fn what_a_shape_declares_is_bounded_before_anything_is_made_of_it() {
        let broken = |change: fn(&mut GuestShape)| match refusal(change) {
            Refusal::Broken(what) => what,
            other => panic!("{other:?}"),
        };
        let began = std::time::Instant::now();
        let what = broken(|shape| {
            let added = |number| (None, field(&format!("c{number}"), ColumnType::Int8));
            shape.writes.extend((0..1_000_000).map(added));
        });
        assert_eq!(what, "it makes 1000000 columns, of at most 8192");
        let what = broken(|shape| {
            let added = |number| (None, field(&format!("c{number}"), ColumnType::Int8));
            shape.writes.extend((0..COLUMNS).map(added));
        });
        assert_eq!(what, "its rows have 8195 columns, of at most 8192");
        let what = broken(|shape| shape.reads = vec![0; 1_000_000]);
        assert_eq!(what, "it reads column 0 twice");
        // Compared name by name this would take minutes.
        let took = began.elapsed();
        assert!(took < std::time::Duration::from_secs(30), "{took:?}");
    }

    #[test]
    fn a_name_that_a_log_or_a_terminal_would_obey_is_refused_and_not_shown() {
        let named = |name: &str| {
            let field = field(name, ColumnType::Int8);
            match refusal(|shape| shape.writes.push((None, field))) {
                Refusal::Broken(what) => what,
                other => panic!("{other:?}"),
            }
        };
        assert!(named("a\nERROR b").ends_with("control characters in it"));
        assert!(named(&"long".repeat(100)).contains("more than 256 bytes"));
        let (mut table, mut shape) = ((*schema()).clone(), shape());
        table.columns[1].name = "e\tmail".to_owned();
        shape
            .writes
            .push((Some(1), field("e\tmail", ColumnType::Text)));
        Binding::checked(Arc::new(table), shape).expect("a source's column keeps its name");
    }

    #[test]
    fn a_shape_that_contradicts_the_table_is_refused() {
        let broken = |change: fn(&mut GuestShape)| matches!(refusal(change), Refusal::Broken(_));
        assert!(broken(|shape| shape.reads.push(9)));
        assert!(broken(|shape| shape.cardinality = Cardinality::Any));
        assert!(broken(|shape| shape.reads.push(1)));
        assert!(broken(|shape| shape
            .writes
            .push((Some(9), field("x", ColumnType::Int8)))));
        assert!(broken(|shape| shape
            .writes
            .push((None, field("email", ColumnType::Int8)))));
        assert!(broken(|shape| shape
            .writes
            .push((None, field("", ColumnType::Int8)))));
        assert!(broken(|shape| {
            shape.writes.push((Some(1), field("a", ColumnType::Text)));
            shape.writes.push((Some(1), field("b", ColumnType::Text)));
        }));
    }
}
