//! Statements that move rows without row events: each ends with equal tables, or with the one table out of service by
//! name, as `pipewright plan --ddl` has foretold.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::{Value, json};
use testbed::SourceKind;
use testbed::harness::{Pipe, Stage, run_to_end};

use super::{identity, settled, wait_exists};
use crate::support::{
    CATCH_UP, events, on_all_sources, on_both_sources, program, reason_of, running, running_with,
};

on_all_sources! {
    partitions_that_move_end_as_foretold: 300,
    a_table_whose_file_is_exchanged_is_read_again_or_out_of_service: 200,
}

on_both_sources! {
    rows_that_nothing_may_load_take_their_table_out_as_foretold: 200,
}

/// What has become of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Loaded anew.
    Loaded,
    /// It has left the pipe.
    Gone,
    /// It has come back.
    Joined,
    /// Out of service.
    Out,
}
use End::{Gone, Joined, Loaded, Out};

/// Which servers know a statement.
#[derive(Clone, Copy)]
enum Known {
    All,
    MariaDb,
    /// All but MariaDB before 11.4.
    Newer,
    MariaDb11,
}

impl Known {
    fn on(self, kind: SourceKind) -> bool {
        match self {
            Self::All => true,
            Self::MariaDb => kind.is_mariadb(),
            Self::Newer => kind != SourceKind::MariaDb,
            Self::MariaDb11 => kind == SourceKind::MariaDb11,
        }
    }
}

/// Tables of the pipe. `r`, `l` and `h` have partitions; so has `q`, which is not the pipe's, as are `o` and `made`.
const TABLES: [&str; 4] = ["r", "l", "h", "u"];

