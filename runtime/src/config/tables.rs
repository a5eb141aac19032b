//! The entries of `tables`.

use std::collections::{BTreeMap, HashMap};

use super::across::TableOutline;
use super::field::Field;
use super::node::Value;
use super::section::Section;
use super::values::nearest;
use super::{ColumnConfig, Engine, Keyless, TableConfig, TablePattern, policies};

/// Names that we give ourselves begin so.
const RESERVED_PREFIX: &str = "_pipewright_";

/// Reads `tables`; `transforms` are the names that exist, and `keyless` is the pipe's choice.
pub(super) fn read(
    field: &Field<'_>,
    transforms: &[String],
    keyless: Keyless,
) -> (Option<Vec<TableConfig>>, Vec<TableOutline>) {
    let Some(items) = field.list() else {
        return (None, Vec::new());
    };
    if items.is_empty() {
        field.problem(
            "an empty list",
            "at least one table",
            "add `- source: database.table`",
        );
        return (None, Vec::new());
    }
    let mut tables = Some(Vec::new());
    let mut outlines = Vec::new();
    let mut sources: HashMap<TablePattern, u64> = HashMap::new();
    for item in items {
        let (table, source, target) = entry(&item, transforms, keyless);
        if let Some((source, place)) = &source {
            match sources.get(source) {
                Some(line) => {
                    place.problem(
                        format!("`{source}` a second time"),
                        "each source table once",
                        format!("remove one of the two; the first is on line {line}"),
                    );
                    tables = None;
                }
                None => {
                    sources.insert(source.clone(), place.node.place.line);
                }
            }
        }
        if let Some((target, place)) = target {
            outlines.push(TableOutline {
                target,
                place: place.node.place,
                path: place.path,
            });
        }
        match (table, &mut tables) {
            (Some(table), Some(tables)) => tables.push(table),
            _ => tables = None,
        }
    }
    (tables, outlines)
}

/// Reads `exclude`: tables, written as in `tables`, that no wildcard of `tables` means.
pub(super) fn excluded(field: &Field<'_>, tables: &[TableConfig]) -> Option<Vec<TablePattern>> {
    let mut excluded = Some(Vec::new());
    for item in field.list()? {
        let Some(pattern) = pattern(&item) else {
            excluded = None;
            continue;
        };
        let named = |entry: &&TableConfig| {
            let source = &entry.source;
            !source.is_wildcard()
                && !pattern.is_wildcard()
                && (&source.database, &source.table) == (&pattern.database, &pattern.table)
        };
        if let Some(entry) = tables.iter().find(named) {
            item.problem(
                format!("`{}`, which `tables` names", entry.source),
                "tables that a wildcard means",
                "remove it from one of the two",
            );
            excluded = None;
        } else if let Some(excluded) = &mut excluded {
            excluded.push(pattern);
        }
    }
    excluded
}

/// Makes the wildcards among `tables` pass over what is excluded.
pub(super) fn exclude(tables: &mut [TableConfig], excluded: &[TablePattern]) {
    for entry in tables {
        if entry.source.is_wildcard() {
            entry.source.except = excluded.to_vec();
        }
    }
}

/// The entry, its source with its place, and its target with its place: as much of it as could be read.
type Entry<'a> = (
    Option<TableConfig>,
    Option<(TablePattern, Field<'a>)>,
    Option<(String, Field<'a>)>,
);

fn entry<'a>(item: &Field<'a>, transforms: &[String], keyless: Keyless) -> Entry<'a> {
    if let Value::Text(_) = item.node.value {
        item.problem(item.shown(), "a map", "write `- source: database.table`");
        return (None, None, None);
    }
    let Some(mut section) = item.section() else {
        return (None, None, None);
    };
    let source_field =
        section.required("source", "the source table", "add `source: database.table`");
    let source = source_field.as_ref().and_then(pattern);
    let target_field = section.get("target");
    let target = match &target_field {
        Some(field) => target(field, source.as_ref()).map(Some),
        None => Some(None),
    };
    let outline = outline(
        source.as_ref(),
        source_field.as_ref(),
        target.as_ref(),
        target_field,
    );
    let columns = columns(&mut section, transforms);
    let engine = section.or("engine", Engine::Replacing, |field| {
        field.choice(
            &[("replacing", Engine::Replacing), ("append", Engine::Append)],
            &[("discard", "use `replacing`")],
        )
    });
    let keyless = section.or("keyless", keyless, |field| self::keyless(&field));
    let partition_by = section.maybe("partition_by", |field| field.text().map(str::to_owned));
    let split_by = section.maybe("split_by", |field| field.text().map(str::to_owned));
    for (key, instead) in [
        (
            "types",
            "set it for the pipe, at the top of the document, or for a column below `columns`",
        ),
        ("ddl", "set it for the pipe, at the top of the document"),
    ] {
        section.unbuilt(key, instead);
    }
    section.finish();
    let table = || {
        let columns = columns?;
        Some(TableConfig {
            source: source.clone()?,
            target: target?,
            exclude_columns: columns.exclude,
            order_by: columns.order_by,
            partition_by: partition_by?,
            engine: engine?,
            keyless: keyless?,
            split_by: split_by?,
            columns: columns.chosen,
            transforms: columns.transforms,
        })
    };
    (table(), source.clone().zip(source_field), outline)
}

/// What becomes of tables without a key.
pub(super) fn keyless(field: &Field<'_>) -> Option<Keyless> {
    field.choice(
        &[("refuse", Keyless::Refuse), ("append", Keyless::Append)],
        &[],
    )
}

