//! Bad input: one clear message with its remedy, the right exit code, and nothing half-made that the corrected second run
//! would trip over.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::harness::{Pipe, Stage, workspace_folder};
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::support::{
    CATCH_UP, START, assert_caught_up, hostile_guest, launch, on_both_sources, once, plugins, start,
};

/// Exit codes of DESIGN §3.1.
const FAILED: i32 = 1;
const UNAVAILABLE: i32 = 69;
const BAD_CONFIGURATION: i32 = 78;

on_both_sources! {
    a_wrong_password_is_refused: 240,
    an_unreachable_source_ends_with_69: 240,
    binlog_format_statement_is_refused: 300,
    missing_grants_are_named_as_statements: 240,
    an_unknown_table_is_refused: 240,
    a_table_without_key_is_refused: 240,
}

once! {
    a_wrong_password_of_clickhouse_is_refused: 240,
    an_unreachable_clickhouse_ends_with_69: 240,
    a_target_with_rows_is_refused: 240,
    two_sources_on_one_target_are_refused: 240,
    an_order_without_the_key_is_refused: 240,
    an_unknown_key_is_refused_with_its_place_and_the_nearest_key: 240,
    a_key_of_a_later_version_is_refused_by_name: 240,
    the_other_kind_of_server_is_refused: 240,
    a_plugin_that_is_no_component_is_refused: 300,
    a_plugin_for_another_contract_is_refused: 300,
    a_refused_plugin_configuration_shows_the_plugins_words: 300,
    a_plugin_that_traps_takes_its_table_out_until_it_is_mended: 400,
    every_problem_is_reported_at_once: 240,
}

async fn with_table(kind: SourceKind) -> Result<Stage> {
    let stage = Stage::shared(kind).await?;
    prepare(&stage).await?;
    Ok(stage)
}

async fn prepare(stage: &Stage) -> Result<()> {
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, tenant INT NOT NULL, a VARCHAR(20) NULL)",
            "INSERT INTO t VALUES (1, 1, 'one'), (2, 1, 'two'), (3, 2, NULL)",
        ])
        .await
}

/// The pipe ends with this code, and what it prints contains all of this.
async fn assert_refused(pipe: &mut Pipe, code: i32, said: &[&str]) -> Result<()> {
    let found = pipe.wait_exit(START).await?;
    let log = pipe.log().tail();
    ensure!(
        found == code,
        "exit code {found}, not {code}; it printed:\n{log}"
    );
    for text in said {
        ensure!(log.contains(text), "no `{text}` in what it printed:\n{log}");
    }
    ensure!(!log.contains("panicked"), "it panicked:\n{log}");
    Ok(())
}

/// The bad file is refused; with the good one and the same state folder, the pipe replicates.
async fn refused_then_mended(
    stage: &Stage,
    bad: &Value,
    good: &Value,
    code: i32,
    said: &[&str],
) -> Result<()> {
    let mut pipe = start(launch(bad).argument("--wait").argument("2s"))?;
    assert_refused(&mut pipe, code, said).await?;
    if code == BAD_CONFIGURATION {
        ensure!(!pipe.state_dir().exists(), "a bad file left a state folder");
    }
    pipe.change_file(good);
    mended(stage, &mut pipe).await
}

async fn mended(stage: &Stage, pipe: &mut Pipe) -> Result<()> {
    pipe.restart()?;
    pipe.wait_state("Running", START)
        .await
        .context("the corrected second run")?;
    stage
        .source
        .execute("INSERT INTO t VALUES (100, 1, 'mended')")
        .await?;
    assert_caught_up(stage, pipe, &["t"]).await
}

fn entry(stage: &Stage, more: Value) -> Value {
    let mut entry = json!({ "source": format!("{}.t", stage.database) });
    if let (Some(entry), Some(more)) = (entry.as_object_mut(), more.as_object()) {
        entry.extend(more.clone());
    }
    entry
}

async fn a_wrong_password_is_refused(kind: SourceKind) -> Result<()> {
    let stage = with_table(kind).await?;
    let good = stage.pipe_file(&["t"]);
    let mut bad = good.clone();
    bad["source"]["password"] = json!("Secr3tButWrong");
    let mut pipe = start(launch(&bad).argument("--wait").argument("2s"))?;
    assert_refused(&mut pipe, FAILED, &["pipewright", "source.password"]).await?;
    ensure!(
        !pipe.log().tail().contains("Secr3tButWrong"),
        "the password is printed"
    );
    pipe.change_file(&good);
    mended(&stage, &mut pipe).await
}

