//! What every other test takes for granted: servers with the right settings and rights, which come back after a kill
//! and never outlive their process.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use testbed::{ClickHouseOptions, ClickHouseServer, SourceKind, SourceOptions, SourceServer};

#[tokio::test]
async fn mysql_replicates_rows_with_gtids_and_comes_back_after_sigkill() -> Result<()> {
    let server = SourceServer::start(SourceOptions::new(SourceKind::MySql))?;
    source_comes_back_inner(&server).await?;
    let mut reader = connect(server.replication_url()).await?;
    ensure!(variable(&mut reader, "gtid_mode").await? == "ON");
    reader.query_drop("SHOW BINARY LOG STATUS").await?;
    Ok(())
}

#[tokio::test]
async fn mariadb_replicates_rows_and_comes_back_after_sigkill() -> Result<()> {
    let server = SourceServer::start(SourceOptions::new(SourceKind::MariaDb))?;
    source_comes_back_inner(&server).await?;
    let mut reader = connect(server.replication_url()).await?;
    reader.query_drop("SHOW BINLOG STATUS").await?;
    Ok(())
}

#[test]
fn clickhouse_keeps_its_data_through_stop_and_sigkill() -> Result<()> {
    let server = ClickHouseServer::start(ClickHouseOptions {
        password_user: true,
        ..ClickHouseOptions::default()
    })?;
    let url = server.url();
    server.query("CREATE DATABASE d ENGINE = Atomic")?;
    server.query("CREATE TABLE d.t (n UInt64) ENGINE = MergeTree ORDER BY n")?;
    server.query("INSERT INTO d.t SELECT number FROM numbers(1000)")?;
    server.kill()?;
    ensure!(server.query("SELECT 1").is_err(), "a killed server answers");
    server.start_again()?;
    ensure!(server.query("SELECT count(), sum(n) FROM d.t")? == "1000\t499500");
    server.stop()?;
    server.start_again()?;
    ensure!(server.url() == url);
    ensure!(server.query("SELECT count() FROM d.t")? == "1000");
    ensure!(server.query("SELECT name FROM system.users ORDER BY name")? == "default\npipewright");
    Ok(())
}

#[test]
fn servers_and_their_folders_are_gone_when_their_process_is_killed() -> Result<()> {
    let mut up = Command::new(env!("CARGO_BIN_EXE_testbed"))
        .arg("up")
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(up.stdout.take().context("no output")?);
    let mut left_behind: Vec<PathBuf> = Vec::new();
    for line in output.lines() {
        let line = line?;
        if let Some((process, data)) = line
            .trim()
            .strip_prefix("process ")
            .and_then(|rest| rest.split_once(", data "))
        {
            left_behind.push(Path::new("/proc").join(process));
            left_behind.push(
                Path::new(data)
                    .parent()
                    .context("data without a run folder")?
                    .to_owned(),
            );
        }
        if line.starts_with("ready") {
            break;
        }
    }
    ensure!(
        left_behind.len() == 6,
        "three servers expected: {left_behind:?}"
    );
    ensure!(left_behind.iter().all(|path| path.exists()));
    up.kill()?;
    up.wait()?;
    let deadline = Instant::now() + Duration::from_secs(30);
    while left_behind.iter().any(|path| path.exists()) {
        if Instant::now() > deadline {
            bail!("still there: {left_behind:?}");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

async fn source_comes_back_inner(server: &SourceServer) -> Result<()> {
    let port = server.port();
    let mut root = connect(server.root_url()).await?;
    for (name, expected) in [
        ("log_bin", "ON"),
        ("binlog_format", "ROW"),
        ("binlog_row_image", "FULL"),
        ("binlog_row_metadata", "FULL"),
        ("character_set_server", "utf8mb4"),
    ] {
        let actual = variable(&mut root, name).await?;
        ensure!(actual == expected, "{name} is {actual}");
    }
    root.query_drop("CREATE DATABASE d").await?;
    root.query_drop("CREATE TABLE d.t (id INT PRIMARY KEY)")
        .await?;
    root.query_drop("INSERT INTO d.t VALUES (1), (2)").await?;
    server.kill()?;
    ensure!(server.pid().is_none());
    server.start_again()?;
    ensure!(server.port() == port);
    let mut reader = connect(server.replication_url()).await?;
    reader.query_drop("XA RECOVER").await?;
    let count: Option<u64> = reader.query_first("SELECT COUNT(*) FROM d.t").await?;
    ensure!(count == Some(2));
    ensure!(
        reader
            .query_drop("INSERT INTO d.t VALUES (3)")
            .await
            .is_err(),
        "the replication account may write"
    );
    server.stop()?;
    server.start_again_with(&["--binlog-row-image=MINIMAL"])?;
    let mut root = connect(server.root_url()).await?;
    ensure!(variable(&mut root, "binlog_row_image").await? == "MINIMAL");
    Ok(())
}

async fn connect(url: String) -> Result<Conn> {
    Conn::from_url(&url)
        .await
        .with_context(|| format!("cannot connect to {url}"))
}

async fn variable(conn: &mut Conn, name: &str) -> Result<String> {
    let row: Option<(String, String)> = conn
        .query_first(format!("SHOW GLOBAL VARIABLES LIKE '{name}'"))
        .await?;
    row.map(|(_, value)| value)
        .with_context(|| format!("no variable {name}"))
}
