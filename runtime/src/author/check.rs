//! Runs a case in the sandbox: whole, row by row, and in two instances. A transform is a function of a row and its
//! configuration, so all three must give the same; a replay after a crash cuts rows as it likes.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::cases::{Case, Expected, applied_to_json, in_order};
use super::keys::Living;
use crate::batch::ChangeBatch;
use crate::config::transform_alone;
use crate::error::{Error, ErrorKind, Result};
use crate::transform::{Applied, Chain, Engine, Plugin};

/// What a case gave.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The case.
    pub case: String,
    /// Nothing: it passed.
    pub differences: Vec<Difference>,
    /// Whether its expectation was written anew.
    pub updated: bool,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// What was compared.
    pub what: String,
    /// What should be, as written down.
    pub expected: Option<String>,
    /// What is.
    pub got: Option<String>,
}

/// What a run gave: rows, or the sentence of the failure.
type Answer = Result<Vec<Value>, String>;

/// Runs one case of the plugin in `component`. With `update` the answer becomes the expectation.
///
/// # Errors
/// Only what keeps the case from being run; what the plugin does is in the report.
pub async fn check(
    engine: &Arc<Engine>,
    name: &str,
    component: &Path,
    case: &Case,
    update: bool,
) -> Result<Report> {
    let mut differences = Vec::new();
    let answer = match load(engine, name, component, case).await? {
        Err(refusal) => Err(refusal),
        Ok(plugin) => match Runs::bind(&plugin, case).await {
            Err(refusal) => Err(refusal),
            Ok(runs) => {
                let whole = runs.whole().await?;
                differences.extend(runs.cuts(&whole).await?);
                whole
            }
        },
    };
    // What depends on how rows are cut is no answer to write down, and what a person expects of another kind is kept: a
    // plugin that fails today would take every row's expectation with it.
    let replaced = match (&case.expected, &answer) {
        (Expected::Rows(_), Err(_)) => Some("expected.jsonl is kept; delete it if this is to fail"),
        (Expected::Error(_), Ok(_)) => {
            Some("expected-error.txt is kept; delete it if this is to pass")
        }
        _ => None,
    };
    let mut updated = false;
    if update && differences.is_empty() && replaced.is_none() {
        updated = write_expectation(case, &answer)?;
    } else {
        let mut found = compare(&case.expected, &answer);
        if let (true, Some(kept), Some(first)) = (update, replaced, found.first_mut()) {
            first.what = format!("{}; {kept}", first.what);
        }
        differences.extend(found);
    }
    Ok(Report {
        case: case.name.clone(),
        differences,
        updated,
    })
}

/// Loads the plugin with the case's configuration; the inner error is what it refuses with.
pub(super) async fn load(
    engine: &Arc<Engine>,
    name: &str,
    component: &Path,
    case: &Case,
) -> Result<Result<Arc<Plugin>, String>> {
    let mut entry = case.transform.clone();
    let component = std::path::absolute(component).unwrap_or_else(|_| component.to_owned());
    entry.insert("plugin".to_owned(), json!(component.display().to_string()));
    let file = case.folder.join("case.yaml");
    let config = transform_alone(name, &Value::Object(entry), &file).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Error::new(ErrorKind::Config, lines.join("\n"))
    })?;
    Ok(engine
        .load(name, &config)
        .await
        .map(Ok)
        .unwrap_or_else(|error| Err(error.telling().message().to_owned())))
}

/// What a plugin would do to a case's table: table, transforms and columns, as JSON.
///
/// # Errors
/// When the plugin refuses the configuration or the table.
pub async fn bind(
    engine: &Arc<Engine>,
    name: &str,
    component: &Path,
    case: &Case,
) -> Result<Value> {
    let loaded = load(engine, name, component, case).await?;
    let plugin = loaded.map_err(|refusal| Error::new(ErrorKind::PluginRefused, refusal))?;
    let chain = Chain::bind(&[plugin], Arc::clone(&case.schema)).await?;
    let columns: Vec<Value> = chain
        .output()
        .columns
        .iter()
        .map(|column| {
            let null = if column.nullable { "" } else { " not null" };
            let column_type = super::table::type_name(column.column_type);
            json!({ "name": column.name, "type": format!("{column_type}{null}") })
        })
        .collect();
    Ok(json!({
        "table": case.schema.name.to_string(),
        "transforms": chain.describe(),
        "columns": columns,
    }))
}