async fn a_wrong_password_of_clickhouse_is_refused() -> Result<()> {
    let stage = with_table(SourceKind::MySql).await?;
    let mut good = stage.pipe_file(&["t"]);
    good["destination"]["user"] = json!("pipewright");
    good["destination"]["password"] = json!("pipewright");
    let mut bad = good.clone();
    bad["destination"]["password"] = json!("Secr3tButWrong");
    let mut pipe = start(launch(&bad).argument("--wait").argument("2s"))?;
    assert_refused(&mut pipe, FAILED, &["destination.password"]).await?;
    ensure!(
        !pipe.log().tail().contains("Secr3tButWrong"),
        "the password is printed"
    );
    pipe.change_file(&good);
    mended(&stage, &mut pipe).await
}

/// A port on which nothing listens.
pub(crate) fn closed_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}

async fn an_unreachable_source_ends_with_69(kind: SourceKind) -> Result<()> {
    let stage = with_table(kind).await?;
    let good = stage.pipe_file(&["t"]);
    let mut bad = good.clone();
    let port = closed_port()?;
    bad["source"]["port"] = json!(port);
    refused_then_mended(
        &stage,
        &bad,
        &good,
        UNAVAILABLE,
        &[&port.to_string(), "--wait"],
    )
    .await
}

async fn an_unreachable_clickhouse_ends_with_69() -> Result<()> {
    let stage = with_table(SourceKind::MariaDb).await?;
    let good = stage.pipe_file(&["t"]);
    let mut bad = good.clone();
    let port = closed_port()?;
    bad["destination"]["url"] = json!(format!("http://127.0.0.1:{port}"));
    refused_then_mended(&stage, &bad, &good, UNAVAILABLE, &[&port.to_string()]).await
}

async fn binlog_format_statement_is_refused(kind: SourceKind) -> Result<()> {
    let stage = Stage::with_source(move || {
        SourceServer::start(SourceOptions::new(kind).arg("--binlog-format=STATEMENT"))
    })
    .await?;
    prepare(&stage).await?;
    let mut pipe = start(launch(&stage.pipe_file(&["t"])))?;
    assert_refused(
        &mut pipe,
        FAILED,
        &[
            "binlog_format",
            "STATEMENT",
            "SET GLOBAL binlog_format = 'ROW'",
        ],
    )
    .await?;
    stage
        .source
        .execute("SET GLOBAL binlog_format = 'ROW'")
        .await?;
    // Sessions that are open keep the former format.
    let stage = Stage {
        source: testbed::harness::Source::with_database(&stage.source_server, &stage.database)
            .await?,
        ..stage
    };
    mended(&stage, &mut pipe).await
}

async fn missing_grants_are_named_as_statements(kind: SourceKind) -> Result<()> {
    let stage = with_table(kind).await?;
    let user = format!("poor_{}", stage.database);
    stage
        .source
        .execute_all([
            format!("CREATE USER {user}@'%' IDENTIFIED BY 'poor'"),
            format!("GRANT SELECT ON {}.t TO {user}@'%'", stage.database),
        ])
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    file["source"]["user"] = json!(user);
    file["source"]["password"] = json!("poor");
    let client = match kind {
        SourceKind::MySql => "GRANT REPLICATION CLIENT",
        SourceKind::MariaDb | SourceKind::MariaDb11 => "GRANT BINLOG MONITOR",
    };
    let mut pipe = start(launch(&file))?;
    // The marker table is out of reach, too: all findings come at once.
    assert_refused(
        &mut pipe,
        FAILED,
        &[
            client,
            "GRANT REPLICATION SLAVE",
            "GRANT SELECT",
            "pw_marker",
        ],
    )
    .await?;
    let more = if kind == SourceKind::MariaDb {
        ", SLAVE MONITOR"
    } else {
        ", XA_RECOVER_ADMIN"
    };
    let client = client.trim_start_matches("GRANT ");
    stage
        .source
        .execute_all([
            format!("GRANT REPLICATION SLAVE, {client}{more} ON *.* TO {user}@'%'"),
            format!("GRANT SELECT ON {}.* TO {user}@'%'", stage.database),
        ])
        .await?;
    mended(&stage, &mut pipe).await
}

async fn an_unknown_table_is_refused(kind: SourceKind) -> Result<()> {
    let stage = with_table(kind).await?;
    let bad = stage.pipe_file(&["t", "no_such_table"]);
    let name = format!("{}.no_such_table", stage.database);
    refused_then_mended(&stage, &bad, &stage.pipe_file(&["t"]), FAILED, &[&name]).await
}

async fn a_table_without_key_is_refused(kind: SourceKind) -> Result<()> {
    let stage = with_table(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE keyless (a INT, b INT)",
            "INSERT INTO keyless VALUES (1, 1), (1, 1)",
        ])
        .await?;
    let bad = stage.pipe_file(&["t", "keyless"]);
    let name = format!("{}.keyless", stage.database);
    refused_then_mended(
        &stage,
        &bad,
        &stage.pipe_file(&["t"]),
        FAILED,
        &[&name, "key"],
    )
    .await
}

