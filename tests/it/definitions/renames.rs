//! Tables that a RENAME moves from one database into another.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Comparison, Pipe, Source, Stage};

use super::{live_rows, settled, wait_exists};
use crate::support::{CATCH_UP, on_both_sources, running_with};

on_both_sources! {
    a_table_renamed_into_another_database_of_the_pipe_joins_under_its_new_name: 300,
    a_table_renamed_to_and_fro_between_databases_is_there_by_its_last_name: 300,
}

/// A pipe that means every table of two databases, and a third database.
struct Databases {
    stage: Stage,
    other: Source,
    /// Of no pipe.
    outside: Source,
    pipe: Pipe,
}

impl Databases {
    /// `t` in the first, `kept` in the second.
    async fn start(kind: SourceKind) -> Result<Self> {
        let stage = Stage::shared(kind).await?;
        let database = |suffix: &str| format!("{}_{suffix}", stage.database);
        let server = &stage.source_server;
        let other = Source::with_database(server, &database("other")).await?;
        let outside = Source::with_database(server, &database("outside")).await?;
        stage
            .source
            .execute_all([
                "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(40))",
                "INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, NULL)",
            ])
            .await?;
        other
            .execute_all([
                "CREATE TABLE kept (id INT PRIMARY KEY)",
                "INSERT INTO kept VALUES (1)",
            ])
            .await?;
        let entry = |source: &Source| json!({ "source": format!("{}.*", source.database()) });
        let mut file = stage.pipe_file_of(vec![entry(&stage.source), entry(&other)]);
        file["follow_new_tables"] = json!(true);
        let pipe = running_with(&file).await?;
        Ok(Self {
            stage,
            other,
            outside,
            pipe,
        })
    }

    /// Runs statements in which `d1`, `d2` and `d3` stand for the databases.
    async fn execute(&self, statements: &[&str]) -> Result<()> {
        let databases = [&self.stage.source, &self.other, &self.outside];
        let named = |statement: &&str| {
            let each = ["d1.", "d2.", "d3."].into_iter().zip(databases);
            each.fold((*statement).to_owned(), |sql, (short, source)| {
                sql.replace(short, &format!("`{}`.", source.database()))
            })
        };
        let source = &self.stage.source;
        source.execute_all(statements.iter().map(named)).await
    }

    async fn wait_table(&mut self, source: &str, state: &str) -> Result<()> {
        let what = format!("table {source} {state}");
        let is = |status: &Value| {
            let tables = status["tables"].as_array();
            tables
                .into_iter()
                .flatten()
                .any(|table| table["source"] == source && table["state"] == state)
        };
        self.pipe.wait_for(&what, CATCH_UP, is).await.map(drop)
    }

    fn first(&self, table: &str) -> String {
        format!("{}.{table}", self.stage.database)
    }

    fn second(&self, table: &str) -> String {
        format!("{}.{table}", self.other.database())
    }

    /// Both databases' tables are equal at the destination.
    async fn assert_same(&mut self, first: &[&str], second: &[&str]) -> Result<()> {
        settled(&self.stage, &mut self.pipe, first).await?;
        for table in second {
            let (source, database) = (&self.other, &self.stage.database);
            let compared = Comparison::of(table);
            compared
                .assert(source, &self.stage.clickhouse, database)
                .await?;
        }
        Ok(())
    }
}

