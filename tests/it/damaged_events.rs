//! Events that cannot be read or must not be believed: each takes its own table out of service, by name and with its way
//! back, and the others go on. No server can be made to write them, so a proxy alters what a real one has written.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{BinlogProxy, EventPart, PassingEvent, Pipe, Stage};

use crate::support::{CATCH_UP, START, assert_caught_up, on_both_sources, running_with};

on_both_sources! {
    a_damaged_event_takes_out_its_table_alone_until_it_is_loaded_anew: 400,
}

/// A table, and what its reason must say.
const DAMAGES: [(&str, &[&str]); 6] = [
    // Neither the values of such a column nor what stands behind them can be told apart.
    (
        "unknown_type",
        &["column `a`", "unknown wire type 200", "tables remove"],
    ),
    (
        "unknown_collation",
        &["column `a`", "collation number 9999", "exclude_columns"],
    ),
    (
        "truncated_row",
        &[
            "column `a`",
            "the row ends inside a value",
            "load the table anew",
        ],
    ),
    // The last optional field says that it is longer than what follows.
    (
        "lying_fields",
        &["malformed TABLE_MAP", "load the table anew"],
    ),
    // More bytes of the columns' metadata than the columns' types take.
    (
        "lying_types",
        &["malformed TABLE_MAP", "load the table anew"],
    ),
    // No policy says what the ninth of two labels becomes.
    (
        "unknown_label",
        &[
            "column `e`",
            "a label that the recorded column does not have",
            "load the table anew",
        ],
    ),
];

const DEFINITION: &str =
    "(id INT PRIMARY KEY, a VARCHAR(20) CHARACTER SET utf8mb4 NULL, e ENUM('x','y') NOT NULL)";

const WIRE_TYPE: u8 = 200;

/// The fields of a map's optional metadata that hold collations of texts.
const COLLATION_FIELDS: [u8; 2] = [2, 3];

fn damage(part: EventPart, table: &str, event: &mut PassingEvent) {
    let body = &mut event.body;
    let table = table.rsplit('.').next().unwrap_or_default();
    match (part, table) {
        (EventPart::Map, "unknown_type" | "unwatched") => {
            of_map(body, |map| map.types[1] = WIRE_TYPE)
        }
        (EventPart::Map, "unknown_collation") => of_map(body, |map| {
            map.optional
                .retain(|(kind, _)| !COLLATION_FIELDS.contains(kind));
            // One for all texts, as a number of two bytes.
            map.optional.push((2, vec![252, 0x0f, 0x27]));
        }),
        (EventPart::Map, "lying_fields") => of_map(body, |map| map.longer = 40),
        (EventPart::Map, "lying_types") => of_map(body, |map| map.metadata.extend([0, 0])),
        // The label's number, and what is before it.
        (EventPart::Rows, "truncated_row") => body.truncate(body.len() - 3),
        (EventPart::Rows, "unknown_label") => {
            if let Some(label) = body.last_mut() {
                *label = 9;
            }
        }
        _ => {}
    }
}

/// A TABLE_MAP event's body; of so small a table every length takes one byte.
struct Map {
    /// Id, flags and names.
    front: Vec<u8>,
    types: Vec<u8>,
    metadata: Vec<u8>,
    nullable: Vec<u8>,
    optional: Vec<(u8, Vec<u8>)>,
    /// By how much the last optional field's length is too large.
    longer: u8,
}

fn of_map(body: &mut Vec<u8>, change: impl FnOnce(&mut Map)) {
    let mut map = Map::read(body);
    change(&mut map);
    *body = map.written();
}

impl Map {
    fn read(body: &[u8]) -> Self {
        let mut rest = body;
        let mut take = |count: usize| {
            let (taken, left) = rest.split_at(count);
            rest = left;
            taken.to_vec()
        };
        let mut front = take(8);
        for _ in 0..2 {
            let length = take(1);
            let name = take(usize::from(length[0]) + 1);
            front.extend([length, name].concat());
        }
        let count = usize::from(take(1)[0]);
        let types = take(count);
        let length = usize::from(take(1)[0]);
        let metadata = take(length);
        let nullable = take(count.div_ceil(8));
        let mut optional = Vec::new();
        while !rest.is_empty() {
            let (kind, length) = (rest[0], usize::from(rest[1]));
            optional.push((kind, rest[2..2 + length].to_vec()));
            rest = &rest[2 + length..];
        }
        Self {
            front,
            types,
            metadata,
            nullable,
            optional,
            longer: 0,
        }
    }