/// A plugin bound three times: no two of the bindings share an instance.
struct Runs<'a> {
    case: &'a Case,
    whole: Chain,
    even: Chain,
    odd: Chain,
}

impl<'a> Runs<'a> {
    async fn bind(plugin: &Arc<Plugin>, case: &'a Case) -> Result<Self, String> {
        let bind = || async {
            let plugins = [Arc::clone(plugin)];
            let bound = Chain::bind(&plugins, Arc::clone(&case.schema)).await;
            bound
                .map(Chain::telling_history)
                .map_err(|error| error.telling().message().to_owned())
        };
        Ok(Self {
            case,
            whole: bind().await?,
            even: bind().await?,
            odd: bind().await?,
        })
    }

    fn rows(&self, range: impl IntoIterator<Item = usize>) -> Result<ChangeBatch> {
        let rows = self.case.batch.rows(range);
        rows.map_err(|what| Error::new(ErrorKind::Config, what))
    }

    async fn whole(&self) -> Result<Answer> {
        Ok(run(&self.whole, self.rows(0..self.case.batch.len())?).await)
    }

    /// Every row alone: once in the instance that has seen all of them, once in one that has seen every other row. Rows that
    /// are two at the source must not become one.
    async fn cuts(&self, whole: &Answer) -> Result<Vec<Difference>> {
        let mut differences = Vec::new();
        let (mut alone, mut apart) = (Ok(Vec::new()), Ok(Vec::new()));
        let mut living = Living::default();
        for row in 0..self.case.batch.len() {
            let other = if row % 2 == 0 { &self.even } else { &self.odd };
            let source = self.rows([row])?;
            let applied = apply(&self.whole, source.clone()).await;
            if let (Ok(applied), true) = (&applied, differences.is_empty()) {
                differences.extend(living.take(row, &source, &self.whole, applied));
            }
            let applied = applied.map(|applied| applied_to_json(&self.whole, &applied));
            extend(&mut alone, applied);
            extend(&mut apart, run(other, source).await);
        }
        for rows in [&mut alone, &mut apart].into_iter().flatten() {
            in_order(rows);
        }
        for (answer, what) in [
            (
                alone,
                "row by row it gives another result than in one batch: the result of a row may not depend on the rows beside it or before it",
            ),
            (
                apart,
                "in two instances it gives another result than in one: nothing may be kept from batch to batch",
            ),
        ] {
            // Where the whole is refused it is enough that a part of it is: which row was first need not be told.
            if whole.is_err() && answer.is_err() {
                continue;
            }
            if let Some(mut difference) = first_difference(whole, &answer) {
                difference.what = format!("{what} ({})", difference.what);
                differences.push(difference);
            }
        }
        Ok(differences)
    }
}

fn extend(all: &mut Answer, next: Answer) {
    match (all.as_mut(), next) {
        (Ok(rows), Ok(more)) => rows.extend(more),
        (Ok(_), Err(error)) => *all = Err(error),
        (Err(_), _) => {}
    }
}

async fn run(chain: &Chain, batch: ChangeBatch) -> Answer {
    let applied = apply(chain, batch).await?;
    Ok(applied_to_json(chain, &applied))
}

async fn apply(chain: &Chain, batch: ChangeBatch) -> Result<Applied, String> {
    let applied = chain.apply(batch).await;
    applied.map_err(|error| error.telling().message().to_owned())
}

fn compare(expected: &Expected, answer: &Answer) -> Vec<Difference> {
    let difference = |what: &str, expected: Option<String>, got: Option<String>| {
        vec![Difference {
            what: what.to_owned(),
            expected,
            got,
        }]
    };
    match (expected, answer) {
        (Expected::Nothing, _) => difference(
            "nothing is expected yet; `--update` writes down what it gives",
            None,
            Some(show(answer)),
        ),
        (Expected::Error(part), Err(error)) if error.contains(part) => Vec::new(),
        (Expected::Error(part), answer) => difference(
            "an error is expected",
            Some(part.clone()),
            Some(show(answer)),
        ),
        (Expected::Rows(_), Err(error)) => {
            difference("rows are expected", None, Some(error.clone()))
        }
        (Expected::Rows(expected), Ok(got)) => rows_differ(expected, got),
    }
}