/// Its old target is kept under another name, and the new one goes by the name that is free now. A new table of the old name
/// is refused for as long as the two would share a target, and keeps no other out.
async fn a_table_renamed_into_another_database_of_the_pipe_joins_under_its_new_name(
    kind: SourceKind,
) -> Result<()> {
    let mut databases = Databases::start(kind).await?;
    let (old, new) = (databases.first("t"), databases.second("t"));
    databases
        .execute(&[
            "INSERT INTO d1.t VALUES (4, 'before')",
            "RENAME TABLE d1.t TO d2.t",
            "INSERT INTO d2.t VALUES (5, 'behind')",
            "DELETE FROM d2.t WHERE id = 1",
        ])
        .await?;
    databases.wait_table(&new, "Streaming").await?;
    databases.wait_table(&old, "Removed").await?;
    wait_exists(&databases.stage, "t_dropped_1", true).await?;
    let kept = live_rows(&databases.stage, "t_dropped_1").await?;
    ensure!(kept == 4, "{kept} rows in what is kept of the old target");
    databases
        .execute(&["UPDATE d2.t SET a = 'streamed' WHERE id = 2"])
        .await?;
    databases.assert_same(&[], &["t", "kept"]).await?;

    databases
        .execute(&[
            "CREATE TABLE d1.t (id INT PRIMARY KEY, b INT)",
            "INSERT INTO d1.t VALUES (1, 1)",
            "CREATE TABLE d2.later (id INT PRIMARY KEY)",
        ])
        .await?;
    let refused = |status: &Value| {
        let mut reasons = status["reasons"].as_array().into_iter().flatten();
        reasons.any(|reason| {
            reason["table"] == old && reason["remedy"].to_string().contains("`target`")
        })
    };
    let pipe = &mut databases.pipe;
    pipe.wait_for("what keeps it out", CATCH_UP, refused)
        .await?;
    let later = databases.second("later");
    databases.wait_table(&later, "Streaming").await?;
    // Nor does it keep out what a command asks for.
    databases
        .execute(&["CREATE TABLE d3.asked (id INT PRIMARY KEY)"])
        .await?;
    let asked = format!("{}.asked", databases.outside.database());
    for entry in [
        json!({ "source": asked }),
        json!({ "source": old, "target": "t_again" }),
    ] {
        let add = json!({ "tables": { "add": [entry] } });
        let (status, document) = databases.pipe.change(add).await?;
        ensure!(status == 200, "{status}: {document:#}");
    }
    databases.wait_table(&asked, "Streaming").await?;
    databases.wait_table(&old, "Streaming").await?;
    databases
        .execute(&[
            "INSERT INTO d1.t VALUES (2, 2)",
            "INSERT INTO d2.t VALUES (6, 'beside it')",
        ])
        .await?;
    databases.assert_same(&[], &["t", "later"]).await?;
    let again = Comparison::of("t").target("t_again");
    databases.stage.assert(again).await?;

    // A chain: one has another's name, one has none, one has a name of its own.
    databases
        .execute(&[
            "RENAME TABLE d2.t TO d1.u, d1.t TO d2.t",
            "INSERT INTO d1.u VALUES (7, 'in a chain')",
            "INSERT INTO d2.t VALUES (3, 3)",
        ])
        .await?;
    let moved = databases.first("u");
    databases.wait_table(&moved, "Streaming").await?;
    databases.wait_table(&old, "Removed").await?;
    databases.assert_same(&["u"], &["t"]).await?;
    databases.stage.assert_no_load_left().await
}

/// Out of the pipe and back, into the other database and back, with loads and a kill between.
async fn a_table_renamed_to_and_fro_between_databases_is_there_by_its_last_name(
    kind: SourceKind,
) -> Result<()> {
    let mut databases = Databases::start(kind).await?;
    let (old, new) = (databases.first("t"), databases.second("t"));
    databases
        .execute(&[
            "RENAME TABLE d1.t TO d3.t",
            "INSERT INTO d3.t VALUES (4, 'outside')",
        ])
        .await?;
    databases.wait_table(&old, "Removed").await?;
    wait_exists(&databases.stage, "t_dropped_1", true).await?;
    databases
        .execute(&[
            "RENAME TABLE d3.t TO d1.t",
            "INSERT INTO d1.t VALUES (5, 'back')",
        ])
        .await?;
    databases.wait_table(&old, "Streaming").await?;
    databases.assert_same(&["t"], &[]).await?;

    databases.execute(&["RENAME TABLE d1.t TO d2.t"]).await?;
    databases.wait_table(&new, "Streaming").await?;
    databases.wait_table(&old, "Removed").await?;
    databases.pipe.kill9()?;
    databases.pipe.restart()?;
    databases
        .execute(&["INSERT INTO d2.t VALUES (6, 'behind the kill')"])
        .await?;
    databases.wait_table(&new, "Streaming").await?;
    databases.assert_same(&[], &["t"]).await?;
    // Loads beside the live table, of this one and of the whole pipe, are not hindered by the name that has gone.
    for body in [
        json!({ "command": "resync", "table": new }),
        json!({ "command": "resync" }),
    ] {
        let (status, document) = databases.pipe.order(body).await?;
        ensure!(status == 200, "{status}: {document:#}");
        databases.assert_same(&[], &["t", "kept"]).await?;
    }
    databases
        .execute(&[
            "RENAME TABLE d2.t TO d1.t",
            "UPDATE d1.t SET a = 'at home' WHERE id = 1",
        ])
        .await?;
    databases.wait_table(&old, "Streaming").await?;
    databases.wait_table(&new, "Removed").await?;
    databases.assert_same(&["t"], &["kept"]).await?;
    // Each of its targets is kept, by a name of its own.
    let sql = format!(
        "SELECT count() FROM system.tables WHERE database = '{}' AND name LIKE 't\\_dropped\\_%'",
        databases.stage.database
    );
    let kept = databases.stage.clickhouse.number(&sql).await?;
    ensure!(kept == 3, "{kept} former targets are kept");
    databases.stage.assert_no_load_left().await
}