/// The one target of an entry that is no wildcard.
fn outline<'a>(
    source: Option<&TablePattern>,
    source_field: Option<&Field<'a>>,
    target: Option<&Option<String>>,
    target_field: Option<Field<'a>>,
) -> Option<(String, Field<'a>)> {
    match target? {
        Some(target) => Some((target.clone(), target_field?)),
        None => {
            let source = source.filter(|source| !source.is_wildcard())?;
            Some((source.table.clone(), source_field?.clone()))
        }
    }
}

/// `database.table`, or `{database: d, table: t}` taken literally.
fn pattern(field: &Field<'_>) -> Option<TablePattern> {
    if matches!(field.node.value, Value::Map(_)) {
        let mut section = field.section()?;
        let name = |field: Field<'_>| field.text().map(str::to_owned);
        let database = section
            .required("database", "the database's name", "add `database:`")
            .and_then(name);
        let table = section
            .required("table", "the table's name", "add `table:`")
            .and_then(name);
        section.finish();
        return Some(TablePattern {
            database: database?,
            table: table?,
            literal: true,
            except: Vec::new(),
        });
    }
    let text = field.text()?;
    let parts = text.split_once('.').filter(|(database, table)| {
        !database.is_empty() && !table.is_empty() && !table.contains('.')
    });
    if field.is_unresolved() && parts.is_none() {
        return Some(TablePattern {
            database: text.to_owned(),
            table: text.to_owned(),
            literal: true,
            except: Vec::new(),
        });
    }
    match parts {
        Some((database, table)) if !text.contains(['`', '"']) => Some(TablePattern {
            database: database.to_owned(),
            table: table.to_owned(),
            literal: false,
            except: Vec::new(),
        }),
        _ => {
            field.problem(
                field.shown(),
                "`database.table` without quotes",
                "write names with dots or quotes in them as `{database: d, table: t}`",
            );
            None
        }
    }
}

fn target(field: &Field<'_>, source: Option<&TablePattern>) -> Option<String> {
    let text = field.text_where(
        |text| !text.contains('.') && !text.chars().any(char::is_control) && text.len() <= 200,
        "a table's name, without a database",
        "the database is `destination.database`, the same for all tables of a pipe",
    )?;
    if text.starts_with(RESERVED_PREFIX) {
        field.problem(
            field.shown(),
            format!("a name that does not begin with `{RESERVED_PREFIX}`"),
            "choose another name; these are the runtime's own tables",
        );
        return None;
    }
    if source.is_some_and(TablePattern::is_wildcard) {
        field.problem(
            "`target` beside a wildcard",
            "no target: each table keeps its name",
            "remove `target`, or name the one table in an entry of its own",
        );
        return None;
    }
    Some(text.to_owned())
}

/// The keys of an entry that name columns or transforms, checked against each other.
struct Columns {
    exclude: Vec<String>,
    order_by: Option<Vec<String>>,
    chosen: BTreeMap<String, ColumnConfig>,
    transforms: Vec<String>,
}

fn columns(section: &mut Section<'_>, known: &[String]) -> Option<Columns> {
    let exclude = section.or("exclude_columns", Vec::new(), |field| field.names());
    let order_field = section.get("order_by");
    let order_by = match &order_field {
        Some(field) => order_by(field, exclude.as_deref().unwrap_or_default()).map(Some),
        None => Some(None),
    };
    let chosen = section.or("columns", BTreeMap::new(), |field| {
        chosen_columns(&field, exclude.as_deref().unwrap_or_default())
    });
    let transforms = section.or("transforms", Vec::new(), |field| {
        transform_names(&field, known)
    });
    Some(Columns {
        exclude: exclude?,
        order_by: order_by?,
        chosen: chosen?,
        transforms: transforms?,
    })
}

fn order_by(field: &Field<'_>, excluded: &[String]) -> Option<Vec<String>> {
    let names = field.names();
    if names.as_ref().is_some_and(Vec::is_empty) {
        field.problem(
            "an empty list",
            "the columns of the sorting key",
            "name every column of the source key, or remove `order_by` to use the primary key",
        );
        return None;
    }
    let mut good = true;
    for item in field.items() {
        if let Some(name) = item.as_known_text()
            && excluded.iter().any(|excluded| excluded == name)
        {
            item.problem(
                format!("{}, which `exclude_columns` leaves out", item.shown()),
                "columns that are copied",
                "remove it from one of the two",
            );
            good = false;
        }
    }
    names.filter(|_| good)
}

fn chosen_columns(
    field: &Field<'_>,
    excluded: &[String],
) -> Option<BTreeMap<String, ColumnConfig>> {
    let mut columns = Some(BTreeMap::new());
    for (key, field) in field.entries_by_name()? {
        let chosen = policies::column(&field);
        let excluded = excluded.contains(&key.name);
        if excluded {
            field.problem(
                "a choice for a column that `exclude_columns` leaves out",
                "columns that are copied",
                "remove one of the two",
            );
        }
        match (chosen, &mut columns) {
            (Some(chosen), Some(columns)) if !excluded => {
                columns.insert(key.name.clone(), chosen);
            }
            _ => columns = None,
        }
    }
    columns
}

fn transform_names(field: &Field<'_>, known: &[String]) -> Option<Vec<String>> {
    let names = field.names();
    let mut good = true;
    for item in field.items() {
        let Some(name) = item.as_known_text() else {
            continue;
        };
        if known.iter().any(|known| known == name) {
            continue;
        }
        let remedy = match nearest(name, known.iter().map(String::as_str)) {
            Some(known) => format!("did you mean `{known}`?"),
            None => "define it below `transforms` at the top of the document".to_owned(),
        };
        item.problem(
            format!("{}, which no transform is named", item.shown()),
            "the name of a transform of this document",
            remedy,
        );
        good = false;
    }
    names.filter(|_| good)
}
