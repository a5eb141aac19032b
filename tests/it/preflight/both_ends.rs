//! Servers that are set badly in many ways at once: the command line, REST and Setup tell the same of them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use testbed::harness::{Pipe, Stage};
use testbed::{
    ClickHouseOptions, ClickHouseServer, ClickHouseUser, SourceKind, SourceOptions, SourceServer,
};

use super::{codes, findings_at, said_of};
use crate::bad_input::closed_port;
use crate::support::{CATCH_UP, launch, on_both_sources, once, running_with, start};

on_both_sources! {
    a_source_that_cannot_be_followed_is_told_alike_by_all: 300,
}

once! {
    a_destination_that_cannot_be_written_to_is_told_alike_by_all: 300,
}

/// A pipe that runs, so that its process can be asked about documents; as a replica it is known by this number.
pub(crate) async fn asked_pipe(stage: &Stage, server_id: Option<u32>) -> Result<Pipe> {
    stage
        .source
        .execute("CREATE TABLE good (id INT PRIMARY KEY)")
        .await?;
    let mut file = stage.pipe_file(&["good"]);
    file["source"]["server_id"] = json!(server_id);
    running_with(&file).await
}

/// The codes of what stands against a document, by weight.
#[derive(Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) errors: BTreeSet<String>,
    pub(crate) warnings: BTreeSet<String>,
    pub(crate) found: Vec<Value>,
}

impl Told {
    fn of(found: Vec<Value>) -> Self {
        Self {
            errors: codes(&found, "error"),
            warnings: codes(&found, "warning"),
            found,
        }
    }

    pub(crate) fn ensure(&self, errors: &[&str], warnings: &[&str]) -> Result<()> {
        for (codes, wanted) in [(&self.errors, errors), (&self.warnings, warnings)] {
            for code in wanted {
                ensure!(
                    codes.contains(*code),
                    "{code} was not found: {:#?}",
                    self.found
                );
            }
        }
        Ok(())
    }
}

/// What `validate --online` tells, which POST /v1/validate tells too.
pub(crate) async fn told(pipe: &Pipe, file: &Value) -> Result<Told> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("pipe.yaml");
    std::fs::write(&path, format!("{file:#}"))?;
    let by_line = Told::of(findings_at(pipe, &path.display().to_string()).await?);
    let (status, document) = pipe
        .call(Method::POST, "/v1/validate", file.to_string())
        .await?;
    let found = document["findings"].as_array().cloned();
    let mut by_rest = Told::of(found.with_context(|| format!("{status}: {document:#}"))?);
    let is_valid = by_rest.errors.is_empty();
    // What its own pipes have against it the process alone can know.
    by_rest.errors.remove("other_pipes");
    by_rest.warnings.remove("name");
    ensure!(
        (&by_line.errors, &by_line.warnings) == (&by_rest.errors, &by_rest.warnings),
        "the command line tells {by_line:#?}, REST {by_rest:#?}"
    );
    ensure!(document["valid"] == is_valid, "{document:#}");
    Ok(by_line)
}

/// How a process ends over these.
fn exit_code(told: &Told) -> i32 {
    let is_away = |one: &Value| one["kind"].to_string().contains("_unavailable");
    let mut refusing = told.found.iter().filter(|one| one["severity"] == "error");
    match refusing.any(is_away) {
        true => 69,
        false => 1,
    }
}

/// Setup refuses with the same, and says all of it.
pub(crate) async fn assert_setup_tells(file: &Value, told: &Told) -> Result<()> {
    let mut pipe = start(launch(file).argument("--wait=2s"))?;
    let code = pipe.wait_exit(CATCH_UP).await?;
    ensure!(code == exit_code(told), "ended with {code}: {told:#?}");
    let log = pipe.log().tail();
    for code in &told.errors {
        ensure!(
            log.contains(&format!("{code}: ")),
            "Setup does not tell of {code}:\n{log}"
        );
    }
    Ok(())
}

/// The clock differs for accounts without great rights only, which is enough to be seen.
const CLOCK: &str = "SET GLOBAL init_connect = 'SET timestamp = UNIX_TIMESTAMP() + 100'";

