//! An end that refuses, or is not there, keeps nobody from asking the other.

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::SourceKind;
use testbed::harness::Stage;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{asked_pipe, assert_setup_tells, said_of, told};
use crate::bad_input::closed_port;
use crate::support::on_both_sources;

on_both_sources! {
    what_one_end_lacks_is_told_though_the_other_refuses_or_is_away: 240,
}

/// What an old server answers first. There is none on this machine.
const OLD: &str = "{\"version\":\"22.8.1.1\",\"time64\":0,\"drops_any_size\":0}\n";

/// The address of such a server.
async fn old_clickhouse() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{OLD}",
                    OLD.len()
                );
                let mut question = [0; 4096];
                if stream.read(&mut question).await? == 0 {
                    return Ok(());
                }
                stream.write_all(head.as_bytes()).await?;
                stream.shutdown().await?;
                // Until the client has read it and goes.
                while stream.read(&mut question).await? > 0 {}
                std::io::Result::Ok(())
            });
        }
    });
    Ok(url)
}

async fn what_one_end_lacks_is_told_though_the_other_refuses_or_is_away(
    kind: SourceKind,
) -> Result<()> {
    let stage = Stage::shared(kind).await?;
    stage.source.execute("CREATE TABLE keyless (a INT)").await?;
    let unfit = format!("{}_m", stage.database);
    let sql = format!("CREATE DATABASE `{unfit}` ENGINE = Memory");
    stage.clickhouse.query(&sql).await?;
    let asked = Stage::shared(kind).await?;
    let pipe = asked_pipe(&asked, None).await?;
    let mut file = stage.pipe_file(&["keyless"]);
    file["destination"]["database"] = json!(unfit);

    let mut refused = file.clone();
    refused["source"]["password"] = json!("wrong");
    let mut away = file.clone();
    away["source"]["port"] = json!(closed_port()?);
    for (file, code) in [(refused, "source_denied"), (away, "source_unavailable")] {
        let found = told(&pipe, &file).await?;
        found.ensure(&[code, "database"], &[])?;
        assert_setup_tells(&file, &found).await?;
    }
    let mut away = file.clone();
    away["destination"]["url"] = json!(format!("http://127.0.0.1:{}", closed_port()?));
    let mut old = file;
    old["destination"]["url"] = json!(old_clickhouse().await?);
    for (file, code, said) in [
        (away, "destination_unavailable", "cannot be reached"),
        (old, "destination_rejected", "is version 22.8"),
    ] {
        let found = told(&pipe, &file).await?;
        found.ensure(&[code, "key"], &[])?;
        let destination = said_of(&found.found, code);
        ensure!(destination.contains(said), "{destination}");
        assert_setup_tells(&file, &found).await?;
    }
    Ok(())
}