    fn written(&self) -> Vec<u8> {
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("a small table");
        let mut body = self.front.clone();
        body.push(length(&self.types));
        body.extend(&self.types);
        body.push(length(&self.metadata));
        body.extend(&self.metadata);
        body.extend(&self.nullable);
        for (place, (kind, value)) in self.optional.iter().enumerate() {
            let last = place + 1 == self.optional.len();
            let lie = if last { self.longer } else { 0 };
            body.extend([*kind, length(value) + lie]);
            body.extend(value);
        }
        body
    }
}

/// A row in each of the tables, in one transaction; in one, too, that is damaged and not replicated.
async fn write(stage: &Stage, id: u32) -> Result<()> {
    let tables = DAMAGES
        .iter()
        .map(|(table, _)| *table)
        .chain(["sound", "unwatched"]);
    let mut statements = vec!["START TRANSACTION".to_owned()];
    for table in tables {
        statements.push(format!(
            "INSERT INTO {table} VALUES ({id}, 'row {id}', 'y')"
        ));
    }
    statements.push("COMMIT".to_owned());
    stage.source.execute_all(statements).await
}

fn table<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    let tables = status["tables"].as_array()?;
    tables.iter().find(|table| table["source"] == *name)
}

async fn order(pipe: &Pipe, command: &str, table: &str) -> Result<()> {
    let body = json!({ "command": command, "table": table });
    let (status, document) = pipe.order(body).await?;
    ensure!(status == 200, "{command} {table}: {status} {document:#}");
    Ok(())
}

/// Whether each damaged table is out of service.
fn all_out(status: &Value, database: &str) -> bool {
    DAMAGES.iter().all(|(name, _)| {
        table(status, &format!("{database}.{name}"))
            .is_some_and(|table| table["state"] == "Quarantined")
    })
}

fn ensure_told(status: &Value, name: &str, said: &[&str]) -> Result<()> {
    let reasons = status["reasons"].as_array().context("reasons")?;
    let reason = reasons
        .iter()
        .find(|reason| reason["table"] == *name)
        .with_context(|| format!("no reason of {name} in {status:#}"))?;
    let told = format!("{} {}", reason["message"], reason["remedy"]);
    for text in said {
        ensure!(told.contains(text), "no `{text}` in {reason:#}");
    }
    ensure!(
        reason["position"].is_string() && reason["remedy"].is_string(),
        "{reason:#}"
    );
    ensure!(!told.contains("row 2"), "a value is told: {reason:#}");
    Ok(())
}

async fn a_damaged_event_takes_out_its_table_alone_until_it_is_loaded_anew(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let names: Vec<&str> = DAMAGES
        .iter()
        .map(|(table, _)| *table)
        .chain(["sound"])
        .collect();
    for name in names.iter().chain(&["unwatched"]) {
        let create = format!("CREATE TABLE {name} {DEFINITION}");
        stage.source.execute(create).await?;
    }
    write(&stage, 1).await?;
    let proxy = BinlogProxy::before(stage.source_server.port(), damage).await?;
    let mut file = stage.pipe_file(&names);
    file["source"]["port"] = json!(proxy.port());
    let mut pipe = running_with(&file).await?;
    write(&stage, 2).await?;
    let database = &stage.database;
    let status = pipe
        .wait_for("all damaged tables out of service", START, |status| {
            status["state"] == "Degraded" && all_out(status, database)
        })
        .await?;
    for (name, said) in DAMAGES {
        ensure_told(&status, &format!("{database}.{name}"), said)?;
    }
    // The table that is whole is in the same transaction, and its pipe goes on.
    assert_caught_up(&stage, &mut pipe, &["sound"]).await?;
    for (name, _) in DAMAGES {
        let rows = format!("SELECT max(id) FROM `{database}`.{name}_current");
        let newest = stage.clickhouse.number(&rows).await?;
        ensure!(newest == 1, "{name} shows row {newest}");
    }
    write(&stage, 3).await?;
    // Damaged on the way only: a table is read again from its own place. The others are loaded anew.
    proxy.mend();
    for (name, _) in DAMAGES {
        let command = match name {
            "truncated_row" => "retry",
            _ => "resync",
        };
        order(&pipe, command, &format!("{database}.{name}")).await?;
    }
    pipe.wait_state("Running", START).await?;
    write(&stage, 4).await?;
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    for name in names {
        ensure!(stage.assert_same(name).await? == 4, "rows of {name}");
    }
    Ok(())
}