async fn a_source_that_cannot_be_followed_is_told_alike_by_all(kind: SourceKind) -> Result<()> {
    let stage = Stage::with_source(move || {
        let options = SourceOptions::new(kind).arg("--skip-log-bin");
        let options = match kind.is_mariadb() {
            // The server says of itself what it is told to.
            true => options.arg("--version=10.4.34-MariaDB-MaxScale"),
            false => options.arg("--server-id=0"),
        };
        SourceServer::start(options)
    })
    .await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY)",
            "CREATE VIEW v AS SELECT id FROM t",
            CLOCK,
        ])
        .await?;
    let mut file = stage.pipe_file(&["t", "v"]);
    // No address of this machine alone, as far as anybody can tell by looking at it.
    file["source"]["host"] = json!("0.0.0.0");
    file["source"]["tls"] = json!({ "mode": "disabled" });
    let asked = Stage::shared(kind).await?;
    let pipe = asked_pipe(&asked, None).await?;
    let told = told(&pipe, &file).await?;
    let own: &[&str] = match kind.is_mariadb() {
        true => &["version", "server"],
        false => &["source_server_id"],
    };
    told.ensure(&[&["log_bin", "table"], own].concat(), &["clock", "tls"])?;
    let view = told
        .found
        .iter()
        .find(|finding| finding["check"] == "table");
    let view = view.context("the view")?;
    ensure!(view["found"].to_string().contains("view"), "{view:#}");
    // A load alone needs it too.
    let binlog = said_of(&told.found, "log_bin");
    ensure!(
        binlog.contains("log_bin=binlog") && !binlog.contains("mode: snapshot"),
        "{binlog}"
    );
    assert_setup_tells(&file, &told).await?;
    if kind.is_mariadb() {
        let server = said_of(&told.found, "server");
        ensure!(server.contains("MaxScale answers"), "{server}");
        tokio::task::block_in_place(|| {
            stage.source_server.stop()?;
            let version = "--version=10.11.11-MariaDB-Vitess";
            stage.source_server.start_again_with(&[version])
        })?;
        let server = said_of(&super::told(&pipe, &file).await?.found, "server");
        ensure!(server.contains("Vitess answers"), "{server}");
        return Ok(());
    }
    // This one has a certificate, which nobody looks at.
    file["source"]["tls"] = json!({ "mode": "required" });
    let tls = said_of(&super::told(&pipe, &file).await?.found, "tls");
    ensure!(tls.contains("whoever answers is believed"), "{tls}");
    Ok(())
}

/// A writer who lacks what a pipe needs in every way, and a reader.
fn users() -> Vec<ClickHouseUser> {
    vec![
        ClickHouseUser {
            name: "poor".to_owned(),
            password: "poor".to_owned(),
            settings: vec![("constraints", "<async_insert><const/></async_insert>")],
            grants: vec!["GRANT SELECT ON *.*"],
            quota: vec![("queries", "100000"), ("query_inserts", "1000")],
        },
        ClickHouseUser {
            name: "reader".to_owned(),
            password: "reader".to_owned(),
            settings: vec![("readonly", "2")],
            ..ClickHouseUser::default()
        },
    ]
}

fn by(file: &Value, user: &str) -> Value {
    let mut file = file.clone();
    file["destination"]["user"] = json!(user);
    file["destination"]["password"] = json!(user);
    file
}

/// ClickHouse keeps for itself all of its disk but half a GiB, and its Keeper is away.
async fn assert_full_disk_and_read_only_replica_told(stage: &Stage, pipe: &Pipe) -> Result<()> {
    let total = stage
        .clickhouse
        .number("SELECT total_space FROM system.disks")
        .await?;
    let kept = total.saturating_sub(512 << 20);
    let configured = format!(
        "<storage_configuration><disks><default><keep_free_space_bytes>{kept}</keep_free_space_bytes></default></disks>\
         </storage_configuration>\
         <zookeeper><node><host>127.0.0.1</host><port>{}</port></node></zookeeper>",
        closed_port()?
    );
    tokio::task::block_in_place(|| stage.clickhouse_server.start_again_configured(&configured))?;
    // As a server does when it starts; no replica could be made without Keeper.
    let replica = format!(
        "ATTACH TABLE `{}`.taken UUID '11111111-2222-4333-8444-555555555555' \
         (id Int32, _version UInt64, _is_deleted UInt8) \
         ENGINE = ReplicatedReplacingMergeTree('/taken', 'one', _version, _is_deleted) ORDER BY id",
        stage.database
    );
    stage.clickhouse.query(&replica).await?;
    let found = told(pipe, &stage.pipe_file(&["taken"])).await?;
    found.ensure(&[], &["disk", "replica"])?;
    let replica = said_of(&found.found, "replica");
    ensure!(replica.contains("taken` is read-only"), "{replica}");
    let disk = said_of(&found.found, "disk");
    ensure!(disk.contains("MiB left"), "{disk}");
    Ok(())
}