/// Statements, of which the last moves rows, and the tables of the pipe that do not stay as they are.
type Move = (Known, &'static str, &'static [(&'static str, End)]);

const MOVES: [Move; 20] = [
    (
        Known::All,
        "ALTER TABLE r REORGANIZE PARTITION p1, p2 INTO (PARTITION p12 VALUES LESS THAN (30))",
        &[],
    ),
    (
        Known::All,
        "ALTER TABLE r ADD PARTITION (PARTITION p4 VALUES LESS THAN (50))",
        &[],
    ),
    (Known::All, "ALTER TABLE r REBUILD PARTITION p0, p12", &[]),
    (Known::All, "ALTER TABLE h COALESCE PARTITION 2", &[]),
    (Known::All, "ALTER TABLE h ADD PARTITION PARTITIONS 2", &[]),
    (Known::All, "ALTER TABLE h REMOVE PARTITIONING", &[]),
    (
        Known::All,
        "ALTER TABLE h PARTITION BY KEY (id) PARTITIONS 3",
        &[],
    ),
    (
        Known::All,
        "ALTER TABLE h TRUNCATE PARTITION p1",
        &[("h", Loaded)],
    ),
    (
        Known::All,
        "ALTER TABLE r DROP PARTITION p4",
        &[("r", Loaded)],
    ),
    // A value that no partition lists any more takes its rows with it.
    (
        Known::All,
        "ALTER TABLE l REORGANIZE PARTITION a INTO (PARTITION a VALUES IN (1, 2))",
        &[("l", Loaded)],
    ),
    (
        Known::All,
        "ALTER TABLE r EXCHANGE PARTITION p0 WITH TABLE o",
        &[("r", Loaded)],
    ),
    (
        Known::All,
        "ALTER TABLE q EXCHANGE PARTITION p0 WITH TABLE u",
        &[("u", Loaded)],
    ),
    (
        Known::All,
        "ALTER TABLE r EXCHANGE PARTITION p0 WITH TABLE u",
        &[("r", Loaded), ("u", Loaded)],
    ),
    (
        Known::Newer,
        "ALTER TABLE r EXCHANGE PARTITION p0 WITH TABLE u WITHOUT VALIDATION",
        &[("r", Loaded), ("u", Loaded)],
    ),
    (
        Known::MariaDb,
        "ALTER TABLE r CONVERT PARTITION p12 TO TABLE made",
        &[("r", Loaded)],
    ),
    (
        Known::MariaDb,
        "UPDATE made SET id = id + 30; ALTER TABLE r CONVERT TABLE made TO PARTITION p5 VALUES LESS THAN (60)",
        &[("r", Loaded)],
    ),
    (
        Known::MariaDb11,
        "ALTER TABLE r CONVERT PARTITION p5 TO TABLE made",
        &[("r", Loaded)],
    ),
    (
        Known::MariaDb11,
        "ALTER TABLE r CONVERT TABLE made TO PARTITION p5 VALUES LESS THAN (60) WITHOUT VALIDATION",
        &[("r", Loaded)],
    ),
    (
        Known::MariaDb,
        "UPDATE u SET id = id + 100; ALTER TABLE r CONVERT TABLE u TO PARTITION p6 VALUES LESS THAN (900)",
        &[("r", Loaded), ("u", Gone)],
    ),
    (
        Known::MariaDb,
        "ALTER TABLE r CONVERT PARTITION p6 TO TABLE u",
        &[("r", Loaded), ("u", Joined)],
    ),
];

/// pitfall 110
async fn partitions_that_move_end_as_foretold(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    let ranges = "PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20), \
                  PARTITION p2 VALUES LESS THAN (30), PARTITION p3 VALUES LESS THAN (40))";
    let lists =
        "PARTITION BY LIST (n) (PARTITION a VALUES IN (1, 2, 3), PARTITION b VALUES IN (4, 5))";
    for (table, partitions, ids) in [
        ("r", ranges, "1, 5, 11, 15, 21, 25, 31, 35"),
        ("q", ranges, "4, 14"),
        (
            "h",
            "PARTITION BY HASH (id) PARTITIONS 4",
            "1, 2, 3, 4, 5, 6, 7, 8, 9",
        ),
        ("l", lists, "1, 2, 3, 4, 5"),
        ("u", "", "2, 3"),
        ("o", "", "6, 7"),
    ] {
        let rows = ids.replace(", ", "), (");
        let key = if table == "l" { "id, n" } else { "id" };
        stage
            .source
            .execute_all([
                format!("CREATE TABLE {table} (id INT, n INT NOT NULL DEFAULT 1, PRIMARY KEY ({key})) {partitions}"),
                format!("INSERT INTO {table} (id) VALUES ({rows})"),
            ])
            .await?;
    }
    stage.source.execute("UPDATE l SET n = id").await?;
    let mut pipe = running(&stage, &TABLES).await?;
    let plan = Plan::of(&stage.pipe_file(&TABLES))?;
    for (_, statements, ends) in MOVES.iter().filter(|(known, ..)| known.on(kind)) {
        let ends: BTreeMap<&str, End> = ends.iter().copied().collect();
        let (before, statement) = statements.rsplit_once("; ").unwrap_or(("DO 0", statements));
        stage.source.execute(before).await?;
        let foretold = plan.foretells(&stage, statement).await?;
        ensure!(foretold == ends, "`{statement}`: foretold is {foretold:?}");
        let identities = identities(&stage).await?;
        stage
            .source
            .execute_all([statement, "UPDATE h SET n = n + 1"])
            .await?;
        let found = ends_of(&stage, &mut pipe, &identities, &ends).await;
        let found = found.with_context(|| statement.to_string())?;
        ensure!(found == ends, "`{statement}`: came out as {found:?}");
    }
    if Known::Newer.on(kind) {
        let told = events(&stage, &pipe).await?.to_string();
        ensure!(
            told.contains("CHECK TABLE"),
            "no word of rows WITHOUT VALIDATION"
        );
    }
    let listed = stage.source.number("SELECT COUNT(*) FROM l").await?;
    ensure!(listed == 4, "the server kept all rows of `l`: {listed}");
    stage.assert_no_load_left().await
}

/// The identity of the target of each table.
async fn identities(stage: &Stage) -> Result<BTreeMap<&'static str, String>> {
    let mut found = BTreeMap::new();
    for table in TABLES {
        found.insert(table, identity(stage, table).await?);
    }
    Ok(found)
}

/// What has become of the tables, which are equal where they are there, once what is awaited may have been seen.
async fn ends_of(
    stage: &Stage,
    pipe: &mut Pipe,
    before: &BTreeMap<&'static str, String>,
    awaited: &BTreeMap<&str, End>,
) -> Result<BTreeMap<&'static str, End>> {
    for (table, end) in awaited {
        if let Gone | Joined = end {
            wait_exists(stage, table, *end == Joined).await?;
        }
    }
    let there: Vec<&str> = TABLES
        .into_iter()
        .filter(|table| awaited.get(table) != Some(&Gone))
        .collect();
    settled(stage, pipe, &there).await?;
    let mut found = BTreeMap::new();
    for (table, now) in identities(stage).await? {
        let end = match (before[table].as_str(), now.as_str()) {
            (before, now) if before == now => continue,
            ("", _) => Joined,
            (_, "") => Gone,
            _ => Loaded,
        };
        found.insert(table, end);
    }
    Ok(found)
}

/// The pipe's file, for `pipewright plan`.
struct Plan {
    folder: tempfile::TempDir,
}

impl Plan {
    fn of(file: &Value) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("pipe.yaml"), format!("{file:#}"))?;
        Ok(Self { folder })
    }

    /// What `plan --ddl` tells of each table.
    async fn foretells(
        &self,
        stage: &Stage,
        statement: &str,
    ) -> Result<BTreeMap<&'static str, End>> {
        let path = self.folder.path().join("pipe.yaml").display().to_string();
        let arguments = ["pipewright", "plan", &path, "--json", "--ddl", statement];
        let told = run_to_end(program(), arguments, &[], Duration::from_secs(30)).await?;
        let told: Value =
            serde_json::from_str(&told.stdout).with_context(|| format!("{told:?}"))?;
        let effects = told["ddl"][0]["effects"].as_array().context("effects")?;
        let mut foretold = BTreeMap::new();
        for effect in effects {
            let name = effect["table"].as_str().unwrap_or_default();
            let mut tables = TABLES.into_iter();
            let table = tables.find(|table| name == format!("{}.{table}", stage.database));
            let text = effect["effect"].as_str().unwrap_or_default();
            let ends = [
                ("out of service", Out),
                ("joins the pipe, and is loaded", Joined),
                ("kept aside", Gone),
                ("loaded anew", Loaded),
            ];
            let end = ends.iter().find(|(words, _)| text.contains(words));
            let (table, (_, end)) = table.zip(end).with_context(|| format!("{effect}"))?;
            foretold.insert(table, *end);
        }
        Ok(foretold)
    }
}

