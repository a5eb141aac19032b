//! What a request asks of a pipe: bodies to commands.

use axum::body::Bytes;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::problem::Problem;
use crate::batch::TableName;
use crate::pipe::Command;

const COMMANDS: &str = "use `start`, `pause` (or `stop`), `resume`, `resync`, `retry` or `skip`; \
                        the last two, and `resync` of one table, take `table`";

/// A command for the lifecycle of a pipe or of one of its tables.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StateBody {
    /// What to do: `start`, `pause` (or `stop`), `resume`, `resync`, `retry` or `skip`.
    #[schemars(extend("enum" = ["start", "pause", "stop", "resume", "resync", "retry", "skip"]))]
    command: String,
    /// The table, written `database.table`, a database with a dot between backticks: needed by `retry` and `skip`, allowed for `resync`.
    table: Option<String>,
    /// Keys of `snapshot` to load with from now on; for `resync`.
    snapshot: Option<Map<String, Value>>,
}

/// Other tables or settings for a pipe, carried out in the order `source` with `destination`, `add`, `remove`, `exclude`,
/// `sync`. Where one is refused, those before it stand, and the answer names them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PipeBody {
    /// Tables that join or leave.
    tables: Option<TablesBody>,
    /// Tables that no wildcard means, as in the pipe file: the list as a whole, or `null` for the file's own. A table that
    /// is listed leaves the pipe, and comes back by itself when it is listed no more.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<Vec<Value>>")]
    exclude: Option<Option<Vec<Value>>>,
    /// Keys of `sync`, as in the pipe file.
    sync: Option<Map<String, Value>>,
    /// Keys of `source` by which it is reached, as in the pipe file: `host`, `port`, `hosts`, `user`, `password`, `tls`; `null`
    /// goes back to what the file says. For a pipe that does not run. They are tried before they are taken.
    source: Option<Map<String, Value>>,
    /// Keys of `destination` by which it is reached, likewise: `url`, `user`, `password`.
    destination: Option<Map<String, Value>>,
}

/// Tables that join or leave a pipe.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TablesBody {
    /// Entries of `tables`, as in the pipe file.
    #[serde(default)]
    add: Vec<Map<String, Value>>,
    /// Tables, written `database.table`.
    #[serde(default)]
    remove: Vec<String>,
}

/// The command of a request for another state.
pub(super) fn state(body: &Bytes) -> Result<Command, Problem> {
    let StateBody {
        command,
        table,
        snapshot,
    } = read(body, r#"{"command": "pause"}"#)?;
    let takes_table = matches!(command.as_str(), "resync" | "retry" | "skip");
    if table.is_some() && !takes_table {
        return Err(meaningless(
            "table",
            "this command is for a pipe as a whole",
        ));
    }
    if snapshot.is_some() && command != "resync" {
        return Err(meaningless("snapshot", "only `resync` loads anything"));
    }
    let table = table.as_deref().map(table_name).transpose()?;
    let of_table = |make: fn(TableName) -> Command| {
        table
            .clone()
            .map(make)
            .ok_or_else(|| meaningless("table", "this command needs the table that it is for"))
    };
    match command.as_str() {
        "start" => Ok(Command::Start),
        "pause" | "stop" => Ok(Command::Pause),
        "resume" => Ok(Command::Resume),
        "resync" => Ok(Command::Resync {
            table,
            snapshot: snapshot.unwrap_or_default(),
        }),
        "retry" => of_table(|table| Command::Retry { table }),
        "skip" => of_table(|table| Command::Skip { table }),
        _ => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "unknown_command",
            "there is no such command",
        )
        .with_hint(COMMANDS)),
    }
}

/// The commands of a request for other tables or settings, in the order in which they are to be carried out, each with the
/// part of the body that it carries out.
pub(super) fn change(body: &Bytes) -> Result<Vec<(&'static str, Command)>, Problem> {
    let PipeBody {
        tables,
        exclude,
        sync,
        source,
        destination,
    } = read(
        body,
        r#"{"tables": {"add": [{"source": "db.table"}], "remove": ["db.table"]}, "exclude": ["db.tmp_*"], "sync": {"interval": "2s"}}"#,
    )?;
    let mut commands = Vec::new();
    let (source, destination) = (source.unwrap_or_default(), destination.unwrap_or_default());
    if !source.is_empty() || !destination.is_empty() {
        let command = Command::Connect {
            source: source.into(),
            destination: destination.into(),
        };
        commands.push(("source and destination", command));
    }
    if let Some(TablesBody { add, remove }) = tables {
        if !add.is_empty() {
            let entries = add.into_iter().map(Value::Object).collect();
            commands.push(("tables.add", Command::AddTables { entries }));
        }
        if !remove.is_empty() {
            let names = remove.iter().map(|name| table_name(name));
            let tables = names.collect::<Result<_, _>>()?;
            commands.push(("tables.remove", Command::RemoveTables { tables }));
        }
    }
    if let Some(list) = exclude {
        commands.push(("exclude", Command::Exclude { list }));
    }
    if let Some(sync) = sync {
        commands.push(("sync", Command::Configure { sync }));
    }
    Ok(commands)
}