async fn a_target_with_rows_is_refused() -> Result<()> {
    let stage = with_table(SourceKind::MySql).await?;
    let target = format!("`{}`.t", stage.database);
    stage
        .clickhouse
        .query(&format!("CREATE DATABASE `{}`", stage.database))
        .await?;
    stage
        .clickhouse
        .query(&format!(
            "CREATE TABLE {target} (id Int32) ENGINE = MergeTree ORDER BY id"
        ))
        .await?;
    stage
        .clickhouse
        .query(&format!("INSERT INTO {target} VALUES (77)"))
        .await?;
    let file = stage.pipe_file(&["t"]);
    let mut pipe = start(launch(&file))?;
    assert_refused(
        &mut pipe,
        FAILED,
        &[&format!("{}.t", stage.database), "empty"],
    )
    .await?;
    ensure!(
        stage
            .clickhouse
            .number(&format!("SELECT sum(id) FROM {target}"))
            .await?
            == 77,
        "the stranger's row is gone"
    );
    ensure!(
        !stage
            .clickhouse
            .exists(&stage.database, "pw_marker")
            .await?,
        "the other table was made all the same"
    );
    stage
        .clickhouse
        .query(&format!("DROP TABLE {target} SYNC"))
        .await?;
    mended(&stage, &mut pipe).await
}

async fn two_sources_on_one_target_are_refused() -> Result<()> {
    let stage = with_table(SourceKind::MariaDb).await?;
    stage
        .source
        .execute("CREATE TABLE u (id INT PRIMARY KEY, tenant INT NOT NULL, a VARCHAR(20) NULL)")
        .await?;
    let second = json!({ "source": format!("{}.u", stage.database), "target": "t" });
    let bad = stage.pipe_file_of(vec![entry(&stage, json!({})), second]);
    refused_then_mended(
        &stage,
        &bad,
        &stage.pipe_file(&["t", "u"]),
        BAD_CONFIGURATION,
        &["target `t`", "pipe.yaml:"],
    )
    .await
}

async fn an_order_without_the_key_is_refused() -> Result<()> {
    let stage = with_table(SourceKind::MySql).await?;
    let bad = stage.pipe_file_of(vec![entry(&stage, json!({ "order_by": ["tenant"] }))]);
    let good = stage.pipe_file_of(vec![entry(&stage, json!({ "order_by": ["tenant", "id"] }))]);
    refused_then_mended(&stage, &bad, &good, FAILED, &["order_by", "`id`"]).await
}

async fn an_unknown_key_is_refused_with_its_place_and_the_nearest_key() -> Result<()> {
    let stage = with_table(SourceKind::MySql).await?;
    let good = stage.pipe_file(&["t"]);
    let mut bad = good.clone();
    bad["source"]["pasword"] = json!("x");
    refused_then_mended(
        &stage,
        &bad,
        &good,
        BAD_CONFIGURATION,
        &["pasword", "`password`", "pipe.yaml:"],
    )
    .await
}

async fn a_key_of_a_later_version_is_refused_by_name() -> Result<()> {
    let stage = with_table(SourceKind::MySql).await?;
    let good = stage.pipe_file(&["t"]);
    let mut bad = good.clone();
    bad["spill_dir"] = json!("spilled");
    bad["tables"][0]["engine"] = json!("discard");
    bad["destination"]["cluster"] = json!("c");
    refused_then_mended(
        &stage,
        &bad,
        &good,
        BAD_CONFIGURATION,
        &["spill_dir", "discard", "one ClickHouse server"],
    )
    .await
}

async fn the_other_kind_of_server_is_refused() -> Result<()> {
    for kind in crate::support::KINDS {
        let stage = with_table(kind).await?;
        let good = stage.pipe_file(&["t"]);
        let mut bad = good.clone();
        let other = if kind == SourceKind::MySql {
            "mariadb"
        } else {
            "mysql"
        };
        bad["source"]["type"] = json!(other);
        refused_then_mended(&stage, &bad, &good, FAILED, &["type", kind.name()]).await?;
    }
    Ok(())
}

/// `t` through a plugin.
fn through(stage: &Stage, plugin: &str, config: Value) -> Value {
    let mut file = stage.pipe_file_of(vec![entry(stage, json!({ "transforms": ["it"] }))]);
    file["transforms"]["it"] = json!({ "plugin": plugin, "config": config });
    file
}