/// pitfall 110: rows that come with a file. While there is no file the source cannot tell them.
async fn a_table_whose_file_is_exchanged_is_read_again_or_out_of_service(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    for (table, row) in [("u", "(1, 1)"), ("h", "(1, 1)"), ("o", "(2, 2), (3, 3)")] {
        stage
            .source
            .execute_all([
                format!("CREATE TABLE {table} (id INT PRIMARY KEY, n INT NOT NULL)"),
                format!("INSERT INTO {table} VALUES {row}"),
            ])
            .await?;
    }
    let mut pipe = running(&stage, &["u", "h"]).await?;
    let plan = Plan::of(&stage.pipe_file(&TABLES))?;
    let (discard, import) = (
        "ALTER TABLE u DISCARD TABLESPACE",
        "ALTER TABLE u IMPORT TABLESPACE",
    );
    let discarded = plan.foretells(&stage, discard).await?;
    ensure!(discarded == BTreeMap::from([("u", Out)]), "{discarded:?}");
    let imported = plan.foretells(&stage, import).await?;
    ensure!(imported == BTreeMap::from([("u", Loaded)]), "{imported:?}");
    stage
        .source
        .execute_all([discard, "UPDATE h SET n = 2"])
        .await?;
    let status = pipe.wait_state("Degraded", CATCH_UP).await?;
    let table = format!("{}.u", stage.database);
    let reason = reason_of(&mut pipe, &table).await?;
    let remedy = reason["remedy"].as_str().unwrap_or_default();
    ensure!(
        remedy.contains("IMPORT TABLESPACE") && remedy.contains("resync"),
        "{status:#}"
    );
    stage.wait_caught_up(&mut pipe, CATCH_UP).await?;
    stage.assert_same("h").await?;
    copy_file(&stage).await?;
    stage.source.execute(import).await?;
    let (status, answer) = pipe
        .order(json!({ "command": "resync", "table": table }))
        .await?;
    ensure!(status == 200, "{status} {answer:#}");
    stage.source.execute("INSERT INTO u VALUES (4, 4)").await?;
    settled(&stage, &mut pipe, &["u", "h"]).await?;
    // Both at once, as far as the pipe can see.
    ensure!(pipe.stop().await? == 0);
    stage
        .source
        .execute_all(["INSERT INTO o VALUES (5, 5)", discard])
        .await?;
    copy_file(&stage).await?;
    stage
        .source
        .execute_all([import, "UPDATE u SET n = n + 1 WHERE id = 5"])
        .await?;
    pipe.restart()?;
    settled(&stage, &mut pipe, &["u", "h"]).await
}

/// Where a person wants to decide, and where there is no load.
async fn rows_that_nothing_may_load_take_their_table_out_as_foretold(
    kind: SourceKind,
) -> Result<()> {
    for (key, value) in [
        ("ddl", json!({ "reload": "quarantine" })),
        ("mode", json!("cdc_only")),
    ] {
        let stage = Stage::shared(kind).await?;
        stage
            .source
            .execute_all([
                "CREATE TABLE h (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 2",
                "CREATE TABLE u (id INT PRIMARY KEY)",
            ])
            .await?;
        let mut file = stage.pipe_file(&["h", "u"]);
        file[key] = value;
        let mut pipe = running_with(&file).await?;
        let statement = "ALTER TABLE h EXCHANGE PARTITION p0 WITH TABLE u";
        let foretold = Plan::of(&file)?.foretells(&stage, statement).await?;
        let out = BTreeMap::from([("h", Out), ("u", Out)]);
        ensure!(foretold == out, "{key}: {foretold:?}");
        stage
            .source
            .execute_all(["INSERT INTO u VALUES (2)", statement])
            .await?;
        for table in ["h", "u"] {
            let table = format!("{}.{table}", stage.database);
            let reason = reason_of(&mut pipe, &table).await?;
            let message = reason["message"].as_str().unwrap_or_default();
            let remedy = reason["remedy"].as_str().unwrap_or_default();
            ensure!(
                message.contains("without row events") && remedy.contains("resync"),
                "{key}: {reason:#}"
            );
        }
    }
    Ok(())
}

/// Puts the file of `o` where that of `u` is missing.
async fn copy_file(stage: &Stage) -> Result<()> {
    let folder = stage.source_server.data_dir().join(&stage.database);
    let mut conn = stage.source.connect().await?;
    conn.query_drop("FLUSH TABLES o FOR EXPORT").await?;
    for kind in ["ibd", "cfg"] {
        let path = |table: &str| folder.join(Path::new(table).with_extension(kind));
        std::fs::copy(path("o"), path("u"))?;
    }
    conn.query_drop("UNLOCK TABLES").await?;
    Ok(())
}
