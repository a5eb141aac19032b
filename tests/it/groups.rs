//! Where a transaction begins and ends in the binlog, and what has no rows in it although it changes some.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::prelude::Queryable;
use serde_json::json;
use testbed::harness::{BinlogProxy, Pipe, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::support::{
    CATCH_UP, allow_locks, append, assert_caught_up, assert_each_change_once, end_of_binlog,
    events_behind, has_kinds, on_both_mariadbs, on_both_sources, once, place, running,
    running_with,
};

on_both_sources! {
    a_stream_broken_off_inside_a_transaction_begins_it_again: 300,
}

on_both_mariadbs! {
    a_statement_of_mariadb_is_a_group_by_itself: 240,
    an_alter_in_two_phases_takes_effect_when_it_is_committed: 240,
    numbers_that_go_back_within_a_domain_fail_the_pipe_by_name: 240,
}

once! {
    transactions_without_gtids_are_followed_by_file_alone: 300,
}

/// Kinds of events of which no transaction consists.
const BETWEEN_GROUPS: [&str; 7] = [
    "Gtid",
    "Anonymous_Gtid",
    "Rotate",
    "Stop",
    "Format_desc",
    "Gtid_list",
    "Binlog_checkpoint",
];

/// The checkpoint of a pipe by file is where a group begins, or nothing is yet.
async fn assert_between_groups(stage: &Stage, pipe: &Pipe) -> Result<()> {
    let status = pipe.status().await?;
    let (file, offset) = place(&status)
        .split_once(':')
        .with_context(|| format!("no file and offset: {status:#}"))?;
    let offset: u64 = offset.parse()?;
    let events = events_behind(stage, &(file.to_owned(), offset)).await?;
    let next = events
        .iter()
        .find(|event| event.file == file && event.start == offset);
    ensure!(
        next.is_none_or(|event| BETWEEN_GROUPS.contains(&event.kind.as_str())),
        "{file}:{offset} is before {next:?}"
    );
    Ok(())
}

/// pitfall 56: a place is the end of a group, never inside one. pitfall 74: what had come of a group before the connection
/// broke comes again.
async fn a_stream_broken_off_inside_a_transaction_begins_it_again(kind: SourceKind) -> Result<()> {
    for position in ["auto", "file"] {
        let stage = Stage::shared(kind).await?;
        allow_locks(&stage).await?;
        stage
            .source
            .execute_all([
                "CREATE TABLE t (id INT PRIMARY KEY, v INT)",
                "CREATE TABLE h (id INT PRIMARY KEY, v INT)",
            ])
            .await?;
        let proxy = BinlogProxy::before(stage.source_server.port(), |_, _, _| {}).await?;
        let name = format!("{}.t", stage.database);
        let mut file = stage.pipe_file_of(vec![json!({ "source": name }), append(&stage, "h")]);
        file["source"]["port"] = json!(proxy.port());
        file["source"]["position"] = json!(position);
        let mut pipe = running_with(&file).await?;
        stage.source.execute("INSERT INTO t VALUES (1, 1)").await?;
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
        proxy.break_off_behind(&name, 2);
        stage
            .source
            .execute_all([
                "START TRANSACTION",
                "INSERT INTO h VALUES (10, 1), (11, 1)",
                "INSERT INTO t VALUES (10, 1)",
                "UPDATE t SET v = v + 1",
                "UPDATE h SET v = 2 WHERE id = 10",
                "DELETE FROM t WHERE id = 1",
                "COMMIT",
            ])
            .await?;
        let until = Instant::now() + CATCH_UP;
        while proxy.broken_off() < 3 {
            ensure!(Instant::now() < until, "nothing was broken off");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for table in ["t", "h"] {
            let sql = format!(
                "SELECT count() FROM `{}`.{table} WHERE id >= 10",
                stage.database
            );
            ensure!(
                stage.clickhouse.number(&sql).await? == 0,
                "rows of half a transaction"
            );
        }
        if position == "file" {
            assert_between_groups(&stage, &pipe).await?;
        }
        proxy.break_off(false);
        assert_caught_up(&stage, &mut pipe, &["t"]).await?;
        assert_each_change_once(&stage, "h", 3).await?;
        if position == "file" {
            assert_between_groups(&stage, &pipe).await?;
        }
    }
    Ok(())
}

/// The number of a place within MariaDB's domain 0.
fn in_domain_0(gtids: &str) -> Option<u64> {
    let mut gtids = gtids.split(',').map(str::trim);
    let gtid = gtids.find_map(|gtid| gtid.strip_prefix("0-"))?;
    gtid.split_once('-')?.1.parse().ok()
}

/// pitfall 81: a group begins with its GTID and no BEGIN; a definition has no end of its own, and the place goes past it all
/// the same. pitfall 95: rows of a MyISAM table end with a COMMIT that is a statement.
async fn a_statement_of_mariadb_is_a_group_by_itself(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, v INT)",
            "CREATE TABLE m (id INT PRIMARY KEY, v INT) ENGINE = MyISAM",
        ])
        .await?;
    let mut pipe = running(&stage, &["t", "m"]).await?;
    let start = end_of_binlog(&stage).await?;
    let mut conn = stage.source.connect().await?;
    for statement in [
        "INSERT INTO t VALUES (1, 1)",
        "ALTER TABLE t ADD COLUMN w INT DEFAULT 7",
        "START TRANSACTION",
        "INSERT INTO t VALUES (2, 2, 2)",
        "UPDATE t SET v = v + 1",
        "COMMIT",
        "INSERT INTO m VALUES (1, 1), (2, 2)",
        "UPDATE m SET v = v * 2",
        "CREATE TABLE last_one (id INT)",
    ] {
        conn.query_drop(statement).await?;
    }
    let last: Option<String> = conn.query_first("SELECT @@SESSION.last_gtid").await?;
    let last = last.as_deref().and_then(in_domain_0).context("a GTID")?;
    pipe.wait_for("a place behind the definition", CATCH_UP, |status| {
        in_domain_0(place(status)).is_some_and(|number| number >= last)
    })
    .await?;
    assert_caught_up(&stage, &mut pipe, &["t", "m"]).await?;
    let events = events_behind(&stage, &start).await?;
    let gtids = |beginning: &str| {
        events
            .iter()
            .any(|event| event.kind == "Gtid" && event.info.starts_with(beginning))
    };
    let queries = |text: &str| {
        events
            .iter()
            .any(|event| event.kind == "Query" && event.info == text)
    };
    ensure!(
        gtids("BEGIN GTID") && gtids("GTID") && queries("COMMIT") && !queries("BEGIN"),
        "{events:#?}"
    );
    Ok(())
}