/// A number that the pipe itself is registered with is no other's: it may be its last connection.
async fn assert_own_number_told(asked: &Stage, pipe: &Pipe, number: u32) -> Result<()> {
    let mut own = asked.pipe_file(&["good"]);
    own["source"]["server_id"] = json!(number);
    own["destination"]["database"] = json!(format!("{}_new", asked.database));
    let found = told(pipe, &own).await?;
    found.ensure(&[], &["server_id"])?;
    ensure!(found.errors.is_empty(), "{:#?}", found.found);
    Ok(())
}

/// pitfall 63: a number that another replica has is told before the two push each other out.
async fn a_destination_that_cannot_be_written_to_is_told_alike_by_all() -> Result<()> {
    let begin = || ClickHouseServer::start(ClickHouseOptions::default());
    let stage = Stage::with_clickhouse(SourceKind::MySql, begin).await?;
    tokio::task::block_in_place(|| stage.clickhouse_server.start_again_with(users()))?;
    stage
        .source
        .execute_all([
            "CREATE TABLE x (id INT PRIMARY KEY)",
            "CREATE TABLE x_current (id INT PRIMARY KEY)",
            "CREATE TABLE taken (id INT PRIMARY KEY)",
        ])
        .await?;
    let number = 4_000_000_000 + u32::from(stage.source_server.port());
    let asked = Stage::shared(SourceKind::MySql).await?;
    let mut pipe = asked_pipe(&asked, Some(number)).await?;
    let mut file = stage.pipe_file(&["x*"]);
    file["source"]["server_id"] = json!(number);

    let poor = by(&file, "poor");
    let found = told(&pipe, &poor).await?;
    let errors = ["grants", "settings", "server_id", "target_names"];
    found.ensure(&errors, &["quota"])?;
    let text = json!(found.found).to_string();
    for part in [
        "CREATE DATABASE",
        "INSERT",
        "may not set async_insert = 0",
        "1000 inserts",
        "ALTER QUOTA `of_poor`",
        &format!("pipewright/{}", asked.database),
    ] {
        ensure!(text.contains(part), "no `{part}` in {text}");
    }
    assert_setup_tells(&poor, &found).await?;
    told(&pipe, &by(&file, "reader"))
        .await?
        .ensure(&["readonly"], &[])?;

    // What stands in the database already.
    for sql in [
        format!("CREATE DATABASE `{}`", stage.database),
        format!(
            "CREATE TABLE `{}`.taken_current (id Int32) ENGINE = MergeTree ORDER BY id",
            stage.database
        ),
        format!(
            "CREATE TABLE `{}`.pw_marker (id Int32) ENGINE = MergeTree ORDER BY id",
            stage.database
        ),
        format!("CREATE DATABASE `{}_m` ENGINE = Memory", stage.database),
    ] {
        stage.clickhouse.query(&sql).await?;
    }
    let mut file = stage.pipe_file(&["taken"]);
    let found = told(&pipe, &file).await?;
    found.ensure(&["current_view", "target_table"], &[])?;
    assert_setup_tells(&file, &found).await?;
    file["destination"]["database"] = json!(format!("{}_m", stage.database));
    told(&pipe, &file).await?.ensure(&["database"], &[])?;
    assert_full_disk_and_read_only_replica_told(&stage, &pipe).await?;
    assert_own_number_told(&asked, &pipe, number).await?;
    // The pipe that has the number is none the worse for it, and is not warned of others.
    asked.wait_caught_up(&mut pipe, CATCH_UP).await
}
