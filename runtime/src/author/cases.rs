//! Cases: folders that say what a plugin makes of rows.
//!
//! ```text
//! cases/table.yaml             the table of every case that has none of its own
//! cases/NAME/case.yaml         config, limits and grants as in the pipe file; perhaps a table
//! cases/NAME/rows.jsonl        the rows, or rows.csv
//! cases/NAME/expected.jsonl    what they become, or
//! cases/NAME/expected-error.txt    a part of the message with which the plugin refuses
//! ```
//!
//! Rows without `_op` are a load. When one has it (`insert`, `update`, `delete`), all are changes of a stream, in order.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::csv;
use super::rows::{self, row_to_json};
use super::table::{TableFile, read_table, read_yaml};
use crate::batch::{ChangeBatch, Changes, Op, TableSchema};
use crate::error::{Error, ErrorKind, Result};
use crate::transform::{Applied, Chain};

/// The key of a row that says what happened to it.
const OP: &str = "_op";

/// One case, read.
#[derive(Clone, Debug)]
pub struct Case {
    /// The folder's name.
    pub name: String,
    /// The folder.
    pub folder: PathBuf,
    /// The table that the plugin is bound to.
    pub schema: Arc<TableSchema>,
    /// The keys of an entry of `transforms`, but for `plugin`.
    pub transform: Map<String, Value>,
    /// The rows.
    pub batch: CaseBatch,
    /// What should become of them.
    pub(super) expected: Expected,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expected {
    Rows(Vec<Value>),
    Error(String),
    /// Nothing is written down yet.
    Nothing,
}

/// Rows as they are written down, which any part of can be made a batch.
#[derive(Clone, Debug)]
pub struct CaseBatch {
    schema: Arc<TableSchema>,
    rows: Vec<Map<String, Value>>,
    /// None: a load.
    ops: Option<Vec<Op>>,
}

impl Case {
    /// A table and a configuration without rows.
    pub fn of_table(path: &Path, schema: TableSchema, config: Value) -> Self {
        let schema = Arc::new(schema);
        Self {
            name: "table".to_owned(),
            folder: path.parent().unwrap_or(Path::new(".")).to_owned(),
            batch: CaseBatch {
                schema: Arc::clone(&schema),
                rows: Vec::new(),
                ops: None,
            },
            schema,
            transform: Map::from_iter([("config".to_owned(), config)]),
            expected: Expected::Nothing,
        }
    }

    /// Whether it has rows, and expects no error.
    pub fn gives_rows(&self) -> bool {
        !self.batch.is_empty() && !matches!(self.expected, Expected::Error(_))
    }
}

#[derive(Deserialize)]
struct CaseFile {
    table: Option<TableFile>,
    #[serde(flatten)]
    transform: Map<String, Value>,
}

/// Reads every case of a folder, in the order of their names.
///
/// # Errors
/// [`ErrorKind::Config`] naming the file and what is wrong in it, or that there is no case.
pub fn read_cases(folder: &Path) -> Result<Vec<Case>> {
    let entries = std::fs::read_dir(folder).map_err(|error| {
        Error::new(ErrorKind::Config, format!("there are no cases in `{}`", folder.display()))
            .with_hint("a case is a folder with case.yaml, rows.jsonl and expected.jsonl; `pipewright plugin new` makes one to copy")
            .with_source(error)
    })?;
    let mut folders: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    folders.sort();
    if let Some(folder) = folders.iter().find(|folder| is_meant_as_case(folder)) {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "`{}` has no case.yaml, so it would never be run",
                folder.display()
            ),
        )
        .with_hint("write one: config: {}"));
    }
    folders.retain(|path| path.join("case.yaml").is_file());
    if folders.is_empty() {
        return Err(Error::new(
            ErrorKind::Config,
            format!("`{}` holds no folder with a case.yaml", folder.display()),
        ));
    }
    folders.iter().map(|case| read_case(folder, case)).collect()
}

/// Whether a folder holds something of a case, and not what makes it one.
fn is_meant_as_case(folder: &Path) -> bool {
    let of_cases = [
        "case.yml",
        "rows.jsonl",
        "rows.csv",
        "expected.jsonl",
        "expected-error.txt",
    ];
    !folder.join("case.yaml").is_file() && of_cases.iter().any(|name| folder.join(name).is_file())
}