fn show(answer: &Answer) -> String {
    match answer {
        Ok(rows) => rows
            .iter()
            .map(Value::to_string)
            .collect::<Vec<_>>()
            .join("\n"),
        Err(error) => error.clone(),
    }
}

fn first_difference(expected: &Answer, got: &Answer) -> Option<Difference> {
    match (expected, got) {
        (Ok(expected), Ok(got)) => rows_differ(expected, got).into_iter().next(),
        (expected, got) => Some(Difference {
            what: "one of the two fails".to_owned(),
            expected: Some(show(expected)),
            got: Some(show(got)),
        }),
    }
}

/// Row by row, each with the cells that differ.
fn rows_differ(expected: &[Value], got: &[Value]) -> Vec<Difference> {
    let count = expected.len().max(got.len());
    (0..count)
        .filter(|row| expected.get(*row) != got.get(*row))
        .map(|row| {
            let (expected, got) = (expected.get(row), got.get(row));
            let keys = match (expected, got) {
                (Some(Value::Object(expected)), Some(Value::Object(got))) => {
                    let mut names: Vec<&String> = expected.keys().chain(got.keys()).collect();
                    names.sort();
                    names.dedup();
                    names.retain(|name| expected.get(*name) != got.get(*name));
                    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                    format!("row {}: {}", row + 1, names.join(", "))
                }
                (Some(_), _) => format!("row {} is missing", row + 1),
                (None, _) => format!("row {} is one too many", row + 1),
            };
            Difference {
                what: keys,
                expected: expected.map(Value::to_string),
                got: got.map(Value::to_string),
            }
        })
        .collect()
}

fn write_expectation(case: &Case, answer: &Answer) -> Result<bool> {
    let (rows, error) = (
        case.folder.join("expected.jsonl"),
        case.folder.join("expected-error.txt"),
    );
    let (path, text) = match answer {
        Ok(found) => (&rows, found.iter().map(|row| format!("{row}\n")).collect()),
        Err(message) => (&error, format!("{message}\n")),
    };
    if compare(&case.expected, answer).is_empty() && path.is_file() {
        return Ok(false);
    }
    // Beside it first: what is there stays whole where the disk is full.
    let mut aside = tempfile::NamedTempFile::new_in(&case.folder)
        .map_err(|error| unwritten(&case.folder, error))?;
    aside
        .write_all(text.as_bytes())
        .and_then(|()| aside.as_file().set_permissions(permissions(path)))
        .map_err(|error| unwritten(path, error))?;
    aside
        .persist(path)
        .map_err(|error| unwritten(path, error.error))?;
    Ok(true)
}

/// Those that the file has, or that any new one of an author's gets.
fn permissions(path: &Path) -> std::fs::Permissions {
    std::fs::metadata(path).map_or_else(
        |_| std::fs::Permissions::from_mode(0o644),
        |file| file.permissions(),
    )
}

fn unwritten(path: &Path, error: std::io::Error) -> Error {
    Error::new(
        ErrorKind::State,
        format!("`{}` cannot be written", path.display()),
    )
    .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_the_row_and_the_columns() {
        let expected = [json!({ "id": 1, "a": "x", "b": 1 }), json!({ "id": 2 })];
        let got = [json!({ "id": 1, "a": "y", "b": 1 })];
        let found: Vec<String> = rows_differ(&expected, &got)
            .into_iter()
            .map(|difference| difference.what)
            .collect();
        assert_eq!(found, ["row 1: `a`", "row 2 is missing"]);
        assert!(rows_differ(&got, &got).is_empty());
    }

    #[test]
    fn an_expected_error_is_a_part_of_the_message() {
        let expected = Expected::Error("column `x` does not exist".to_owned());
        let error = Err(
            "plugin `p` refuses the table: column `x` does not exist in table `a.b`".to_owned(),
        );
        assert!(compare(&expected, &error).is_empty());
        assert_eq!(compare(&expected, &Ok(Vec::new())).len(), 1);
        assert_eq!(compare(&Expected::Nothing, &error).len(), 1);
    }
}