/// pitfall 89: an ALTER that was started may be rolled back, and its text is in the binlog as that of one that was not.
async fn an_alter_in_two_phases_takes_effect_when_it_is_committed(kind: SourceKind) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, v INT)",
            "INSERT INTO t VALUES (1, 1), (2, 1)",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    let start = end_of_binlog(&stage).await?;
    let mut conn = stage.source.connect().await?;
    conn.query_drop("SET SESSION binlog_alter_two_phase = ON")
        .await?;
    conn.query_drop("ALTER TABLE t ADD COLUMN w INT DEFAULT 3")
        .await?;
    conn.query_drop("INSERT INTO t VALUES (3, 3, 3)").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    let fails = conn
        .query_drop("ALTER TABLE t ADD COLUMN gone INT DEFAULT 5, ADD UNIQUE (v)")
        .await;
    ensure!(fails.is_err(), "two rows with one value are unique");
    conn.query_drop("INSERT INTO t VALUES (4, 4, 4)").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    conn.query_drop("ALTER TABLE t ADD COLUMN x VARCHAR(9) DEFAULT 'x' AFTER id")
        .await?;
    conn.query_drop("INSERT INTO t VALUES (5, 'y', 5, 5)")
        .await?;
    conn.disconnect().await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    let gone = format!(
        "SELECT count() FROM system.columns WHERE database = '{}' AND name = 'gone'",
        stage.database
    );
    ensure!(
        stage.clickhouse.number(&gone).await? == 0,
        "an ALTER that failed was followed"
    );
    let status = pipe.status().await?;
    ensure!(
        status["state"] == "Running" && status["tables"][0]["snapshot"]["rows"] == 2,
        "the table was loaded again: {status:#}"
    );
    let events = events_behind(&stage, &start).await?;
    for phase in ["START ALTER", "COMMIT ALTER", "ROLLBACK ALTER"] {
        ensure!(
            events.iter().any(|event| event.info.contains(phase)),
            "no {phase} in {events:#?}"
        );
    }
    Ok(())
}

async fn set_gtid_mode(stage: &Stage, modes: &[&str]) -> Result<()> {
    let modes: Vec<String> = modes
        .iter()
        .map(|mode| format!("SET GLOBAL gtid_mode = {mode}"))
        .collect();
    stage.source.execute_all(modes).await
}