fn read_case(cases: &Path, folder: &Path) -> Result<Case> {
    let path = folder.join("case.yaml");
    let at = |path: &Path, what: String| {
        Error::new(ErrorKind::Config, format!("`{}`: {what}", path.display()))
    };
    let file: CaseFile = read_yaml(&path)?;
    if file.transform.contains_key("plugin") {
        let what = "`plugin` has no place here: it is the one that is tested";
        return Err(at(&path, what.to_owned()));
    }
    let schema = match &file.table {
        Some(table) => table.schema().map_err(|what| at(&path, what))?,
        None => read_table(&cases.join("table.yaml"))?,
    };
    let schema = Arc::new(schema);
    let (json, csv) = (folder.join("rows.jsonl"), folder.join("rows.csv"));
    let rows = if json.is_file() {
        read_lines(&json)?
    } else if csv.is_file() {
        let text = read_text(&csv)?;
        csv_rows(&text).map_err(|what| at(&csv, what))?
    } else {
        return Err(at(
            folder,
            "there is neither rows.jsonl nor rows.csv".to_owned(),
        ));
    };
    let rows_path = if json.is_file() { json } else { csv };
    let batch = CaseBatch::new(&schema, rows).map_err(|what| at(&rows_path, what))?;
    Ok(Case {
        name: folder
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        folder: folder.to_owned(),
        schema,
        transform: file.transform,
        batch,
        expected: read_expected(folder)?,
    })
}

fn read_expected(folder: &Path) -> Result<Expected> {
    let (rows, error) = (
        folder.join("expected.jsonl"),
        folder.join("expected-error.txt"),
    );
    match (rows.is_file(), error.is_file()) {
        (true, true) => Err(Error::new(
            ErrorKind::Config,
            format!("`{}` expects rows and an error", folder.display()),
        )
        .with_hint("delete expected.jsonl or expected-error.txt")),
        (true, false) => Ok(Expected::Rows(
            read_lines(&rows)?.into_iter().map(Value::Object).collect(),
        )),
        (false, true) => match read_text(&error)?.trim() {
            // A part of every message.
            "" => Err(Error::new(
                ErrorKind::Config,
                format!("`{}` is empty, and any error would do", error.display()),
            )
            .with_hint(
                "write down a part of the message, or delete it and run `plugin test --update`",
            )),
            words => Ok(Expected::Error(words.replace("\r\n", "\n"))),
        },
        (false, false) => Ok(Expected::Nothing),
    }
}

/// Without the mark that some editors write at the start.
fn read_text(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::new(
            ErrorKind::Config,
            format!("`{}` cannot be read", path.display()),
        )
        .with_source(error)
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

fn read_lines(path: &Path) -> Result<Vec<Map<String, Value>>> {
    let text = read_text(path)?;
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            serde_json::from_str(line).map_err(|error| {
                Error::new(
                    ErrorKind::Config,
                    format!(
                        "`{}`: line {} is no JSON object: {error}",
                        path.display(),
                        number + 1
                    ),
                )
            })
        })
        .collect()
}

fn csv_rows(text: &str) -> Result<Vec<Map<String, Value>>, String> {
    let mut records = csv::records(text)?.into_iter();
    let header: Option<Vec<String>> = records
        .next()
        .and_then(|header| header.into_iter().collect());
    let header = header.ok_or("the first line must name the columns")?;
    records
        .enumerate()
        .map(|(row, record)| {
            if record.len() != header.len() {
                return Err(format!(
                    "row {} has {} fields, the first line {}",
                    row + 1,
                    record.len(),
                    header.len()
                ));
            }
            let fields = header.iter().cloned().zip(record);
            Ok(fields
                .map(|(name, field)| (name, field.map_or(Value::Null, Value::String)))
                .collect())
        })
        .collect()
}

