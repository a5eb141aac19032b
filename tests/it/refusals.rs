//! Error 1236 has as many meanings as texts: each that a real server can be made to show, told by its name with its own
//! remedy. What is put right at the source goes on where it stood.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::harness::{Pipe, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};

use crate::support::{
    CATCH_UP, assert_caught_up, newest_file, on_both_sources, once, running, running_with,
};

on_both_sources! {
    each_damage_of_a_binlog_file_is_told_by_its_name: 420,
}

once! {
    transactions_that_gtid_mode_keeps_back_are_told_with_the_mode_that_sends_them: 300,
    a_compressed_transaction_that_is_damaged_stops_the_pipe_and_is_read_when_it_is_whole: 300,
}

/// How a file is damaged, given where the pipe stands in it.
type Damage = fn(&mut Vec<u8>, usize);

/// Where an event's header has its length.
const LENGTH_AT: usize = 9;
/// Behind the header of the next event, and within it.
const WITHIN: usize = 25;

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes[at..at + with.len()].copy_from_slice(with);
}

/// Damages, each with the code and a part of what is told.
const DAMAGES: [(&str, Damage, &str, &str); 6] = [
    (
        "shorter than the place",
        |bytes, at| bytes.truncate(at - 10),
        "source_diverged",
        "shorter than what this pipe has read",
    ),
    (
        "cut within an event",
        |bytes, at| bytes.truncate(at + WITHIN),
        "source_corrupt",
        "no whole event",
    ),
    (
        "an event longer than any",
        |bytes, at| overwrite(bytes, at + LENGTH_AT, &[0xff, 0xff, 0xff, 0x7f]),
        "source_corrupt",
        "max_allowed_packet",
    ),
    (
        "an event shorter than any",
        |bytes, at| overwrite(bytes, at + LENGTH_AT, &[3, 0, 0, 0]),
        "source_corrupt",
        "no event at the place",
    ),
    (
        "a byte that is another",
        |bytes, at| bytes[at + WITHIN] ^= 0x10,
        "source_corrupt",
        "mysqlbinlog --verify-binlog-checksum",
    ),
    (
        "no binlog",
        |bytes, _| overwrite(bytes, 0, b"none"),
        "source_corrupt",
        "is none",
    ),
];

/// The file and offset that are checkpointed.
async fn place(pipe: &Pipe) -> Result<(String, usize)> {
    let status = pipe.status().await?;
    let position = status["checkpoint"]["position"].as_str();
    let (file, offset) = position
        .and_then(|position| position.rsplit_once(':'))
        .context("no file and offset")?;
    let file = file.rsplit(['/', ' ']).next().unwrap_or(file);
    Ok((file.to_owned(), offset.parse()?))
}

/// Waits until the pipe has failed for `code`, and says `text` in the reason or the remedy.
async fn assert_fails(pipe: &mut Pipe, what: &str, code: &str, text: &str) -> Result<()> {
    let told = |status: &Value| {
        let reasons = status["reasons"].to_string();
        status["state"] == "Failed" && reasons.contains(code) && reasons.contains(text)
    };
    let failed = pipe.wait_for(what, CATCH_UP, told).await;
    failed.map(drop).with_context(|| what.to_owned())
}

async fn retry(pipe: &Pipe) -> Result<()> {
    let (status, answer) = pipe.command("start").await?;
    ensure!(status == 200, "{status} {answer}");
    Ok(())
}

async fn by_file(stage: &Stage) -> Result<Pipe> {
    stage
        .source
        .execute("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a INT)")
        .await?;
    let mut file = stage.pipe_file(&["t"]);
    file["source"]["position"] = json!("file");
    running_with(&file).await
}