/// pitfall 57: a server may be set to write transactions without GTIDs while it runs. A place of GTIDs has no word for
/// them; one by file goes past either.
async fn transactions_without_gtids_are_followed_by_file_alone() -> Result<()> {
    let stage =
        Stage::with_source(|| SourceServer::start(SourceOptions::new(SourceKind::MySql))).await?;
    stage
        .source
        .execute("CREATE TABLE t (id INT PRIMARY KEY, v INT)")
        .await?;
    let mut by_gtid = stage.pipe_file(&["t"]);
    let name = format!("{}_gtid", stage.database);
    by_gtid["pipe"] = json!(name);
    by_gtid["destination"]["database"] = json!(name);
    let mut by_gtid = running_with(&by_gtid).await?;
    let mut file = stage.pipe_file(&["t"]);
    file["source"]["position"] = json!("file");
    let mut pipe = running_with(&file).await?;
    stage.source.execute("INSERT INTO t VALUES (1, 1)").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    let start = end_of_binlog(&stage).await?;
    set_gtid_mode(&stage, &["ON_PERMISSIVE", "OFF_PERMISSIVE"]).await?;
    stage.source.execute("INSERT INTO t VALUES (2, 2)").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    let status = by_gtid
        .wait_for("Failed", CATCH_UP, |status| status["state"] == "Failed")
        .await?;
    let reasons = status["reasons"].to_string();
    ensure!(
        reasons.contains("without a GTID") && reasons.contains("position: file"),
        "{status:#}"
    );
    pipe.kill9()?;
    set_gtid_mode(&stage, &["OFF"]).await?;
    stage.source.execute("UPDATE t SET v = v + 1").await?;
    set_gtid_mode(&stage, &["OFF_PERMISSIVE", "ON_PERMISSIVE"]).await?;
    stage.source.execute("INSERT INTO t VALUES (3, 3)").await?;
    pipe.restart()?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    // A server that gives every transaction a GTID sends nobody those that have none.
    set_gtid_mode(&stage, &["ON"]).await?;
    stage.source.execute("INSERT INTO t VALUES (4, 4)").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    let events = events_behind(&stage, &start).await?;
    has_kinds(&events, &["Anonymous_Gtid", "Gtid"])
}

/// pitfall 80: one number a domain tells what has been read, so what comes with a lower one would be passed over.
async fn numbers_that_go_back_within_a_domain_fail_the_pipe_by_name(
    kind: SourceKind,
) -> Result<()> {
    let server = move || SourceServer::start(SourceOptions::new(kind));
    let stage = Stage::with_source(server).await?;
    let made = "CREATE TABLE t (id INT PRIMARY KEY, v INT)";
    stage.source.execute(made).await?;
    let mut pipe = running(&stage, &["t"]).await?;
    let newest = "SELECT CAST(SUBSTRING_INDEX(@@gtid_binlog_pos, '-', -1) AS UNSIGNED)";
    let newest = stage.source.number(newest).await?;

    // A gap is no fault.
    let mut conn = stage.source.connect().await?;
    for statement in [
        format!("SET SESSION gtid_seq_no = {}", newest + 100),
        "INSERT INTO t VALUES (1, 1)".to_owned(),
    ] {
        conn.query_drop(statement).await?;
    }
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    for statement in [
        "SET SESSION server_id = 7".to_owned(),
        format!("SET SESSION gtid_seq_no = {}", newest + 1),
        "INSERT INTO t VALUES (2, 2)".to_owned(),
    ] {
        conn.query_drop(statement).await?;
    }
    for _ in 0..2 {
        let failed = pipe.wait_state("Failed", CATCH_UP).await?;
        let reason = &failed["reasons"][0];
        let told = reason["message"].to_string();
        ensure!(
            reason["code"] == "source_setting"
                && told.contains(&format!(" to 0-7-{} within domain 0", newest + 1))
                && reason["remedy"].to_string().contains("gtid_strict_mode"),
            "{failed:#}"
        );
        // As long as the binlog is what it is.
        ensure!(pipe.command("start").await?.0 == 200);
    }
    let strict = "SET GLOBAL gtid_strict_mode = ON";
    stage.source.execute(strict).await?;
    pipe.wait_state("Failed", CATCH_UP).await?;
    ensure!(pipe.command("resync").await?.0 == 200);
    pipe.wait_state("Running", CATCH_UP).await?;
    stage.source.execute("INSERT INTO t VALUES (3, 3)").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}