impl CaseBatch {
    fn new(schema: &Arc<TableSchema>, mut rows: Vec<Map<String, Value>>) -> Result<Self, String> {
        let is_stream = rows.iter().any(|row| row.contains_key(OP));
        let mut ops = Vec::with_capacity(rows.len());
        for (number, row) in rows.iter_mut().enumerate() {
            ops.push(match row.shift_remove(OP) {
                None => Op::Insert,
                Some(op) => op_of(&op).ok_or_else(|| {
                    format!("row {}: `{OP}` is insert, update or delete", number + 1)
                })?,
            });
            for (name, cell) in row.iter_mut() {
                let Some(index) = schema.index_of(name) else {
                    return Err(format!(
                        "row {}: table `{}` has no column `{name}`",
                        number + 1,
                        schema.name
                    ));
                };
                // CSV has no other way to write down what is no text.
                let column_type = schema.columns[index].column_type;
                if let (Value::String(text), true) = (&*cell, is_document(column_type))
                    && let Ok(parsed) = serde_json::from_str(text)
                {
                    *cell = parsed;
                }
            }
        }
        let batch = Self {
            schema: Arc::clone(schema),
            rows,
            ops: is_stream.then_some(ops),
        };
        batch.rows(0..batch.len()).map(|_| batch)
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// These rows as a batch, each with the version that it has among all.
    ///
    /// # Errors
    /// Which value does not fit its column.
    pub fn rows(&self, range: impl IntoIterator<Item = usize>) -> Result<ChangeBatch, String> {
        let picked: Vec<usize> = range.into_iter().collect();
        let columns = self.schema.columns.iter().map(|column| {
            let cells: Vec<Value> = picked
                .iter()
                .map(|row| {
                    self.rows[*row]
                        .get(&column.name)
                        .cloned()
                        .unwrap_or(Value::Null)
                })
                .collect();
            rows::column(column, &cells)
        });
        Ok(ChangeBatch {
            schema: Arc::clone(&self.schema),
            columns: columns.collect::<Result<_, _>>()?,
            row_count: picked.len(),
            changes: match &self.ops {
                None => Changes::Load,
                Some(ops) => Changes::Stream {
                    ops: picked.iter().map(|row| ops[*row]).collect(),
                    versions: picked.iter().map(|row| *row as u64 + 1).collect(),
                },
            },
        })
    }

    /// So many rows: these, again and again.
    pub(super) fn repeated(&self, row_count: usize) -> Result<ChangeBatch, String> {
        self.rows((0..self.len()).cycle().take(row_count))
    }
}

/// The rows that a chain made as they are written down, by target: `_target` names one that is not the table's own, and
/// `_rejected` a row that failed and was passed over.
pub fn applied_to_json(chain: &Chain, applied: &Applied) -> Vec<Value> {
    let mut rows = Vec::new();
    for (output, batch) in &applied.batches {
        let target = chain
            .outputs()
            .get(*output)
            .and_then(|output| output.target.as_ref());
        for row in batch_to_json(batch) {
            let mut named = Map::new();
            if let Some(target) = target {
                named.insert("_target".to_owned(), target.as_str().into());
            }
            if let Value::Object(row) = row {
                named.extend(row);
            }
            rows.push(Value::Object(named));
        }
    }
    rows.extend(
        applied
            .faults
            .iter()
            .map(|fault| json!({ "_rejected": fault.code })),
    );
    in_order(&mut rows);
    rows
}

/// By target, what failed at the end, else as they came: so that parts of a batch can be put together again.
pub(super) fn in_order(rows: &mut [Value]) {
    rows.sort_by_key(|row| {
        (
            row.get("_rejected").is_some(),
            row["_target"].as_str().map(str::to_owned),
        )
    });
}

/// The rows of a batch as they are written down.
fn batch_to_json(batch: &ChangeBatch) -> Vec<Value> {
    (0..batch.row_count)
        .map(|row| {
            let mut object = Map::new();
            if let Changes::Stream { ops, .. } = &batch.changes
                && let Some(word) = op_word(ops[row])
            {
                object.insert(OP.to_owned(), word.into());
            }
            object.extend(row_to_json(&batch.schema, &batch.columns, row));
            Value::Object(object)
        })
        .collect()
}

fn is_document(column_type: crate::batch::ColumnType) -> bool {
    use crate::batch::ColumnType;
    matches!(
        column_type,
        ColumnType::Json | ColumnType::Vector | ColumnType::List(_)
    )
}

fn op_of(value: &Value) -> Option<Op> {
    match value.as_str()? {
        "insert" => Some(Op::Insert),
        "update" => Some(Op::Update),
        "delete" => Some(Op::Delete),
        _ => None,
    }
}

/// An insert goes without saying.
fn op_word(op: Op) -> Option<&'static str> {
    match op {
        Op::Insert => None,
        Op::Update => Some("update"),
        Op::Delete => Some("delete"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(files: &[(&str, &str)]) -> Result<Vec<Case>> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("one")).expect("a folder");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("a file");
        }
        read_cases(folder.path())
    }

    const TABLE: &str = "columns:\n- { name: id, type: int64, key: true }\n- { name: note, type: text }\n- { name: doc, type: json }\n";

    #[test]
    fn csv_and_json_lines_give_the_same_rows() {
        let csv = case(&[
            ("table.yaml", TABLE),
            ("one/case.yaml", "config: { a: n }\n"),
            (
                "one/rows.csv",
                "id,note,doc\n1,\"\",\"{\"\"a\"\": 1}\"\n2,,\n",
            ),
        ])
        .expect("a case");
        let json = case(&[
            ("table.yaml", TABLE),
            ("one/case.yaml", "config: { a: 1 }\n"),
            (
                "one/rows.jsonl",
                "{\"id\": 1, \"note\": \"\", \"doc\": {\"a\": 1}}\n\n{\"id\": 2}\n",
            ),
        ])
        .expect("a case");
        let rows = |cases: &[Case]| batch_to_json(&cases[0].batch.rows(0..2).expect("rows"));
        let expected = vec![
            json!({ "id": 1, "note": "", "doc": { "a": 1 } }),
            json!({ "id": 2, "note": null, "doc": null }),
        ];
        assert_eq!(rows(&csv), expected);
        assert_eq!(rows(&json), expected);
        assert_eq!(
            Value::Object(csv[0].transform.clone()),
            json!({ "config": { "a": "n" } })
        );
    }

    #[test]
    fn a_byte_order_mark_and_windows_line_ends_change_nothing() {
        let read = |file: &str, rows: &str, words: &str| {
            let files = [
                ("table.yaml", TABLE),
                ("one/case.yaml", "{}\r\n"),
                (file, rows),
                ("one/expected-error.txt", words),
            ];
            case(&files).expect("a case").remove(0)
        };
        let plain = read("one/rows.csv", "id,note\n1,\"a\"\n2,b\n", "one\ntwo\n");
        let windows = [
            read(
                "one/rows.csv",
                "\u{feff}id,note\r\n1,\"a\"\r\n2,b\r\n",
                "one\r\ntwo\r\n",
            ),
            read(
                "one/rows.jsonl",
                "\u{feff}{\"id\": 1, \"note\": \"a\"}\r\n\r\n{\"id\": 2, \"note\": \"b\"}\r\n",
                "\u{feff}one\r\ntwo\r\n",
            ),
        ];
        for case in windows {
            let rows = |case: &Case| batch_to_json(&case.batch.rows(0..2).expect("rows"));
            assert_eq!(rows(&case), rows(&plain));
            assert_eq!(case.expected, plain.expected);
        }
    }

    #[test]
    fn a_case_that_would_never_be_run_is_named() {
        let files = [
            ("table.yaml", TABLE),
            ("one/case.yml", "{}\n"),
            ("one/rows.jsonl", ""),
        ];
        let text = case(&files).expect_err("no case.yaml").chain();
        assert!(text.contains("one` has no case.yaml"), "{text}");
        let files = [
            ("table.yaml", TABLE),
            ("one/case.yaml", "plugin: x.wasm\n"),
            ("one/rows.jsonl", ""),
        ];
        let text = case(&files).expect_err("another plugin").chain();
        assert!(text.contains("`plugin` has no place here"), "{text}");
    }

    #[test]
    fn one_op_makes_all_rows_changes_of_a_stream() {
        let cases = case(&[
            ("table.yaml", TABLE),
            ("one/case.yaml", "{}\n"),
            (
                "one/rows.jsonl",
                "{\"id\": 1}\n{\"_op\": \"delete\", \"id\": 1}\n",
            ),
        ])
        .expect("a case");
        let batch = cases[0].batch.rows([1]).expect("a row");
        let changes = Changes::Stream {
            ops: vec![Op::Delete],
            versions: vec![2],
        };
        assert_eq!(batch.changes, changes);
    }

    #[test]
    fn an_expected_error_of_no_words_is_refused() {
        let expecting = |words: &str| {
            case(&[
                ("table.yaml", TABLE),
                ("one/case.yaml", "{}\n"),
                ("one/rows.jsonl", "{\"id\": 1}\n"),
                ("one/expected-error.txt", words),
            ])
        };
        let refused = expecting(" \n").expect_err("nothing is expected").chain();
        assert!(
            refused.contains("expected-error.txt` is empty"),
            "{refused}"
        );
        let cases = expecting("no table\n").expect("a case");
        assert_eq!(cases[0].expected, Expected::Error("no table".to_owned()));
    }

    #[test]
    fn faults_are_named_with_their_file() {
        let fault = |rows: &str| {
            case(&[
                ("table.yaml", TABLE),
                ("one/case.yaml", "{}\n"),
                ("one/rows.jsonl", rows),
            ])
            .expect_err("a fault")
            .chain()
        };
        assert!(
            fault("{\"id\": 1, \"nope\": 2}")
                .contains("rows.jsonl`: row 1: table `test.t` has no column `nope`")
        );
        assert!(fault("{\"id\": \"x\"}").contains("row 1: the value of column `id` is no int64"));
        assert!(fault("{\"id\": 1}\n[").contains("line 2 is no JSON object"));
    }
}