/// Tells `null` from nothing.
fn given<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<Vec<Value>>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// A body as the type says, or what it should have been.
pub(super) fn read<T: DeserializeOwned>(body: &Bytes, example: &str) -> Result<T, Problem> {
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "body",
            format!("the request's body is no JSON: {error}"),
        )
        .with_hint(format!("send {example}"))
    })?;
    T::deserialize(&value).map_err(|error| {
        let said = error.to_string();
        let at = place::<T>(&value, &said).map_or_else(String::new, |key| format!("`{key}`: "));
        let wrong = without_value(&said);
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "body",
            format!("the request's body holds no command: {at}{wrong}"),
        )
        .with_hint(format!("send {example}"))
    })
}

/// The key whose value alone is complained of in the same words.
fn place<'a, T: DeserializeOwned>(body: &'a Value, said: &str) -> Option<&'a str> {
    let mut keys = body.as_object()?.iter();
    let (key, _) = keys.find(|(key, value)| {
        let alone = Map::from_iter([((*key).clone(), (*value).clone())]);
        let complaint = T::deserialize(&Value::Object(alone)).err();
        complaint.is_some_and(|error| error.to_string() == said)
    })?;
    // That one names its key itself.
    (!said.contains(&format!("`{key}`"))).then_some(key.as_str())
}

/// What a complaint says of the form that was expected, without the value that was found: it may be a password that stands
/// where it does not belong.
fn without_value(said: &str) -> String {
    // These name keys.
    let plain = ["unknown field `", "missing field `", "duplicate field `"];
    if plain.iter().any(|plain| said.starts_with(plain)) {
        return said.to_owned();
    }
    match said.rsplit_once(", expected ") {
        Some((_, expected)) => format!("a value of another form, expected {expected}"),
        None => "a value of another form".to_owned(),
    }
}

fn table_name(text: &str) -> Result<TableName, Problem> {
    let detail = "a table is written as `database.table`, a database with a dot between backticks";
    TableName::parse(text).ok_or_else(|| meaningless("table", detail))
}

fn meaningless(key: &str, why: &str) -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "body",
        format!("`{key}`: {why}"),
    )
    .with_hint(COMMANDS)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn detail(problem: &Problem) -> String {
        serde_json::to_string(problem).expect("a problem is JSON")
    }

    #[test]
    fn a_value_of_another_form_is_told_of_by_its_key_and_never_shown() {
        let canary = "mysql://u:canary, expected canary@h";
        for (body, key, expected) in [
            (json!({ "source": canary }), "`source`", "a map"),
            (json!({ "sync": canary }), "`sync`", "a map"),
            (
                json!({ "tables": { "add": canary } }),
                "`tables`",
                "a sequence",
            ),
            (
                json!({ "tables": { "add": [canary] } }),
                "`tables`",
                "a map",
            ),
            (
                json!({ "exclude": canary, "sync": {} }),
                "`exclude`",
                "a sequence",
            ),
            (json!(canary), "", "PipeBody"),
            (json!({ "password": canary }), "`password`", "`source`"),
        ] {
            let text = body.to_string();
            let problem = change(&Bytes::from(text.clone())).expect_err(&text);
            let told = detail(&problem);
            assert!(!told.contains("canary"), "{text}: {told}");
            assert!(
                told.contains(key) && told.contains(expected),
                "{text}: {told}"
            );
        }
        for body in [
            json!({ "command": [canary] }),
            json!({ "command": "resync", "table": { "a": canary } }),
        ] {
            let problem = state(&Bytes::from(body.to_string())).expect_err("another form");
            let told = detail(&problem);
            assert!(
                !told.contains("canary") && told.contains("a string"),
                "{told}"
            );
        }
    }
}