async fn a_plugin_that_is_no_component_is_refused() -> Result<()> {
    let stage = with_table(SourceKind::MySql).await?;
    let folder = tempfile::tempdir()?;
    let plugin = folder.path().join("text.wasm");
    std::fs::write(&plugin, "this is no plugin")?;
    let filter = plugins().await?.path("filter");
    let config = json!({ "where": "id > 0" });
    let bad = through(&stage, &plugin.display().to_string(), config.clone());
    refused_then_mended(
        &stage,
        &bad,
        &through(&stage, &filter, config),
        FAILED,
        &["text.wasm", "component"],
    )
    .await
}

async fn a_plugin_for_another_contract_is_refused() -> Result<()> {
    let stage = with_table(SourceKind::MariaDb).await?;
    let filter = plugins().await?.path("filter");
    let folder = tempfile::tempdir()?;
    let plugin = folder.path().join("later.wasm");
    std::fs::write(&plugin, of_another_version(&std::fs::read(&filter)?))?;
    let config = json!({ "where": "id > 0" });
    let bad = through(&stage, &plugin.display().to_string(), config.clone());
    refused_then_mended(
        &stage,
        &bad,
        &through(&stage, &filter, config),
        FAILED,
        &["0.9", "0.1"],
    )
    .await
}

/// The same component with 0.9.0 where the contract's version stands in the names of its interfaces.
fn of_another_version(component: &[u8]) -> Vec<u8> {
    let mut bytes = component.to_vec();
    let (name, version) = (b"pipewright:transform/", b"@0.1.0");
    let mut at = 0;
    while let Some(found) = bytes[at..]
        .windows(name.len())
        .position(|window| window == name)
    {
        at += found + name.len();
        let end = bytes.len().min(at + 40);
        if let Some(place) = bytes[at..end]
            .windows(version.len())
            .position(|window| window == version)
        {
            bytes[at + place + 3] = b'9';
        }
    }
    bytes
}

async fn a_refused_plugin_configuration_shows_the_plugins_words() -> Result<()> {
    let stage = with_table(SourceKind::MySql).await?;
    let mask = plugins().await?.path("mask");
    let bad = through(
        &stage,
        &mask,
        json!({ "columns": ["a"], "method": "sha256" }),
    );
    let good = through(
        &stage,
        &plugins().await?.path("filter"),
        json!({ "where": "id > 0" }),
    );
    refused_then_mended(&stage, &bad, &good, FAILED, &["`it`", "salt"]).await
}

/// Through the hostile guest, which asks for a file whatever it is to do.
fn through_hostile(stage: &Stage, plugin: &str, crime: &str) -> Value {
    let mut file = through(stage, plugin, json!({ "crime": crime }));
    let any = workspace_folder().join("Cargo.toml");
    file["transforms"]["it"]["grants"] = json!({ "lookup": { "any": any } });
    file
}

async fn a_plugin_that_traps_takes_its_table_out_until_it_is_mended() -> Result<()> {
    let stage = with_table(SourceKind::MySql).await?;
    let plugin = hostile_guest().await?.display().to_string();
    let mut pipe = start(launch(&through_hostile(&stage, &plugin, "panic")))?;
    // It has left Setup by then: the process stays and says so.
    let status = pipe.wait_state("Degraded", START).await?;
    let text = status["reasons"].to_string();
    ensure!(
        text.contains("`it`") && text.contains("plugin_trap"),
        "{status:#}"
    );
    ensure!(pipe.exited()?.is_none(), "the process has gone");
    pipe.stop().await?;
    pipe.change_file(&through_hostile(&stage, &plugin, "none"));
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    stage
        .source
        .execute("INSERT INTO t VALUES (100, 1, 'mended')")
        .await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    // A trap while streaming, and a restart with the plugin mended, at the same place.
    pipe.stop().await?;
    pipe.change_file(&through_hostile(&stage, &plugin, "few_rows"));
    stage
        .source
        .execute("UPDATE t SET a = 'after' WHERE id = 1")
        .await?;
    pipe.restart()?;
    pipe.wait_state("Degraded", CATCH_UP).await?;
    pipe.stop().await?;
    pipe.change_file(&through_hostile(&stage, &plugin, "none"));
    pipe.restart()?;
    pipe.wait_state("Running", START).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

async fn every_problem_is_reported_at_once() -> Result<()> {
    let stage = with_table(SourceKind::MySql).await?;
    let good = stage.pipe_file(&["t"]);
    let mut bad = good.clone();
    bad["mode"] = json!("everything");
    bad["colour"] = json!("red");
    bad["sync"]["interval"] = json!("soon");
    bad["destination"]["url"] = json!("clickhouse://127.0.0.1");
    let said = ["`mode`", "colour", "interval", "destination.url"];
    refused_then_mended(&stage, &bad, &good, BAD_CONFIGURATION, &said).await
}