/// pitfall 49, pitfall 62: by the source itself, which reads every event's checksum here. Nothing behind the damage is
/// read, and nothing is lost once the file is whole again.
async fn each_damage_of_a_binlog_file_is_told_by_its_name(kind: SourceKind) -> Result<()> {
    let verify = match kind.is_mariadb() {
        true => "--master-verify-checksum=ON",
        false => "--source-verify-checksum=ON",
    };
    let stage =
        Stage::with_source(move || SourceServer::start(SourceOptions::new(kind).arg(verify)))
            .await?;
    let mut pipe = by_file(&stage).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure!(pipe.stop().await? == 0);
    pipe.restart()?;
    pipe.wait_state("Running", CATCH_UP).await?;
    let (name, offset) = place(&pipe).await?;
    pipe.kill9()?;
    stage
        .source
        .execute_all(["INSERT INTO t (a) VALUES (1), (2)", "FLUSH BINARY LOGS"])
        .await?;
    let path = stage.source_server.data_dir().join(&name);
    let whole = fs::read(&path).with_context(|| path.display().to_string())?;
    let (mut first, mut told) = (true, Vec::new());
    for (what, damage, code, text) in DAMAGES {
        let mut damaged = whole.clone();
        damage(&mut damaged, offset);
        fs::write(&path, damaged)?;
        match std::mem::take(&mut first) {
            true => pipe.restart()?,
            false => retry(&pipe).await?,
        }
        assert_fails(&mut pipe, what, code, text).await?;
        told.push(pipe.status().await?["reasons"][0]["message"].to_string());
    }
    let aside: PathBuf = path.with_extension("aside");
    fs::rename(&path, &aside)?;
    retry(&pipe).await?;
    assert_fails(
        &mut pipe,
        "a file that is gone",
        "position_purged",
        "put the file back",
    )
    .await?;
    fs::rename(&aside, &path)?;
    fs::write(&path, &whole)?;
    retry(&pipe).await?;
    pipe.wait_state("Running", CATCH_UP).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    told.dedup();
    ensure!(told.len() == DAMAGES.len(), "told alike: {told:#?}");
    Ok(())
}

/// Takes MySQL's gtid_mode through the steps that lie between.
async fn gtid_mode(stage: &Stage, steps: &[&str]) -> Result<()> {
    for step in steps {
        let sql = format!("SET GLOBAL gtid_mode = {step}");
        stage.source.execute(sql).await?;
    }
    Ok(())
}

/// pitfall 57, pitfall 62
async fn transactions_that_gtid_mode_keeps_back_are_told_with_the_mode_that_sends_them()
-> Result<()> {
    let server = || SourceServer::start(SourceOptions::new(SourceKind::MySql));
    let stage = Stage::with_source(server).await?;
    let mut pipe = by_file(&stage).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    pipe.kill9()?;
    stage
        .source
        .execute("INSERT INTO t (a) VALUES (1), (2)")
        .await?;
    gtid_mode(&stage, &["ON_PERMISSIVE", "OFF_PERMISSIVE", "OFF"]).await?;
    pipe.restart()?;
    let what = "GTIDs while they are off";
    assert_fails(
        &mut pipe,
        what,
        "source_setting",
        "gtid_mode = OFF_PERMISSIVE until",
    )
    .await?;
    gtid_mode(&stage, &["OFF_PERMISSIVE"]).await?;
    stage.source.execute("INSERT INTO t (a) VALUES (3)").await?;
    retry(&pipe).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    pipe.kill9()?;
    stage.source.execute("INSERT INTO t (a) VALUES (4)").await?;
    gtid_mode(&stage, &["ON_PERMISSIVE", "ON"]).await?;
    pipe.restart()?;
    let what = "transactions without one while they are on";
    assert_fails(
        &mut pipe,
        what,
        "source_setting",
        "gtid_mode = ON_PERMISSIVE until",
    )
    .await?;
    gtid_mode(&stage, &["ON_PERMISSIVE"]).await?;
    retry(&pipe).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}

/// pitfall 54: of the damage nobody but the decoder of the payload can tell, since events have no checksums.
async fn a_compressed_transaction_that_is_damaged_stops_the_pipe_and_is_read_when_it_is_whole()
-> Result<()> {
    const FRAME: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let stage = Stage::with_source(|| {
        SourceServer::start(SourceOptions::new(SourceKind::MySql).arg("--binlog-checksum=NONE"))
    })
    .await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(100))",
            "INSERT INTO t VALUES (1, 'one')",
        ])
        .await?;
    let mut pipe = running(&stage, &["t"]).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure!(pipe.stop().await? == 0);
    let path = newest_file(&stage).await?;
    stage
        .source
        .execute_all([
            "SET GLOBAL binlog_transaction_compression = ON",
            "SET SESSION binlog_transaction_compression = ON",
            "INSERT INTO t WITH RECURSIVE n AS (SELECT 2 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900) \
             SELECT i, SHA2(i, 256) FROM n",
            "FLUSH BINARY LOGS",
        ])
        .await?;
    let whole = fs::read(&path)?;
    let mut frames = whole.windows(FRAME.len());
    let frame = frames
        .position(|bytes| bytes == FRAME)
        .context("nothing is compressed")?;
    let mut damaged = whole.clone();
    overwrite(&mut damaged, frame + FRAME.len() + 1, &[0xff; 32]);
    fs::write(&path, damaged)?;
    pipe.restart()?;
    let what = "a damaged payload";
    assert_fails(&mut pipe, what, "source_corrupt", "cannot be expanded").await?;
    let rows = format!("SELECT count() FROM `{}`.t_current", stage.database);
    ensure!(stage.clickhouse.number(&rows).await? == 1);
    fs::write(&path, &whole)?;
    retry(&pipe).await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await
}
