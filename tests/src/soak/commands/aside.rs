//! A table that only the commands themselves write to, so that it can be taken out of service and brought back on purpose.
//!
//! Its trouble is a constraint that somebody has put on its target: no row can be written until it is taken off, or a load
//! has made the table anew. It changes nothing of what is there, as renaming a column beside an insert would. Where `skip`
//! has passed over rows only a load brings them back.

use anyhow::Result;
use serde_json::{Value, json};

use crate::harness::{Pipe, Stage};

/// Its name.
pub(super) const TABLE: &str = "aside";

/// Makes it, with a few rows.
pub(super) async fn create(stage: &Stage) -> Result<()> {
    let create =
        format!("CREATE TABLE {TABLE} (id INT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(40) NULL)");
    let insert = format!("INSERT INTO {TABLE} (note) VALUES ('one'), ('two'), (NULL)");
    stage.source.execute_all([create, insert]).await
}

/// Lets the target take no rows, and changes some at the source.
pub(super) async fn make_trouble(stage: &Stage) -> Result<()> {
    alter(stage, "ADD CONSTRAINT IF NOT EXISTS refuses CHECK id < 0").await;
    stage
        .source
        .execute_all([
            format!("INSERT INTO {TABLE} (note) VALUES ('more')"),
            format!("UPDATE {TABLE} SET note = CONCAT(note, '.') ORDER BY id DESC LIMIT 2"),
            format!("DELETE FROM {TABLE} ORDER BY id LIMIT 1"),
        ])
        .await
}

/// Lets the target take rows.
pub(super) async fn mend(stage: &Stage) -> Result<()> {
    alter(stage, "DROP CONSTRAINT IF EXISTS refuses").await;
    Ok(())
}

async fn alter(stage: &Stage, change: &str) {
    let sql = format!("ALTER TABLE `{}`.{TABLE} {change}", stage.database);
    // The table may be away for a moment, or not there yet.
    stage.clickhouse.query(&sql).await.ok();
}

/// Gives a command for this table.
pub(super) async fn order(pipe: &Pipe, stage: &Stage, command: &str) -> Result<(u16, Value)> {
    let table = format!("{}.{TABLE}", stage.database);
    pipe.order(json!({ "command": command, "table": table }))
        .await
}

/// The next step towards a table that is in service and equal; whether it is there.
pub(super) async fn bring_back(pipe: &Pipe, stage: &Stage, status: &Value) -> Result<bool> {
    let name = format!("{}.{TABLE}", stage.database);
    let mut tables = status["tables"].as_array().into_iter().flatten();
    let state = tables
        .find(|table| table["source"] == *name)
        .map_or(&Value::Null, |table| &table["state"]);
    let mut reasons = status["reasons"].as_array().into_iter().flatten();
    let stands = reasons.any(|reason| reason["table"] == *name);
    // What the present state does not take is asked for again.
    match state.as_str() {
        Some("Quarantined") => {
            mend(stage).await?;
            order(pipe, stage, "retry").await.ok();
        }
        Some("Streaming") if stands => drop(order(pipe, stage, "resync").await),
        _ => {}
    }
    Ok(state == "Streaming" && !stands)
}
