//! What documents say of the code, held to it.

use std::collections::BTreeSet;
use std::fs;

use pipewright::batch::{Column, ColumnType, TableName, TableSchema};
use pipewright::config::{self, PipeConfig, Secrets};
use pipewright::destination::clickhouse::TargetTable;
use pipewright::source::mysql::Flavor;
use pipewright::source::mysql::catalog::{ColumnDefault, SourceColumn};
use pipewright::source::mysql::types::{Geometry, column_type};
use testbed::harness::workspace_folder;

/// One row of the README's type table: declarations of the source, and the ClickHouse type that it promises for all.
#[derive(Debug)]
struct Promise {
    declarations: Vec<String>,
    clickhouse: String,
}

fn promises() -> Vec<Promise> {
    let readme = fs::read_to_string(workspace_folder().join("README.md")).expect("a README");
    let (_, section) = readme
        .split_once("\n## Types\n")
        .expect("a section on types");
    let rows = section
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, source, clickhouse, ..] = cells[..] else {
            panic!("a row without cells: {row}")
        };
        Promise {
            declarations: source.split(", ").map(str::to_owned).collect(),
            clickhouse: clickhouse.to_owned(),
        }
    })
    .collect()
}

/// The column that information_schema describes for a declaration, which begins with its `DATA_TYPE`, but for aliases.
fn described(declaration: &str) -> SourceColumn {
    let declaration = declaration.to_lowercase();
    let column_type = match declaration.as_str() {
        "bool" => "tinyint(1)".to_owned(),
        "serial" => "bigint unsigned".to_owned(),
        "real" => "double".to_owned(),
        plain => plain.to_owned(),
    };
    let data_type = column_type
        .split(['(', ' '])
        .next()
        .unwrap_or_default()
        .to_owned();
    let is = |names: &[&str]| names.contains(&data_type.as_str());
    let decimal = is(&["decimal", "numeric"]);
    let text = ["char", "text"].iter().any(|end| data_type.ends_with(end));
    SourceColumn {
        name: "c".to_owned(),
        included: Some(0),
        unsigned: column_type.contains("unsigned"),
        nullable: false,
        charset: (text || is(&["enum", "set"])).then(|| "utf8mb4".to_owned()),
        collation: None,
        length: Some(8),
        precision: decimal.then_some(15),
        scale: decimal.then_some(2),
        labels: if is(&["enum", "set"]) {
            vec!["a".to_owned()]
        } else {
            Vec::new()
        },
        generated: false,
        row_end: false,
        geometry: Geometry::of(Flavor::MySql, &data_type),
        default: ColumnDefault::None,
        column_type,
        data_type,
    }
}

fn config() -> PipeConfig {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pipe.yaml");
    let text = "{version: 1, pipe: p, source: {type: mysql, host: h, user: u, password: x}, \
                destination: {url: 'http://127.0.0.1:8123', database: d}, tables: [{source: d.t}]}";
    fs::write(&file, text).expect("a file");
    let mut pipes = config::load(&[file], &|_| None, Secrets::Offline).expect("a pipe");
    pipes.remove(0)
}

/// The type of the target's column for a source column, by the code's own two tables.
fn mapped(config: &PipeConfig, source: &SourceColumn) -> String {
    let column = |name: &str, column_type| Column {
        name: name.to_owned(),
        column_type,
        nullable: false,
        source_type: String::new(),
    };
    let of_source = column_type(source).unwrap_or_else(|error| panic!("{error}"));
    let schema = TableSchema {
        name: TableName::new("d", "t"),
        columns: vec![column("id", ColumnType::Int64), column("c", of_source)],
        key: vec![0],
    };
    let target = TargetTable::plan(config, &config.tables[0], &schema).expect("a plan");
    target.columns()[1].sql_type.clone()
}

#[test]
fn the_readme_promises_the_types_that_the_code_makes() {
    let config = config();
    let mut wrong = Vec::new();
    for promise in promises() {
        for declaration in &promise.declarations {
            let made = mapped(&config, &described(declaration)).replace("15, 2", "p, s");
            if promise.clickhouse != format!("`{made}`") {
                wrong.push(format!(
                    "{declaration}: the code makes `{made}`, the README {}",
                    promise.clickhouse
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The types that the code's match knows, read from its source.
#[test]
fn every_type_of_the_code_is_in_the_readme() {
    let promised: BTreeSet<String> = promises()
        .iter()
        .flat_map(|promise| &promise.declarations)
        .map(|declaration| described(declaration).data_type)
        .collect();
    let path = workspace_folder().join("runtime/src/source/mysql/types.rs");
    let code = fs::read_to_string(path).expect("the code");
    let mut known = BTreeSet::new();
    for (begin, end) in [
        ("match column.data_type.as_str() {", "_ if let"),
        ("let known = matches!(", ");"),
    ] {
        let (_, rest) = code.split_once(begin).expect("the beginning of the types");
        let (part, _) = rest.split_once(end).expect("their end");
        let lines = part
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in lines {
            // Arms name types left of the arrow.
            let names = line.split("=>").next().unwrap_or(line);
            let words = names.split('"').skip(1).step_by(2);
            known.extend(words.map(str::to_owned));
        }
    }
    assert!(known.len() > 40, "{known:?}");
    let missing: Vec<_> = known.difference(&promised).collect();
    assert!(missing.is_empty(), "the README lacks {missing:?}");
}
