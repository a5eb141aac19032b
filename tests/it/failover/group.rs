//! Members of MySQL's group replication.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use testbed::harness::{Source, Stage};
use testbed::{SourceKind, SourceOptions, SourceServer};

use super::{TAKE_OVER, file_with, read_by_pipes};
use crate::support::{CATCH_UP, assert_caught_up, once, running_with};

once! {
    a_member_that_has_left_its_group_is_left_for_one_that_takes_writes: 360,
}

const GROUP: &str = "bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb";

fn member() -> Result<SourceServer> {
    let options = SourceOptions::new(SourceKind::MySql)
        .arg("--plugin-load-add=group_replication.so")
        .arg("--report-host=127.0.0.1");
    SourceServer::start(options)
}

fn free_address() -> Result<String> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    Ok(format!("127.0.0.1:{port}"))
}

async fn run(server: &SourceServer, statements: &[String]) -> Result<()> {
    let mut conn = Conn::from_url(server.root_url()).await?;
    for statement in statements {
        conn.query_drop(statement)
            .await
            .with_context(|| statement.clone())?;
    }
    Ok(conn.disconnect().await?)
}

/// Has a server take part in the group at `own`, which `first` has begun or begins.
async fn join(server: &SourceServer, own: &str, first: &str) -> Result<()> {
    let bootstraps = ["OFF", "ON"][usize::from(own == first)];
    let statements = [
        format!("SET GLOBAL group_replication_group_name = '{GROUP}'"),
        format!("SET GLOBAL group_replication_local_address = '{own}'"),
        format!("SET GLOBAL group_replication_group_seeds = '{first}'"),
        "SET GLOBAL group_replication_recovery_get_public_key = ON".to_owned(),
        format!("SET GLOBAL group_replication_bootstrap_group = {bootstraps}"),
        "START GROUP_REPLICATION USER = 'pipewright', PASSWORD = 'pipewright'".to_owned(),
        "SET GLOBAL group_replication_bootstrap_group = OFF".to_owned(),
    ];
    run(server, &statements).await
}

/// pitfall 136: it still has the group's name, and its binlog.
async fn a_member_that_has_left_its_group_is_left_for_one_that_takes_writes() -> Result<()> {
    let mut stage = Stage::with_source(member).await?;
    let other = tokio::task::spawn_blocking(member).await??;
    let (first, second) = (free_address()?, free_address()?);
    join(&stage.source_server, &first, &first).await?;
    stage
        .source
        .execute_all([
            "CREATE TABLE t (id INT PRIMARY KEY, a INT)",
            "INSERT INTO t VALUES (1, 1)",
        ])
        .await?;
    join(&other, &second, &first).await?;
    let online = "SELECT COUNT(*) FROM performance_schema.replication_group_members WHERE MEMBER_STATE = 'ONLINE'";
    let until = Instant::now() + TAKE_OVER;
    while stage.source.number(online).await? < 2 {
        ensure!(
            Instant::now() < until,
            "the second member does not come online"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut pipe = running_with(&file_with(&stage, &other, &["t"])).await?;
    stage.source.execute("INSERT INTO t VALUES (2, 2)").await?;
    assert_caught_up(&stage, &mut pipe, &["t"]).await?;
    ensure!(read_by_pipes(&stage.source_server).await? == 1);
    run(&stage.source_server, &["STOP GROUP_REPLICATION".to_owned()]).await?;
    stage.source = Source::with_database(&other, &stage.database).await?;
    stage.source.execute("INSERT INTO t VALUES (3, 3)").await?;
    stage.wait_caught_up(&mut pipe, TAKE_OVER).await?;
    ensure!(stage.assert_same("t").await? == 3);
    pipe.wait_state("Running", CATCH_UP).await?;
    let read = (
        read_by_pipes(&stage.source_server).await?,
        read_by_pipes(&other).await?,
    );
    ensure!(
        read == (0, 1),
        "the member that left, and the other, are read by {read:?}"
    );
    Ok(())
}
